"""Power limits and operating points of plans.

Oracles: Tables 6 and 7 of arXiv:1907.11804, and plans of all choices of named operating points.
"""

from itertools import product

import pytest
from planner_questions import question

from nonn_common.errors import InputError, ProfileError
from nonn_core.networks.blueprint import ImageShape
from planner.accuracy.rows import TeacherFacts
from planner.certificates.verification import verify_plan
from planner.diagnosis.explanation import explain
from planner.heuristics.baselines import solve_by_baseline
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.validation import violations
from planner.problem.goals import AccuracyBasis, ObjectiveLevel
from planner.problem.problem import Problem
from planner.reliability.failures import Failures
from planner.solve import solve
from profiles.device import compute_mj, compute_ms
from profiles.fleet import parse_fleet
from simulator.workloads.closed_form import join_spread

LATENCY = (ObjectiveLevel(objective="latency"),)
ENERGY = (ObjectiveLevel(objective="energy"), ObjectiveLevel(objective="latency"))


def powered(asked, watts, boards=None):
    """The question with a power limit on these boards, or on all."""
    rows = [
        row.model_copy(update={"power_w": watts}) if boards is None or row.board in boards else row
        for row in asked.budgets
    ]
    return Problem.check(dict(asked) | {"budgets": rows}, where="test")


def published(fleet, watts=None, students=2):
    """The published student of 167 MFLOPs on each of two boards, or of more."""
    asked = question(
        fleet, (46,) * students, objective=LATENCY, networks=("wrn16:32,64,88",), image="3x32x32",
        min_students=students, max_students=students, group0_copies="per-student",
    )  # fmt: skip
    return asked if watts is None else powered(asked, watts)


def points(plan):
    return [row.device for row in plan.question.fleet.boards]


def test_2_5_w_picks_400_mhz_and_its_published_row():
    plan = solve(published("rpi3x2:any", 2.5))
    assert plan.status == "optimal"
    assert points(plan) == ["rpi-3b", "rpi-3b"]
    found = plan.predicted
    assert found.compute_ms == pytest.approx(101.91, rel=0.03)
    assert found.total_ms == pytest.approx(115, rel=0.03)
    assert found.energy_per_node_mj == pytest.approx(238.98, rel=0.03)
    assert not violations(plan)
    assert [row.used for row in plan.budgets if row.budget == "power_w"] == [
        pytest.approx(238.98 / 101.91, rel=0.01)
    ] * 2


def test_2_5_w_picks_400_mhz_and_the_published_row_of_eight():
    """In expectation, as published: the join waits for the slowest of eight boards."""
    plan = solve(published("rpi3x8:any", 2.5, students=8))
    assert plan.status == "optimal"
    assert points(plan) == ["rpi-3b"] * 8
    spread = join_spread(plan_workload(plan))
    assert spread.expected_ms == pytest.approx(150, rel=0.03)
    assert spread.compute_ms == pytest.approx(106.24, rel=0.03)
    assert spread.communication_ms == pytest.approx(43.76, rel=0.03)
    slowest = spread.compute_ms / plan.predicted.compute_ms
    assert plan.predicted.energy_per_node_mj * slowest == pytest.approx(249.15, rel=0.03)


def test_2_w_is_infeasible_and_names_what_a_board_draws():
    plan = solve(published("rpi3x2:any", 2.0))
    assert plan.status == "infeasible"
    (first, *_) = plan.conflict
    assert first.startswith("power budget of rpi-3b-1: 2 W; the smallest student draws 2.34")


def test_without_a_limit_the_quickest_point_is_taken():
    free = solve(published("rpi3x2:any"))
    assert points(free) == ["rpi-3b-1200mhz"] * 2
    assert free.predicted.total_ms == pytest.approx(
        solve(published("rpi-3b-1200mhz*2")).predicted.total_ms
    )


def test_a_fleet_that_names_its_points_keeps_them():
    plan = solve(published("rpi3x2", 4.0))
    assert points(plan) == ["rpi-3b", "rpi-3b"]
    assert plan.question.fleet == parse_fleet("rpi3x2")
    assert solve(published("rpi3x2")).predicted == plan.predicted


def named(asked, devices):
    """The question on boards that run at these points."""
    rows = [
        row.model_copy(update={"device": device, "points": "named"})
        for row, device in zip(asked.fleet.boards, devices, strict=True)
    ]
    fleet = asked.fleet.model_copy(update={"boards": tuple(rows)})
    return Problem.check(dict(asked) | {"fleet": fleet}, where="test")


def mixed(watts=None, objective=LATENCY, **fields):
    asked = question(
        "rpi-3b:any*2,odroid-xu4s:any", (9, 7, 5, 4), objective=objective, image="3x16x16",
        networks=("wrn10:8,16,32", "wrn10:8,24,48"), min_students=2, max_students=3, **fields,
    )  # fmt: skip
    return asked if watts is None else powered(asked, watts)


@pytest.mark.parametrize("objective", [LATENCY, ENERGY], ids=["latency", "energy"])
@pytest.mark.parametrize("watts", [None, 1.7, 2.3, 5.0, 8.0])
@pytest.mark.parametrize("copies", ["per-board", "per-student"])
def test_the_open_plan_is_the_best_of_all_choices_of_points(watts, objective, copies):
    asked = mixed(watts, objective, group0_copies=copies)
    found = solve(asked)
    names = [[one.device.name for one in row] for row in asked.points]
    plans = [solve(named(asked, devices)) for devices in sorted({*product(*names)})]
    values = [
        tuple(level.value for level in one.stages) for one in plans if one.status == "optimal"
    ]
    if not values:
        assert found.status == "infeasible"
        return
    assert found.status == "optimal"
    assert not violations(found)
    assert verify_plan(found.question, found.model_dump()).untrue == ()
    assert tuple(level.value for level in found.stages) == pytest.approx(min(values), rel=1e-9)
    for row in found.budgets:
        if row.budget == "power_w" and row.used:
            device = next(one.device for one in found.question.boards if one.name == row.board)
            macs = next(
                one.used for one in found.budgets if (one.board, one.budget) == (row.board, "macs")
            )
            assert row.used == pytest.approx(compute_mj(device, macs) / compute_ms(device, macs))
            assert row.used <= watts


def test_energy_chooses_a_slow_point_and_latency_never_does():
    """83.5 M MACs: 14.08 ms at 13.97 W are more than 20.12 ms at 7.91 W, the fixed part added.

    The student here has a few MACs more.
    """
    asked = published("odroid-xu4s:any*2")
    frugal = solve(Problem.check(dict(asked) | {"objective": ENERGY}, where="test"))
    assert points(frugal) == ["odroid-xu4s-1400mhz"] * 2
    assert points(solve(asked)) == ["odroid-xu4s"] * 2
    fixed_mj, busy_mj = 3.90566 * 4.52421 * 2.0 / 1.4, 7.91 * 0.168646 * 2.0 / 1.4
    assert frugal.predicted.energy_per_node_mj == pytest.approx(
        fixed_mj + busy_mj * frugal.students[0].macs / 1e6, rel=1e-3
    )


def test_more_watts_never_make_the_optimum_worse():
    latencies = []
    for watts in (1.5, 1.7, 2.0, 2.4, 2.5, 3.7, 4.5, 6.5, 8.0, 14.0):
        plan = solve(mixed(watts))
        latencies.append(plan.predicted.total_ms if plan.predicted else float("inf"))
    assert latencies == sorted(latencies, reverse=True)
    assert len(set(latencies)) >= 4
    assert latencies[-1] == pytest.approx(solve(mixed()).predicted.total_ms)


@pytest.mark.parametrize("method", ["greedy", "lpt", "ram", "random"])
def test_baselines_run_at_points_that_keep_the_limit(method):
    plan = solve_by_baseline(mixed(6.5), method)
    assert not violations(plan)
    assert {row.points for row in plan.question.fleet.boards} == {"any"}


def test_a_plan_at_a_forbidden_point_is_refused():
    plan = solve(published("rpi3x2:any", 2.5))
    rows = [
        row.model_copy(update={"device": "rpi-3b-1200mhz"}) for row in plan.question.fleet.boards
    ]
    fleet = plan.question.fleet.model_copy(update={"boards": tuple(rows)})
    moved = plan.model_copy(update={"question": plan.question.model_copy(update={"fleet": fleet})})
    assert any("power budget" in one for one in violations(moved))
    assert any(" W" in one for one in verify_plan(moved.question, moved.model_dump()).untrue)


def test_a_plan_file_is_read_and_its_question_solved_to_the_same():
    plan = solve(published("rpi3x2:any", 2.5))
    again = type(plan).check(plan.model_dump(), where="plan.json")
    assert again == plan
    assert solve(again.question) == plan


def test_a_limit_needs_a_point_of_known_power():
    with pytest.raises(ProfileError, match="power is asked for"):
        powered(question("rpi-4b-1t*2", (4, 4), memory=10**6), 2.0)


def test_failures_ask_for_named_points():
    teacher = TeacherFacts.of_network("wrn40-4", ImageShape.parse("3x32x32"), 10)
    chances = {"boards": [{"board": "rpi-3b-1", "probability": 0.1}], "target_pct": 50.0}
    with pytest.raises(InputError, match="operating points are named"):
        question(
            "rpi3x2:any", accuracy=AccuracyBasis(teacher=teacher),
            failures=Failures.check(chances, where="t"),
            requirements=[{"objective": "robustness", "bound": 10}],
        )  # fmt: skip


def test_explain_says_what_a_limit_costs_and_what_the_next_watt_buys():
    """One board alone at 1.2 GHz only gets its image sooner; a watt more lets neither."""
    plan = solve(published("rpi3x2:any", 2.5))
    found = explain(plan, 120.0)
    rows = {row.board: row for row in found.sensitivities if row.kind == "power_w"}
    row = rows["rpi-3b-1"]
    assert (row.limit, row.improves) == (2.5, "latency")
    assert row.loosen_to == pytest.approx(3.7)
    assert row.tighten_to == pytest.approx(row.used, rel=2e-6)
    more, free = found.power_prices
    assert (more.more_w, free.more_w) == (1.0, None)
    assert more.values["latency"] == pytest.approx(plan.predicted.total_ms)
    assert free.values["latency"] == pytest.approx(
        solve(published("rpi-3b-1200mhz*2")).predicted.total_ms
    )
    assert free.points == ("rpi-3b-1200mhz", "rpi-3b-1200mhz")


def test_explain_repairs_a_limit_by_the_least_power_that_does():
    found = explain(solve(published("rpi3x2:any", 2.0)), 120.0)
    (repair,) = [one for one in found.repairs if one.kind == "power_w" and one.each]
    assert repair.least
    assert repair.value == pytest.approx(2.345, rel=2e-3)
    assert solve(published("rpi3x2:any", repair.value)).status == "optimal"
