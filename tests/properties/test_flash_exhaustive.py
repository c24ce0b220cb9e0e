"""Plans for boards whose flash and RAM are apart equal the best of all plans."""

from dataclasses import replace

import pytest
from drawn_instances import random_instance, small_instance, with_flash
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_planner_exhaustive import (
    UNFAILING,
    assert_optimal,
    optima,
    slack_of,
    solved,
    without_hints,
)

from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.exploration.enumeration import Enumeration

INSTANCES = 208
PARTS = 8


def drawn(seed):
    """G0 is shared in each second instance; G0 of its own and further rounds are in, too."""
    image, instance = small_instance(seed)
    return image, replace(with_flash(seed, instance), shares_stem=seed // 4 % 2 == 1)


def objectives_of(seed):
    return [UNFAILING[(2 * seed + n) % len(UNFAILING)] for n in range(2)]


@pytest.mark.parametrize("part", range(PARTS))
def test_flash_and_ram_apart_equal_exhaustive_search(part, monkeypatch):
    """Two objectives of each; by patterns, by slots (each third), with local search or without."""
    if part % 2:
        without_hints(monkeypatch)
    if part % 3 == 0:
        monkeypatch.setattr(
            "planner.heuristics.board_load.enumerate_patterns", lambda *_, **__: None
        )
    for seed in range(part, INSTANCES, PARTS):
        image, instance = drawn(10_000 + seed)
        assert_optimal(instance, optima(image, instance), objectives_of(seed))


def test_an_enumeration_of_plans_keeps_flash_and_ram():
    found = 0
    for seed in range(60):
        image, instance = drawn(20_000 + 4 * seed + 2)
        name = ("capacity", "latency", "memory")[seed % 3]
        goal = OBJECTIVE_FUNCTIONS[name]
        every = Enumeration.of(instance, [goal])
        if every is None:
            continue
        known = optima(image, instance)
        plans = every.undominated([goal], ())
        outcome = plans.search(goal, ())
        assert outcome.infeasible == (not known)
        if known:
            found += 1
            assert outcome.value == pytest.approx(known[name], abs=slack_of(instance, name)), name
    assert found > 20


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(UNFAILING)), st.booleans())
def test_more_flash_or_ram_never_makes_the_optimum_worse(seed, name, shared):
    _, instance = random_instance(seed)
    instance = replace(with_flash(seed, instance), shares_stem=shared)
    measure = OBJECTIVE_FUNCTIONS[name]
    before = solved(instance, name)
    assume(not before.infeasible)
    grown = tuple(
        replace(
            site,
            flash_bytes=site.flash_bytes and site.flash_bytes + 5_000 * (seed % 3 > 0),
            ram_bytes=site.ram_bytes and site.ram_bytes + 1_000 * (seed % 3 < 2),
        )
        for site in instance.capacities
    )
    after = solved(replace(instance, capacities=grown), name)
    assert after.proven
    assert after.value >= before.value if measure.maximise else after.value <= before.value
