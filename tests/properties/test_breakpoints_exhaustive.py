"""Break-points equal brute force: all plans, enumerated, under every budget that may matter."""

from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_plans import all_plans
from test_planner_exhaustive import best

from nonn_core.partition import Partition
from planner.data.modes import UNITS_PER_MJ, UNITS_PER_MS
from planner.data.problem_data import resolve_problem
from planner.exploration.trade_offs import BudgetRange, find_breakpoints
from planner.problem.budgets import board_budgets
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import Problem
from planner.solvers.search import SolverSession, TimeBudget
from profiles.fleet import parse_fleet

UNITS = {"latency": UNITS_PER_MS, "energy": UNITS_PER_MJ, "energy-node": UNITS_PER_MJ, "flops": 0.5}
NETWORKS = ("wrn10:4,8,8", "wrn10:4,8,16", "wrn10:8,8,16", "wrn16:4,8,8")


def question(fleet, sizes, networks, names):
    boards = parse_fleet(fleet)
    ends = [sum(sizes[: place + 1]) for place in range(len(sizes))]
    nothing = {"communities": (), "filters": 0, "accuracy_pct": None, "delta_val_pct": None}
    known = {
        "teacher": None,
        "rule": None,
        "gamma": 1.0,
        "seed": 0,
        "filters": sum(sizes),
        "images": None,
        "modularity": 0.0,
        "communities": [
            {"id": place, "filters": range(end - size, end), "linked": True}
            for place, (size, end) in enumerate(zip(sizes, ends, strict=True))
        ],
        "drop_steps": [nothing],
    }
    return Problem(
        fleet=boards,
        budgets=board_budgets(boards),
        image="1x8x8",
        classes=10,
        networks=networks,
        max_students=2,
        epsilon_pct=0,
        partition=Partition.model_validate(known),
        objective=tuple(map(ObjectiveLevel.parse, names)),
    )


def needs(asked, budget):
    """Every amount that students of one board may need together."""
    instance = resolve_problem(asked)
    sizes = {0}
    for size in instance.sizes:
        sizes |= {size + other for other in sizes}
    alone = {
        option.memory_bytes(size) if budget == "memory_bytes" else option.line.at(size).macs
        for option in instance.modes
        for size in sizes - {0}
    }
    together = range(1, instance.max_students + 1)
    return {sum(each) for n in together for each in combinations_with_replacement(alone, n)}


def optimum(asked, names):
    """The best value of each stage, as people read it, of all plans; None without a plan."""
    plans = list(all_plans(asked.image_shape, resolve_problem(asked)))
    values = []
    for name in names:
        if not plans:
            return None
        top = best(plans, name)
        values.append(top / UNITS.get(name, 1))
        plans = [plan for plan in plans if plan[name] == pytest.approx(top, rel=1e-9, abs=1e-6)]
    return values


def brute(asked, over, names):
    """Budgets at which a better optimum starts, the highest first: (budget, values)."""
    steps, above = [], None
    for amount in sorted({*needs(asked, over.budget), over.least, over.most}):
        if not over.least <= amount <= over.most:
            continue
        here = optimum(over.problem_with(asked, amount), names)
        if here is not None and (above is None or here != pytest.approx(above, rel=1e-9)):
            steps.append((amount, here))
            above = here
    return steps[::-1]


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    st.sampled_from(["rpi-3b*2", "rpi-3b,odroid-xu4s"]),
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.lists(st.sampled_from(NETWORKS), min_size=2, max_size=2, unique=True),
    st.lists(
        st.sampled_from(["capacity", "latency", "boards", "imbalance", "energy-node", "students"]),
        min_size=1,
        max_size=2,
        unique=True,
    ),
    st.sampled_from(["memory_bytes", "macs"]),
)
def test_they_are_those_of_every_budget(fleet, sizes, networks, names, budget):
    asked = question(fleet, sizes, networks, names)
    every = sorted(needs(asked, budget))
    over = BudgetRange(budget, (0, 1), every[0] - 1, every[-1])
    steps = find_breakpoints(SolverSession(asked, TimeBudget(120)), over)
    expected = brute(asked, over, names)
    unit = 2 if budget == "macs" else 1
    assert steps.proven
    assert [step.least for step in steps.breakpoints] == [unit * least for least, _ in expected]
    for step, (_, values) in zip(steps.breakpoints, expected, strict=True):
        assert list(step.values.values()) == pytest.approx(values, rel=1e-6)
