import json
import subprocess
import sys
from pathlib import Path

import pytest

from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import group0_cost, student_cost, teacher_cost
from nonn_core.recipe import TrainingRecipe
from planner.accuracy.model import fit_accuracy_model
from planner.accuracy.own_runs import read_own_rows
from planner.accuracy.rows import TeacherFacts

IMAGE = ImageShape(1, 8, 8)
TEACHER = TeacherFacts("wrn10-2", "1x8x8", 10, 300_000, 8_000_000, "abc", "mine")
STUDENTS = [
    {"name": "s1", "network": "wrn10:4,8,8", "filters": [0, 1, 2]},
    {"name": "s2", "network": "wrn10:4,8,16", "filters": [3, 4, 5, 6]},
]
NONN = {"kind": "nonn", "students": STUDENTS}
SINGLE = {"kind": "single", "network": "wrn10:4,8,16"}
RESULTS = Path(__file__).parents[2] / "results" / "cpu" / "table-2.json"


def _run(folder, accuracy_pct=90.0, seed=0, **changed):
    recipe = TrainingRecipe.check(
        {
            "data": "digits",
            "image": "1x8x8",
            "teacher": "t.safetensors",
            "teacher_fingerprint": "abc",
            "model": NONN,
            "optimiser": {"epochs": 1},
            "seed": seed,
        }
        | changed,
        where="test",
    )
    recipe.write(folder / "train.yaml")
    if accuracy_pct is not None:
        Evaluation(data="digits", images=360, accuracy_pct=accuracy_pct, subsets=()).write(
            folder / "evaluation.json"
        )
    return folder


def _row(folder, teacher=TEACHER):
    (row,) = read_own_rows(folder, teacher, 98.0)
    return row


def _costs(*networks_and_filters):
    return [student_cost(parse_network(name), IMAGE, count) for name, count in networks_and_filters]


def test_a_run_of_a_nonn_is_a_row(tmp_path):
    row = _row(_run(tmp_path))
    costs = _costs(("wrn10:4,8,8", 3), ("wrn10:4,8,16", 4))
    assert (row.params, row.macs) == (sum(c.params for c in costs), sum(c.macs for c in costs))
    assert (row.method, row.students, row.accuracy_pct) == ("nonn", 2, 90.0)
    assert (row.teacher, row.teacher_accuracy_pct) == (TEACHER, 98.0)


def test_g0_on_a_board_of_its_own_counts_once(tmp_path):
    alike = [student | {"network": "wrn10:4,8,8"} for student in STUDENTS]
    row = _row(_run(tmp_path, model={"kind": "nonn", "students": alike, "group0": "own-board"}))
    costs = _costs(("wrn10:4,8,8", 3), ("wrn10:4,8,8", 4))
    group0 = group0_cost(parse_network("wrn10:4,8,8"), IMAGE)
    assert row.params == sum(c.params for c in costs) - group0.params
    assert row.macs == sum(c.macs for c in costs) - group0.macs


@pytest.mark.parametrize(
    ("model", "losses", "method"),
    [
        (NONN, {"beta": 10}, "nonn"),
        (NONN, {"beta": 0}, "kd"),
        (NONN, {"beta": 0, "attention": 100}, "nonn"),
        (SINGLE, {"beta": 0}, "kd"),
        (SINGLE, {"beta": 0, "attention": 1000}, "atkd"),
    ],
)
def test_the_losses_say_the_method(tmp_path, model, losses, method):
    assert _row(_run(tmp_path, model=model, distillation=losses)).method == method


def test_one_undivided_network_is_a_row_of_its_whole_size(tmp_path):
    row = _row(_run(tmp_path, model=SINGLE))
    cost = teacher_cost(parse_network("wrn10:4,8,16"), IMAGE, 10)
    assert (row.params, row.macs, row.students) == (cost.params, cost.macs, 1)


def test_of_several_seeds_the_mean_counts(tmp_path):
    for seed, accuracy in ((3, 90.0), (4, 92.0)):
        _run(tmp_path / f"seed-{seed}", accuracy, seed)
    assert _row(tmp_path).accuracy_pct == 91.0


def test_seeds_of_different_recipes_are_refused(tmp_path):
    _run(tmp_path / "seed-0")
    _run(tmp_path / "seed-1", seed=1, optimiser={"epochs": 2})
    with pytest.raises(InputError, match="not of one recipe"):
        _row(tmp_path)


def test_a_run_that_was_not_evaluated_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=f"run: nonn-plan evaluate {tmp_path}"):
        _row(_run(tmp_path, accuracy_pct=None))


@pytest.mark.parametrize("place", ["", "nowhere"])
def test_other_folders_are_refused(tmp_path, place):
    with pytest.raises(InputError, match="not the folder of a run"):
        _row(tmp_path / place)


def test_the_run_of_another_teacher_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"another teacher.*found 'def'.*allowed: abc"):
        _row(_run(tmp_path, teacher_fingerprint="def"))


def test_a_recipe_for_any_teacher_is_of_this_one(tmp_path):
    assert _row(_run(tmp_path, teacher_fingerprint=None)).teacher == TEACHER


def test_images_of_another_shape_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"another shape.*allowed: 1x8x8"):
        _row(_run(tmp_path, image="3x8x8"))


def test_a_splitnet_is_refused(tmp_path):
    model = {"kind": "splitnet", "network": "wrn10-2", "groups": [2]}
    folder = _run(tmp_path, model=model, optimiser={"epochs": 2}, distillation={"beta": 0})
    with pytest.raises(InputError, match="SplitNet"):
        _row(folder)


def test_a_run_without_a_teachers_accuracy_is_refused(tmp_path):
    with pytest.raises(InputError, match="teacher's accuracy is not known"):
        read_own_rows(_run(tmp_path), TEACHER, None)


@pytest.mark.parametrize("name", ["train.yaml", "evaluation.json"])
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"epochs": 1}'])
def test_broken_files_are_named(tmp_path, name, content):
    _run(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        _row(tmp_path)


def test_a_table_of_the_program_gives_its_rows():
    rows = read_own_rows(RESULTS, TEACHER, None)
    assert [(row.name.rpartition(" ")[2], row.method) for row in rows] == [
        ("kd", "kd"),
        ("atkd", "atkd"),
        ("nonn-2s", "nonn"),
        ("kd-nonn-2s-xl", "kd"),
        ("nonn-2s-xl", "nonn"),
        ("atkd-large", "atkd"),
    ]
    assert {row.teacher_accuracy_pct for row in rows} == {83.94}
    assert rows[0].params == 55_058
    # Two students wrn10:12,16,44, each with its copy of G0.
    assert rows[2].params == pytest.approx(2 * 33_300, rel=0.03)
    assert rows[0].teacher.fingerprint == "65035428748090e7e7c7ca9e5577d49c"
    model = fit_accuracy_model(rows[0].teacher, None, rows)
    found = model.estimate(rows[2].params, rows[2].macs)
    assert found.low_pct < 75.08 < found.high_pct
    assert "6 own and 24 rows" in found.basis


def _changed_table(tmp_path, change):
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    change(content)
    path = tmp_path / "table-2.json"
    path.write_text(json.dumps(content))
    return path


def test_a_table_without_its_teacher_is_refused(tmp_path):
    path = _changed_table(tmp_path, lambda content: content["rows"].pop(0))
    with pytest.raises(InputError, match="no row of the teacher"):
        read_own_rows(path, TEACHER, None)


def test_a_table_of_other_images_is_refused(tmp_path):
    def smaller(content):
        content["rows"][1]["board_macs"] //= 16

    with pytest.raises(InputError, match="images of another shape"):
        read_own_rows(_changed_table(tmp_path, smaller), TEACHER, None)


@pytest.mark.parametrize("change", [{"row": "nonn-3s"}, {"filters": [12]}, {"filters": []}])
def test_a_row_that_the_table_does_not_have_is_refused(tmp_path, change):
    path = _changed_table(tmp_path, lambda content: content["rows"][3].update(change))
    with pytest.raises(InputError, match="is no row of table 2"):
        read_own_rows(path, TEACHER, None)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("{}")
    with pytest.raises(InputError, match="TableResults"):
        read_own_rows(path, TEACHER, None)


def test_nothing_of_this_loads_torch():
    program = (
        "import sys, planner.accuracy.model, planner.accuracy.rows, planner.reliability.failures; "
        "print([m for m in ('torch', 'ortools', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
