"""Power of all boards, and on average: the planner's optimum equals the best of all plans."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_instances import small_instance, with_averages, with_layers, with_points
from enumerated_plans import plan_values
from listed_plans import all_plans
from test_planner_exhaustive import (
    assert_optimal,
    best,
    optima,
    slack_of,
    solved,
    without_hints,
)

from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.exploration.enumeration import Enumeration

NAMES = ("fleet-power", "fleet-average-power")
OTHERS = ("capacity", "latency", "energy")
INSTANCES, PARTS = 72, 4


def drawn(seed):
    """G0 shared in each second instance, points in each third, layers in some, G0 alone in some."""
    image, instance = small_instance(seed)
    if seed % 3 == 0:
        instance = with_points(seed, image, instance)
    elif seed % 9 == 1:
        instance = with_layers(seed, image, instance)
    return image, replace(with_averages(seed, instance), shares_stem=seed // 4 % 2 == 1)


@pytest.mark.parametrize("part", range(PARTS))
def test_watts_equal_exhaustive_search(part, monkeypatch):
    """One of both and one objective else, by patterns or slots, with local search or without."""
    if part % 2:
        without_hints(monkeypatch)
    if part // 2:
        monkeypatch.setattr(
            "planner.heuristics.board_load.enumerate_patterns", lambda *_, **__: None
        )
    for seed in range(40_000 + part, 40_000 + INSTANCES, PARTS):
        image, instance = drawn(seed)
        names = (NAMES[seed // PARTS % 2], OTHERS[seed % 3])
        assert_optimal(instance, optima(image, instance, names), names)


@pytest.mark.parametrize("name", NAMES)
def test_a_required_power_leaves_the_plans_that_keep_it(name):
    """The most capacity within a power between the least and the most of all plans."""
    compared = 0
    for seed in range(41_000, 41_010):
        image, instance = drawn(seed)
        found = [each for each in plan_values(image, instance) if each["boards"].size]
        if not found:
            continue
        powers = np.concatenate([each[name] for each in found])
        params = np.concatenate([each["capacity"] for each in found])
        limit = int((powers.min() + powers.max()) // 2)
        if np.any(np.abs(powers - limit) <= slack_of(instance, name) + 1):
            continue
        outcome = solved(instance, "capacity", [ObjectiveBound(OBJECTIVE_FUNCTIONS[name], limit)])
        assert outcome.proven
        assert outcome.value == params[powers <= limit].max()
        compared += 1
    assert compared >= 4


def test_the_quick_enumeration_has_the_powers_of_the_slow_one():
    for seed in (40_000, 40_001, 40_003):
        image, instance = drawn(seed)
        instance = replace(
            instance, modes=instance.modes[:2], sizes=instance.sizes[:3], stems=(),
            capacities=tuple(replace(one, cycle=None) for one in instance.capacities[:2]),
            drop_choices=instance.drop_choices[:1], min_students=1, copies_stem=True,
        )  # fmt: skip
        plans, known = list(all_plans(image, instance)), optima(image, instance, NAMES)
        assert bool(plans) == bool(known)
        for name in known:
            assert known[name] == pytest.approx(best(plans, name), rel=1e-12)


def test_an_enumeration_of_plans_knows_powers():
    found = 0
    for seed in range(42_000, 42_016):
        image, instance = drawn(seed)
        goals = [OBJECTIVE_FUNCTIONS[name] for name in NAMES]
        every = Enumeration.of(instance, goals)
        known = every and optima(image, instance, NAMES)
        if known:
            for name, goal in zip(NAMES, goals, strict=True):
                outcome = every.undominated(goals, ()).search(goal, ())
                slack = slack_of(instance, name)
                assert outcome.value == pytest.approx(known[name], abs=slack)
            found += 1
    assert found >= 4


def test_instances_need_both_powers_and_limits_of_boards_bind():
    """Least power while computing is not least on average; some limits refuse plans."""
    differ = refused = 0
    for seed in range(40_000, 40_012):
        image, instance = drawn(seed)
        free = tuple(replace(one, cycle=None) for one in instance.capacities)
        count = sum(each["boards"].size for each in plan_values(image, instance))
        every = list(plan_values(image, replace(instance, capacities=free)))
        refused += count < sum(each["boards"].size for each in every)
        for each in every:
            if each["boards"].size:
                calm = each["fleet-power"].argmin()
                least = each["fleet-average-power"].min()
                differ += each["fleet-average-power"][calm] > least * 1.001
    assert differ >= 3
    assert refused >= 4
