"""Latencies under limits of earlier levels, proven by patterns and due dates."""

import math
from collections import Counter

import numpy as np
import pytest
from drawn_instances import random_instance
from drawn_problems import unlike_question
from listed_plans import all_plans
from ortools.sat.python import cp_model
from planner_questions import question, stages

from planner.data.modes import least_within, most_within, rounding_bound
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.data.problem_data import resolve_problem
from planner.heuristics.board_load import enumerate_patterns
from planner.heuristics.local_search import local_search
from planner.heuristics.solution import evaluate_assignment
from planner.solve import solve
from planner.solvers import deadline_prices, due_date_model
from planner.solvers.assignment_model import AssignmentModel
from planner.solvers.deadline_prices import DeadlinePrices
from planner.solvers.due_date_model import DueDateModel
from planner.solvers.pattern_model import pattern_rows
from planner.solvers.search import TimeBudget, search

LATENCY, CAPACITY, IMBALANCE, ENERGY = (
    OBJECTIVE_FUNCTIONS[name] for name in ("latency", "capacity", "imbalance", "energy")
)
FLEETS = ("rpi-3b*3", "rpi-3b,odroid-xu4s*2", "rpi-4b,rpi-3b,odroid-xu4s")


def solved(model):
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    return solver, solver.solve(model.model)


@pytest.mark.parametrize("limit", [None, (CAPACITY, 9_000), (ENERGY, 10**8), (IMBALANCE, 2)])
@pytest.mark.parametrize("sizes", [(4, 4, 4, 4), (3, 3, 5)])
@pytest.mark.parametrize("fleet", FLEETS)
def test_the_earliest_deadline_is_the_optimum_of_the_other_model(fleet, sizes, limit):
    """At the optimum there is a plan, which is in time; a unit before it there is none."""
    asked = resolve_problem(question(fleet, sizes, memory=60_000, min_students=2))
    limits = [ObjectiveBound(*limit)] if limit else []
    slots = AssignmentModel(asked, timed=True)
    for one in limits:
        value = one.measure.read(slots)
        slots.model.add(value >= one.bound if one.measure.maximise else value <= one.bound)
    slots.model.minimize(LATENCY.read(slots))
    solver, status = solved(slots)
    assert status == cp_model.OPTIMAL
    optimum = round(solver.objective_value)
    patterns = enumerate_patterns(asked, most=10**6)
    model = DueDateModel(asked, patterns, limits, optimum)
    solver, status = solved(model)
    assert status == cp_model.OPTIMAL
    view = evaluate_assignment(asked, model.assignment(solver))
    assert view.latency() == optimum
    assert not view.violation()
    assert not any(one.violation(one.measure.read(view)) for one in limits)
    assert solved(DueDateModel(asked, patterns, limits, optimum - 1))[1] == cp_model.INFEASIBLE
    assert not DeadlinePrices(asked, patterns, limits).refutes(optimum, 1.0)


def test_prices_refute_what_students_in_part_would_allow(monkeypatch):
    """Six boards, capacity within 5 %: the optimum is 66.839908 ms, in part 61.3 would do."""
    same = (6, 6)
    asked = resolve_problem(unlike_question(1, boards=same, students=same, communities=same))
    best = search(asked, CAPACITY, (), seed=0, time_budget=TimeBudget(5)).value
    limits = [ObjectiveBound(CAPACITY, math.ceil(0.95 * best))]
    prices = DeadlinePrices(asked, enumerate_patterns(asked, most=10**6), limits)
    assert prices.refutes(66_800_000, 1.0)
    assert not prices.refutes(66_839_908, 1.0)
    monkeypatch.setattr(deadline_prices, "MOST_LEAVES", 1)
    assert prices.refutes(61_000_000, 1.0)
    assert not prices.refutes(66_800_000, 1.0)


def test_a_question_whose_limit_is_out_of_steps_has_no_answer():
    asked = resolve_problem(question("rpi-3b*3", (3, 3, 5), memory=60_000, min_students=2))
    prices = DeadlinePrices(asked, enumerate_patterns(asked, most=10**6), ())
    assert prices.refutes(1, 1.0)
    assert not prices.refutes(1, -1.0)


def refuted_by_prices(instance, plans, name, tolerance_pct):
    """Whether prices refute 2 % less than the least latency of all plans; never what a plan has."""
    measure = OBJECTIVE_FUNCTIONS[name]
    slack = rounding_bound(len(instance.capacities), instance.max_students, instance.filters)
    best = (max if measure.maximise else min)(plan[name] for plan in plans)
    if measure.maximise:
        worst = least_within(best, tolerance_pct)
        top = min(plan["latency"] for plan in plans if plan[name] >= worst) + slack
    else:
        worst = most_within(best, tolerance_pct) + slack
        top = min(plan["latency"] for plan in plans if plan[name] <= worst) + slack
    patterns = enumerate_patterns(instance, most=10**6)
    prices = DeadlinePrices(instance, patterns, [ObjectiveBound(measure, worst)])
    assert not any(prices.refutes(late, 1.0) for late in (2 * top, top))
    found = prices.refutes(top - top // 50, 1.0)
    assert prices.refutes(0, 1.0)
    assert not prices.refutes(top, 1.0)
    return found


def test_under_a_kept_capacity_the_latency_equals_exhaustive_search(monkeypatch):
    """The relaxation is not asked, so that due dates prove what they can; so do prices."""
    built = []

    class Counted(DueDateModel):
        def __init__(self, *parts):
            built.append(parts)
            super().__init__(*parts)

    monkeypatch.setattr("planner.solvers.level_solver.relaxes", lambda _: False)
    monkeypatch.setattr(due_date_model, "FEW_CLASSES", 0)
    monkeypatch.setattr(due_date_model, "DueDateModel", Counted)
    monkeypatch.setattr("planner.data.problem_data.FEW_CHOICES", 0)
    settled = refuted = 0
    for seed in range(16):
        image, instance = random_instance(seed)
        plans = list(all_plans(image, instance))
        if not plans:
            continue
        most = max(plan["capacity"] for plan in plans)
        worst = least_within(most, 10)
        limits = [ObjectiveBound(CAPACITY, worst)]
        before = len(built)
        outcome = search(instance, LATENCY, limits, seed=0, time_budget=TimeBudget(60))
        slack = rounding_bound(len(instance.capacities), instance.max_students, instance.filters)
        top = min(plan["latency"] for plan in plans if plan["capacity"] >= worst)
        assert outcome.proven
        assert outcome.bound == outcome.value == pytest.approx(top, abs=slack)
        settled += len(built) > before
        refuted += refuted_by_prices(instance, plans, "capacity", 10)
        refuted += refuted_by_prices(instance, plans, "energy", 20)
    assert settled >= 8
    assert refuted >= 24


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_lies_in_its_neighbourhoods_whose_plans_keep_the_other_boards(seed, monkeypatch):
    monkeypatch.setattr(due_date_model, "FREE_BOARDS", 3)
    same = {"boards": (6, 6), "students": (5, 5), "communities": (6, 6)}
    asked = resolve_problem(unlike_question(seed, **same))
    plan, value = local_search(asked, LATENCY, (), seed=0, kicks=0)
    patterns = enumerate_patterns(asked, most=10**6)
    nearby = due_date_model.Neighbourhoods(asked, patterns, np.random.default_rng(seed))
    for latency in (value, value - 1):
        around, kept = nearby.around(plan, latency)
        assert len(around.entries) < len(patterns.entries)
        assert not kept - Counter(pattern_rows(asked, patterns.classes, plan))
        model = DueDateModel(asked, around, (), latency)
        model.keep_rows(kept)
        solver, status = solved(model)
        assert status == (cp_model.OPTIMAL if latency == value else status)
        if status == cp_model.OPTIMAL:
            found = model.assignment(solver)
            assert evaluate_assignment(asked, found).latency() <= latency
            assert not evaluate_assignment(asked, found).violation()
            assert not kept - Counter(pattern_rows(asked, patterns.classes, found))


def test_the_default_objective_of_sixteen_unlike_boards_is_proven_within_three_units():
    """Three units in all, those of the local search included."""
    same = (16, 16)
    asked = unlike_question(
        0,
        boards=same,
        students=same,
        communities=same,
        objective=stages("dropped", "capacity:5%", "imbalance", "latency"),
    )
    plan = solve(asked.model_copy(update={"deterministic_limit": 3.0}))
    assert plan.status == "optimal"
    assert plan.solver.deterministic_time < 3
    assert plan.stages[-1].value == pytest.approx(114.481751)


def test_sixteen_unlike_boards_with_a_kept_capacity_are_proven_within_three_units():
    """Capacity within 5 % of its best, 4,065,656, and the least imbalance; then latency."""
    same = (16, 16)
    asked = resolve_problem(unlike_question(1, boards=same, students=same, communities=same))
    limits = [
        ObjectiveBound(CAPACITY, math.ceil(0.95 * 4_065_656)),
        ObjectiveBound(IMBALANCE, 32),
    ]
    outcome = search(
        asked, LATENCY, limits, seed=0, time_budget=TimeBudget(3), most_solutions=2_000
    )
    assert outcome.proven
    assert outcome.value == 77_937_417
