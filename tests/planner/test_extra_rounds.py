"""More students than communities: all kept filters are reshuffled and handed out again."""

from itertools import chain

import pytest
from planner_questions import partition, question, stages

from nonn_common.errors import InputError
from nonn_core.recipe import OptimiserRecipe
from planner.data.objective_function import OBJECTIVE_FUNCTIONS, rounding_units
from planner.plan_file.training_recipe import require_matching_recipe, training_recipe
from planner.plan_file.validation import violations
from planner.solve import solve

SIZES = (3, 4, 5, 6)


@pytest.fixture(scope="module")
def plan():
    """Eight students of four communities on eight boards."""
    return solve(
        question(
            "rpi3x8",
            SIZES,
            reuse=True,
            max_students=8,
            objective=stages("students", "imbalance", "latency"),
        )
    )


def in_round(plan, number):
    return [student for student in plan.students if student.round == number]


def edited(plan, place, **changes):
    rows = plan.model_dump(mode="json")["students"]
    rows[place] |= changes
    return type(plan).model_validate(plan.model_dump(mode="json") | {"students": rows})


def test_eight_students_of_four_communities_are_a_valid_plan(plan):
    assert plan.status == "optimal"
    assert violations(plan) == []
    assert [len(in_round(plan, number)) for number in (1, 2)] == [4, 4]


def test_further_students_have_all_kept_filters_reshuffled(plan):
    first, second = (in_round(plan, number) for number in (1, 2))
    for students in (first, second):
        filters = list(chain.from_iterable(student.filters for student in students))
        assert sorted(filters) == list(range(sum(SIZES)))
    sizes = {student.communities: len(student.filters) for student in first}
    assert {student.communities: len(student.filters) for student in second} == sizes
    assert {s.filters for s in first} != {s.filters for s in second}


def test_all_eight_are_trained(plan):
    optimiser = OptimiserRecipe(epochs=1, batch_size=8, learning_rate=0.1)
    found = training_recipe(plan, optimiser=optimiser, data="digits", teacher="t.safetensors")
    trained = [(each.network, each.filters) for each in found.model.students]
    assert trained == [(each.network, each.filters) for each in plan.students]
    assert len({each.name for each in found.model.students}) == 8
    require_matching_recipe(plan, found, "this test")


def test_still_more_students_than_planned_can_be_trained(plan):
    optimiser = OptimiserRecipe(epochs=1, batch_size=8, learning_rate=0.1)
    given = {"optimiser": optimiser, "data": "digits", "teacher": "t.safetensors"}
    students = training_recipe(plan, students=11, **given).model.students
    assert len({each.name for each in students}) == 11
    assert [each.filters for each in students[:8]] == [each.filters for each in plan.students]
    assert sum(len(each.filters) for each in students[8:]) >= 3 * min(SIZES)
    with pytest.raises(InputError, match="fewer students than the plan has"):
        training_recipe(plan, students=7, **given)


def test_dropped_filters_are_not_reshuffled():
    steps = [((3,), 0.5)]
    found = solve(
        question(
            "rpi3x8",
            partition=partition(SIZES, steps),
            reuse=True,
            min_students=6,
            objective=stages("dropped", "latency"),
        )
    )
    assert found.dropped == (3,)
    assert violations(found) == []
    filters = chain.from_iterable(student.filters for student in in_round(found, 2))
    assert set(filters) == set(range(12))


def place_of(plan, number):
    return next(p for p, student in enumerate(plan.students) if student.round == number)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda plan: edited(plan, place_of(plan, 2), communities=[9]),
            "community 9 does not exist",
        ),
        (
            lambda plan: edited(plan, place_of(plan, 2), round=3),
            "round 2 must have each kept community, as it is not the last",
        ),
        (
            lambda plan: edited(
                plan,
                place_of(plan, 2),
                communities=list(in_round(plan, 2)[1].communities),
            ),
            "round 2 must have kept communities, each once; it has",
        ),
        (
            lambda plan: edited(plan, place_of(plan, 2), communities=[0, 1]),
            "where filters are reshuffled a student has one community",
        ),
        (
            lambda plan: type(plan).model_validate(
                plan.model_dump(mode="json")
                | {"question": plan.question.model_dump(mode="json") | {"reuse": False}}
            ),
            "the question allows no further students with reshuffled filters",
        ),
    ],
)
def test_rounds_edited_by_hand_are_rejected(plan, change, told):
    assert any(told in problem for problem in violations(change(plan)))


def test_more_students_than_communities_need_reuse():
    asked = question("rpi3x8", SIZES, min_students=5, max_students=8)
    assert solve(asked).status == "infeasible"
    reused = question("rpi3x8", SIZES, min_students=5, max_students=8, reuse=True)
    assert len(solve(reused).students) >= 5


def test_each_round_rounds_up_the_costs_of_its_filters():
    few, many = (question("rpi3x8", SIZES, reuse=reuse) for reuse in (False, True))
    dropping = question(
        "rpi3x8", partition=partition((3, 4, 5), [((2,), 0.5)]), reuse=True, max_students=5
    )
    assert (few.most_filters, many.most_filters) == (18, 36)
    assert dropping.most_filters == 36
    latency = OBJECTIVE_FUNCTIONS["latency"]
    assert rounding_units(many, latency) == rounding_units(few, latency) + 2 * 18
