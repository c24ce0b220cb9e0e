"""Cells of a grid, whose plans are enumerated once, beside each cell solved by itself."""

import pytest
from planner_questions import question, stages

from planner.exploration.budget_grid import BudgetGrid
from planner.exploration.cell import CellRequest
from planner.solve import solve

FLEET = "rpi-3b,odroid-xu4s*2"
MEMORIES, MACS = (9_000, 12_000, 16_000, 30_000, 60_000), (200_000, 500_000, 2_000_000)
OBJECTIVES = (
    ("latency",),
    ("capacity:5%", "imbalance", "latency"),
    ("energy:10%", "boards"),
)


def asked(memory, macs, objective, **fields):
    return question(FLEET, memory=memory, macs=macs, objective=stages(*objective), **fields)


def grid(objective, kept=(), **fields):
    top = asked(max(MEMORIES), max(MACS), objective, **fields)
    places = tuple(place for place in range(3) if place not in kept)
    return BudgetGrid.of(top, {"memory_bytes": places, "macs": places})


def told(found):
    """All of a result but the solver's time."""
    return found.model_dump(exclude={"deterministic_time"})


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_cell_of_a_grid_is_what_it_is_alone_and_what_the_solver_finds(objective):
    shared = grid(objective)
    states = set()
    for memory in MEMORIES:
        for macs in MACS:
            problem = asked(memory, macs, objective)
            assert shared.budgets_of(problem) == (memory, macs)
            here = CellRequest("plan", problem, grid=shared).find()
            assert told(here) == told(CellRequest("plan", problem).find())
            states.add(here.status)
            if here.status == "optimal":
                solved = solve(problem)
                assert [(one.best, one.proven) for one in here.stages] == [
                    (pytest.approx(one.best), one.proven) for one in solved.stages
                ]
    assert states == {"optimal", "infeasible"}


def test_fronts_of_a_grid_are_those_of_each_budget_alone():
    objective = ("capacity", "latency", "boards")
    shared = grid(objective)
    for memory in MEMORIES:
        problem = asked(memory, max(MACS), objective)
        here = CellRequest("front", problem, grid=shared).find()
        alone = CellRequest("front", problem).find()
        assert told(here) == told(alone)
        assert here.enumerated_plans


def test_a_board_with_a_budget_of_its_own_keeps_it():
    own = {"rpi-3b-1": (20_000, None)}
    shared = grid(("latency",), kept=(0,), own=own)
    for memory in MEMORIES:
        problem = asked(memory, max(MACS), ("latency",), own=own)
        assert shared.budgets_of(problem) == (memory, max(MACS))
        here = CellRequest("plan", problem, grid=shared).find()
        assert told(here) == told(CellRequest("plan", problem).find())


def test_what_is_no_cell_of_a_grid_is_solved_by_itself():
    shared = grid(("latency",))
    other = asked(30_000, 2_000_000, ("latency",), min_students=2)
    assert shared.budgets_of(other) is None
    uneven = asked(30_000, 2_000_000, ("latency",), own={"odroid-xu4s-1": (9_000, None)})
    assert shared.budgets_of(uneven) is None
    here = CellRequest("plan", other, grid=shared).find()
    assert told(here) == told(CellRequest("plan", other).find())
