"""Limits: the time they count, and questions that are too large for a model."""

import numpy as np
import pytest
from drawn_problems import unlike_question
from planner_questions import question, stages

from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.problem_data import resolve_problem
from planner.heuristics.local_search import (
    SearchEffort,
    apply_move,
    enumerate_moves,
    local_search,
)
from planner.heuristics.solution import CostEvaluator
from planner.plan_file.validation import violations
from planner.solve import solve
from planner.solvers import is_modelled


def test_a_local_search_ends_at_its_limit_with_a_plan():
    data = resolve_problem(question("rpi-3b*4,odroid-xu4s*4", (3, 4, 5, 6, 7, 8)))
    goal = OBJECTIVE_FUNCTIONS["capacity"]
    free, held = SearchEffort(), SearchEffort(limit=0.005)
    local_search(data, goal, (), seed=0, effort=free)
    assert local_search(data, goal, (), seed=0, effort=held) is not None
    assert free.spent > 0.01
    assert held.spent < 0.006


def test_moves_alone_take_a_part_of_the_time_and_kicks_lead_on_from_there():
    data = resolve_problem(unlike_question(0, boards=(6, 6), students=(5, 5)))
    goal, effort = OBJECTIVE_FUNCTIONS["latency"], [SearchEffort(), SearchEffort()]
    first = local_search(data, goal, (), seed=0, kicks=0, effort=effort[0])
    assert local_search(data, goal, (), seed=0, effort=effort[1])[1] <= first[1]
    assert effort[0].spent < effort[1].spent


def test_the_same_limit_gives_the_same_plan():
    data = resolve_problem(question("rpi-3b*4,odroid-xu4s*4", (3, 4, 5, 6, 7, 8)))
    goal = OBJECTIVE_FUNCTIONS["latency"]
    found = [
        local_search(data, goal, (), seed=3, effort=SearchEffort(limit=0.005)) for _ in range(2)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("copies", [1, 2])
def test_a_draft_valued_from_one_near_it_is_valued_alike(copies):
    asked = question("rpi-3b*3,odroid-xu4s", (3, 4, 5, 6), memory=60_000, max_copies=copies)
    data = resolve_problem(asked)
    draw, evaluator = np.random.default_rng(1), CostEvaluator(data)
    solution = evaluator.solution_of(
        local_search(data, OBJECTIVE_FUNCTIONS["capacity"], (), seed=0)[0]
    )
    near = evaluator.evaluate(solution)
    for _ in range(200):
        moves = enumerate_moves(data, solution)
        changed = apply_move(data, solution, moves[draw.integers(len(moves))])
        if changed is None:
            continue
        whole, partly = evaluator.evaluate(changed), evaluator.evaluate(changed, near)
        for read in ("latency", "period", "students", "boards", "spread", "size", "tie_breaker"):
            assert getattr(whole, read)() == getattr(partly, read)()
        assert whole.total("memory_bytes") == partly.total("memory_bytes")
        assert whole.violation() == pytest.approx(partly.violation())
        solution, near = changed, partly


def test_a_question_too_large_for_a_model_has_the_plan_of_the_local_search(monkeypatch):
    monkeypatch.setattr("planner.solvers.MOST_TERMS", 10)
    monkeypatch.setattr("planner.solvers.MOST_PATTERNS", 1)
    plan = solve(question("rpi3x2", (3, 4, 5), objective=stages("capacity", "latency")))
    assert plan.status == "feasible"
    assert violations(plan) == []
    assert [stage.proven for stage in plan.stages] == [False, False]
    assert plan.solver.deterministic_time < plan.question.deterministic_limit


def test_what_is_modelled_grows_with_boards_and_not_with_their_names():
    few = resolve_problem(question("rpi-3b*3", (3, 4, 5)))
    assert is_modelled(few, 1000, timed=True)
    assert not is_modelled(few, 10**7, timed=True)
