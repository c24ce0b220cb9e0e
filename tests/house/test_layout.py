"""The layout of the code: few files, one noun each, and no name that stands for two things."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = (
    "nonn_common",
    "profiles",
    "nonn_core",
    "simulator",
    "planner",
    "boards",
    "nonn_plan",
)
MOST_FILES = 291
"""220 as the house was rebuilt; six for measured boards, stragglers and compiled runs; one for any
number of students; two for joint models and maps between boards; two for enumerated plans; one for
costs of students that share G0; two for native code and events in it;
ten for certificates, their checker and a second opinion; one for balance; three
for the resources that budgets limit, the capacity of a board and its use in models; five for the
local page; three for operating points, of boards, as places of a solver, and as a plan chooses
them; one for what balance means, which the planner keeps and certificates count on; three for
tables, help pages and proofs in terminals; one for grids of budgets; one for loads of boards;
one for what a watt more buys, of boards and of all of them;
one for the identity of a process; one for sources of foreign networks; two for renewal
and revocation of certificates; two for pictures: of what
training makes, and of any file;
one for the duty of boards at a rate of images; one for prices that refute deadlines; five for
deployments: releases, needs of boards, services, the agent, the rollout; one for
the stream that carries frames, of host and workers; three for trained students, the model of their
placements, and plans anew for the boards that are left; one for the FC layer of the host,
which imputes what is missing; one for tables of published rows; three for what a
worker does not load: gRPC, the port before it, names of boards without fleets;
five for students in C: what manifests say of them, networks in int8, their arena, their text, and
their comparison with onnxruntime."""
MOST_LINES = 400
ENDINGS = ("ing", "ed", "es", "s", "er", "ers", "ation", "ations", "d", "e")

FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MODULES = [path for path in FILES if path.stem not in ("__init__", "__main__")]


def test_there_are_few_files():
    assert 0 < len(FILES) <= MOST_FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_not_long(path):
    assert len(path.read_text().splitlines()) <= MOST_LINES


def classes(path):
    return [node.name for node in ast.walk(ast.parse(path.read_text())) if is_class(node)]


def is_class(node):
    return isinstance(node, ast.ClassDef) and not node.name.startswith("_")


def test_no_class_name_stands_twice():
    counted = Counter(name for path in FILES for name in classes(path))
    assert [name for name, times in counted.items() if times > 1] == []


def stems(name):
    """The name, and what is left of it without the ending of an inflection."""
    return {name, *(name.removesuffix(ending) for ending in ENDINGS if len(name) > len(ending) + 2)}


def test_no_module_names_of_a_room_differ_by_an_inflection_only():
    found = []
    for room in ROOMS:
        names = sorted({path.stem for path in MODULES if path.relative_to(ROOT).parts[0] == room})
        found += [
            (room, one, other)
            for place, one in enumerate(names)
            for other in names[place + 1 :]
            if stems(one) & stems(other)
        ]
    assert found == []
