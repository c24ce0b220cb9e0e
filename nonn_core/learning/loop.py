"""The training loop, and how a run survives being killed.

One epoch is a function of the weights before it and of (seed, epoch) alone, and a checkpoint is
written whole after each, so that a run resumed after a kill ends with the metrics of one that was
never interrupted (same machine, same number of threads).
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonn_core.data.dataset import Dataset, Images
from nonn_core.learning.batches import Batch, Batches
from nonn_core.progress import Progress, silent
from nonn_core.recipe import OptimiserRecipe
from nonn_core.weights import load_weights, read_tensors, write_tensors
from profiles.document import write_atomic
from profiles.errors import InputError, TrainingError

WARM_UP_SHARE = 0.1
_EVALUATION_BATCH = 256
_MODEL, _MOMENTUM = "model.", "momentum."

Objective = Callable[[Batch], Mapping[str, Tensor]]
"""Maps a batch to named losses; `loss` is minimised."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What one epoch did: mean training losses, and accuracy on the validation images."""

    epoch: int
    learning_rate: float
    losses: dict[str, float]
    validation_accuracy_pct: float


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained, on what, towards what, and where its checkpoint and metrics lie.

    `validation` images of `dataset` judge each epoch.  `identity` says which run a checkpoint
    belongs to; anything that JSON can hold.
    """

    network: nn.Module
    objective: Objective
    batches: Batches
    dataset: Dataset
    validation: Images
    optimiser: OptimiserRecipe
    checkpoint: Path
    metrics: Path
    identity: Any


def fit(task: Task, progress: Progress = silent) -> list[EpochMetrics]:
    """Train to the last epoch, from the checkpoint if there is one; return all epochs' metrics.

    Raises TrainingError when the loss stops being a number (the last good checkpoint stays), and
    InputError when the checkpoint belongs to another run.
    """
    network = task.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=task.optimiser.learning_rate,
        momentum=task.optimiser.momentum,
        weight_decay=task.optimiser.weight_decay,
        nesterov=task.optimiser.momentum > 0,
    )
    history = _resumed(task, optimiser)
    if history:
        # A kill between the checkpoint and the metrics leaves these a line short.
        _write_metrics(task, history)
    epochs = task.optimiser.epochs
    for epoch in range(len(history), epochs):
        losses = _train_epoch(task, optimiser, epoch, progress)
        _check_finite(task.network.state_dict(), f"epoch {epoch + 1}", task, epoch)
        metrics = EpochMetrics(
            epoch=epoch + 1,
            learning_rate=optimiser.param_groups[0]["lr"],
            losses=losses,
            validation_accuracy_pct=accuracy_pct(task.network, task.dataset, task.validation),
        )
        history.append(metrics)
        _save(task, optimiser, history)
    return history


def accuracy_pct(network: nn.Module, dataset: Dataset, images: Images) -> float:
    """Share of `images` whose largest logit is the right class, in percent."""
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(_fast(pixels))[0].argmax(dim=1) == labels).sum())
            for pixels, labels in dataset.batches(images, _EVALUATION_BATCH)
        )
    return 100 * right / len(images)


def learning_rate(optimiser: OptimiserRecipe, step: int, steps: int) -> float:
    """Rate at `step` of `steps`: a linear rise over the first tenth, then half a cosine to zero."""
    rise = max(1, round(steps * WARM_UP_SHARE))
    if step < rise:
        return optimiser.learning_rate * (step + 1) / rise
    fallen = (step - rise) / max(1, steps - rise)
    return optimiser.learning_rate * (1 + math.cos(math.pi * fallen)) / 2


def _train_epoch(
    task: Task, optimiser: torch.optim.SGD, epoch: int, progress: Progress
) -> dict[str, float]:
    """Run one pass over the training images and return the mean of each loss."""
    task.network.train()
    per_epoch = len(task.batches)
    steps = per_epoch * task.optimiser.epochs
    sums: dict[str, float] = {}
    images = 0
    for number, batch in enumerate(task.batches.epoch(epoch)):
        step = epoch * per_epoch + number
        optimiser.param_groups[0]["lr"] = learning_rate(task.optimiser, step, steps)
        losses = task.objective(batch)
        _check_finite(losses, f"epoch {epoch + 1}, batch {number + 1}", task, epoch)
        optimiser.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + float(loss.detach()) * len(batch.labels)
        images += len(batch.labels)
        progress(f"epoch {epoch + 1}/{task.optimiser.epochs}", step + 1, steps)
    return {name: total / images for name, total in sums.items()}


def _check_finite(values: Mapping[str, Tensor], when: str, task: Task, kept_epochs: int) -> None:
    """Raise TrainingError when a loss or a weight is not a number any more."""
    bad = [name for name, value in values.items() if not torch.isfinite(value).all()]
    if bad:
        kept = (
            f"epoch {kept_epochs} is kept in {task.checkpoint}"
            if kept_epochs
            else "no epoch was finished"
        )
        raise TrainingError(
            f"training diverged in {when}: {bad[0]} is not a finite number; {kept}; lower the "
            f"learning rate (now {task.optimiser.learning_rate:g}) or beta and start a new run"
        )


def _fast(pixels: Tensor) -> Tensor:
    """Lay images out channels-last, which convolutions on CPUs and GPUs prefer."""
    return pixels.contiguous(memory_format=torch.channels_last)


def _save(task: Task, optimiser: torch.optim.SGD, history: list[EpochMetrics]) -> None:
    tensors = {f"{_MODEL}{name}": value for name, value in task.network.state_dict().items()}
    for name, parameter in task.network.named_parameters():
        momentum = optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"{_MOMENTUM}{name}"] = momentum
    note = {"identity": task.identity, "history": [asdict(metrics) for metrics in history]}
    write_tensors(task.checkpoint, tensors, note)
    _write_metrics(task, history)


def _write_metrics(task: Task, history: list[EpochMetrics]) -> None:
    lines = "".join(json.dumps(asdict(metrics)) + "\n" for metrics in history)
    write_atomic(task.metrics, lines.encode())


def _resumed(task: Task, optimiser: torch.optim.SGD) -> list[EpochMetrics]:
    """Load the checkpoint, if there is one, and return the epochs it has behind it."""
    if not task.checkpoint.exists():
        return []
    tensors, note = read_tensors(task.checkpoint)
    # Through JSON, as the checkpoint's own identity went, so that tuples and lists are equal.
    if not isinstance(note, dict) or note.get("identity") != json.loads(json.dumps(task.identity)):
        raise InputError(
            "is the checkpoint of another run",
            where=str(task.checkpoint),
            fix="choose another output, or delete the file to start anew",
        )
    load_weights(task.network, _below(_MODEL, tensors), task.checkpoint)
    momenta = _below(_MOMENTUM, tensors)
    for name, parameter in task.network.named_parameters():
        if name in momenta:
            optimiser.state[parameter]["momentum_buffer"] = momenta[name].to(
                memory_format=torch.channels_last
                if momenta[name].dim() == 4
                else torch.contiguous_format
            )
    try:
        return [EpochMetrics(**metrics) for metrics in note["history"]]
    except (TypeError, KeyError):
        raise InputError(
            "is a damaged checkpoint: its history cannot be read",
            where=str(task.checkpoint),
            fix="delete the file to start anew",
        ) from None


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
