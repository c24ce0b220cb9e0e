import copy
import shutil

import numpy as np
import pytest

from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation, RepeatedEvaluation, SubsetAccuracy, summary
from nonn_core.distillation.run import train
from nonn_core.distillation.run_evaluation import evaluate_seeds, seed_folders, train_seeds
from nonn_core.recipe import TrainingRecipe


@pytest.fixture(scope="module")
def recipe(nonn_recipe):
    content = copy.deepcopy(nonn_recipe.model_dump(mode="json"))
    content["optimiser"]["epochs"], content["seed"] = 1, 9
    return TrainingRecipe.check(content, "this test")


@pytest.fixture(scope="module")
def repeated(recipe, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeated")
    return folder, train_seeds(recipe, folder, 2, tiny)


def test_each_seed_has_a_run_of_its_own(repeated, recipe, tiny, tmp_path):
    folder, histories = repeated
    assert list(histories) == [9, 10]
    assert sorted(path.name for path in folder.iterdir()) == ["seed-10", "seed-9"]
    alone = recipe.model_copy(update={"seed": 10})
    assert train(alone, tmp_path, tiny) == histories[10] != histories[9]
    model = "model.safetensors"
    assert (tmp_path / model).read_bytes() == (folder / "seed-10" / model).read_bytes()


def test_finished_seeds_are_not_trained_again(repeated, recipe, tiny):
    def never(what, done, total):
        raise AssertionError(what)

    assert train_seeds(recipe, repeated[0], 2, tiny, never) == repeated[1]


def test_folders_come_in_the_order_of_seeds(tmp_path):
    for name in ("seed-10", "seed-9", "seed-x", "seed-", "seed-09", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "seed-1").write_text("a file")
    assert [path.name for path in seed_folders(tmp_path)] == ["seed-9", "seed-10"]
    assert seed_folders(tmp_path / "nowhere") == []


def test_the_evaluation_of_seeds_is_that_of_each(repeated, tiny):
    folder, _ = repeated
    found = evaluate_seeds(folder, tiny)
    each = [Evaluation.read(folder / f"seed-{seed}" / "evaluation.json") for seed in (9, 10)]
    assert [one.seed for one in found.seeds] == [9, 10]
    assert [one.accuracy_pct for one in found.seeds] == [one.accuracy_pct for one in each]
    assert found.images == 24
    assert [one.students for one in found.subsets] == [("left",), ("right",), ("left", "right")]
    assert found.subsets[-1].accuracy_pct == pytest.approx(found.accuracy_pct)


def made(*accuracies):
    return [
        (
            seed,
            Evaluation(
                data="tiny",
                images=24,
                accuracy_pct=accuracy,
                subsets=(SubsetAccuracy(students=("a",), accuracy_pct=accuracy / 2),),
            ),
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def test_mean_and_deviation_are_those_of_numpy():
    accuracies = (93.5, 94.25, 92.0, 95.125)
    found = summary(made(*accuracies))
    assert found.accuracy_pct == pytest.approx(np.mean(accuracies))
    assert found.deviation_pct == pytest.approx(np.std(accuracies, ddof=1))
    assert found.subsets[0].accuracy_pct == pytest.approx(np.mean(accuracies) / 2)


def test_one_seed_has_no_deviation(tmp_path):
    found = summary(made(93.5))
    assert found.accuracy_pct == 93.5
    assert found.deviation_pct is None
    found.write(tmp_path / "evaluation.json")
    assert RepeatedEvaluation.read(tmp_path / "evaluation.json") == found


def test_an_unfinished_seed_is_named(repeated, recipe, tiny, tmp_path):
    shutil.copytree(repeated[0], tmp_path / "copy")
    (tmp_path / "copy" / "seed-10" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"seed-10: training has not finished"):
        evaluate_seeds(tmp_path / "copy", tiny)


def test_seeds_of_several_recipes_are_not_mixed(repeated, recipe, single_recipe, tiny, tmp_path):
    shutil.copytree(repeated[0], tmp_path / "copy")
    train(single_recipe, tmp_path / "copy" / "seed-5", tiny)
    with pytest.raises(InputError, match="not of one recipe"):
        evaluate_seeds(tmp_path / "copy", tiny)
