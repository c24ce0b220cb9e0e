"""Files, functions and frames of our own that one command passes through.

    python benchmarks/command_trace.py [--list] plan partition.json --fleet mixed --memory 250KB ...

Counts what runs in the command's process under `sys.setprofile`: functions, methods and class
bodies that have a name (no lambdas, comprehensions or module bodies), the files they are in, and
our frames on the stack where a solve of OR-Tools begins.  Counts are the same on every machine, so
that two versions can be compared: run this file with each of them on PYTHONPATH.
"""

import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType
from typing import Any

ROOMS = ("nonn_common", "profiles", "nonn_core", "simulator", "planner", "boards", "nonn_plan")


class Trace:
    """Own functions that ran, and the own frames above the solver."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rooms = tuple(f"{root / room}/" for room in ROOMS)
        self.functions: set[tuple[str, int, str]] = set()
        self.stacks: list[list[str]] = []

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """Take note of a call."""
        del arg
        code = frame.f_code
        if event != "call":
            return
        if code.co_filename.startswith(self.rooms):
            if not code.co_name.startswith("<"):
                self.functions.add((code.co_filename, code.co_firstlineno, code.co_name))
        elif code.co_name in ("solve", "Solve") and "ortools" in code.co_filename:
            self.stacks.append(self._own_frames(frame))

    def _own_frames(self, frame: FrameType | None) -> list[str]:
        """Name our frames on the stack, the outermost first."""
        names = []
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(self.rooms):
                names.append(f"{Path(code.co_filename).relative_to(self.root)}:{code.co_name}")
            frame = frame.f_back
        return names[::-1]

    def report(self, *, listed: bool) -> None:
        """Print the counts, and with `listed` the functions of each file."""
        files = defaultdict(list)
        for name, _, function in sorted(self.functions):
            files[str(Path(name).relative_to(self.root))].append(function)
        if listed:
            for name, functions in files.items():
                print(name, len(functions), *functions, file=sys.stderr)
        print(f"files: {len(files)}; functions: {len(self.functions)}", file=sys.stderr)
        if self.stacks:
            deepest = max(self.stacks, key=len)
            print(f"solves: {len(self.stacks)}; own frames above them, at most:", file=sys.stderr)
            print(f"  {len(deepest)}: {' -> '.join(deepest)}", file=sys.stderr)


def main() -> None:
    """Run the command under the trace; its own output goes where it always does."""
    import nonn_plan
    from nonn_plan.__main__ import run

    listed = sys.argv[1:2] == ["--list"]
    sys.argv = ["nonn-plan", *sys.argv[1 + listed :]]
    trace = Trace(Path(nonn_plan.__file__).parent.parent)
    sys.setprofile(trace)
    try:
        run()
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        sys.setprofile(None)
    trace.report(listed=listed)


if __name__ == "__main__":
    main()
