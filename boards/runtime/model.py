"""A loaded model: one that is in this machine's memory and answers batches."""

from math import isfinite
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nonn_core.bundle import ModelPrecision, Port
from profiles.errors import InputError

Engine = Literal["onnxruntime", "ncnn"]
"""What computes: onnxruntime, or ncnn where it has no wheel (32-bit Arm)."""

Batch = NDArray[np.float32]


class LoadedModel(Protocol):
    """A model of a bundle, ready to answer; several threads may ask at once."""

    @property
    def name(self) -> str:
        """Its name in the manifest."""

    @property
    def engine(self) -> Engine:
        """What computes it."""

    @property
    def precision(self) -> ModelPrecision:
        """Of its weights and activations."""

    @property
    def reads(self) -> Port:
        """What goes in, after the batch."""

    @property
    def answers(self) -> Port:
        """What comes out, after the batch."""

    def answer(self, images: Batch) -> Batch:
        """Map (n, *reads.shape), of the values it reads, to (n, *answers.shape), both float32.

        Raises InputError where the array is of another type or shape, empty, or holds a value that
        is no finite number.
        """


def check_batch(images: Batch, reads: Port, where: str) -> None:
    """Make sure that a model can read `images`; `where` names the model.

    Raises InputError for another type or shape, an empty batch, or a value that is no finite
    number: engines differ in what they make of those, and ncnn's ReLU makes them zero.
    """
    if images.dtype != np.float32:
        raise InputError(
            f"{reads.name} is of another type",
            where=where,
            found=str(images.dtype),
            allowed="float32",
        )
    if images.ndim != len(reads.shape) + 1 or images.shape[1:] != reads.shape or not len(images):
        raise InputError(
            f"{reads.name} is of another shape",
            where=where,
            found=images.shape,
            allowed=f"(n, {', '.join(map(str, reads.shape))}) with n at least 1",
        )
    # The sum of squares is quicker; only where it is too large must each value be looked at.
    if not isfinite(np.vdot(images, images)) and not np.isfinite(images).all():
        raise InputError(
            f"{reads.name} holds a value that is no finite number",
            where=where,
            found=float(images[~np.isfinite(images)][0]),
        )
