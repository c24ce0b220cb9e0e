"""Properties of every plan: it keeps all rules, and the simulator gives its milliseconds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_hardware import on_air

from nonn_core.partition import Partition
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.validation import violations
from planner.problem.budgets import BudgetLimits, board_budgets
from planner.problem.goals import ObjectiveLevel
from planner.problem.problem import DEFAULT_OBJECTIVE, Problem
from planner.solve import solve
from profiles.fleet import parse_fleet
from simulator.engine.simulation import simulate

WIRE = "wired-100mbit"
FLEETS = (
    *map(parse_fleet, ("rpi3x2", "mixed", "rpi-3b*2,mcu-500kb", "odroidx2", "mcu-500kb")),
    on_air(2e5, *[("odroid-xu4s", "air")] * 3, latency_ms=2),
    on_air(1e6, ("rpi-3b", "air"), ("odroid-xu4s", "air"), ("mcu-500kb", WIRE)),
    on_air(1e5, ("rpi-3b", "air"), ("mcu-500kb", "air", "b0"), ("rpi-3b", WIRE, "b1")),
)
NETWORKS = ("wrn10:4,8,8", "wrn10:4,8,16", "wrn10:8,8,16", "wrn16:4,8,8")
OBJECTIVES = (
    DEFAULT_OBJECTIVE,
    (ObjectiveLevel.parse("energy:20%"), ObjectiveLevel.parse("latency")),
    (
        ObjectiveLevel.parse("students"),
        ObjectiveLevel.parse("latency:30%"),
        ObjectiveLevel.parse("boards"),
    ),
    (
        ObjectiveLevel.parse("dropped"),
        ObjectiveLevel.parse("imbalance"),
        ObjectiveLevel.parse("capacity"),
    ),
)


def random_partition(rng):
    sizes = rng.integers(1, 20, rng.integers(1, 6)).tolist()
    ends = np.cumsum(sizes)
    dropped = int(rng.integers(0, len(sizes)))
    steps = [((), 0, 0.0), *([((dropped,), sizes[dropped], -0.3)] if len(sizes) > 1 else [])]
    return Partition.model_validate(
        {
            "teacher": None,
            "rule": None,
            "gamma": 1.0,
            "seed": 0,
            "filters": sum(sizes),
            "images": None,
            "modularity": 0.0,
            "communities": [
                {"id": i, "filters": range(end - size, end), "linked": True}
                for i, (size, end) in enumerate(zip(sizes, ends.tolist(), strict=True))
            ],
            "drop_steps": [
                {"communities": c, "filters": n, "accuracy_pct": None, "delta_val_pct": delta}
                for c, n, delta in steps
            ],
        }
    )


def random_question(seed):
    rng = np.random.default_rng(seed)
    fleet = FLEETS[rng.integers(len(FLEETS))]
    memory_bytes = (None, 20_000, 30_000, 60_000)[rng.integers(4)]
    macs = (None, 100_000, 200_000)[rng.integers(3)]
    return Problem(
        fleet=fleet,
        budgets=board_budgets(fleet, BudgetLimits(memory_bytes, macs=macs)),
        precisions=(("fp32", "int8")[rng.integers(2)],),
        image="1x8x8",
        classes=10,
        networks=NETWORKS,
        epsilon_pct=1.0,
        partition=random_partition(rng),
        max_students=int(rng.integers(1, 5)),
        objective=OBJECTIVES[rng.integers(len(OBJECTIVES))],
    )


@settings(max_examples=90, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1).map(random_question))
def test_every_plan_is_valid_proven_and_what_the_simulator_says(question):
    plan = solve(question)
    assert violations(plan) == []
    if plan.status == "infeasible":
        assert plan.conflict
        return
    assert plan.status == "optimal"
    result = simulate(plan_workload(plan), inferences=2)
    assert result.total_ms == pytest.approx(plan.predicted.total_ms, abs=1e-6)
    assert result.communication_ms == pytest.approx(plan.predicted.communication_ms, abs=1e-6)
    assert result.energy_per_node_mj == pytest.approx(plan.predicted.energy_per_node_mj)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_the_same_question_and_seed_give_the_same_plan(seed):
    assert solve(random_question(seed)) == solve(random_question(seed))
