"""Every file of every room with its first sentence, or counts of them.

python tests/house/rooms.py [ROOM ...]            the files
python tests/house/rooms.py --count [CHECKOUT]    how many, how long; of this or another checkout
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parents[2]
ROOMS = ("nonn_common", "profiles", "nonn_core", "simulator", "planner", "boards", "nonn_plan")


def sentence(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n", 1)[0]


def lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """Yield a line for a folder, its files, then the folders in it."""
    yield f"{'  ' * depth}{folder.name + '/':<28} {sentence(folder / '__init__.py')}\n"
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{'  ' * (depth + 1)}{path.name:<26} {sentence(path)}\n"
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from lines(inner, depth + 1)


def counts(root: Path) -> Iterator[str]:
    """Yield a line for each count."""
    texts = {
        path: path.read_text(encoding="utf-8")
        for room in ROOMS
        for path in sorted((root / room).rglob("*.py"))
    }
    lengths = {p: text.count("\n") for p, text in texts.items() if p.name != "__init__.py"}
    names = Counter(
        node.name
        for text in texts.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    yield f"Python files                       {len(texts):>6}\n"
    yield f"of these, __init__.py              {len(texts) - len(lengths):>6}\n"
    yield f"mean lines of the others           {fmean(lengths.values()):>6.0f}\n"
    yield f"longest file, lines                {max(lengths.values()):>6}\n"
    flat = [path for path in lengths if path.parent == root / "planner"]
    yield f"modules directly in planner/       {len(flat):>6}\n"
    twice = sum(count > 1 for count in names.values())
    yield f"class names that stand twice       {twice:>6}\n"


if __name__ == "__main__":
    asked = sys.argv[1:]
    if asked[:1] == ["--count"]:
        sys.stdout.writelines(counts(Path(asked[1]) if asked[1:] else ROOT))
    else:
        for room in asked or ROOMS:
            sys.stdout.writelines(lines(ROOT / room))
