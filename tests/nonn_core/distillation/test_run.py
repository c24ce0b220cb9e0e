import copy
import json
import platform
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import KilledError, killed_at

from nonn_common.errors import InputError, NonnError
from nonn_core.data.dataset import load_dataset
from nonn_core.distillation.construction import build_network
from nonn_core.distillation.loop import accuracy_pct
from nonn_core.distillation.run import load_run, train
from nonn_core.distillation.run_evaluation import evaluate
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.modules import (
    Classifier,
    Nonn,
    build_classifier,
    read_tensors,
    write_tensors,
)
from nonn_core.networks.network_cost import student_cost, teacher_cost
from nonn_core.recipe import TrainingRecipe
from nonn_core.teacher.inspection import measured_cost
from nonn_core.teacher.teacher import Teacher, TeacherCard, TrainedTeacher

FILES = ["checkpoint.safetensors", "metrics.jsonl", "model.safetensors", "train.yaml"]
MOMENTS = "moments.safetensors"


@pytest.fixture(scope="module")
def finished(nonn_recipe, tiny, tmp_path_factory):
    """The folder and the metrics of a finished NoNN run; for tests that change nothing."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(nonn_recipe, folder, tiny)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def changed(recipe, *path, value):
    content = copy.deepcopy(recipe.model_dump(mode="json"))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return TrainingRecipe.check(content, "this test")


@pytest.mark.parametrize("kind", ["nonn_recipe", "single_recipe"])
def test_a_trained_network_comes_back_from_its_folder(kind, request, tiny, tmp_path):
    recipe = request.getfixturevalue(kind)
    history = train(recipe, tmp_path / "run", tiny)
    moments = [MOMENTS] if kind == "nonn_recipe" else []
    written = sorted([*FILES, *moments, "versions.json"])
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == written
    found, network = load_run(tmp_path / "run", tiny)
    assert found == recipe
    assert not network.training
    assert isinstance(network, Nonn if kind == "nonn_recipe" else Classifier)
    assert [metrics.epoch for metrics in history] == [1, 2]
    # The validation images of the teacher's split, not another one's.
    _, validation = tiny.split(3)
    last = history[-1].validation_accuracy_pct
    assert accuracy_pct(network, tiny, validation) == pytest.approx(last)
    result = evaluate(network, recipe, tiny)
    assert result.accuracy_pct == pytest.approx(accuracy_pct(network, tiny, tiny.test))


def test_the_folder_says_what_computed_it(finished):
    versions = json.loads((finished[0] / "versions.json").read_text())
    python = versions.pop("python")
    assert python == platform.python_version()
    assert versions.keys() == {"nonn-plan", "torch", "numpy", "safetensors"}
    assert versions == {name: metadata.version(name) for name in versions}


def test_training_transfers_the_teacher_s_activations(nonn_recipe, tiny, tmp_path):
    recipe = changed(nonn_recipe, "optimiser", "epochs", value=6)
    history = train(recipe, tmp_path, tiny)
    assert history[0].losses.keys() == {"loss", "kd", "transfer"}
    assert history[-1].losses["transfer"] < history[0].losses["transfer"]
    assert history[-1].losses["loss"] < history[0].losses["loss"]


@pytest.mark.parametrize("step", [3, 8])
def test_a_killed_run_ends_as_if_it_had_not_been_killed(
    nonn_recipe, tiny, tmp_path, step, finished
):
    killed = tmp_path / "killed"
    whole, expected = finished
    with pytest.raises(KilledError):
        train(nonn_recipe, killed, tiny, killed_at(step))
    with pytest.raises(InputError, match="not finished"):
        load_run(killed, tiny)
    assert train(nonn_recipe, killed, tiny) == expected
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_run_loads_its_own_data(nonn_recipe, tmp_path, finished):
    assert train(nonn_recipe, tmp_path) == finished[1]


def test_the_deployed_students_cost_what_the_recipe_says(nonn_recipe, tiny, finished):
    _, network = load_run(finished[0], tiny)
    students = nonn_recipe.model.students
    for student, built in zip(students, network.deployed(), strict=True):
        expected = student_cost(student.spec, tiny.image, len(student.filters))
        assert measured_cost(built, tiny.image) == expected


def test_networks_are_built_from_the_recipe_and_its_seed(nonn_recipe, single_recipe):
    one, same = build_network(nonn_recipe, 3), build_network(nonn_recipe, 3)
    other = build_network(changed(nonn_recipe, "seed", value=6), 3)
    assert torch.equal(one.fc.weight, same.fc.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    single, image = build_network(single_recipe, 3), ImageShape(3, 8, 8)
    assert measured_cost(single, image) == teacher_cost(single_recipe.model.spec, image, 3)


def test_an_unfinished_run_is_said(nonn_recipe, tiny, tmp_path):
    nonn_recipe.write(tmp_path / "train.yaml")
    with pytest.raises(InputError, match=r"training has not finished.*nonn-plan train") as caught:
        load_run(tmp_path, tiny)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_a_run_is_named(tiny, tmp_path):
    with pytest.raises(InputError, match=r"train\.yaml.*no such file"):
        load_run(tmp_path / "nowhere", tiny)


def test_a_damaged_model_is_named(tiny, copied):
    (copied / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_run(copied, tiny)


def test_moments_are_those_of_the_features_of_validation_images(tiny, finished):
    _, network = load_run(finished[0], tiny)
    _, validation = tiny.split(3)
    with torch.no_grad():
        maps = network.student_maps(tiny.normalised(validation.pixels))
    features = torch.cat([each.mean(dim=(2, 3)) for each in maps], dim=1).numpy()
    np.testing.assert_allclose(network.moments.mean, features.mean(axis=0), rtol=1e-4, atol=1e-6)
    covariance = np.cov(features.T, ddof=0)
    ridge = network.moments.covariance - covariance
    np.testing.assert_allclose(ridge, ridge[0, 0] * np.eye(len(ridge)), rtol=1e-4, atol=1e-6)
    assert ridge[0, 0] > 0


def test_moments_of_other_weights_are_none_and_damaged_ones_are_named(tiny, copied):
    tensors, _ = read_tensors(copied / MOMENTS)
    write_tensors(copied / MOMENTS, tensors, "those of another network")
    assert load_run(copied, tiny)[1].moments is None
    (copied / MOMENTS).unlink()
    assert load_run(copied, tiny)[1].moments is None
    (copied / MOMENTS).write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"moments\.safetensors"):
        load_run(copied, tiny)


def test_a_finished_run_of_an_older_version_gets_moments(nonn_recipe, tiny, finished, copied):
    (copied / MOMENTS).unlink()
    assert train(nonn_recipe, copied, tiny) == finished[1]
    assert (copied / MOMENTS).read_bytes() == (finished[0] / MOMENTS).read_bytes()


def test_a_run_for_other_classes_is_refused(tiny, finished):
    more = replace(tiny, class_names=(*tiny.class_names, "one more"))
    with pytest.raises(InputError, match=r"class|tensor fc"):
        load_run(finished[0], more)


def test_a_run_for_other_images_is_refused(tiny, finished):
    digits = load_dataset("digits")
    with pytest.raises(InputError, match="image"):
        load_run(finished[0], replace(digits, class_names=tiny.class_names))


def test_the_folder_of_another_recipe_is_not_touched(single_recipe, tiny, copied):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    with pytest.raises(InputError, match="the run of another recipe") as caught:
        train(single_recipe, copied, tiny)
    assert str(copied) in str(caught.value)
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl", "versions.json"]
)
def test_files_of_somebody_else_are_not_overwritten(single_recipe, tiny, tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InputError, match=f"files of somebody else.*found '{name}'"):
        train(single_recipe, tmp_path, tiny)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"mine"


def test_a_recipe_in_its_own_folder_keeps_its_comments(nonn_recipe, tiny, copied):
    place = copied / "train.yaml"
    place.write_text("# mine\n" + place.read_text())
    train(nonn_recipe, copied, tiny)
    assert place.read_text().startswith("# mine\n")


def refused(recipe, folder, dataset, match):
    """The recipe is refused, and nothing is left behind."""
    with pytest.raises(InputError, match=match):
        train(recipe, folder, dataset)
    assert not folder.exists()


def test_filters_that_the_teacher_does_not_have_are_refused(nonn_recipe, tiny, tmp_path):
    recipe = changed(nonn_recipe, "model", "students", 0, "filters", value=[0, 8])
    refused(recipe, tmp_path / "run", tiny, r"does not have; found 8; allowed: 0\.\.7")


def test_another_image_shape_is_refused(nonn_recipe, tiny, tmp_path):
    recipe = changed(nonn_recipe, "image", value="3x16x16")
    refused(recipe, tmp_path / "run", tiny, "another shape than the recipe.*3x8x8.*3x16x16")


def test_other_data_than_the_teacher_s_is_refused(nonn_recipe, tmp_path):
    recipe = changed(nonn_recipe, "data", value="digits")
    refused(recipe, tmp_path / "run", None, "digits is not what the teacher was made for.*1x16x16")


def test_other_classes_than_the_teacher_s_are_refused(nonn_recipe, tiny, short, tmp_path):
    card = TeacherCard(
        network="wrn10:4,6,8",
        data="elsewhere",
        image="3x8x8",
        classes=5,
        fconv="trunk",
        optimiser=short,
        seed=0,
        validation_accuracy_pct=20,
    )
    network = build_classifier(card.spec, 3, 5, seed=0)
    other = TrainedTeacher(network, card, tmp_path / "five.safetensors")
    other.save()
    recipe = changed(nonn_recipe, "teacher", value=str(other.path))
    refused(
        recipe, tmp_path / "run", tiny, "not what the teacher was made for.*3 classes.*5 classes"
    )


def test_another_teacher_than_the_partitioned_one_is_refused(nonn_recipe, teacher, tiny, tmp_path):
    right = changed(nonn_recipe, "teacher_fingerprint", value=teacher.fingerprint)
    assert train(right, tmp_path / "right", tiny)
    wrong = changed(nonn_recipe, "teacher_fingerprint", value="0" * 32)
    refused(wrong, tmp_path / "wrong", tiny, "not the teacher that was partitioned")


def test_a_missing_teacher_is_named(nonn_recipe, tiny, tmp_path):
    recipe = changed(nonn_recipe, "teacher", value=str(tmp_path / "nobody.safetensors"))
    refused(recipe, tmp_path / "run", tiny, r"nobody\.safetensors: no such teacher")


def test_missing_data_is_named(nonn_recipe, tmp_path):
    recipe = changed(nonn_recipe, "data", value=f"imagefolder:{tmp_path / 'nothing'}")
    refused(recipe, tmp_path / "run", None, "nothing: no such folder or tar file")


def test_a_file_in_the_folder_s_place_is_said(nonn_recipe, tiny, tmp_path):
    (tmp_path / "run").write_text("I am a file")
    with pytest.raises(NonnError, match="run"):
        train(nonn_recipe, tmp_path / "run", tiny)
    assert (tmp_path / "run").read_text() == "I am a file"


def test_a_killed_run_does_not_go_on_with_another_teacher(
    nonn_recipe, teacher_path, tiny, tmp_path
):
    for file in teacher_path.parent.glob("teacher.*"):
        shutil.copy(file, tmp_path / file.name)
    own = changed(nonn_recipe, "teacher", value=str(tmp_path / "teacher.safetensors"))
    with pytest.raises(KilledError):
        train(own, tmp_path / "run", tiny, killed_at(7))
    teacher = Teacher.load(tmp_path / "teacher.safetensors")
    teacher.network.fc.bias += 1
    teacher.save()
    with pytest.raises(InputError, match="checkpoint of another run"):
        train(own, tmp_path / "run", tiny)


def test_a_killed_run_does_not_go_on_with_other_images(nonn_recipe, tiny, tmp_path):
    with pytest.raises(KilledError):
        train(nonn_recipe, tmp_path / "run", tiny, killed_at(7))
    pixels = tiny.train.pixels.clone()
    pixels[0, 0, 0, 0] ^= 1
    others = replace(tiny, train=replace(tiny.train, pixels=pixels))
    with pytest.raises(InputError, match="checkpoint of another run"):
        train(nonn_recipe, tmp_path / "run", others)


def test_a_checkpoint_with_a_foreign_history_is_damaged(nonn_recipe, tiny, tmp_path):
    with pytest.raises(KilledError):
        train(nonn_recipe, tmp_path / "run", tiny, killed_at(7))
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    tensors, note = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, {**note, "history": [{"epoch": 1}]})
    with pytest.raises(InputError, match=r"damaged checkpoint.*delete the file"):
        train(nonn_recipe, tmp_path / "run", tiny)
