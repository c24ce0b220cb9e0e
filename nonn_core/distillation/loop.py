"""Training loop, and the checkpoint that it leaves after each epoch.

One epoch is a function of the weights before it and of (seed, epoch) alone, and a checkpoint
is written whole after each, so that a run resumed after a kill ends with the metrics of one
that was never interrupted (same processor, same number of threads and processes).
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonn_common import Progress, silent
from nonn_common.document import write_atomic
from nonn_common.errors import DivergedError, InputError, TrainingError
from nonn_core.data.dataset import Dataset, Images
from nonn_core.distillation import accelerator
from nonn_core.distillation.accelerator import ON_CPU, Compute, inference_batch_size
from nonn_core.distillation.batches import Batch, Batches
from nonn_core.networks.modules import (
    Nonn,
    global_average_pool,
    load_weights,
    read_tensors,
    write_tensors,
)
from nonn_core.recipe import OptimiserRecipe

_MODEL, _MOMENTUM = "model.", "momentum."
_BUFFER = "momentum_buffer"


FIRST_BYTES = b'{"epoch"'
"""First bytes of a metrics file."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """Metrics of one epoch: mean training losses, and validation accuracy."""

    epoch: int
    learning_rate: float
    losses: dict[str, float]
    validation_accuracy_pct: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights, momentum and history in `path`, and the history as lines of JSON in `metrics`.

    `identity` says which run it belongs to; anything that JSON can hold.  Of several processes the
    first one reads and writes, and the others have what it has.
    """

    path: Path
    metrics: Path
    identity: Any

    def save(
        self, network: nn.Module, optimiser: torch.optim.SGD, history: list[EpochMetrics]
    ) -> None:
        """Write all of it, each file atomically; raises NonnError."""
        if accelerator.rank() > 0:
            return
        tensors = {f"{_MODEL}{name}": value for name, value in network.state_dict().items()}
        for name, parameter in network.named_parameters():
            momentum = optimiser.state[parameter].get(_BUFFER)
            if momentum is not None:
                tensors[f"{_MOMENTUM}{name}"] = momentum
        note = {"identity": self.identity, "history": [asdict(metrics) for metrics in history]}
        write_tensors(self.path, tensors, note)
        self._write_metrics(history)

    def restore(self, network: nn.Module, optimiser: torch.optim.SGD) -> list[EpochMetrics]:
        """Load what there is and return the epochs behind it.

        Raises InputError when it is damaged or belongs to another run.
        """
        tensors: dict[str, Tensor] = {}
        history: list[EpochMetrics] = []
        if accelerator.rank() == 0 and self.path.exists():
            tensors, history = self._read()
            load_weights(network, _below(_MODEL, tensors), self.path)
        momenta = _below(_MOMENTUM, tensors)
        history, moving = accelerator.broadcast_object((history, sorted(momenta)))
        restored = [*network.state_dict().values()]
        for name, parameter in network.named_parameters():
            if name in moving:
                # Laid out in memory as the weights are, which the file does not tell.
                momentum = torch.zeros_like(parameter)
                if name in momenta:
                    momentum.copy_(momenta[name])
                optimiser.state[parameter][_BUFFER] = momentum
                restored.append(momentum)
        accelerator.broadcast(restored)
        return history

    def _read(self) -> tuple[dict[str, Tensor], list[EpochMetrics]]:
        tensors, note = read_tensors(self.path)
        # Through JSON, as the checkpoint's own identity went, so that tuples and lists are equal.
        identity = json.loads(json.dumps(self.identity))
        if not isinstance(note, dict) or note.get("identity") != identity:
            raise InputError(
                "is the checkpoint of another run",
                where=str(self.path),
                fix="choose another output, or delete the file to start anew",
            )
        try:
            history = [EpochMetrics(**metrics) for metrics in note["history"]]
        except (TypeError, KeyError):
            raise InputError(
                "is a damaged checkpoint: its history cannot be read",
                where=str(self.path),
                fix="delete the file to start anew",
            ) from None
        # A kill between the checkpoint and the metrics leaves these a line short.
        self._write_metrics(history)
        return tensors, history

    def _write_metrics(self, history: list[EpochMetrics]) -> None:
        lines = "".join(json.dumps(asdict(metrics)) + "\n" for metrics in history)
        write_atomic(self.metrics, lines.encode())


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


WARM_UP_SHARE = 0.1

Objective = Callable[[Batch], Mapping[str, Tensor]]
"""Maps a batch to named losses; `loss` is minimised."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A network, its batches and objective, and its checkpoint.

    `validation` images of `dataset` judge each epoch; they and the batches are on the device of
    `compute`.
    """

    network: nn.Module
    objective: Objective
    batches: Batches
    dataset: Dataset
    validation: Images
    optimiser: OptimiserRecipe
    checkpoint: Checkpoint
    compute: Compute = ON_CPU


def fit(task: TrainingTask, progress: Progress = silent) -> list[EpochMetrics]:
    """Train to the last epoch, from the checkpoint if there is one.

    Returns all epochs' metrics.  The network is moved to the device and, once trained, to the CPU.
    Raises TrainingError when the loss stops being a number or the GPU's memory is too small (the
    last good checkpoint stays), and InputError when the checkpoint belongs to another run.
    """
    network = task.network.to(  # type: ignore[call-overload]
        task.compute.device, memory_format=torch.channels_last
    )
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=task.optimiser.learning_rate,
        momentum=task.optimiser.momentum,
        weight_decay=task.optimiser.weight_decay,
        nesterov=task.optimiser.momentum > 0,
    )
    history = task.checkpoint.restore(network, optimiser)
    for epoch in range(len(history), task.optimiser.epochs):
        try:
            losses = _train_epoch(task, optimiser, epoch, progress)
            accuracy = _validation_accuracy_pct(task)
        except torch.OutOfMemoryError:
            raise TrainingError(
                f"the memory of {task.compute.device} is too small; lower optimiser.batch_size"
            ) from None
        rate = optimiser.param_groups[0]["lr"]
        history.append(EpochMetrics(epoch + 1, rate, losses, accuracy))
        task.checkpoint.save(network, optimiser, history)
    network.cpu()
    return history


def accuracy_pct(network: nn.Module, dataset: Dataset, images: Images) -> float:
    """Share of `images` whose largest logit is the right class, in percent.

    Network and data set are on the same device.
    """
    right = predicted_classes(network, dataset, images) == images.labels
    return 100 * int(right.sum()) / len(images)


def predicted_classes(network: nn.Module, dataset: Dataset, images: Images) -> Tensor:
    """Class of the largest logit of each image, int64 (N,).

    Network and data set are on the same device.
    """
    network.eval()
    at_once = inference_batch_size(dataset.image, images.pixels.device)
    with torch.inference_mode():
        return torch.cat(
            [
                network(_channels_last(pixels))[0].argmax(dim=1)
                for pixels, _ in dataset.batches(images, at_once)
            ]
        )


def student_vectors(
    network: Nonn, dataset: Dataset, images: Images, progress: Progress = silent
) -> list[Tensor]:
    """Each student's answers to `images`, (N, filters) each.

    Network and data set are on the same device.
    """
    network.eval()
    at_once = inference_batch_size(dataset.image, images.pixels.device)
    batches: list[list[Tensor]] = []
    with torch.inference_mode():
        for pixels, _ in dataset.batches(images, at_once):
            batches.append([global_average_pool(maps) for maps in network(pixels)[1]])
            progress("evaluating", min(len(batches) * at_once, len(images)), len(images))
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def learning_rate(optimiser: OptimiserRecipe, step: int, steps: int) -> float:
    """Learning rate at `step` of `steps`.

    A linear rise over the first tenth, then half a cosine to zero.
    """
    rise = max(1, round(steps * WARM_UP_SHARE))
    if step < rise:
        return optimiser.learning_rate * (step + 1) / rise
    fallen = (step - rise) / max(1, steps - rise)
    return optimiser.learning_rate * (1 + math.cos(math.pi * fallen)) / 2


def steps_between_checks(device: torch.device) -> int:
    """Number of steps between two looks at the losses.

    A look makes the processor wait for a GPU.
    """
    return 1 if device.type == "cpu" else 50


def _train_epoch(
    task: TrainingTask, optimiser: torch.optim.SGD, epoch: int, progress: Progress
) -> dict[str, float]:
    """Run one pass over the training images and return the mean of each loss."""
    task.network.train()
    per_epoch = len(task.batches)
    steps = per_epoch * task.optimiser.epochs
    between_looks = steps_between_checks(task.compute.device)
    sums: dict[str, Tensor] = {}
    images: Tensor | int = 0
    for number, batch in enumerate(task.batches.epoch(epoch)):
        step = epoch * per_epoch + number
        optimiser.param_groups[0]["lr"] = learning_rate(task.optimiser, step, steps)
        losses, count = _gradients(task, optimiser, batch)
        # Sums stay on the device: reading one would make the processor wait for it.
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.double() * count
        images = images + count
        if (number + 1) % between_looks == 0:
            _check_finite(sums, f"epoch {epoch + 1}, batch {number + 1}", task, epoch)
        optimiser.step()
        progress(f"epoch {epoch + 1}/{task.optimiser.epochs}", step + 1, steps)
    _check_finite(sums, f"epoch {epoch + 1}", task, epoch)
    accelerator.broadcast([*task.network.buffers()])
    _check_finite(task.network.state_dict(), f"epoch {epoch + 1}", task, epoch)
    return {name: float(total / images) for name, total in sums.items()}


def _gradients(
    task: TrainingTask, optimiser: torch.optim.SGD, batch: Batch
) -> tuple[dict[str, Tensor], Tensor | int]:
    """Compute a step's gradients; return its losses, and over how many images they are means."""
    with task.compute.autocast():
        losses = task.objective(batch)
    optimiser.zero_grad()
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    found = {name: loss.detach() for name, loss in losses.items()}
    if accelerator.world_size() == 1:
        return found, len(batch.labels)
    gradients = [p.grad for p in task.network.parameters() if p.grad is not None]
    values, count = accelerator.all_reduce_mean(
        gradients, torch.stack([*found.values()]).float(), len(batch.labels)
    )
    return dict(zip(found, values.unbind(), strict=True)), count


def _validation_accuracy_pct(task: TrainingTask) -> float:
    with task.compute.autocast():
        return accuracy_pct(task.network, task.dataset, task.validation)


def _check_finite(
    values: Mapping[str, Tensor], when: str, task: TrainingTask, kept_epochs: int
) -> None:
    """Raise DivergedError when a loss or a weight is not a number any more."""
    bad = [name for name, value in values.items() if not torch.isfinite(value).all()]
    if bad:
        kept = (
            f"epoch {kept_epochs} is kept in {task.checkpoint.path}"
            if kept_epochs
            else "no epoch was finished"
        )
        raise DivergedError(
            f"training diverged in {when}: {bad[0]} is not a finite number; {kept}; lower the "
            f"learning rate (now {task.optimiser.learning_rate:g}) or beta, or raise the "
            "temperature, and start a new run"
        )


def _channels_last(pixels: Tensor) -> Tensor:
    """Lay images out channels-last, which convolutions on CPUs and GPUs prefer."""
    return pixels.contiguous(memory_format=torch.channels_last)
