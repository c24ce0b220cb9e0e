"""Runs whose teacher sees fixed views once: same files at the end, nothing left behind."""

import copy
import shutil
import signal

import pytest
from forked_python import TRAINING, template

from nonn_common.errors import InputError, NonnError, TrainingError
from nonn_core.distillation.output_cache import TeacherOutputCache
from nonn_core.distillation.run import load_run, train
from nonn_core.recipe import TrainingRecipe
from nonn_core.teacher.teacher import Teacher

FILES = ["checkpoint.safetensors", "metrics.jsonl", "model.safetensors", "train.yaml"]

PAUSES = """
import signal, sys
from pathlib import Path
from nonn_core.distillation.run import train
from nonn_core.recipe import TrainingRecipe

recipe, folder, where, at = sys.argv[1:]

def progress(what, done, total):
    if what.startswith(where) and done == int(at):
        print("here", flush=True)
        signal.pause()

train(TrainingRecipe.read(recipe), Path(folder), progress=progress)
"""


def changed(recipe, **parts):
    content = copy.deepcopy(recipe.model_dump(mode="json"))
    for part, fields in parts.items():
        content[part] = content[part] | fields
    return TrainingRecipe.check(content, "this test")


@pytest.fixture(scope="module")
def recipe(nonn_recipe):
    """Three epochs of five batches, with all that is drawn: views, dropout, order."""
    return changed(
        nonn_recipe,
        optimiser={"epochs": 3},
        distillation={"student_dropout": 0.3},
        compute={"cached_views": 2},
    )


@pytest.fixture(scope="module")
def finished(recipe, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    return folder, train(recipe, folder, tiny)


def same_files(one, other):
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def killed(recipe, folder, where, at):
    """Run until progress says `where` and `at`, and kill -9 there."""
    path = folder.parent / "recipe.yaml"
    recipe.write(path)
    with template(*TRAINING).start("-c", PAUSES, path, folder, where, at) as child:
        assert child.stdout.readline() == "here\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_finished_run_leaves_no_lessons(finished, tiny):
    folder, history = finished
    written = sorted([*FILES, "moments.safetensors", "versions.json"])
    assert sorted(path.name for path in folder.iterdir()) == written
    assert history[-1].losses["transfer"] < history[0].losses["transfer"]
    load_run(folder, tiny)


def test_kill_minus_9_while_the_teacher_shows_and_while_students_learn(
    recipe, tiny, tmp_path, finished
):
    folder = tmp_path / "run"
    # The second view has been written but not noted as whole.
    killed(recipe, folder, "teacher's outputs", 130)
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["lessons-0.bin", "lessons-0.json", "train.yaml", "versions.json"]
    killed(recipe, folder, "epoch 2/3", 8)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    steps = []
    assert train(recipe, folder, tiny, lambda *told: steps.append(told)) == finished[1]
    # One epoch was lost, and no view.
    assert [told[1] for told in steps] == list(range(6, 16))
    same_files(folder, finished[0])
    assert not list(folder.glob("lessons*"))


def test_a_finished_run_asks_the_teacher_nothing(recipe, tiny, finished):
    told = []
    assert train(recipe, finished[0], tiny, lambda *one: told.append(one)) == finished[1]
    assert told == []


def test_no_more_views_are_made_than_epochs_can_show(recipe, tiny, tmp_path, monkeypatch):
    made = []
    build = TeacherOutputCache.build
    monkeypatch.setattr(
        TeacherOutputCache,
        "build",
        lambda file, *arguments: made.append(file.views) or build(file, *arguments),
    )
    train(changed(recipe, compute={"cached_views": 50}), tmp_path / "run", tiny)
    assert made == [3]


def test_a_full_disk_is_said_and_nothing_is_lost(recipe, tiny, tmp_path, monkeypatch, finished):
    def full(file, done):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TeacherOutputCache, "_check_room", full)
    with pytest.raises(NonnError, match=r"No space left on device; make room or lower"):
        train(recipe, tmp_path / "run", tiny)
    monkeypatch.undo()
    assert train(recipe, tmp_path / "run", tiny) == finished[1]


def test_the_lessons_of_another_teacher_are_not_used(recipe, teacher_path, tiny, tmp_path):
    for file in teacher_path.parent.glob("teacher.*"):
        shutil.copy(file, tmp_path / file.name)
    own = changed(recipe).model_copy(update={"teacher": str(tmp_path / "teacher.safetensors")})

    def stops(what, done, total):
        if what.startswith("epoch"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(own, tmp_path / "run", tiny, stops)
    teacher = Teacher.load(tmp_path / "teacher.safetensors")
    teacher.network.fc.bias += 1
    teacher.save()
    told = []
    train(own, tmp_path / "run", tiny, lambda *one: told.append(one))
    assert [one[1] for one in told if one[0].startswith("teacher's outputs")] == [65, 130]


def test_half_precision_sees_the_same_losses(recipe, tiny, tmp_path):
    # Steps so small that rounding has no time to grow.
    slow = changed(recipe, optimiser={"learning_rate": 1e-5})
    half = changed(slow, compute={"cached_views": 2, "precision": "bf16"})
    pair = train(slow, tmp_path / "fp32", tiny), train(half, tmp_path / "bf16", tiny)
    for one, other in zip(*pair, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=0.01)
        assert one.losses != other.losses
    _, network = load_run(tmp_path / "bf16", tiny)
    assert {str(value.dtype) for value in network.parameters()} == {"torch.float32"}


def test_a_run_may_go_on_elsewhere_but_not_otherwise(recipe, tiny, tmp_path):
    def stops(what, done, total):
        if done == 7 and what.startswith("epoch"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", tiny, stops)
    other = changed(recipe, compute={"cached_views": 2, "precision": "bf16"})
    with pytest.raises(InputError, match="the run of another recipe"):
        train(other, tmp_path / "run", tiny)
    elsewhere = changed(recipe, compute={"cached_views": 2, "device": "cpu"})
    assert len(train(elsewhere, tmp_path / "run", tiny)) == 3


def test_a_device_that_is_not_here_is_refused_at_once(recipe, tiny, tmp_path):
    with pytest.raises(InputError, match=r"compute\.device: there is no such device here"):
        train(changed(recipe, compute={"device": "cuda:77"}), tmp_path / "run", tiny)
    assert not (tmp_path / "run").exists()


def test_a_cached_run_that_diverges_says_so(recipe, tiny, tmp_path):
    with pytest.raises(TrainingError, match=r"diverged in epoch 1.*no epoch was finished"):
        train(changed(recipe, optimiser={"learning_rate": 1e6}), tmp_path / "run", tiny)
