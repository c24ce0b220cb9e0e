"""Built students against their boards' budgets, with real modules and a real plan."""

import pytest
from emulated_plans import bundle_of, made_fleet, made_plan

from boards.board_fit import bundle_fits, check_board_fit
from nonn_common.errors import BoardError
from nonn_core.export.bundle import MANIFEST, Manifest
from nonn_core.networks.modules import StudentShape, build_nonn
from nonn_core.partition import Community, DropStep, Partition
from planner.problem.budgets import BudgetLimits, board_budgets
from planner.problem.problem import Problem
from planner.solve import solve
from profiles.fleet import parse_fleet


def _partition(sizes):
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return Partition(
        teacher=None,
        rule="AH",
        gamma=1.0,
        seed=0,
        filters=sum(sizes),
        images=None,
        modularity=0.4,
        communities=tuple(
            Community(id=k, filters=tuple(range(start, start + size)), linked=True)
            for k, (start, size) in enumerate(zip(starts, sizes, strict=True))
        ),
        drop_steps=(DropStep(communities=(), filters=0, accuracy_pct=None, delta_val_pct=None),),
    )


@pytest.fixture(scope="module")
def plan():
    fleet = parse_fleet("rpi-3b,odroid-xu4s")
    return solve(
        Problem(
            fleet=fleet,
            budgets=board_budgets(
                fleet,
                BudgetLimits(60_000, macs=3_000_000),
                {"odroid-xu4s-1": BudgetLimits(300_000)},
            ),
            image="3x16x16",
            classes=4,
            networks=("wrn10:4,6,8", "wrn10:4,12,16"),
            min_students=3,
            max_students=3,
            epsilon_pct=1.0,
            partition=_partition([5, 4, 3, 2]),
        )
    )


def _built(plan, extra_filters=0):
    specs = dict(zip(plan.question.networks, plan.question.specs, strict=True))
    shapes = [
        StudentShape(specs[one.network], len(one.filters) + extra_filters) for one in plan.students
    ]
    return build_nonn(shapes, 3, 4, seed=0)


def test_measured_needs_add_up_per_board_and_fit(plan):
    fits = check_board_fit(plan, _built(plan))
    assert {fit.board for fit in fits} == {one.board for one in plan.students}
    assert sorted(name for fit in fits for name in fit.students) == [
        "student-1",
        "student-2",
        "student-3",
    ]
    for fit in fits:
        here = [one for one in plan.students if one.board == fit.board]
        assert fit.memory_bytes == sum(one.memory_bytes for one in here)
        assert fit.macs == sum(one.macs for one in here)
        assert fit.fits


def test_g0_alone_and_what_follows_it_are_measured(plan):
    question = plan.question.model_copy(update={"group0": "own-board", "max_students": 3})
    alone = solve(question)
    fits = {fit.board: fit for fit in check_board_fit(alone, _built(alone))}
    assert fits[alone.group0.board].students == ("group0",)
    assert fits[alone.group0.board].memory_bytes == alone.group0.memory_bytes
    assert len(fits) == len(alone.decision.used)


@pytest.fixture(scope="module")
def shared(plan):
    """The same three students on two boards, of which one has two with one G0."""
    changes = {"group0_copies": "per-board", "objective": ({"objective": "boards"},)}
    question = Problem.check(plan.question.model_dump(mode="json") | changes, where="this test")
    return solve(question)


def test_students_that_share_a_g0_are_measured_as_one_model(shared):
    network = _built(shared)
    fits = {fit.board: fit for fit in check_board_fit(shared, network)}
    assert shared.joint_models
    for joint in shared.joint_models:
        here = [one for one in shared.students if joint.board in one.boards]
        heads = sum(sum(p.numel() for p in head.parameters()) for head in network.heads)
        group0 = sum(p.numel() for p in network.group0.parameters())
        fit = fits[joint.board]
        assert set(fit.students) == {one.name for one in here}
        assert fit.params < sum(one.params for one in here)
        if len(here) == len(shared.students):
            assert fit.params == group0 + heads
        assert (fit.memory_bytes, fit.macs) == (joint.memory_bytes, joint.macs)
        assert fit.fits


def test_a_joint_model_that_was_planned_otherwise_is_refused(shared):
    (joint, *_) = shared.joint_models
    wrong = joint.model_copy(update={"peak_elements": joint.peak_elements - 1})
    with pytest.raises(BoardError, match=r"student-1, .* was built as .* but planned as"):
        check_board_fit(shared.model_copy(update={"joint_models": (wrong,)}), _built(shared))


def test_files_of_a_board_are_those_of_its_joint_model_where_the_bundle_has_it(tmp_path):
    fleet = made_fleet(["wired-100mbit"] * 2)
    boards = [("b0",), ("b1",), ("b0",)]
    shared = made_plan(fleet, boards, image="1x8x8", group0_copies="per-board")
    assert [joint.students for joint in shared.joint_models] == [("student-0", "student-2")]
    for names in (None, ()):
        bundle = Manifest.read(bundle_of(shared, tmp_path / str(names), names) / MANIFEST)
        fits = {fit.board: fit for fit in bundle_fits(shared, bundle)}
        sizes = {m.members or (m.name,): m.files[0].size_bytes for m in bundle.models}
        for joint in shared.joint_models:
            fit = fits[joint.board]
            assert fit.students == joint.students
            if names is None:
                assert fit.file_bytes == sizes[joint.students]
                assert fit.planned_bytes == joint.memory_bytes
                assert fit.activation_bytes == 4 * joint.peak_elements
            else:
                assert fit.file_bytes == sum(sizes[name,] for name in joint.students)
                assert fit.planned_bytes > joint.memory_bytes


def test_students_that_were_not_planned_are_refused(plan):
    with pytest.raises(BoardError, match=r"student-1 was built as .* but planned as"):
        check_board_fit(plan, _built(plan, extra_filters=1))


@pytest.mark.parametrize("field", ["memory_bytes", "macs"])
def test_a_budget_that_does_not_hold_is_refused(plan, field):
    rows = [budget.model_copy(update={field: 1000}) for budget in plan.question.budgets]
    question = plan.question.model_copy(update={"budgets": tuple(rows)})
    broken = plan.model_copy(update={"question": question})
    with pytest.raises(BoardError, match=r"its built students need .* allowed: "):
        check_board_fit(broken, _built(plan))


@pytest.mark.parametrize(("name", "spare"), [("flash", 0), ("ram", 0), ("flash", -1), ("ram", -1)])
def test_flash_and_ram_are_measured_apart(plan, name, spare):
    """Weights of all students of a board, and the largest peak; one byte less is refused."""
    here = [one for one in plan.students if one.board == "odroid-xu4s-1"]
    stored, peak = 4 * sum(one.params for one in here), 4 * max(one.peak_elements for one in here)
    sizes = {"flash_bytes": stored, "ram_bytes": peak}
    sizes[f"{name}_bytes"] += spare
    rows = (plan.question.budgets[0], plan.question.budgets[1].model_copy(update=sizes))
    question = plan.question.model_copy(update={"budgets": rows})
    apart = plan.model_copy(update={"question": question})
    if spare:
        with pytest.raises(BoardError, match=r"its built students need .* allowed: "):
            check_board_fit(apart, _built(plan))
        return
    (fit,) = [one for one in check_board_fit(apart, _built(plan)) if one.board == "odroid-xu4s-1"]
    assert (fit.flash_bytes, fit.ram_bytes) == (stored, peak)
    assert fit.fits
