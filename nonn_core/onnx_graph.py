"""Torch modules as ONNX models, and ONNX models as functions."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

OPSET = 18
ERRORS_ONLY = 3
"""onnxruntime's level of messages."""

Array = NDArray[np.float32]
Inference = Callable[[Array], Array]
"""Maps a batch to a batch."""


def to_onnx(module: nn.Module, example: Tensor, reads: str, answers: str) -> onnx.ModelProto:
    """Export a module with one input, named `reads`, and one output, named `answers`.

    `example` (N, ...) fixes all axes but the first.  Normalisations right after a convolution are
    folded into it.
    """
    # Networks that were just trained lie channels-last, from which the exporter makes detours.
    plain = copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with _quiet_exporter():
        program = torch.onnx.export(
            plain,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[reads],
            output_names=[answers],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
        )
    assert program is not None  # noqa: S101  (no file was named, so the model comes back)
    model = lean(program.model_proto)
    onnx.checker.check_model(model, full_check=True)
    return model


def lean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out, in place, what no runtime needs: notes of the exporter, which name source files."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for part in (model.graph.input, model.graph.output):
        for value in part:
            del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    return model


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model in onnxruntime, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def inference(model: onnx.ModelProto) -> Inference:
    """Return a model of one input and one output as a function, run by onnxruntime."""
    opened = session(model)
    reads = opened.get_inputs()[0].name

    def run(batch: Array) -> Array:
        answer: Array = opened.run(None, {reads: batch})[0]
        return answer

    return run


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Hide what the exporter says about libraries that we do not use, and of torch itself."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    # One line for each operator of torchvision, which is not installed.
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch 2.13 copies a part of its own pytree module that it calls deprecated.
            warnings.filterwarnings(
                "ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning
            )
            yield
    finally:
        registration.setLevel(level)
