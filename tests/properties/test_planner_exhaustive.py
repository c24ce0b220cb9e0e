"""The planner's optimum equals the best of all plans, enumerated and costed without a solver."""

import math
from dataclasses import replace

import pytest
from drawn_instances import (
    company_needed,
    crowded_media,
    random_instance,
    small_instance,
    with_layers,
)
from enumerated_plans import layers_ms, plan_values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from listed_plans import all_plans

from planner.data.modes import least_within, most_within, rounding_bound
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, ObjectiveBound
from planner.heuristics.board_load import enumerate_patterns
from planner.solvers.assignment_model import AssignmentModel
from planner.solvers.pattern_model import PatternModel
from planner.solvers.search import TimeBudget, search

MAXIMISED = [name for name, measure in OBJECTIVE_FUNCTIONS.items() if measure.maximise]
FAILURES = ("survival", "robustness", "reliability")
"""Objectives of boards that fail: `test_copies_exhaustive` compares these."""
ELSEWHERE = (*FAILURES, "latency-p95", "battery", "fleet-power", "fleet-average-power")
UNFAILING = [name for name in OBJECTIVE_FUNCTIONS if name not in ELSEWHERE]
"""Objectives here; `tests/planner/test_latency_p95.py` compares that of a percentile, and
`test_battery_exhaustive` and `test_averages_exhaustive` those of boards over time."""


def sharing(case):
    """The case with one G0 for the students of a board and a precision."""
    image, instance = case
    return image, replace(instance, shares_stem=True)


seeds = st.integers(0, 2**32 - 1)
separate = seeds.map(random_instance)
instances = separate | separate.map(sharing)
further = seeds.map(lambda n: small_instance(4 * n))
on_media = seeds.map(crowded_media) | seeds.map(crowded_media).map(sharing)


def best(plans, name):
    return max(plan[name] for plan in plans) if name in MAXIMISED else min(p[name] for p in plans)


def solved(instance, name, limits=()):
    return search(instance, OBJECTIVE_FUNCTIONS[name], limits, seed=0, time_budget=TimeBudget(60))


def slack_of(instance, name):
    """How far rounding up may carry a value, in solver units."""
    if OBJECTIVE_FUNCTIONS[name].nonlinear:
        return 4
    rounds = instance.max_students if instance.reuse else 1
    size = rounding_bound(
        len(instance.capacities), instance.max_students, rounds * instance.filters
    )
    size += 2 * len(instance.capacities) * instance.shares_stem
    return size if OBJECTIVE_FUNCTIONS[name].rounded else 1e-6


def optima(image, instance, names=UNFAILING):
    """The best value of each objective over all plans; empty where there is none."""
    divided = [each for each in plan_values(image, instance) if each["boards"].size]
    return {
        name: (max if name in MAXIMISED else min)(
            each[name].max() if name in MAXIMISED else each[name].min() for each in divided
        )
        for name in names
        if divided
    }


def assert_optimal(instance, known, names=UNFAILING):
    """Each objective's optimum is the best of all plans; without any, nothing is found."""
    for name in names:
        outcome = solved(instance, name)
        if not known:
            assert outcome.infeasible
            continue
        assert outcome.proven
        slack = slack_of(instance, name)
        assert outcome.value == pytest.approx(known[name], abs=slack), name


def without_hints(monkeypatch):
    """Let the solver find every plan itself."""
    monkeypatch.setattr("planner.solvers.search.local_search", lambda *_, **__: None)


INSTANCES = 272
PARTS = 8


@pytest.mark.parametrize("part", range(PARTS))
def test_the_solver_alone_equals_exhaustive_search(part, monkeypatch):
    without_hints(monkeypatch)
    for seed in range(part * INSTANCES // PARTS, (part + 1) * INSTANCES // PARTS):
        image, instance = small_instance(seed)
        assert_optimal(instance, optima(image, instance))


@pytest.mark.parametrize("seed", range(INSTANCES, INSTANCES + 24))
def test_the_whole_search_equals_exhaustive_search(seed):
    """The local search bounds the proof, and its plan is a hint."""
    image, instance = small_instance(seed)
    assert_optimal(instance, optima(image, instance))


SHARING = 208


@pytest.mark.parametrize("part", range(PARTS))
def test_students_that_share_g0_equal_exhaustive_search(part, monkeypatch):
    """Half of the objectives for each instance; the solver alone, or after the local search."""
    whole = part % 2
    if not whole:
        without_hints(monkeypatch)
    for seed in range(part * SHARING // PARTS, (part + 1) * SHARING // PARTS):
        image, instance = sharing(small_instance(seed))
        assert_optimal(instance, optima(image, instance), UNFAILING[seed // 4 % 2 :: 2])


@pytest.mark.parametrize("build", ["counted", "slots"])
@pytest.mark.parametrize("seed", [2, 6, 14])
def test_each_model_shares_g0(build, seed, monkeypatch):
    image, instance = sharing(small_instance(seed))
    without_hints(monkeypatch)
    monkeypatch.setattr("planner.solvers.level_solver._model", MODELS[build])
    assert_optimal(instance, optima(image, instance))


@pytest.mark.parametrize("seed", range(12))
def test_shared_g0_with_times_by_layers_equals_exhaustive_search(seed):
    """One model for each precision: by layers if all its students' are known, else by FLOPs."""
    image, instance = small_instance(seed)
    image, instance = sharing((image, with_layers(seed, image, instance)))
    assert_optimal(instance, optima(image, instance), UNFAILING[seed % 2 :: 2])


def test_instances_differ_where_students_share_g0():
    """In most of them some best plan is another one."""
    differ = precisions = 0
    for seed in range(40):
        image, instance = small_instance(seed)
        known = optima(image, instance)
        differ += bool(known) and known != optima(*sharing((image, instance)))
        precisions += len({mode.precision for mode in instance.modes}) > 1
    assert differ >= 20
    assert precisions >= 3


@pytest.mark.parametrize("build", ["slots", None])
@pytest.mark.parametrize("seed", range(18))
def test_plans_with_times_by_layers_equal_exhaustive_search(seed, build, monkeypatch):
    """Boards by rates, by measured layers and by FLOPs, also for networks of one problem."""
    image, instance = small_instance(seed)
    instance = with_layers(seed, image, instance)
    if build:
        without_hints(monkeypatch)
        monkeypatch.setattr("planner.solvers.level_solver._model", MODELS[build])
    assert_optimal(instance, optima(image, instance))


def test_the_instances_with_layers_are_timed_in_all_ways():
    """By layers alone, by FLOPs alone, and by both on one device."""
    found = set()
    for seed in range(18):
        image, instance = small_instance(seed)
        for site in with_layers(seed, image, instance).capacities:
            known = {layers_ms(site.board.device, mode.name, image, 5) for mode in instance.modes}
            found.add((None in known, len(known - {None}) > 0))
    assert found == {(True, True), (False, True), (True, False)}


def test_the_small_instances_reach_their_sizes():
    drawn = [small_instance(seed)[1] for seed in range(INSTANCES)]
    largest = [(one.max_students, len(one.capacities), len(one.sizes)) for one in drawn]
    assert max(largest) == (4, 4, 6)
    assert {len({option.name for option in one.modes}) for one in drawn} == {3}
    assert {len({option.precision for option in one.modes}) for one in drawn} == {1, 2}
    assert {len({option.group0 for option in one.modes}) for one in drawn} == {1, 2, 3}
    assert sum(one.reuse and one.max_students > len(one.sizes) for one in drawn) >= 20
    found = [search(one, None, seed=0, time_budget=TimeBudget(60)) for one in drawn]
    assert sum(each.assignment is not None for each in found) >= 200
    alone = [each.assignment for each in found if each.assignment and each.assignment.stem]
    assert len(alone) >= 10


@pytest.mark.parametrize("seed", range(0, 40, 4))
@pytest.mark.parametrize("build", ["counted", "slots"])
def test_each_model_has_all_plans_with_further_students(build, seed, monkeypatch):
    """More students than communities, up to three rounds of them."""
    image, instance = small_instance(seed)
    instance = replace(
        instance, sizes=instance.sizes[:2], drop_choices=instance.drop_choices[:1], max_students=5,
        capacities=instance.capacities[:2], modes=instance.modes[:3],
    )  # fmt: skip
    without_hints(monkeypatch)
    monkeypatch.setattr("planner.solvers.level_solver._model", MODELS[build])
    for fewest in (1, 3, 5):
        asked = replace(instance, min_students=fewest)
        assert_optimal(asked, optima(image, asked))


MODELS = {
    "counted": lambda one, **_: PatternModel(one, enumerate_patterns(one, most=10**6)),
    "slots": lambda one, timed, **_: AssignmentModel(one, timed=timed),
}


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("seed", [*range(8), 12, 16, 92])
def test_the_quick_enumeration_equals_the_slow_one(seed, share):
    """All send orders, all divisions, one plan after the other."""
    image, instance = small_instance(seed)
    instance = replace(
        instance, shares_stem=share, capacities=instance.capacities[:3], modes=instance.modes[:3],
        drop_choices=instance.drop_choices[:2], sizes=instance.sizes[:4], max_students=3,
        min_students=min(3, instance.min_students),
    )  # fmt: skip
    plans = list(all_plans(image, instance))
    known = optima(image, instance)
    assert bool(plans) == bool(known)
    for name, value in known.items():
        assert value == pytest.approx(best(plans, name), rel=1e-12), name


@settings(max_examples=100, deadline=None, derandomize=True)
@given(instances, st.permutations(sorted(UNFAILING)), st.sampled_from([0, 10, 40]))
def test_stages_equal_exhaustive_search_one_after_the_other(case, names, tolerance_pct):
    image, instance = case
    plans = list(all_plans(image, instance))
    assume(plans)
    limits = []
    for name in names[:3]:
        measure = OBJECTIVE_FUNCTIONS[name]
        outcome = solved(instance, name, limits)
        top = best(plans, name)
        slack = slack_of(instance, name)
        assert outcome.value == pytest.approx(top, abs=slack), name
        worst = least_within if measure.maximise else most_within
        limits.append(ObjectiveBound(measure, worst(outcome.value, tolerance_pct)))
        room = abs(top) * tolerance_pct / 100 + slack
        sign = -1 if measure.maximise else 1
        plans = [plan for plan in plans if sign * plan[name] <= sign * top + room]


@pytest.mark.parametrize("energy", [21_633_000, 21_626_699, 21_318_599, 14_730_599])
def test_the_accuracy_that_a_stage_found_can_be_kept_in_the_next(energy):
    """A logarithm is known to a unit, and each model has tangents of its own."""
    _, instance = random_instance(161)
    limits = [ObjectiveBound(OBJECTIVE_FUNCTIONS["energy"], energy)]
    accuracy = solved(instance, "accuracy", limits)
    limits.append(ObjectiveBound(OBJECTIVE_FUNCTIONS["accuracy"], accuracy.value))
    assert solved(instance, "boards", limits).proven


@settings(max_examples=80, deadline=None, derandomize=True)
@given(on_media, st.sampled_from([0, 30]))
def test_latency_on_shared_media_equals_exhaustive_search(case, tolerance_pct):
    """All send orders of all plans, replies queueing; then the fewest boards near that latency."""
    image, instance = case
    plans = list(all_plans(image, instance))
    assume(plans)
    outcome = solved(instance, "latency")
    top, slack = best(plans, "latency"), slack_of(instance, "latency")
    assert outcome.proven
    assert outcome.value == pytest.approx(top, abs=slack)
    limit = ObjectiveBound(
        OBJECTIVE_FUNCTIONS["latency"], most_within(outcome.value, tolerance_pct)
    )
    near = [plan for plan in plans if plan["latency"] <= top * (1 + tolerance_pct / 100) + slack]
    assert solved(instance, "boards", [limit]).value == best(near, "boards")
    short = ObjectiveBound(OBJECTIVE_FUNCTIONS["latency"], math.floor(top - slack) - 1)
    assert solved(instance, "boards", [short]).infeasible


@pytest.mark.parametrize("budget", ["busy", "energy"])
@pytest.mark.parametrize("sizes", [(30, 4), (7, 4)])
def test_a_student_that_keeps_a_budget_in_company_only(sizes, budget):
    image, instance = company_needed(sizes, budget)
    plans = list(all_plans(image, instance))
    assert plans
    for name in UNFAILING:
        outcome = solved(instance, name)
        assert outcome.proven
        assert outcome.value == pytest.approx(best(plans, name), abs=slack_of(instance, name)), name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(instances | on_media | further, st.sampled_from(sorted(UNFAILING)))
def test_more_memory_and_more_macs_never_make_the_optimum_worse(case, name):
    _, instance = case
    measure = OBJECTIVE_FUNCTIONS[name]
    before = solved(instance, name)
    assume(not before.infeasible)
    grown = tuple(
        replace(
            site,
            memory_bytes=site.memory_bytes and 2 * site.memory_bytes,
            macs=site.macs and 2 * site.macs,
        )
        for site in instance.capacities
    )
    after = solved(replace(instance, capacities=grown), name)
    assert after.proven
    assert after.value >= before.value if measure.maximise else after.value <= before.value


@settings(max_examples=60, deadline=None, derandomize=True)
@given(instances | further, st.sampled_from(sorted(UNFAILING)))
def test_one_more_board_never_makes_the_optimum_worse(case, name):
    _, instance = case
    measure = OBJECTIVE_FUNCTIONS[name]
    before = solved(instance, name)
    assume(not before.infeasible)
    after = solved(
        replace(instance, capacities=(*instance.capacities, instance.capacities[0])), name
    )
    assert after.value >= before.value if measure.maximise else after.value <= before.value
