"""Power of all boards, and on average: the planner's optimum equals the best of all plans."""

from dataclasses import replace

import pytest
from compared_plans import (
    compare_enumerations,
    compare_quick_with_slow,
    compare_under_limits,
)
from drawn_instances import small_instance, with_averages, with_layers, with_points
from enumerated_plans import plan_values
from test_planner_exhaustive import (
    assert_optimal,
    optima,
    without_hints,
)

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
    assert compare_under_limits(name, map(drawn, range(41_000, 41_010))) >= 4


def test_the_quick_enumeration_has_the_powers_of_the_slow_one():
    compare_quick_with_slow(NAMES, map(drawn, (40_000, 40_001, 40_003)))


def test_an_enumeration_of_plans_knows_powers():
    assert compare_enumerations(NAMES, map(drawn, range(42_000, 42_016))) >= 4


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
