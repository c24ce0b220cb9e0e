"""A Pareto front equals the undominated ones of all plans, enumerated without a solver."""

from dataclasses import replace
from itertools import product

import numpy as np
from drawn_instances import random_instance, small_instance, with_layers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from listed_plans import all_plans
from test_planner_exhaustive import UNFAILING, instances, on_media, slack_of

from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.exploration.enumeration import Enumeration, PricedSets
from planner.exploration.plan_chunk import undominated_rows
from planner.exploration.trade_offs import pareto_front_of
from planner.heuristics.board_load import cached_loads
from planner.heuristics.solution import evaluate_assignment
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


def layered(seed):
    """Boards that know layers, for students in one round, each with its own copy of G0."""
    image, instance = small_instance(4 * seed + 2 + seed % 2)
    return image, with_layers(seed, image, instance)


def sharing(seed):
    """The same, and students of one board and precision share G0."""
    image, instance = layered(seed) if seed % 3 else random_instance(seed)
    reuse = instance.max_students <= min(
        len(instance.sizes) - len(one.communities) for one in instance.drop_choices
    )
    return image, replace(instance, shares_stem=True, reuse=reuse)


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


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    instances | st.integers(0, 2**32 - 1).map(layered) | st.integers(0, 2**32 - 1).map(sharing),
    several,
)
def test_enumerated_it_is_the_solvers_row_for_row(case, names):
    _, instance = case
    goals = [OBJECTIVE_FUNCTIONS[name] for name in names]
    hidden = [int(slack_of(instance, name)) for name in names]
    every = Enumeration.of(instance, goals)
    assert every is not None
    found = pareto_front_of(goals, hidden, every.undominated(goals, ()).search)
    assert [one.costs for one in found.found] == front(instance, names)
    for one in found.found:
        plan = evaluate_assignment(instance, one.assignment)
        assert plan.violation() == 0
        for goal, cost, slack in zip(goals, one.costs, hidden, strict=True):
            assert cost <= (-1 if goal.maximise else 1) * goal.read(plan) <= cost + slack


@settings(max_examples=12, deadline=None, derandomize=True)
@given(instances, several, st.randoms())
def test_enumerated_within_limits_it_is_the_solvers(case, names, random):
    _, instance = case
    goals = [OBJECTIVE_FUNCTIONS[name] for name in names]
    plans = Enumeration.of(instance, goals).undominated(goals, ())
    assume(len(plans.costs))
    goal, *others = goals
    row = random.choice(plans.costs.tolist())
    limits = [
        ObjectiveBound(one, (-1 if one.maximise else 1) * cost)
        for one, cost in zip(others, row[1:], strict=True)
    ]
    solved = search(instance, goal, limits, seed=0, time_budget=TimeBudget(60))
    again = Enumeration.of(instance, goals).undominated([goal], limits)
    assert plans.search(goal, limits).value == solved.value == again.search(goal, ()).value


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 6), st.randoms())
def test_undominated_rows_are_those_that_no_other_row_is_as_good_as(columns, count, most, random):
    rows = np.array([[random.randint(0, most) for _ in range(columns)] for _ in range(count)])
    kept = undominated_rows(rows)
    every = {tuple(row) for row in rows.tolist()}
    best = {one for one in every if not any(as_good(o, one) for o in every - {one})}
    assert len(kept) == len(best)
    assert {tuple(row) for row in rows[kept].tolist()} == best


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([layered, sharing]))
def test_a_set_of_students_costs_what_the_searches_charge_for_it(seed, made):
    _, instance = made(seed)
    free = replace(
        instance,
        capacities=tuple(
            replace(one, memory_bytes=None, macs=None, busy=None, energy=None)
            for one in instance.capacities
        ),
    )
    priced, load = PricedSets(free), cached_loads(free)
    for modes, board in product(Enumeration(free, ()).shapes.values(), free.boards):
        for count in (1, 2, 3):
            sizes = tuple(sorted(free.sizes)[:count])
            sets = priced.of(board, modes, sizes, ())
            for row, chosen in enumerate(sets.modes.tolist()):
                one = load(board, tuple(sorted(zip(chosen, sizes, strict=False))))
                for name, figures in sets.figures.items():
                    assert figures[row] == getattr(one, name)
                assert (sets.send, sets.reply, sets.delay) == (one.send, one.reply, one.delay)
