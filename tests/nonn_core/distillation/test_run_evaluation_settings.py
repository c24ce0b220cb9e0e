import pytest

from nonn_common.errors import InputError
from nonn_core.distillation import loop
from nonn_core.distillation.run import train
from nonn_core.distillation.run_evaluation import tune
from nonn_core.recipe import Axis, best_trial, setting_label, with_setting


def test_every_setting_is_trained_into_its_own_folder(nonn_recipe, tiny, tmp_path):
    axes = [Axis.parse("distillation.beta=0,50")]
    trials = tune(nonn_recipe, axes, lambda setting: tmp_path / setting_label(setting), tiny)
    assert [trial.setting for trial in trials] == [
        {"distillation.beta": 0.0},
        {"distillation.beta": 50.0},
    ]
    for trial in trials:
        again = with_setting(nonn_recipe, trial.setting)
        found = train(again, tmp_path / f"again {setting_label(trial.setting)}", tiny)
        assert found[-1].validation_accuracy_pct == trial.validation_accuracy_pct


def test_a_finished_run_is_not_trained_again(single_recipe, tiny, tmp_path, monkeypatch):
    axes = [Axis.parse("distillation.alpha=0.5,0.9")]

    def place(setting):
        return tmp_path / setting_label(setting)

    first = tune(single_recipe, axes, place, tiny)
    monkeypatch.setattr(loop, "_train_epoch", None)
    assert tune(single_recipe, axes, place, tiny) == first


def test_a_run_of_another_recipe_is_not_taken_for_this_one(single_recipe, tiny, tmp_path):
    tune(single_recipe, [], lambda _: tmp_path, tiny)
    other = single_recipe.model_copy(update={"seed": 77})
    with pytest.raises(InputError, match="another recipe"):
        tune(other, [], lambda _: tmp_path, tiny)


def test_a_setting_that_diverges_is_a_trial_without_accuracy(single_recipe, tiny, tmp_path):
    axes = [Axis.parse("optimiser.learning_rate=1e5,0.05")]
    found = tune(single_recipe, axes, lambda setting: tmp_path / setting_label(setting), tiny)
    assert found[0].validation_accuracy_pct is None
    assert best_trial(found).setting == {"optimiser.learning_rate": 0.05}


def test_a_wrong_value_is_refused_before_anything_is_trained(single_recipe, tiny, tmp_path):
    axes = [Axis.parse("distillation.alpha=0.9,3")]
    with pytest.raises(InputError, match="alpha"):
        tune(single_recipe, axes, lambda setting: tmp_path / setting_label(setting), tiny)
    assert not list(tmp_path.iterdir())
