"""More students than communities: bounds on their number, beside closed forms and full searches."""

from dataclasses import replace

import pytest
from planner_questions import question, stages

from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.data.problem_data import resolve_problem
from planner.solvers.further_rounds import least_students
from planner.solvers.search import TimeBudget, finished, search


def least(data, more_than, limits=()):
    return finished(
        least_students(data, limits, more_than, seed=0, deterministic_limit=20)
    ).students


def held(data, filters):
    """Students of one size that all boards hold: each board by itself, by memory and by MACs."""
    total = 0
    for board in data.capacities:
        by_memory = min(mode.memory_bytes(filters) for mode in data.modes)
        by_macs = min(mode.line.at(filters).macs for mode in data.modes)
        total += min(board.memory_bytes // by_memory, board.macs // by_macs)
    return total


@pytest.mark.parametrize("memory", [40_000, 47_000, 61_000, 100_000])
def test_boards_hold_as_many_students_as_each_of_them_alone(memory):
    own = {"rpi-3b-2": (memory // 2, 10**6)}
    asked = question("rpi3x2", (4, 4), memory=memory, macs=2 * 10**6, own=own, reuse=True)
    data = resolve_problem(asked)
    most = held(data, 4)
    assert most >= 2
    assert least(data, most) is None
    assert least(data, most - 1) == most


def test_boards_without_a_limit_hold_any_number_of_students():
    data = resolve_problem(question("rpi3x2", (16, 16), memory=100_000, reuse=True))
    unlimited = replace(data.capacities[0], memory_bytes=None)
    free = replace(data, capacities=(unlimited, data.capacities[1]))
    assert least(free, 1000) == 1001


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("objective", ["capacity", "accuracy", "latency", "boards"])
def test_no_plan_of_further_rounds_is_lost(seed, objective):
    """The number of students of a full search's plan is one that the bound allows."""
    memory = 30_000 + 9_000 * seed
    sizes = (3, 5) if seed % 2 else (4, 4, 6)
    asked = question("rpi-3b*2", sizes, memory=memory, objective=stages("capacity"), reuse=True)
    measure = OBJECTIVE_FUNCTIONS[objective]
    for students in (len(sizes) + 1, len(sizes) + 2):
        data = replace(resolve_problem(asked), min_students=students, max_students=students)
        found = search(data, measure, seed=0, time_budget=TimeBudget(20))
        if found.infeasible:
            continue
        limit = ObjectiveBound(measure, found.value)
        assert least(data, students - 1, [limit]) == students
