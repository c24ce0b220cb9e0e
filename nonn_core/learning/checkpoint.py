"""What a run leaves on disk after each epoch, and how it goes on from there."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonn_core.learning import processes
from nonn_core.weights import load_weights, read_tensors, write_tensors
from profiles.document import write_atomic
from profiles.errors import InputError

_MODEL, _MOMENTUM = "model.", "momentum."
_BUFFER = "momentum_buffer"


FIRST_BYTES = b'{"epoch"'
"""What a file of metrics begins with."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What one epoch did: mean training losses, and accuracy on the validation images."""

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
        if processes.rank() > 0:
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
        if processes.rank() == 0 and self.path.exists():
            tensors, history = self._read()
            load_weights(network, _below(_MODEL, tensors), self.path)
        momenta = _below(_MOMENTUM, tensors)
        history, moving = processes.told_by_first((history, sorted(momenta)))
        restored = [*network.state_dict().values()]
        for name, parameter in network.named_parameters():
            if name in moving:
                # Laid out in memory as the weights are, which the file does not tell.
                momentum = torch.zeros_like(parameter)
                if name in momenta:
                    momentum.copy_(momenta[name])
                optimiser.state[parameter][_BUFFER] = momentum
                restored.append(momentum)
        processes.take_from_first(restored)
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
