"""Answers of int8 models in exact sums, also where a processor has none.

Without VNNI the runtime adds pairs of int8 products in 16 bits, which saturate: answers of one
convolution were wrong by up to 21 % of their range where those of the same model in exact sums were
right within 2 %.
"""

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from nonn_core.export.onnx_model import inference


class QLinearAdd(OpRun):
    """The runtime's sum of two quantised tensors: added as real numbers, then rounded."""

    op_domain = "com.microsoft"

    def _run(self, a, a_scale, a_zero, b, b_scale, b_zero, scale, zero):
        total = (a.astype(np.float32) - a_zero) * a_scale + (
            b.astype(np.float32) - b_zero
        ) * b_scale
        limits = np.iinfo(zero.dtype)
        rounded = np.rint(total / scale) + zero
        return (np.clip(rounded, limits.min, limits.max).astype(zero.dtype),)


def exact_inference(model):
    """Return what answers images: the runtime or, on a processor without AVX-512, onnx itself."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return inference(model)
    later = onnx.ModelProto()
    later.CopyFrom(model)
    for used in later.opset_import:
        # Of (de)quantisation onnx itself knows only later versions, which do the same.
        used.version = used.version if used.domain else 21
    evaluator, name = ReferenceEvaluator(later, new_ops=[QLinearAdd]), model.graph.input[0].name
    return lambda images: evaluator.run(None, {name: images})[0]
