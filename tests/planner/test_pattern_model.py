"""The two models hold the same plans, and take hints in their own order."""

from dataclasses import replace

import pytest
from drawn_problems import unlike_question
from ortools.sat.python import cp_model
from planner_questions import SMALL, question

from planner.data.objective_function import OBJECTIVE_FUNCTIONS
from planner.data.problem_data import community_classes, resolve_problem
from planner.heuristics.board_load import cached_loads, enumerate_patterns
from planner.heuristics.local_search import local_search
from planner.heuristics.solution import CostEvaluator
from planner.solvers.assignment_model import AssignmentModel
from planner.solvers.pattern_model import PatternModel
from planner.solvers.variables import choice_count, mode_choices

FLEETS = ("rpi-3b*3", "rpi-3b,odroid-xu4s*2", "rpi-4b,rpi-3b,odroid-xu4s")
SIZES = ((4, 4, 4, 4), (3, 3, 5), (2, 5, 7, 7))


def instance(fleet, sizes, **fields):
    asked = resolve_problem(question(fleet, sizes, memory=60_000, **fields))
    return replace(asked, counts_power=True)


def counted(asked):
    return PatternModel(asked, enumerate_patterns(asked, most=10**6))


def slots(asked):
    return AssignmentModel(asked, timed=True)


def best(model, name):
    measure = OBJECTIVE_FUNCTIONS[name]
    value = measure.read(model)
    if measure.maximise:
        model.model.maximize(value)
    else:
        model.model.minimize(value)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(model.model) == cp_model.OPTIMAL
    return round(solver.objective_value), model.assignment(solver)


@pytest.mark.parametrize("seed", range(8))
def test_choices_are_counted_without_being_listed(seed):
    data = resolve_problem(unlike_question(seed))
    assert choice_count(data) == len(mode_choices(data))
    alike = instance("rpi-3b*5,odroid-xu4s*2", (3, 3, 5, 2, 7), max_students=3 + seed)
    assert choice_count(alike) == len(mode_choices(alike))


def test_questions_that_differ_in_limits_alone_have_one_function_of_loads():
    asked = instance("rpi-3b,odroid-xu4s*2", (3, 3, 5))
    tight = asked.within_latency(10**6)
    assert tight.capacities != asked.capacities
    assert cached_loads(tight) is cached_loads(asked)
    robust = replace(asked, scenarios={})  # scenarios hold a fitted model: nothing to hash
    assert cached_loads(robust) is cached_loads(asked)
    others = replace(asked, shares_stem=not asked.shares_stem)
    assert cached_loads(others) is not cached_loads(asked)


STRAIGHT = sorted(
    name
    for name, measure in OBJECTIVE_FUNCTIONS.items()
    if not (measure.nonlinear or measure.per_board)
    and name not in ("battery", "fleet-average-power")  # without batteries and rate
)


@pytest.mark.parametrize("name", STRAIGHT)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("fleet", FLEETS)
def test_both_models_have_the_same_optimum_and_their_plans_have_that_value(fleet, sizes, name):
    asked = instance(fleet, sizes, min_students=2)
    values = set()
    for model in (counted(asked), slots(asked)):
        value, plan = best(model, name)
        appraiser = CostEvaluator(asked)
        view = appraiser.evaluate(appraiser.solution_of(plan))
        assert view.violation() == 0
        assert OBJECTIVE_FUNCTIONS[name].read(view) == value
        values.add(value)
    assert len(values) == 1


@pytest.mark.parametrize("name", ["latency", "energy", "imbalance"])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("build", [counted, slots])
def test_a_hint_is_a_plan_of_the_model(build, fleet, sizes, name):
    asked = instance(fleet, sizes, min_students=2)
    known, value = local_search(asked, OBJECTIVE_FUNCTIONS[name], (), seed=1)
    model = build(asked)
    model.model.minimize(OBJECTIVE_FUNCTIONS[name].read(model))
    model.hint(known)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.fix_variables_to_their_hinted_value = True
    assert solver.solve(model.model) == cp_model.OPTIMAL
    assert round(solver.objective_value) == value


@pytest.mark.parametrize("name", STRAIGHT)
@pytest.mark.parametrize("sizes", SIZES)
def test_local_search_is_never_better_than_the_proof(sizes, name):
    asked = instance(FLEETS[1], sizes)
    known, value = local_search(asked, OBJECTIVE_FUNCTIONS[name], (), seed=0)
    optimum, _ = best(slots(asked), name)
    sign = -1 if OBJECTIVE_FUNCTIONS[name].maximise else 1
    assert sign * value >= sign * optimum
    assert local_search(asked, OBJECTIVE_FUNCTIONS[name], (), seed=0) == (known, value)


def test_alike_students_and_boards_are_counted():
    asked = resolve_problem(
        question("rpi-3b*20", (5,) * 20, networks=SMALL[:2], min_students=20, max_students=20)
    )
    (twins,) = community_classes(asked)
    assert len(twins) == 20
    # One to four students of two networks on one kind of boards: 2 + 3 + 4 + 5 + ... loadings.
    listed = enumerate_patterns(asked, most=10_000)
    assert len(listed.entries) == sum(students + 1 for students in range(1, 21))
    assert enumerate_patterns(asked, most=229) is None
