"""Conversions to ONNX once for each network: the exporter takes seconds, and always says the same.

That it does is a test's own matter, which converts anew.
"""

import functools
import hashlib
import io
import pickle
from contextlib import contextmanager

import onnx
import pytest
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from nonn_core.export import run_export
from nonn_core.export.deployment import to_onnx

_converted = {}


@contextmanager
def conversions_kept():
    """Let `export` convert a network that it has converted before from memory.

    The exporter's table of operators, a third of its time, is made once for all conversions.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_export, "to_onnx", converted)
        patched.setattr(ONNXRegistry, "from_torchlib", staticmethod(_operators))
        yield


_operators = functools.cache(ONNXRegistry.from_torchlib)


@functools.wraps(to_onnx)
def converted(module, example, *names):
    """Convert a network, or take it from memory; every call has a model of its own."""
    key = _content(module, example, names)
    if key not in _converted:
        _converted[key] = to_onnx(module, example, *names).SerializeToString()
    return onnx.load_from_string(_converted[key])


class _Contents(pickle.Pickler):
    """Pickles tensors by their values, wherever and in whatever order they lie in memory."""

    def reducer_override(self, value):
        if isinstance(value, torch.Tensor):
            return str, (repr((value.shape, value.dtype, value.tolist())),)
        return NotImplemented


def _content(*parts):
    """Hash all that a network is: its classes, attributes and weights."""
    stream = io.BytesIO()
    _Contents(stream).dump(parts)
    return hashlib.sha256(stream.getvalue()).hexdigest()
