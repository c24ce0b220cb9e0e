import pytest
from ortools.sat.python import cp_model

from planner.instance import instance_of
from planner.instances import unlike_question
from planner.model import solve
from planner.objective import MEASURES
from planner.relaxation import Relaxation, relaxes
from planner.search import search


@pytest.mark.parametrize("seed", range(6))
def test_no_proven_optimum_is_refuted(seed, monkeypatch):
    instance = instance_of(unlike_question(seed))
    monkeypatch.setattr("planner.attempt.relaxes", lambda _: False)
    found = search(instance, MEASURES["latency"], seed=0, deterministic_limit=20)
    assert relaxes(instance)
    if found.value is None:
        return
    status, _ = Relaxation(instance, instance.options).within(found.value, cp_model.CpSolver())
    assert status == cp_model.OPTIMAL


@pytest.mark.parametrize("seed", [0, 1])
def test_sixteen_unlike_boards_are_proven_without_a_search(seed):
    same = (16, 16)
    plan = solve(unlike_question(seed, boards=same, students=same, communities=same))
    assert plan.status == "optimal"
