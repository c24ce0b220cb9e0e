"""Fronts of questions: requirements, values as people read them, what the limit stops."""

import pytest
from planner_questions import question, stages

from planner.exploration.trade_offs import find_pareto_front
from planner.plan_file.evaluation import PlanEvaluation
from planner.problem.goals import MAXIMISED, Requirement
from planner.solve import solve
from planner.solvers.search import SolverSession, TimeBudget

FLEET = "rpi-3b,odroid-xu4s*2"


def found(limit=60, *, fleet=FLEET, **fields):
    return find_pareto_front(SolverSession(question(fleet, **fields), TimeBudget(limit)))


def points(limit=60, **fields):
    asked = question(FLEET, **fields)
    return [
        tuple(
            PlanEvaluation.of(asked, one.assignment).value(stage.objective)
            for stage in asked.objective
        )
        for one in found(limit, **fields).found
    ]


def test_of_each_number_of_boards_it_has_the_largest_plan():
    asked = {"objective": stages("boards", "capacity"), "memory": 20_000}
    every = points(**asked)
    assert [boards for boards, _ in every] == [1, 2, 3]
    for boards, capacity in every:
        bound = (Requirement(objective="boards", bound=boards),)
        alone = question(FLEET, memory=20_000, objective=stages("capacity"), requirements=bound)
        assert solve(alone).stages[0].best == capacity


def test_no_point_is_weakly_dominated():
    asked = {"objective": stages("energy", "capacity", "boards"), "memory": 20_000}
    signs = [-1 if one.objective in MAXIMISED else 1 for one in asked["objective"]]
    every = [tuple(s * v for s, v in zip(signs, point, strict=True)) for point in points(**asked)]
    assert len(set(every)) == len(every) > 2
    for one in every:
        others = [other for other in every if other != one]
        assert not any(all(a <= b for a, b in zip(o, one, strict=True)) for o in others)


def test_requirements_hold_and_tolerances_do_not_matter():
    asked = {"objective": stages("boards", "capacity"), "memory": 20_000}
    every = points(**asked)
    bound = (Requirement(objective="boards", bound=2),)
    kept = points(memory=20_000, objective=stages("boards:50%", "capacity:9%"), requirements=bound)
    assert kept == [point for point in every if point[0] <= 2]


def test_without_a_plan_it_is_empty_and_complete():
    none = found(memory=10, objective=stages("boards", "latency"))
    assert (none.found, none.complete) == ((), True)


@pytest.mark.parametrize("limit", [0.0, 1e-4])
def test_what_the_limit_stops_is_not_called_complete(limit):
    assert not found(limit, memory=40_000, objective=stages("latency", "energy")).complete


def test_plans_that_can_be_counted_are_enumerated():
    # One student 3 (2 + 1) ways, two of 3 divisions 3^2 (2^2 + 1) ways, three 3^3 (2^3 + 1) ways.
    everything = 3 * 3 + 3 * 9 * 5 + 27 * 9
    asked = {"objective": stages("boards", "latency")}
    assert found(**asked).enumerated == everything
    assert found(**asked, reuse=True).enumerated == everything  # communities for all students
    assert found(**asked, reuse=True, max_students=4).enumerated is None


def test_a_front_is_the_same_when_it_is_solved(monkeypatch):
    asked = {"objective": stages("latency", "capacity", "energy"), "memory": 20_000}
    bound = (Requirement(objective="boards", bound=2),)
    every = points(**asked), points(**asked, requirements=bound)
    assert len(every[0]) > len(every[1]) > 1
    monkeypatch.setattr("planner.exploration.enumeration.MOST_PLANS", 0)
    assert found(**asked).enumerated is None
    solved = points(**asked), points(**asked, requirements=bound)
    assert [[pytest.approx(row) for row in rows] for rows in solved] == list(every)


def test_boards_sharing_a_medium_are_left_to_the_solver():
    front = found(fleet="rpi-4b@wifi*2", objective=stages("latency", "capacity"))
    assert front.complete
    assert front.enumerated is None
    assert found(fleet="rpi-4b@wifi*2", objective=stages("flops", "capacity")).enumerated
