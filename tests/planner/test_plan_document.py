"""Uses of a plan: a workload to simulate and a recipe to train."""

import pytest
from planner_questions import published, question

from nonn_common.errors import InputError
from nonn_core.recipe import OptimiserRecipe, TrainingRecipe
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.training_recipe import training_recipe
from planner.solve import solve

EPOCHS = OptimiserRecipe(epochs=3)


@pytest.fixture(scope="module")
def plan():
    return solve(published(teacher="teacher.safetensors", data="imagefolder:pictures"))


@pytest.fixture(scope="module")
def no_plan():
    return solve(question(memory=1000))


def test_the_workload_is_the_plans(plan):
    workload = plan_workload(plan)
    assert workload.image_bytes == 12_288  # A, section 6.1
    assert workload.send_order == plan.send_order
    assert [(one.name, one.board, one.macs, one.features) for one in workload.students] == [
        (one.name, one.board, one.macs, len(one.filters)) for one in plan.students
    ]


def test_the_recipe_trains_the_plans_students(plan, tmp_path):
    made = training_recipe(plan, optimiser=EPOCHS, seed=5)
    assert (made.teacher, made.data) == ("teacher.safetensors", "imagefolder:pictures")
    assert (made.image, made.seed, made.optimiser) == ("3x32x32", 5, EPOCHS)
    assert [(one.name, one.network, one.filters) for one in made.model.students] == [
        (one.name, one.network, one.filters) for one in plan.students
    ]
    made.write(tmp_path / "train.yaml")
    assert TrainingRecipe.read(tmp_path / "train.yaml") == made


def test_what_is_given_comes_before_what_the_plan_names(plan):
    made = training_recipe(plan, optimiser=EPOCHS, data="digits", teacher="other.safetensors")
    assert (made.teacher, made.data) == ("other.safetensors", "digits")
    assert made.teacher_fingerprint is None


@pytest.mark.parametrize("missing", ["data", "teacher"])
def test_without_data_or_teacher_there_is_no_recipe(missing):
    given = {"data": "digits", "teacher": "teacher.safetensors"} | {missing: None}
    with pytest.raises(InputError, match=f"which {missing}.*--{missing}"):
        training_recipe(solve(question()), optimiser=EPOCHS, **given)


def test_a_proof_that_there_is_no_plan_can_be_neither_simulated_nor_trained(no_plan):
    with pytest.raises(InputError, match="infeasible"):
        plan_workload(no_plan)
    with pytest.raises(InputError, match="infeasible"):
        training_recipe(no_plan, optimiser=EPOCHS)
