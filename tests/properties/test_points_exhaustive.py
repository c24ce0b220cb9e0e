"""Operating points: the planner's optimum equals the best of all plans at all points.

Oracle: `enumerated_plans`, in which a board works at one point at most, by its own name.
"""

from dataclasses import replace

import pytest
from drawn_instances import small_instance, with_points
from enumerated_plans import plan_values
from test_planner_exhaustive import (
    MODELS,
    UNFAILING,
    assert_optimal,
    optima,
    sharing,
    without_hints,
)

NAMES = ("latency", "energy", "energy-node", "throughput", "accuracy", "boards", "capacity")
ENERGIES = ("energy", "energy-node")
PARTS, INSTANCES = 6, 204


def pointed(seed):
    image, instance = small_instance(seed)
    return image, with_points(seed, image, instance)


@pytest.mark.parametrize("part", range(PARTS))
def test_points_equal_exhaustive_search(part, monkeypatch):
    """A third of the objectives for each; one G0 or several; the solver alone, or after a search.

    Where a question asks no energy, quicker points take the place of slower ones: half of these.
    """
    if part % 2:
        without_hints(monkeypatch)
    for seed in range(part * INSTANCES // PARTS, (part + 1) * INSTANCES // PARTS):
        image, instance = pointed(seed)
        if seed // 4 % 2:
            image, instance = sharing((image, instance))
        known, names = optima(image, instance), NAMES[seed % 3 :: 3]
        for name in names:
            counts = name in ENERGIES or bool(seed // 2 % 2)
            assert_optimal(replace(instance, counts_energy=counts), known, (name,))


@pytest.mark.parametrize("build", ["counted", "slots"])
@pytest.mark.parametrize("seed", [2, 6, 7])
def test_each_model_keeps_one_point_per_board(build, seed, monkeypatch):
    image, instance = pointed(seed)
    without_hints(monkeypatch)
    monkeypatch.setattr("planner.solvers.level_solver._model", MODELS[build])
    known = optima(image, instance)
    assert_optimal(instance, known, UNFAILING)
    others = [name for name in UNFAILING if name not in ENERGIES]
    assert_optimal(replace(instance, counts_energy=False), known, others)


def test_most_instances_have_points_and_some_need_them():
    several = differ = 0
    for seed in range(60):
        image, instance = pointed(seed)
        several += len(set(instance.sites)) < len(instance.sites)
        first = {site: place for place, site in reversed([*enumerate(instance.sites)])}
        fast = sorted(first.values())
        one = replace(
            instance, capacities=tuple(instance.capacities[p] for p in fast), sites=()
        )  # fmt: skip
        known = optima(image, instance)
        differ += bool(known) and known != optima(image, one)
        assert all(each["boards"].size >= 0 for each in plan_values(image, instance))
    assert several >= 30
    assert differ >= 15
