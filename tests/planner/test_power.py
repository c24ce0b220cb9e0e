"""Power limits and operating points of plans.

Oracles: Tables 6 and 7 of arXiv:1907.11804, and plans of all choices of named operating points.
"""

from itertools import pairwise, product

import numpy as np
import pytest
from drawn_problems import unlike_question, with_open_points
from planner_questions import question, stages

from nonn_common.errors import InputError, ProfileError
from nonn_core.networks.blueprint import ImageShape
from planner.accuracy.rows import TeacherFacts
from planner.certificates.verification import verify_plan
from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.problem_data import resolve_problem
from planner.diagnosis.explanation import explain
from planner.heuristics.baselines import solve_by_baseline
from planner.heuristics.board_load import cached_loads, enumerate_patterns
from planner.heuristics.local_search import enumerate_moves, local_search
from planner.heuristics.solution import CostEvaluator
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.validation import violations
from planner.problem.duty import sustained
from planner.problem.goals import AccuracyBasis, ObjectiveLevel
from planner.problem.problem import Problem
from planner.reliability.failures import Failures
from planner.solve import solve
from planner.solvers.certificate_search import with_certificates
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


def test_the_longest_battery_life_is_that_of_the_best_choice_of_points():
    asked = mixed(6.5)
    rows = [
        row.model_copy(update={"battery_wh": size})
        for row, size in zip(asked.budgets, (5.0, 10.0, 8.0), strict=True)
    ]
    fields = {"budgets": rows, "rate_per_s": 2.0, "objective": stages("battery")}
    fields["requirements"] = sustained(asked.requirements, 2.0)
    asked = Problem.check(dict(asked) | fields, where="test")
    names = [[one.device.name for one in row] for row in asked.points]
    plans = [solve(named(asked, devices)) for devices in sorted({*product(*names)})]
    found = solve(asked)
    assert found.status == "optimal"
    assert not violations(found)
    best = max(plan.stages[0].value for plan in plans if plan.status == "optimal")
    assert found.stages[0].value == pytest.approx(best, rel=1e-9)


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


def drawn(seed, boards=6, **changes):
    """Unlike boards, each at one of three points, power limits that bind."""
    same = (boards, boards)
    asked = unlike_question(seed, boards=same, students=same, communities=same)
    return with_open_points(asked, seed, **changes)


@pytest.mark.parametrize("counts_energy", [True, False])
@pytest.mark.parametrize("seed", [2, 3])
def test_a_board_has_a_pattern_only_at_points_that_no_other_one_replaces(seed, counts_energy):
    """Else 16 boards with three points have three times as many, and the proof does not end."""
    asked = drawn(seed).model_copy(update={"objective": ENERGY if counts_energy else LATENCY})
    data = resolve_problem(asked)
    assert data.counts_energy == counts_energy
    load, at = cached_loads(data), {}
    for entry in enumerate_patterns(data, most=10**5).entries:
        place = data.board_classes[entry.kind][0]
        at.setdefault((data.site(place), entry.loading.tasks), {})[place] = entry.loading
    for (site, tasks), entries in at.items():
        loads = {place: load(place, tasks) for place in data.places_of[site]}
        fits = {p: one for p, one in loads.items() if not one.violation(data.capacities[p])}
        best = min((one.send + one.tail, one.busy) for one in fits.values())
        assert best in [(one.send + one.tail, one.busy) for one in entries.values()]
        if counts_energy:
            least = min(one.energy for one in fits.values())
            assert least in [one.energy for one in entries.values()]
        else:
            assert len(entries) == 1
    assert len({place for entries in at.values() for place in entries}) > 6


def test_a_point_goes_before_modelling_where_its_limit_is_no_closer_than_the_flops_budget():
    """At 0.8 of the clock the power limit stops nothing that fits, so that 0.6 is not needed."""
    data = resolve_problem(drawn(1))
    most = [
        [data.capacities[place].power_macs for place in places if place in data.kind_of]
        for places in data.places_of
    ]
    for limits, budget in zip(most, drawn(1).budgets, strict=True):
        rooms = [float("inf") if one is None else one for one in limits]
        assert rooms == sorted(set(rooms))
        assert all(room < budget.macs for room in rooms[:-1])
    assert 6 < sum(map(len, most)) < 18


def test_moves_take_a_board_to_the_quickest_point_that_its_budgets_allow():
    data = resolve_problem(drawn(1))
    found, _ = local_search(data, OBJECTIVE_FUNCTIONS["latency"], (), seed=0, kicks=0)
    evaluator = CostEvaluator(data)
    solution = evaluator.solution_of(found)
    kinds = {kind for kind, *_ in enumerate_moves(data, solution)}
    assert "point" not in kinds
    loads = evaluator.evaluate(solution).loads
    for place, one in loads.items():
        for other in data.free_points(place, loads):
            there = cached_loads(data)(other, one.load.tasks)
            late = there.send + there.tail >= one.load.send + one.tail
            assert late or there.violation(data.capacities[other]) > 0
    boards = {b for kind, _, b in enumerate_moves(data, solution) if kind == "board"}
    assert len({data.site(b) for b in boards}) == len(boards)


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


def optimum(asked, objective):
    """The best value, less being better; infinite where there is no plan."""
    sign = -1 if objective == "capacity" else 1
    plan = solve(Problem.check(dict(asked) | {"objective": stages(objective)}, where="test"))
    assert plan.status in ("optimal", "infeasible")
    return sign * plan.stages[0].best if plan.stages else float("inf")


@pytest.mark.parametrize("seed", range(12))
def test_more_drawn_watts_never_make_the_optimum_worse(seed):
    """Three limits of one board or several, or of all, one after the other."""
    draw = np.random.default_rng((11, seed))
    asked = mixed()
    boards = draw.choice([row.board for row in asked.budgets], draw.integers(1, 4), replace=False)
    objective = ("latency", "energy", "capacity")[seed % 3]
    values = [
        optimum(powered(asked, float(watts), boards), objective)
        for watts in sorted(draw.uniform(1.6, 14.0, 3))
    ]
    for less, more in pairwise(values):
        assert more <= less or more == pytest.approx(less, rel=1e-9)


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


def standings(asked):
    """How the plan's stages, or its refusal, are proven, with its own certificates."""
    plan = with_certificates(solve(asked))
    found = verify_plan(plan.question, plan.model_dump())
    assert found.untrue == ()
    return [(row.standing, row.reason) for row in found.stages]


@pytest.mark.parametrize("watts", [None, 2.5, 4.0, 2.0])
def test_a_question_that_needs_one_point_a_board_is_certified_as_a_named_one(watts):
    """At no limit and 4 W 1.2 GHz alone is needed, at 2.5 W 400 MHz alone; at 2 W nothing runs."""
    assert standings(published("rpi3x2:any", watts)) == [("certified", None)]


def test_a_question_that_needs_more_points_says_why_it_is_only_claimed():
    reason = "certificates do not know open operating points"
    found = standings(
        Problem.check(dict(published("odroid-xu4s:any*2")) | {"objective": ENERGY}, where="t")
    )
    assert found == [("claimed", reason)] * 2


def test_a_bound_that_other_points_would_break_is_not_certified():
    """The plan of 400 MHz, whose question leaves 1.2 GHz open, is not proven the best."""
    slow = solve(published("rpi3x2"))
    rows = [row.model_copy(update={"points": "any"}) for row in slow.question.fleet.boards]
    fleet = slow.question.fleet.model_copy(update={"boards": tuple(rows)})
    claimed = slow.model_copy(
        update={"question": slow.question.model_copy(update={"fleet": fleet})}
    )
    plan = with_certificates(claimed)
    (row,) = verify_plan(plan.question, plan.model_dump()).stages
    assert row.standing == "claimed"
