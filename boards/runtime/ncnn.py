"""A model run by ncnn, which is loaded only when a model is opened with it.

For machines without a wheel of onnxruntime.
"""

from dataclasses import dataclass

import numpy as np

from boards.runtime.model import Batch, Engine, check_batch
from nonn_core.bundle import BundledModel, ModelPrecision, Port
from nonn_core.ncnn_net import NcnnNet
from profiles.errors import InputError


@dataclass(frozen=True, slots=True)
class NcnnModel:
    """A model in a net of ncnn, on the CPU, in fp32 throughout."""

    name: str
    reads: Port
    answers: Port
    net: NcnnNet

    @property
    def engine(self) -> Engine:
        """What computes it."""
        return "ncnn"

    @property
    def precision(self) -> ModelPrecision:
        """Of its weights and activations."""
        return "fp32"

    def answer(self, images: Batch) -> Batch:
        """Map (n, *reads.shape) to (n, *answers.shape), both float32.

        Raises InputError where the model cannot read `images`, BoardError where ncnn fails.
        """
        check_batch(images, self.reads, self.name)
        return self.net(images)


def open_ncnn(
    model: BundledModel, param: bytes, weights: bytes, threads: int, where: str
) -> NcnnModel:
    """Open an ncnn model, on `threads` threads; `where` names the file that `param` is of.

    Raises InputError where ncnn cannot load it, or it answers another shape than the manifest says.
    """
    opened = NcnnModel(
        model.name, model.reads, model.answers, NcnnNet.open(param, weights, threads, where)
    )
    # ncnn's files say nothing of shapes.
    found = opened.answer(np.zeros((1, *model.reads.shape), np.float32)).shape[1:]
    if found != model.answers.shape:
        raise InputError(
            "answers another shape than the manifest says",
            where=where,
            found=found,
            allowed=str(model.answers.shape),
        )
    return opened
