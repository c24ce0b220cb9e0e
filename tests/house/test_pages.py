"""The pages for newcomers name files, folders and names that are there."""

import ast
import re
from functools import cache

import pytest
from test_layout import FILES, ROOMS, ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("docs/how-to/*.md")),
    ROOT / "docs/decisions/README.md",
    ROOT / "docs/decisions/0037-layout-of-the-code.md",
]
FIRST = "|".join((*ROOMS, "tests", "docs", "benchmarks", "examples"))
REFERENCE = re.compile(rf"`((?:{FIRST})/[\w./@-]*)(?::([\w.]+))?`")
LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")
FOLDERS = sorted({path.parent for path in FILES})


def references(page):
    return sorted({match.groups() for match in REFERENCE.finditer(page.read_text())}, key=str)


@cache
def names_in(file):
    """Names that a module defines at its top, and those of its classes as `Class.name`."""
    tree = ast.parse((ROOT / file).read_text())
    found = set(defined(tree))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for name in defined(node)}
    return found


def defined(tree):
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    missing = [
        f"{path}:{name}" if name else path
        for path, name in references(page)
        if "NAME" not in path
        and (not (ROOT / path).exists() or (name and name not in names_in(path)))
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page):
    links = LINK.findall(page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_of_the_layout_names_each_folder(folder):
    assert f"`{folder.relative_to(ROOT)}/`" in (ROOT / "docs/architecture.md").read_text()


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent.parent == ROOT and not path.stem.startswith("__")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_page_of_the_layout_names_each_file_directly_in_a_room(path):
    assert f"`{path.relative_to(ROOT)}" in (ROOT / "docs/architecture.md").read_text()


def test_each_decision_is_in_the_index():
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text()
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [name for name in records if f"({name})" not in index] == []
