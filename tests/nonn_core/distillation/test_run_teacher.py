import json
import shutil
import signal

import pytest
import torch
from forked_python import TRAINING, template

from nonn_common.errors import InputError, NonnError
from nonn_core.distillation.loop import accuracy_pct
from nonn_core.distillation.run import train_teacher
from nonn_core.networks.family import parse_network
from nonn_core.recipe import OptimiserRecipe
from nonn_core.teacher.teacher import Teacher, TeacherCard

SPEC = parse_network("wrn10:4,6,8")

KILLED_IN_EPOCH_3 = """
import signal, sys
from pathlib import Path
from nonn_core.data.dataset import load_dataset
from nonn_core.networks.family import parse_network, NetworkSpec
from nonn_core.recipe import OptimiserRecipe
from nonn_core.distillation.run import train_teacher

def progress(what, done, total):
    if what == "epoch 3/4" and done % 5 == 2:
        print("in the middle of epoch 3", flush=True)
        signal.pause()

data, path = sys.argv[1:]
optimiser = OptimiserRecipe(epochs=4, batch_size=14, learning_rate=0.05)
train_teacher(
    parse_network("wrn10:4,6,8"), load_dataset(data), optimiser, 3, Path(path), progress
)
"""


def test_a_teacher_is_saved_with_its_card_and_metrics(teacher_path, tiny, short):
    names = sorted(path.name for path in teacher_path.parent.iterdir())
    assert names == ["teacher.json", "teacher.metrics.jsonl", "teacher.safetensors"]
    teacher = Teacher.load(teacher_path)
    assert teacher.card == TeacherCard(
        network="wrn10:4,6,8",
        data=tiny.source,
        image="3x8x8",
        classes=3,
        fconv="trunk",
        optimiser=short,
        seed=3,
        split_by_class=True,
        validation_accuracy_pct=teacher.card.validation_accuracy_pct,
        class_accuracy=teacher.card.class_accuracy,
    )
    assert [one.name for one in teacher.card.class_accuracy] == list(tiny.class_names)
    lines = teacher_path.with_suffix(".metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    last = json.loads(lines[-1])["validation_accuracy_pct"]
    assert teacher.card.validation_accuracy_pct == last
    _, validation = tiny.split(3)
    assert accuracy_pct(teacher.network, tiny, validation) == pytest.approx(last)


def test_the_same_seed_gives_the_same_teacher(teacher, teacher_path, tiny, short, tmp_path):
    again = train_teacher(SPEC, tiny, short, 3, tmp_path / "teacher.safetensors")
    assert again.card == teacher.card
    images = tiny.normalised(tiny.test.pixels)
    assert torch.equal(again(images)[0], teacher(images)[0])
    assert again.path.read_bytes() == teacher_path.read_bytes()


def test_a_finished_teacher_is_returned_as_it_is(teacher_path, tiny, short):
    def never(*_):
        pytest.fail("it was trained again")

    before = teacher_path.read_bytes()
    found = train_teacher(SPEC, tiny, short, 3, teacher_path, never)
    assert found.path == teacher_path
    assert teacher_path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"network": parse_network("wrn10:4,6,9")},
        {"seed": 4},
        {"optimiser": OptimiserRecipe(epochs=9)},
    ],
)
def test_another_teacher_is_not_overwritten(teacher_path, tiny, short, change):
    asked = {"network": SPEC, "optimiser": short, "seed": 3, **change}
    before = teacher_path.read_bytes()
    with pytest.raises(InputError, match="another teacher already") as caught:
        train_teacher(dataset=tiny, path=teacher_path, **asked)
    assert str(teacher_path) in str(caught.value)
    assert teacher_path.read_bytes() == before


@pytest.mark.parametrize("name", ["teacher", "teacher.json", "teacher.pt"])
def test_other_suffixes_are_refused(tiny, short, tmp_path, name):
    with pytest.raises(InputError, match=r"a name ending in \.safetensors"):
        train_teacher(SPEC, tiny, short, 3, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_of_another_teacher_is_refused(tiny, short, tmp_path):
    path = tmp_path / "teacher.safetensors"

    def dies(what, done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_teacher(SPEC, tiny, short, 3, path, dies)
    with pytest.raises(InputError, match="checkpoint of another run"):
        train_teacher(SPEC, tiny, short, 4, path)
    assert train_teacher(SPEC, tiny, short, 3, path).card.seed == 3


def test_a_json_of_somebody_else_is_said_before_training(tiny, short, tmp_path):
    (tmp_path / "t.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match=r"t\.json: holds something else than a TeacherCard"):
        train_teacher(SPEC, tiny, short, 3, tmp_path / "t.safetensors", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]


def fails(what, done, total):
    pytest.fail("training has begun")


def test_a_teacher_whose_card_could_not_be_written_is_finished_later(
    tiny, short, tmp_path, monkeypatch
):
    path = tmp_path / "teacher.safetensors"

    def full(*_):
        raise NonnError("disk full")

    monkeypatch.setattr(TeacherCard, "write", full)
    with pytest.raises(NonnError, match="disk full"):
        train_teacher(SPEC, tiny, short, 3, path)
    monkeypatch.undo()
    train_teacher(SPEC, tiny, short, 3, path)
    assert Teacher.load(path).card.seed == 3


def test_kill_minus_9_and_resume_gives_what_an_uninterrupted_run_gives(tiny_folder, tiny, tmp_path):
    source = f"imagefolder:{tiny_folder}"
    killed = tmp_path / "killed" / "teacher.safetensors"
    whole = tmp_path / "whole" / "teacher.safetensors"
    with template(*TRAINING).start("-c", KILLED_IN_EPOCH_3, source, killed) as child:
        assert child.stdout.readline() == "in the middle of epoch 3\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    left = sorted(path.name for path in killed.parent.iterdir())
    assert left == ["teacher.checkpoint.safetensors", "teacher.metrics.jsonl"]
    assert len(killed.with_suffix(".metrics.jsonl").read_text().splitlines()) == 2

    optimiser = OptimiserRecipe(epochs=4, batch_size=14, learning_rate=0.05)
    steps = []
    train_teacher(SPEC, tiny, optimiser, 3, killed, lambda *told: steps.append(told[1]))
    assert steps == list(range(11, 21))
    train_teacher(SPEC, tiny, optimiser, 3, whole)
    for suffix in (".metrics.jsonl", ".json", ".safetensors"):
        assert killed.with_suffix(suffix).read_bytes() == whole.with_suffix(suffix).read_bytes()


def test_a_damaged_teacher_is_not_trained_over(teacher_path, tiny, short, tmp_path):
    for path in (teacher_path, teacher_path.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    path = tmp_path / teacher_path.name
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"teacher\.safetensors"):
        train_teacher(SPEC, tiny, short, 3, path)
    assert path.read_bytes() == b"garbage"
