import pytest
from drawn_problems import unlike_question
from ortools.sat.python import cp_model

from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.problem_data import resolve_problem
from planner.solve import solve
from planner.solvers.latency import LatencyRelaxation, relaxes
from planner.solvers.search import TimeBudget, search


@pytest.mark.parametrize("seed", range(6))
def test_no_proven_optimum_is_refuted(seed, monkeypatch):
    instance = resolve_problem(unlike_question(seed))
    monkeypatch.setattr("planner.solvers.level_solver.relaxes", lambda _: False)
    found = search(instance, OBJECTIVE_FUNCTIONS["latency"], seed=0, time_budget=TimeBudget(20))
    assert relaxes(instance)
    if found.value is None:
        return
    relaxed = LatencyRelaxation(instance, instance.modes).within(found.value)
    status = cp_model.CpSolver().solve(relaxed.model)
    assert status == cp_model.OPTIMAL


@pytest.mark.parametrize("seed", [0, 1])
def test_sixteen_unlike_boards_are_proven_without_a_search(seed):
    same = (16, 16)
    plan = solve(unlike_question(seed, boards=same, students=same, communities=same))
    assert plan.status == "optimal"
