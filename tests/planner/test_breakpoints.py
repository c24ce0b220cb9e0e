"""Break-points: ranges, runtimes, boards with a budget of their own, what the limit stops."""

import pytest
from planner_questions import question, stages

from planner.exploration.trade_offs import BudgetRange, find_breakpoints
from planner.solve import solve
from planner.solvers.search import SolverSession, TimeBudget


def found(asked, budget, least, most, boards=None, limit=120):
    places = tuple(range(len(asked.budgets))) if boards is None else boards
    return find_breakpoints(
        SolverSession(asked, TimeBudget(limit)), BudgetRange(budget, places, least, most)
    )


def test_a_tolerance_and_unlike_runtimes_are_met_exactly_on_both_sides():
    """Just below each break-point some stage is worse, or there is no plan; at it none is."""
    asked = question("rpi-3b*2", (3, 4), objective=stages("capacity:20%", "latency"))
    rows = [
        row.model_copy(update={"runtime_bytes": 3000 * n}) for n, row in enumerate(asked.budgets)
    ]
    asked = asked.model_copy(update={"budgets": tuple(rows)})
    over = BudgetRange("memory_bytes", (0, 1), 8_000, 30_000)
    steps = find_breakpoints(SolverSession(asked, TimeBudget(120)), over)
    assert steps.proven
    assert len(steps.breakpoints) > 2

    def bests(amount):
        return [stage.best for stage in solve(over.problem_with(asked, amount)).stages]

    ends = [over.most, *(step.least - 1 for step in steps.breakpoints[:-1])]
    for step, end in zip(steps.breakpoints, ends, strict=True):
        assert bests(end) == pytest.approx(bests(step.least), rel=1e-9)
        if not step.below_range:
            assert bests(step.least - 1) != pytest.approx(bests(step.least), rel=1e-9)


def test_what_starts_below_the_range_says_so():
    asked = question("rpi-3b", (3, 4), objective=stages("capacity"))
    whole = found(asked, "memory_bytes", 1, 60_000).breakpoints
    assert not any(step.below_range for step in whole)
    low = whole[-1].least + 1
    part = found(asked, "memory_bytes", low, 60_000).breakpoints
    assert [step.values for step in part] == [step.values for step in whole]
    assert (part[-1].least, part[-1].below_range) == (low, True)


def test_boards_of_their_own_budget_stay():
    """A board that may hold all of it makes the other's budget of no account."""
    asked = question("rpi-3b*2", (3, 4), objective=stages("boards", "capacity"), memory=90_000)
    (step,) = found(asked, "memory_bytes", 1, 60_000, boards=(1,)).breakpoints
    assert step.values["boards"] == 1
    assert step.least == 1


def test_without_a_plan_there_are_none():
    steps = found(question(objective=stages("capacity")), "memory_bytes", 10, 100)
    assert (steps.breakpoints, steps.proven) == ((), True)


@pytest.mark.parametrize("limit", [0.0, 1e-4])
def test_what_the_limit_stops_is_not_called_proven(limit):
    asked = question("rpi-3b,odroid-xu4s*2", objective=stages("capacity", "latency"))
    assert not found(asked, "memory_bytes", 10, 40_000, limit=limit).proven


def two_memories(**fields):
    """Two microcontrollers whose networks differ in weights more than in activations."""
    return question(
        "stm32l4r5zi*2", (9, 7, 5), networks=("wrn10:4,8,16", "wrn10:8,16,32"),
        objective=stages("capacity"), memory=None, **fields,
    )  # fmt: skip


@pytest.mark.parametrize(("budget", "most"), [("flash_bytes", 400_000), ("ram_bytes", 30_000)])
def test_steps_over_flash_and_ram_are_met_on_both_sides(budget, most):
    asked = two_memories()
    over = BudgetRange(budget, (0, 1), 1_000, most)
    steps = find_breakpoints(SolverSession(asked, TimeBudget(120)), over)
    assert steps.proven
    assert len(steps.breakpoints) >= 2
    for step in steps.breakpoints:
        at, below = (solve(over.problem_with(asked, step.least - less)) for less in (0, 1))
        assert at.stages[0].best == step.values["capacity"]
        assert below.status == "infeasible" or below.stages[0].best < at.stages[0].best
    top = solve(over.problem_with(asked, most))
    assert top.stages[0].best == steps.breakpoints[0].values["capacity"]


def test_no_step_lies_above_what_a_device_has():
    """A range up to 10 MB is of the 2 MB of flash that there are."""
    asked = two_memories()
    rows = [row.model_copy(update={"asked_flash_bytes": 10_000_000}) for row in asked.budgets]
    asked = asked.model_copy(update={"budgets": tuple(rows)})
    over = BudgetRange("flash_bytes", (0, 1), 1_000, 10_000_000)
    (row, _) = over.problem_with(asked, 9_000_000).budgets
    assert row.flash_bytes == 2 * 1024**2
    (row, _) = over.problem_with(asked, 9_000).budgets
    assert row.flash_bytes == 9_000
