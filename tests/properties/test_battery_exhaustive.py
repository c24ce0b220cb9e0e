"""Battery life: the planner's optimum equals the best of all plans, enumerated."""

from dataclasses import replace

import pytest
from compared_plans import (
    compare_enumerations,
    compare_quick_with_slow,
    compare_under_limits,
)
from drawn_instances import small_instance, with_batteries, with_layers, with_points
from enumerated_plans import plan_values
from test_planner_exhaustive import (
    assert_optimal,
    optima,
    without_hints,
)

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
    assert compare_under_limits("battery", map(drawn, range(31_000, 31_024))) >= 12


def test_the_quick_enumeration_has_the_drains_of_the_slow_one():
    compare_quick_with_slow(NAMES, map(drawn, (30_001, 30_002, 30_005)))


def test_an_enumeration_of_plans_knows_battery_life():
    assert compare_enumerations(NAMES, map(drawn, range(32_000, 32_024))) >= 5


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
