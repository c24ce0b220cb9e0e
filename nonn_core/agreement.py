"""Whether exported models, run together as boards and host would, say what the torch model says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from nonn_core.bundle import Agreement, ModelPrecision
from nonn_core.data.dataset import Dataset
from nonn_core.deployment import Part
from nonn_core.onnx_graph import Array, Inference, inference
from nonn_core.progress import Progress, silent

_BATCH = 256

Models = Mapping[str, onnx.ModelProto]
"""ONNX models by the stem of their part."""


@dataclass(frozen=True, slots=True)
class Fc:
    """The FC layer: weight (classes, inputs) and bias (classes,)."""

    weight: Array
    bias: Array

    @classmethod
    def of(cls, layer: nn.Linear) -> "Fc":
        """Copy a torch layer."""
        return cls(layer.weight.detach().numpy(), layer.bias.detach().numpy())

    def __call__(self, vectors: Sequence[Array]) -> Array:
        """Map each student's vectors (N, filters) to logits (N, classes)."""
        return np.concatenate(vectors, axis=1) @ self.weight.T + self.bias


def together(parts: Sequence[Part], models: Models, fc: Fc | None) -> Inference:
    """Return what all models compute together: pixels (N, C, H, W) to logits (N, classes)."""
    runs = {part.stem: inference(models[part.stem]) for part in parts}
    root = next((runs[part.stem] for part in parts if part.role == "group0"), None)
    others = [runs[part.stem] for part in parts if part.role != "group0"]

    def logits(pixels: Array) -> Array:
        shared = pixels if root is None else root(pixels)
        answers = [run(shared) for run in others]
        return answers[0] if fc is None else fc(answers)

    return logits


def agreement(
    exported: Mapping[ModelPrecision, Inference],
    network: nn.Module,
    dataset: Dataset,
    progress: Progress = silent,
) -> tuple[Agreement, ...]:
    """Compare exported models of each precision with a network on all test images.

    Nothing is chosen by the outcome: test images only judge.
    """
    images = dataset.test
    tallies = {precision: _Tally() for precision in exported}
    for start in range(0, len(images), _BATCH):
        pixels = images.pixels[start : start + _BATCH]
        labels = images.labels[start : start + _BATCH].numpy()
        with torch.no_grad():
            expected = network(dataset.normalised(pixels))[0].numpy()
        for precision, logits in exported.items():
            tallies[precision].add(logits(pixels.float().numpy()), expected, labels)
        progress("checking", min(start + _BATCH, len(images)), len(images))
    return tuple(tally.row(precision, len(images)) for precision, tally in tallies.items())


@dataclass(slots=True)
class _Tally:
    """What has been seen of one precision so far."""

    agreeing: int = 0
    right: int = 0
    largest_difference: float = 0.0
    largest_logit: float = 0.0

    def add(self, found: Array, expected: Array, labels: NDArray[np.int64]) -> None:
        difference = float(np.abs(found - expected).max())
        self.largest_difference = max(self.largest_difference, difference)
        self.largest_logit = max(self.largest_logit, float(np.abs(expected).max()))
        named = found.argmax(axis=1)
        self.agreeing += int((named == expected.argmax(axis=1)).sum())
        self.right += int((named == labels).sum())

    def row(self, precision: ModelPrecision, images: int) -> Agreement:
        return Agreement(
            precision=precision,
            images=images,
            largest_difference=self.largest_difference,
            largest_logit=self.largest_logit,
            label_agreement_pct=100 * self.agreeing / images,
            accuracy_pct=100 * self.right / images,
        )
