"""Comparisons of one figure of plans: planner, quick enumeration and slow one, on drawn cases."""

from dataclasses import replace

import numpy as np
import pytest
from enumerated_plans import plan_values
from listed_plans import all_plans
from test_planner_exhaustive import best, optima, slack_of, solved

from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.exploration.enumeration import Enumeration


def compare_under_limits(name, cases):
    """The most capacity, with a figure between the least and the most of all plans at most.

    Gives the number of cases in which no plan lies too near to the limit to be compared.
    """
    compared = 0
    for image, instance in cases:
        found = [each for each in plan_values(image, instance) if each["boards"].size]
        if not found:
            continue
        figures = np.concatenate([each[name] for each in found])
        params = np.concatenate([each["capacity"] for each in found])
        limit = int((figures.min() + figures.max()) // 2)
        if np.any(np.abs(figures - limit) <= slack_of(instance, name) + 1):
            continue
        outcome = solved(instance, "capacity", [ObjectiveBound(OBJECTIVE_FUNCTIONS[name], limit)])
        assert outcome.proven
        assert outcome.value == params[figures <= limit].max()
        compared += 1
    return compared


def compare_quick_with_slow(names, cases):
    """The best of each figure, by all plans at once and by one plan after the other."""
    for image, instance in cases:
        instance = replace(
            instance, modes=instance.modes[:2], sizes=instance.sizes[:3], stems=(),
            capacities=tuple(replace(one, cycle=None) for one in instance.capacities[:2]),
            drop_choices=instance.drop_choices[:1], min_students=1, copies_stem=True,
        )  # fmt: skip
        plans, known = list(all_plans(image, instance)), optima(image, instance, names)
        assert bool(plans) == bool(known)
        for name in known:
            assert known[name] == pytest.approx(best(plans, name), rel=1e-12)


def compare_enumerations(names, cases):
    """The best of each figure, by the program's enumeration; gives the number of cases with one."""
    found, goals = 0, [OBJECTIVE_FUNCTIONS[name] for name in names]
    for image, instance in cases:
        every = Enumeration.of(instance, goals)
        known = every and optima(image, instance, names)
        if known:
            for name, goal in zip(names, goals, strict=True):
                outcome = every.undominated(goals, ()).search(goal, ())
                assert outcome.value == pytest.approx(known[name], abs=slack_of(instance, name))
            found += 1
    return found
