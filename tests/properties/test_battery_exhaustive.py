"""Battery life: the planner's optimum equals the best of all plans, enumerated."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_instances import small_instance, with_batteries, with_layers, with_points
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

NAMES = ["battery"]
INSTANCES, PARTS = 120, 6


def drawn(seed):
    """G0 shared in each second instance, points in each third, layers in some, G0 alone in some."""
    image, instance = small_instance(seed)
    if seed % 3 == 0:
        instance = with_points(seed, image, instance)
    elif seed % 9 == 1:
        instance = with_layers(seed, image, instance)
    return image, replace(with_batteries(seed, instance), shares_stem=seed // 4 % 2 == 1)


@pytest.mark.parametrize("part", range(PARTS))
def test_battery_life_equals_exhaustive_search(part, monkeypatch):
    """By patterns, by slots (each third part), with local search or without."""
    if part % 2:
        without_hints(monkeypatch)
    if part % 3 == 0:
        monkeypatch.setattr(
            "planner.heuristics.board_load.enumerate_patterns", lambda *_, **__: None
        )
    for seed in range(30_000 + part, 30_000 + INSTANCES, PARTS):
        image, instance = drawn(seed)
        assert_optimal(instance, optima(image, instance, NAMES), NAMES)


def test_a_required_life_leaves_the_plans_that_have_it():
    """The most capacity within a drain between the least and the most of all plans."""
    compared = 0
    for seed in range(31_000, 31_024):
        image, instance = drawn(seed)
        found = [each for each in plan_values(image, instance) if each["boards"].size]
        if not found:
            continue
        drains = np.concatenate([each["battery"] for each in found])
        params = np.concatenate([each["capacity"] for each in found])
        slack = slack_of(instance, "battery") + 1
        limit = int((drains.min() + drains.max()) // 2)
        if np.any(np.abs(drains - limit) <= slack):
            continue
        bound = ObjectiveBound(OBJECTIVE_FUNCTIONS["battery"], limit)
        outcome = solved(instance, "capacity", [bound])
        assert outcome.proven
        assert outcome.value == params[drains <= limit].max()
        compared += 1
    assert compared >= 12


def test_the_quick_enumeration_has_the_drains_of_the_slow_one():
    for seed in (30_001, 30_002, 30_005):
        image, instance = drawn(seed)
        instance = replace(
            instance, capacities=instance.capacities[:2], modes=instance.modes[:2],
            sizes=instance.sizes[:3], drop_choices=instance.drop_choices[:1], min_students=1,
            stems=(), copies_stem=True,
        )  # fmt: skip
        plans = list(all_plans(image, instance))
        known = optima(image, instance, NAMES)
        assert bool(plans) == bool(known)
        if known:
            assert known["battery"] == pytest.approx(best(plans, "battery"), rel=1e-12)


def test_an_enumeration_of_plans_knows_battery_life():
    goal, found = OBJECTIVE_FUNCTIONS["battery"], 0
    for seed in range(32_000, 32_024):
        image, instance = drawn(seed)
        every = Enumeration.of(instance, [goal])
        known = every and optima(image, instance, NAMES)
        if known:
            outcome = every.undominated([goal], ()).search(goal, ())
            assert outcome.value == pytest.approx(
                known["battery"], abs=slack_of(instance, "battery")
            )
            found += 1
    assert found >= 5


def test_instances_need_the_battery_that_is_empty_first():
    """In some the best plan by energy is not the best by life, and boards differ in batteries."""
    differ = 0
    for seed in range(30_000, 30_006):
        image, instance = drawn(seed)
        for each in plan_values(image, instance):
            if each["boards"].size:
                thrifty = each["energy-node"].argmin()
                differ += each["battery"][thrifty] > each["battery"].min() * 1.001
    assert differ >= 3
