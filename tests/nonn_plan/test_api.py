"""The Python interface: cheap to import, complete, and as its page says."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nonn_plan
from nonn_common.errors import InputError
from nonn_plan import Partition, Problem, grid_cells, read_plan, state_problem
from planner.problem.goals import Requirement
from planner.reliability.failures import Failures

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text()
SIZES = (12, 14, 25, 30)


def partition_content():
    """A partition of 81 filters without a teacher: the sizes of arXiv:1907.11804, section 4.2."""
    filters = iter(range(sum(SIZES)))
    communities = [
        {"id": number, "filters": [next(filters) for _ in range(size)], "linked": True}
        for number, size in enumerate(SIZES)
    ]
    nothing = {"communities": [], "filters": 0, "accuracy_pct": None, "delta_val_pct": None}
    return {
        "teacher": None,
        "rule": "AH",
        "gamma": 1.0,
        "seed": 0,
        "filters": sum(SIZES),
        "images": None,
        "modularity": 0.5,
        "communities": communities,
        "drop_steps": [nothing],
        "links": [[0, 1, 2.5], [12, 13, 1.5]],
    }


@pytest.fixture
def partition():
    return Partition.check(partition_content(), "this test")


@pytest.fixture
def problem(partition):
    return state_problem(
        partition, "rpi3x2", image="3x32x32", classes=10, networks=("wrn16:32,64,64",)
    )


def test_the_reference_lists_each_name_where_it_is_defined():
    listed = re.findall(r"^::: (.+)\.(\w+)$", (ROOT / "docs/api-reference.md").read_text(), re.M)
    defined = [(getattr(nonn_plan, name).__module__, name) for name in nonn_plan.__all__]
    assert sorted(listed) == sorted(defined)


def test_to_import_it_loads_nothing():
    code = "import sys, nonn_plan; assert not {'numpy', 'pydantic', 'planner'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_none_of_its_names_loads_torch():
    code = (
        "import sys, nonn_plan\n"
        "for name in nonn_plan.__all__: getattr(nonn_plan, name)\n"
        "assert not {'torch', 'grpc', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_see_the_names_that_are_loaded():
    tree = ast.parse(Path(nonn_plan.__file__).read_text())
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert seen == nonn_plan._HOMES
    assert set(nonn_plan.__all__) <= set(dir(nonn_plan))


def test_the_page_names_all_of_it():
    assert set(re.findall(r"`(\w+)`", PAGE.partition("## Names")[2])) == set(nonn_plan.__all__)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'sovle'"):
        nonn_plan.sovle  # noqa: B018


def test_the_examples_of_the_page_run(tmp_path):
    (tmp_path / "partition.json").write_text(json.dumps(partition_content()))
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(examples)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("optimal [(")
    assert (tmp_path / "exploration" / "index.html").exists()


def test_a_problem_takes_from_the_partition_what_is_left_out(partition, problem):
    assert isinstance(problem, Problem)
    assert problem.partition.communities == partition.communities
    assert problem.partition.links == ()
    assert problem.accuracy is None
    assert [budget.board for budget in problem.budgets] == [b.name for b in problem.fleet.boards]


def test_what_nobody_says_is_named(partition):
    with pytest.raises(InputError, match=r"my notebook.*image"):
        state_problem(partition, "rpi3x2", classes=10, networks=("wrn16-1",), where="my notebook")


def test_a_grid_varies_budgets_and_objectives(problem):
    cells = grid_cells(
        problem, memory_bytes=(400_000, None), flops=(10**8,), objectives=("latency", "capacity")
    )
    asked = [one.asked.problem for one in cells]
    assert [one.budgets[0].memory_bytes for one in asked[:2]] == [400_000, 400_000]
    assert asked[2].budgets[0].memory_bytes == problem.budgets[0].memory_bytes
    assert {one.budgets[1].macs for one in asked} == {5 * 10**7}
    assert [str(one.objective[0]) for one in asked[:2]] == ["latency", "capacity"]
    assert cells[0].place.flops == 10**8


def test_a_plan_that_is_none_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(InputError, match=re.escape("plan.json")):
        read_plan(tmp_path / "plan.json")


def of_wrn40_4(partition, **fields):
    return state_problem(
        partition, "rpi3x2", image="3x32x32", classes=10, networks=("wrn16:32,64,64",),
        teacher_network="wrn40-4", where="this test", **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"teacher_accuracy_pct": 0.99}, "the teacher's accuracy: .* found 0.99; .* such as 99$"),
        (
            {"requirements": (Requirement(objective="accuracy", bound=0.97),)},
            "requirement accuracy >=: .* found 0.97; .* such as 97$",
        ),
        (
            {"requirements": (Requirement(objective="reliability", bound=1),)},
            "requirement reliability >=: .* such as 100$",
        ),
        ({"failures": Failures(target_pct=0.93)}, "the target accuracy: .* such as 93$"),
    ],
)
def test_a_fraction_is_no_percentage_of_a_problem(partition, fields, told):
    with pytest.raises(InputError, match=f"this test: {told}"):
        of_wrn40_4(partition, **fields)


def test_percentages_of_a_problem_stay_as_they_are(partition):
    asked = (Requirement(objective="accuracy", bound=90),)
    found = of_wrn40_4(partition, teacher_accuracy_pct=95.5, requirements=asked)
    assert found.requirements == asked
    assert found.accuracy.teacher_accuracy_pct == 95.5


def test_a_run_counts_once(partition, tmp_path):
    with pytest.raises(InputError, match="a run is named twice"):
        of_wrn40_4(partition, run_files=(tmp_path / "run", tmp_path / "x" / ".." / "run"))
