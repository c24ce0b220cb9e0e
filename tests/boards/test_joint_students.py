"""Which students of a plan run as one model, and what is said where a bundle lacks that model."""

import pytest
from emulated_plans import bundle_of, made_fleet, made_plan

from boards.host.connection import board_tasks, separate_copies
from boards.protocol.address import BoardAddress, BoardAddresses
from nonn_core.export.bundle import MANIFEST, Manifest
from planner.plan_file.plan_document import PlanDocument

LINK = "wired-100mbit"
FLEET = made_fleet([LINK] * 3)


def plan_of(boards, precisions=None, copies="per-board"):
    return made_plan(FLEET, boards, image="1x8x8", precisions=precisions, group0_copies=copies)


@pytest.mark.parametrize(
    ("boards", "precisions", "expected"),
    [
        ([("b0",), ("b1",)], None, {}),
        (
            [("b0",), ("b1",), ("b0",)],
            None,
            {"students-of-b0": ("student-0", "student-2")},
        ),
        # Of unlike precisions each has its own G0, and with four there are two models.
        ([("b0",), ("b0",)], ("fp32", "int8"), {}),
        (
            [("b1",)] * 4,
            ("int8", "fp32", "int8", "fp32"),
            {
                "students-of-b1-int8": ("student-0", "student-2"),
                "students-of-b1-fp32": ("student-1", "student-3"),
            },
        ),
        # Copies: the same two on two boards are one model, a third one makes another.
        (
            [("b0", "b1", "b2"), ("b0", "b1", "b2"), ("b2",)],
            None,
            {
                "students-of-b0": ("student-0", "student-1"),
                "students-of-b2": ("student-0", "student-1", "student-2"),
            },
        ),
    ],
)
def test_students_of_one_board_and_precision_are_one_model(boards, precisions, expected):
    assert plan_of(boards, precisions).joint_students == expected
    assert plan_of(boards, precisions, "per-student").joint_students == {}


def test_plans_from_before_have_a_g0_for_each_student():
    content = plan_of([("b0",), ("b0",)]).model_dump(mode="json")
    del content["question"]["group0_copies"]
    assert PlanDocument.check(content, "this test").joint_students == {}


def test_a_bundle_without_the_model_is_told_of(tmp_path):
    plan = plan_of([("b0",), ("b1",), ("b0",)])
    (said,) = separate_copies(plan, Manifest.read(bundle_of(plan, tmp_path / "a", ()) / MANIFEST))
    assert said.startswith("the plan gives student-0, student-2 one G0")
    assert "--plan" in said
    bundle = Manifest.read(bundle_of(plan, tmp_path / "b") / MANIFEST)
    assert separate_copies(plan, bundle) == ()
    boards = [BoardAddress(name=f"b{n}", address=f"127.0.0.1:{n + 1}") for n in range(3)]
    tasks = {
        task.name: task for task in board_tasks(plan, bundle, BoardAddresses(boards=boards), "here")
    }
    assert [model.name for model in tasks["b0"].joint] == ["students-of-b0"]
    assert tasks["b0"].students == ("student-0", "student-2")
    assert tasks["b1"].joint == ()
