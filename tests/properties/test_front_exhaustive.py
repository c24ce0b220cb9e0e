"""A Pareto front equals the undominated ones of all plans, enumerated without a solver."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from listed_plans import all_plans
from test_planner_exhaustive import UNFAILING, instances, on_media, slack_of

from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.exploration.trade_offs import pareto_front_of
from planner.solvers.search import TimeBudget, search

EXACT = [
    name
    for name in UNFAILING
    if not (
        OBJECTIVE_FUNCTIONS[name].rounded
        or OBJECTIVE_FUNCTIONS[name].tolerance_units
        or OBJECTIVE_FUNCTIONS[name].nonlinear
    )
]
several = st.lists(st.sampled_from(sorted(UNFAILING)), min_size=2, max_size=3, unique=True)


def front(instance, names):
    """The front in solver units, less being better."""
    hidden = [int(slack_of(instance, name)) for name in names]
    goals = [OBJECTIVE_FUNCTIONS[name] for name in names]

    def searched(goal, limits, known):
        return search(instance, goal, limits, known, seed=0, time_budget=TimeBudget(60))

    found = pareto_front_of(goals, hidden, searched)
    assert found.complete
    return [one.costs for one in found.found]


def costs(plans, names):
    """The objectives of all plans, less being better."""
    signs = [-1 if OBJECTIVE_FUNCTIONS[name].maximise else 1 for name in names]
    return {
        tuple(sign * plan[name] for sign, name in zip(signs, names, strict=True)) for plan in plans
    }


def as_good(one, other):
    return all(a <= b for a, b in zip(one, other, strict=True))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(instances, st.lists(st.sampled_from(EXACT), min_size=2, max_size=3, unique=True))
def test_of_whole_numbers_it_is_the_same_set(case, names):
    image, instance = case
    every = costs(all_plans(image, instance), names)
    best = {one for one in every if not any(as_good(o, one) for o in every - {one})}
    found = front(instance, names)
    assert sorted(found) == sorted(best)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(instances | on_media, several)
def test_of_all_objectives_it_is_the_same_up_to_rounding(case, names):
    image, instance = case
    every = costs(all_plans(image, instance), names)
    assume(every)
    found = front(instance, names)
    slack = [slack_of(instance, name) for name in names]

    def moved(one, times):
        return tuple(value + times * s for value, s in zip(one, slack, strict=True))

    for one in found:
        near = [
            plan for plan in every if as_good(plan, moved(one, 1)) and as_good(one, moved(plan, 2))
        ]
        assert near, "each is a plan"
        assert not any(as_good(moved(other, 1), one) for other in found if other != one)
        better = [plan for plan in every if as_good(moved(plan, 1), one)]
        assert all(as_good(moved(one, -2), plan) for plan in better), "no plan dominates it"
    for plan in every:
        assert any(as_good(one, moved(plan, 2)) for one in found), "none is missing"
