import pytest

from nonn_common.errors import InputError, TrainingError
from nonn_core.recipe import Axis, Trial, best_trial, grid_settings, setting_label, with_setting


def test_a_grid_is_every_combination():
    axes = [Axis.parse("distillation.beta=10,1e3"), Axis.parse("optimiser.learning_rate=0.1,0.05")]
    assert [tuple(setting.values()) for setting in grid_settings(axes)] == [
        (10, 0.1), (10, 0.05), (1000, 0.1), (1000, 0.05),
    ]  # fmt: skip
    assert setting_label(grid_settings(axes)[2]) == "beta=1000,learning_rate=0.1"
    assert grid_settings([]) == ({},)


def test_a_value_named_twice_is_tried_once():
    assert Axis.parse("distillation.alpha=0.9,0.90,0.5").values == (0.9, 0.5)


def test_a_setting_changes_its_fields_only(nonn_recipe):
    found = with_setting(nonn_recipe, {"distillation.beta": 7.0, "optimiser.batch_size": 9.0})
    assert (found.distillation.beta, found.optimiser.batch_size) == (7, 9)
    restored = with_setting(
        found,
        {
            "distillation.beta": nonn_recipe.distillation.beta,
            "optimiser.batch_size": nonn_recipe.optimiser.batch_size,
        },
    )
    assert restored == nonn_recipe
    assert with_setting(nonn_recipe, {}) == nonn_recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("beta=10", "distillation.beta"),
        ("distillation.beta", "not numbers"),
        ("distillation.beta=much", "much"),
        ("distillation.beta=1,,2", "not numbers"),
        ("distillation.beta=1,nan", "not numbers"),
        ("seed=1,2", "distillation.alpha"),
    ],
)
def test_wrong_axes(text, told):
    with pytest.raises(InputError, match=told):
        Axis.parse(text)


def test_a_field_twice():
    axis = Axis.parse("distillation.beta=10,20")
    with pytest.raises(InputError, match="twice"):
        grid_settings([axis, axis])


def test_a_value_that_no_recipe_allows(nonn_recipe):
    with pytest.raises(InputError, match=r"distillation\.alpha"):
        with_setting(nonn_recipe, {"distillation.alpha": 2.0})


def test_the_best_validation_accuracy_wins_and_the_first_of_equals():
    trials = [Trial({"x": 1}, 80.0), Trial({"x": 2}, 90.0), Trial({"x": 3}, 90.0)]
    assert best_trial(trials).setting == {"x": 2}
    assert best_trial([Trial({"x": 1}, None), Trial({"x": 2}, 0.0)]).setting == {"x": 2}
    with pytest.raises(TrainingError, match="every setting"):
        best_trial([Trial({"x": 1}, None)])


def test_forms_of_the_losses_are_tried_by_name(nonn_recipe):
    axis = Axis.parse("distillation.form=authors,printed,authors")
    assert axis.values == ("authors", "printed")
    settings = grid_settings([axis, Axis.parse("distillation.beta=10000")])
    assert [setting_label(each) for each in settings] == [
        "form=authors,beta=10000",
        "form=printed,beta=10000",
    ]
    assert with_setting(nonn_recipe, settings[0]).distillation.form == "authors"
    with pytest.raises(InputError, match="logit-standardised"):
        Axis.parse("distillation.form=mine")
