import copy

import pytest

from nonn_common.errors import InputError
from nonn_core.networks.family import parse_network
from nonn_core.networks.resnet import WrnSpec
from nonn_core.recipe import TrainingRecipe


@pytest.fixture
def content():
    """A recipe of two students as a person would write it."""
    return {
        "data": "digits",
        "image": "1x16x16",
        "teacher": "teacher.safetensors",
        "model": {
            "kind": "nonn",
            "students": [
                {"name": "left", "network": "wrn16:32,64,88", "filters": [0, 5]},
                {"name": "right", "network": "wrn16-2", "filters": [3]},
            ],
        },
        "optimiser": {"epochs": 3},
    }


def test_what_is_not_written_is_as_published(content):
    recipe = TrainingRecipe.check(content, "this test")
    # A, section 5.1: learning rate 0.1, momentum 0.9, alpha 0.9; beta is one of 10 .. 10000.
    assert (recipe.optimiser.learning_rate, recipe.optimiser.momentum) == (0.1, 0.9)
    assert recipe.distillation.alpha == 0.9
    assert recipe.distillation.beta in (10, 100, 1000, 10000)


@pytest.mark.parametrize("name", ["train.yaml", "train.json"])
def test_a_recipe_survives_its_file(content, tmp_path, name):
    recipe = TrainingRecipe.check(content, "this test")
    recipe.write(tmp_path / name)
    assert TrainingRecipe.read(tmp_path / name) == recipe


def test_networks_are_kept_in_one_form(content):
    recipe = TrainingRecipe.check(content, "this test")
    assert [s.network for s in recipe.model.students] == ["wrn16:32,64,88", "wrn16:32,64,128"]
    assert recipe.model.students[1].spec == WrnSpec(16, (32, 64, 128))


def test_a_single_network_has_a_network_and_no_students(content):
    content["model"] = {"kind": "single", "network": "wrn16-1"}
    assert TrainingRecipe.check(content, "this test").model.spec == parse_network("wrn16-1")
    content["model"] = {"kind": "single", "students": []}
    with pytest.raises(InputError, match="model"):
        TrainingRecipe.check(content, "this test")


def test_students_may_mimic_the_same_filters(content):
    content["model"]["students"][1]["filters"] = [5, 9]
    students = TrainingRecipe.check(content, "this test").model.students
    assert [student.filters for student in students] == [(0, 5), (5, 9)]


@pytest.mark.parametrize("network", ["wrn16:16,64,88", "wrn10:32,64,88", "resnet18-cifar"])
def test_students_with_g0_of_their_own_may_be_of_any_shape(content, network):
    content["model"]["students"][1]["network"] = network
    content["model"]["group0"] = "separate"
    recipe = TrainingRecipe.check(content, "this test")
    assert recipe.model.students[1].spec == parse_network(network)


def test_a_splitnet_has_the_weights_of_its_published_program(content):
    content["model"] = {"kind": "splitnet", "network": "wrn16-8", "groups": [2, 2, 4]}
    model = TrainingRecipe.check(content, "this test").model
    assert model.spec == parse_network("wrn16-8")
    assert (model.gamma_weight, model.gamma_overlap, model.gamma_balance) == (1, 1, 10)


SPLITNET = {"kind": "splitnet", "network": "wrn16-1", "groups": [2, 2]}


@pytest.mark.parametrize(
    ("model", "part", "value", "why"),
    [
        (SPLITNET | {"groups": []}, "seed", 0, "groups"),
        (SPLITNET | {"groups": [1]}, "seed", 0, "groups"),
        (SPLITNET | {"groups": [2, 3]}, "seed", 0, "must divide the next"),
        (SPLITNET | {"groups": [4, 2]}, "seed", 0, "must divide the next"),
        (SPLITNET | {"groups": [2, 2, 2, 2]}, "seed", 0, "more levels of groups.*at most 3"),
        (SPLITNET | {"groups": [512, 512]}, "seed", 0, "more groups than"),
        (SPLITNET | {"assignment_share": 1}, "seed", 0, "assignment_share"),
        (SPLITNET | {"gamma_overlap": -1}, "seed", 0, "gamma_overlap"),
        (SPLITNET, "optimiser", {"epochs": 1}, "two epochs"),
        (SPLITNET, "distillation", {"attention": 1000}, "without attention transfer"),
        (SPLITNET, "distillation", {"student_dropout": 0.1}, "student_dropout needs a NoNN"),
        (
            {"kind": "single", "network": "wrn16-1"},
            "distillation",
            {"student_dropout": 0.1},
            "student_dropout needs a NoNN",
        ),
    ],
)
def test_what_does_not_go_with_a_model_is_refused(content, model, part, value, why):
    content["model"], content[part] = model, value
    with pytest.raises(InputError, match=why):
        TrainingRecipe.check(content, "this test")


def test_one_student_cannot_be_dropped(content):
    content["distillation"] = {"student_dropout": 0.5}
    TrainingRecipe.check(content, "this test")
    content["model"]["students"].pop()
    with pytest.raises(InputError, match="two students or more"):
        TrainingRecipe.check(content, "this test")


def edit(path, value):
    def change(content):
        *way, last = path
        place = content
        for key in way:
            place = place[key]
        place[last] = value

    return change


STUDENT = ["model", "students", 1]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (edit([*STUDENT, "network"], "wrn16:16,64,88"), "share G0"),
        (edit([*STUDENT, "network"], "wrn10:32,64,88"), "share G0"),
        (edit([*STUDENT, "network"], "resnet18"), "share G0"),
        (edit([*STUDENT, "network"], "lenet5"), "network.*not the name of a network"),
        (edit([*STUDENT, "network"], "wrn15-1"), "network.*not the depth"),
        (edit([*STUDENT, "name"], "left"), "different names"),
        (edit([*STUDENT, "name"], ""), "name"),
        (edit([*STUDENT, "filters"], []), "filters"),
        (edit([*STUDENT, "filters"], [-1]), "filters.0"),
        (edit([*STUDENT, "filters"], [3, 3]), "filter"),
        (edit(["model", "students"], []), "students"),
        (edit(["model", "kind"], "other"), "model"),
        (edit(["image"], "16x16"), "image.*CHANNELSxHEIGHTxWIDTH"),
        (edit(["optimiser", "epochs"], 0), "optimiser.epochs"),
        (edit(["optimiser", "epochs"], -3), "optimiser.epochs"),
        (edit(["optimiser", "batch_size"], 0), "optimiser.batch_size"),
        (edit(["optimiser", "learning_rate"], 0), "optimiser.learning_rate"),
        (edit(["optimiser", "learning_rate"], float("inf")), "optimiser.learning_rate"),
        (edit(["optimiser", "momentum"], 1), "optimiser.momentum"),
        (edit(["optimiser", "weight_decay"], -1), "optimiser.weight_decay"),
        (edit(["distillation"], {"alpha": 1.1}), "distillation.alpha"),
        (edit(["distillation"], {"temperature": 0}), "distillation.temperature"),
        (edit(["distillation"], {"beta": -1}), "distillation.beta"),
        (edit(["distillation"], {"attention": -1}), "distillation.attention"),
        (edit(["distillation"], {"student_dropout": 1}), "distillation.student_dropout"),
        (edit(["seed"], -1), "seed"),
        (edit(["surprise"], 1), "surprise: is not a field"),
    ],
)
def test_what_is_no_recipe_is_refused_by_field(content, change, why):
    changed = copy.deepcopy(content)
    change(changed)
    with pytest.raises(InputError, match=why):
        TrainingRecipe.check(changed, "this test")


@pytest.mark.parametrize("field", ["data", "image", "teacher", "model", "optimiser"])
def test_a_missing_field_is_named(content, field):
    del content[field]
    with pytest.raises(InputError, match=f"field {field}: is required and missing"):
        TrainingRecipe.check(content, "this test")


def test_a_beta_that_a_later_line_would_undo_is_refused(content, tmp_path):
    path = tmp_path / "train.yaml"
    TrainingRecipe.check(content | {"distillation": {"beta": 100}}, "this test").write(path)
    lines = path.read_text().splitlines()
    first = lines.index("  beta: 100.0") + 1
    path.write_text("\n".join([*lines[:first], "  beta: 0", *lines[first:]]))
    with pytest.raises(InputError) as caught:
        TrainingRecipe.read(path)
    told = f"{path}: key `beta` is given twice (lines {first}, {first + 1}); keep one of them"
    assert str(caught.value) == told
