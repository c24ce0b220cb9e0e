import errno
import json
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from killed_runs import KilledError, killed_at
from torch.nn import functional as F

from nonn_common.errors import InputError, NonnError, TrainingError
from nonn_core.data.dataset import load_dataset
from nonn_core.distillation import loop
from nonn_core.distillation.accelerator import Compute
from nonn_core.distillation.batches import LiveBatches
from nonn_core.distillation.loop import Checkpoint, TrainingTask, accuracy_pct, fit, learning_rate
from nonn_core.distillation.losses import classification
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import build_classifier, read_tensors, write_tensors
from nonn_core.recipe import OptimiserRecipe


@pytest.fixture
def task(tiny, tmp_path):
    """Return a function that makes a task whose files lie in this folder of tmp_path."""

    def make(
        folder="run",
        epochs=4,
        seed=0,
        batch_size=14,
        learning_rate=0.05,
        identity="this run",
        **changes,
    ):
        network = build_classifier(parse_network("wrn10:4,6,8"), 3, 3, seed)
        training, validation = tiny.split(0)

        def objective(batch):
            logits, maps = network(batch.images)
            return {"loss": F.cross_entropy(logits, batch.labels), "activity": maps[-1].mean()}

        where = tmp_path / folder
        where.mkdir(exist_ok=True)
        made = TrainingTask(
            network=network,
            objective=objective,
            batches=LiveBatches(tiny, training, batch_size, seed),
            dataset=tiny,
            validation=validation,
            optimiser=OptimiserRecipe(
                epochs=epochs, batch_size=batch_size, learning_rate=learning_rate
            ),
            checkpoint=Checkpoint(
                where / "checkpoint.safetensors", where / "metrics.jsonl", identity
            ),
        )
        return replace(made, **changes)

    return make


def same_weights(one, other):
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


def test_the_learning_rate_rises_and_falls():
    recipe = OptimiserRecipe(epochs=1, learning_rate=0.2)
    # 100 steps: ten rise, then half a cosine over the other 90.
    assert learning_rate(recipe, 0, 100) == pytest.approx(0.02)
    assert learning_rate(recipe, 4, 100) == pytest.approx(0.1)
    assert learning_rate(recipe, 9, 100) == pytest.approx(0.2)
    assert learning_rate(recipe, 10, 100) == pytest.approx(0.2)
    assert learning_rate(recipe, 40, 100) == pytest.approx(0.2 * (1 + math.cos(math.pi / 3)) / 2)
    assert learning_rate(recipe, 55, 100) == pytest.approx(0.1)
    assert learning_rate(recipe, 70, 100) == pytest.approx(0.05)
    assert learning_rate(recipe, 99, 100) == pytest.approx(0.1 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 15])
def test_the_learning_rate_of_short_runs_is_positive_and_starts_at_the_top(steps):
    recipe = OptimiserRecipe(epochs=1, learning_rate=0.1)
    rates = [learning_rate(recipe, step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in rates)
    assert max(rates) == pytest.approx(0.1)
    top = rates.index(max(rates))
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_training_learns_and_its_metrics_are_written(task, tiny):
    done = task(epochs=6)
    seen = []
    history = fit(done, lambda *told: seen.append(told))
    # 65 images in batches of 14 are five steps per epoch.
    assert seen == [(f"epoch {1 + k // 5}/6", k + 1, 30) for k in range(30)]
    assert [metrics.epoch for metrics in history] == [1, 2, 3, 4, 5, 6]
    last_steps = [learning_rate(done.optimiser, 5 * k + 4, 30) for k in range(6)]
    assert [metrics.learning_rate for metrics in history] == last_steps
    assert history[-1].losses["loss"] < history[0].losses["loss"] / 2
    assert history[-1].losses.keys() == {"loss", "activity"}
    # Three classes: chance is 33 %.
    assert accuracy_pct(done.network, tiny, tiny.test) > 70
    lines = [json.loads(line) for line in done.checkpoint.metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[2]["losses"] == history[2].losses
    assert lines[2]["validation_accuracy_pct"] == history[2].validation_accuracy_pct


def test_accuracy_is_the_share_of_right_classes(task, tiny):
    network = task().network
    with torch.no_grad():
        logits, _ = network.eval()(tiny.normalised(tiny.test.pixels))
    right = (logits.argmax(dim=1) == tiny.test.labels).sum().item()
    assert accuracy_pct(network, tiny, tiny.test) == pytest.approx(100 * right / 24)


@pytest.mark.parametrize("step", [1, 5, 6, 13, 20])
def test_a_killed_run_ends_as_if_it_had_not_been_killed(task, step):
    whole = task("whole")
    expected = fit(whole)
    with pytest.raises(KilledError):
        fit(task("killed"), killed_at(step))
    again = task("killed")
    assert fit(again) == expected
    same_weights(again, whole)
    assert again.checkpoint.metrics.read_bytes() == whole.checkpoint.metrics.read_bytes()
    mine, _ = read_tensors(again.checkpoint.path)
    theirs, _ = read_tensors(whole.checkpoint.path)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_run_killed_twice_ends_the_same(task):
    whole = task("whole")
    expected = fit(whole)
    for step in (7, 18):
        with pytest.raises(KilledError):
            fit(task("killed"), killed_at(step))
    again = task("killed")
    assert fit(again) == expected
    same_weights(again, whole)


def test_a_resumed_run_repeats_no_finished_epoch(task):
    with pytest.raises(KilledError):
        fit(task(), killed_at(13))
    seen = []
    fit(task(), lambda *told: seen.append(told[1]))
    assert seen == list(range(11, 21))


def test_a_finished_run_is_not_trained_again(task):
    first = task()
    expected = fit(first)
    again = task()
    assert fit(again, killed_at(1)) == expected
    same_weights(again, first)


def test_metrics_that_a_kill_cut_short_are_complete_after_resuming(task):
    # Killed after the last checkpoint was written and before the metrics were.
    done = task()
    fit(done)
    whole = done.checkpoint.metrics.read_bytes()
    done.checkpoint.metrics.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    fit(task())
    assert done.checkpoint.metrics.read_bytes() == whole


def test_the_global_generator_plays_no_part(task):
    torch.manual_seed(1)
    one = fit(task("one"))
    torch.manual_seed(2)
    assert fit(task("two")) == one


def test_the_seed_plays_one(task):
    assert fit(task("one", seed=1, epochs=1)) != fit(task("two", seed=2, epochs=1))


def nan_from(task, step):
    """Return the task with a loss that is not a number from this step on, counted from 1."""
    steps = 0

    def objective(batch):
        nonlocal steps
        steps += 1
        losses = dict(task.objective(batch))
        return losses if steps < step else {**losses, "loss": losses["loss"] * math.nan}

    return replace(task, objective=objective)


def test_a_diverging_run_stops_and_keeps_its_last_good_epoch(task):
    good = task("good")
    with pytest.raises(KilledError):
        fit(good, killed_at(11))
    with pytest.raises(
        TrainingError, match=r"epoch 3, batch 2.*loss is not a finite number.*epoch 2 is kept"
    ) as bad:
        fit(nan_from(task("bad"), 12))
    checkpoint = good.checkpoint.path.parent.parent / "bad" / "checkpoint.safetensors"
    assert str(checkpoint) in str(bad.value)
    mine, note = read_tensors(checkpoint)
    theirs, _ = read_tensors(good.checkpoint.path)
    assert len(note["history"]) == 2
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_where_losses_are_seldom_looked_at_a_diverging_run_stops_too(task, monkeypatch):
    monkeypatch.setattr(loop, "steps_between_checks", lambda _: 50)
    bad = nan_from(task(), 12)
    with pytest.raises(TrainingError, match=r"diverged in epoch 3: loss is not.*epoch 2 is kept"):
        fit(bad)
    tensors, note = read_tensors(bad.checkpoint.path)
    assert len(note["history"]) == 2
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_too_little_memory_is_said_and_the_run_can_go_on(task):
    whole = task("whole")
    expected = fit(whole)
    small = task("small")
    steps = 0

    def runs_out(batch):
        nonlocal steps
        steps += 1
        if steps == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return small.objective(batch)

    with pytest.raises(TrainingError, match=r"memory of cpu is too small; lower optimiser\.batch"):
        fit(replace(small, objective=runs_out))
    assert fit(task("small")) == expected


def test_half_precision_reaches_the_same_accuracy():
    digits = load_dataset("digits")
    found = {"fp32": [], "bf16": []}
    for precision, accuracies in found.items():
        for seed in (0, 1):
            network = build_classifier(parse_network("wrn10:8,16,24"), 1, 10, seed)
            training, validation = digits.split(seed)
            with tempfile.TemporaryDirectory() as folder:
                done = TrainingTask(
                    network=network,
                    objective=classification(network),
                    batches=LiveBatches(digits, training, 64, seed),
                    dataset=digits,
                    validation=validation,
                    optimiser=OptimiserRecipe(epochs=8, batch_size=64),
                    checkpoint=Checkpoint(Path(folder, "c"), Path(folder, "m"), None),
                    compute=Compute(torch.device("cpu"), precision),
                )
                fit(done)
            accuracies.append(accuracy_pct(network, digits, digits.test))
    assert min(*found["fp32"], *found["bf16"]) > 92
    assert sum(found["bf16"]) / 2 > sum(found["fp32"]) / 2 - 1.5


def test_a_run_that_diverges_at_once_leaves_no_checkpoint(task):
    bad = nan_from(task(), 1)
    with pytest.raises(TrainingError, match="no epoch was finished"):
        fit(bad)
    assert list(bad.checkpoint.path.parent.iterdir()) == []


def test_a_real_divergence_is_a_training_error(task):
    bad = task(epochs=3, learning_rate=1e6)
    with pytest.raises(TrainingError, match="lower the learning rate"):
        fit(bad)


def test_weights_that_are_no_numbers_are_never_kept(task):
    # The loss of the only step is finite, about 1e37; the weights after it are not.
    bad = task(epochs=1, batch_size=100, learning_rate=1e6)
    steep = replace(bad, objective=lambda batch: {"loss": bad.objective(batch)["loss"] * 1e37})
    with pytest.raises(TrainingError):
        fit(steep)
    assert not bad.checkpoint.path.exists()


def test_the_checkpoint_of_another_run_is_refused(task):
    first = task()
    fit(first)
    before = first.checkpoint.path.read_bytes()
    with pytest.raises(InputError, match="checkpoint of another run") as caught:
        fit(task(identity={"epochs": 4, "seed": 99}))
    assert str(first.checkpoint.path) in str(caught.value)
    assert first.checkpoint.path.read_bytes() == before


def test_identities_are_compared_as_json(task):
    with pytest.raises(KilledError):
        fit(task(identity={"widths": (4, 6, 8)}), killed_at(6))
    assert len(fit(task(identity={"widths": (4, 6, 8)}))) == 4


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_checkpoint_is_named(task, content):
    made = task()
    made.checkpoint.path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors"):
        fit(made)


@pytest.mark.parametrize("note", [None, [], {"history": []}, "text"])
def test_weights_that_are_no_checkpoint_are_refused(task, note):
    made = task()
    write_tensors(made.checkpoint.path, made.network.state_dict(), note)
    with pytest.raises(InputError, match="checkpoint of another run"):
        fit(made)


def test_a_full_disk_is_said_and_the_run_can_go_on(task, monkeypatch):
    whole = task("whole")
    expected = fit(whole)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fills_up(what, done, total):
        if done == 6:
            monkeypatch.setattr(os, "fsync", full)

    stopped = task("full")
    with pytest.raises(NonnError, match="No space left on device"):
        fit(stopped, fills_up)
    monkeypatch.undo()
    folder = stopped.checkpoint.path.parent
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint.safetensors", "metrics.jsonl"]
    _, note = read_tensors(stopped.checkpoint.path)
    assert len(note["history"]) == 1
    again = task("full")
    assert fit(again) == expected
    same_weights(again, whole)
