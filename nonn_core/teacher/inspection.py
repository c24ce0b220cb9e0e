"""Inspection of a module: its measured cost.

It is independent of the closed forms in `nonn_core.networks.network_cost`: parameters are
counted, MACs are fvcore's, with those of attention and of recurrent layers, and the peak of live
activations is found by walking the module's traced graph with the real shape of every
intermediate tensor.
"""

import operator
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.network_cost import Cost

if TYPE_CHECKING:
    from fvcore.nn.jit_handles import Handle

_IN_PLACE = (nn.BatchNorm2d, nn.ReLU, nn.Hardtanh)
_IN_PLACE_FUNCTIONS = (F.relu, operator.add, torch.flatten, "flatten")


def measured_cost(module: nn.Module, image: ImageShape) -> Cost:
    """Measure a module on one image of this shape, in evaluation mode.

    `peak_elements` follows the same rule as `costs`: element-wise operations work in place where
    their input is not needed any more; a tensor is freed after its last use.
    """
    was_training = module.training
    module.eval()
    example = torch.zeros(1, image.channels, image.height, image.width)
    try:
        with torch.no_grad():
            return Cost(
                params=sum(parameter.numel() for parameter in module.parameters()),
                macs=count_macs(module, example).macs,
                peak_elements=peak_elements(module, example),
            )
    finally:
        module.train(was_training)


@dataclass(frozen=True, slots=True)
class CountedMacs:
    """MACs of one run, and its operators that are not counted."""

    macs: int
    uncounted: tuple[str, ...] = ()


def count_macs(module: nn.Module, example: Tensor) -> CountedMacs:
    """Count MACs as fvcore does, and those of attention and of recurrent layers beside."""
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    # It is one operator for several layers, which no count looks into.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            # fvcore still scripts and traces through torch.jit, which torch 2.13 calls deprecated.
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            from fvcore.nn import FlopCountAnalysis

            analysis = FlopCountAnalysis(module, example).set_op_handle(**_FURTHER_OPERATORS)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            analysis.tracer_warnings("none")
            total = int(analysis.total())
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
    unknown = sorted(kind for kind in analysis.unsupported_ops() if not _multiplies_nothing(kind))
    return CountedMacs(total, tuple(kind.removeprefix("aten::") for kind in unknown))


def _shape(value: Any) -> list[int]:
    """Shape of a value of the trace."""
    sizes: list[int] = value.type().sizes()
    return sizes


def _contraction(position: int) -> "Handle":
    """Count a matrix product whose operand at `position` has the summed axis last."""
    return lambda inputs, outputs: prod(_shape(outputs[0])) * _shape(inputs[position])[-1]


def _attention_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """MACs of softmax(Q K^T) V: each query meets each key, and each value."""
    query, key, value = (_shape(each) for each in inputs[:3])
    del outputs
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """MACs of an RNN, LSTM or GRU: each step reads each matrix once."""
    del outputs
    # Packed sequences have one input more in front of the weights, the last list.
    weights = [each for each in inputs[:4] if each.type().kind() == "ListType"][-1]
    shapes = [_shape(each) for each in weights.node().inputs()]
    matrices = sum(prod(shape) for shape in shapes if len(shape) == 2)
    return prod(_shape(inputs[0])[:-1]) * matrices


def _cell_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """MACs of one step of a recurrent cell."""
    del outputs
    return _shape(inputs[0])[0] * sum(prod(_shape(weights)) for weights in inputs[2:4])


def _same_convolution_macs(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """MACs of a convolution that is padded by a name ("same")."""
    images, _, *places = _shape(outputs[0])
    return images * prod(places) * prod(_shape(inputs[1]))


_FURTHER_OPERATORS: "dict[str, Handle]" = {
    "aten::scaled_dot_product_attention": _attention_macs,
    **dict.fromkeys(
        ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"), _recurrent_macs
    ),
    **dict.fromkeys(
        (
            "aten::lstm_cell",
            "aten::gru_cell",
            "aten::rnn_tanh_cell",
            "aten::rnn_relu_cell",
        ),
        _cell_macs,
    ),
    "aten::_convolution_mode": _same_convolution_macs,
    # fvcore's own takes the batch of the first operand, which may be broadcast.
    **dict.fromkeys(("aten::matmul", "aten::mv", "aten::dot"), _contraction(0)),
    **dict.fromkeys(("aten::baddbmm", "aten::addmv"), _contraction(1)),
}
_MULTIPLY_NOTHING = re.compile(
    # selected, ordered, compared, averaged
    r"(adaptive_)?(max|avg)_pool[123]d(_with_indices)?|(log_)?softmax|hardswish|prelu|glu|"
    r"floor_divide|floordiv|cumsum|topk|sort|argsort|tril|triu|embedding|scatter(_add|_reduce)?|"
    r"one_hot|fill|zero|index_(fill|copy|add)|masked_scatter|"
    r"index_select|masked_select|take_along_dim|(feature_)?(alpha_)?dropout|"
    # filled, repeated, laid out in another way
    r"pad|(reflection|replication)_pad[123]d|upsample_nearest[13]d|repeat(_interleave)?|flip|rot90|"
    r"pixel_(un)?shuffle|(native_)?channel_shuffle|im2col|col2im|meshgrid|[hvd]stack|linspace|"
    r"(zeros|ones|full|empty|rand|randn)(_like)?|new_ones|(scalar_)?tensor|(view|expand)_as|"
    r"broadcast_to|unfold|unflatten|diagonal|movedim|moveaxis|swapaxes|swapdims|numpy_T|m[TH]|"
    r"adjoint|alias|lift_fresh|tensor_split|[hvd]split|unsafe_(chunk|split)|"
    # plain Python
    r"item|Bool|Float|FloatImplicit|IntImplicit|is_nonzero|len|list|append|format|warn|"
    r"__\w+__|_(pack|pad)_packed_sequence|_pack_padded_sequence"
)
"""Operators, beside those that torch calls pointwise or a reduction, and that fvcore ignores."""


def _multiplies_nothing(kind: str) -> bool:
    """Whether an operator only works on single elements, sums or moves them."""
    space, _, name = kind.partition("::")
    if space != "aten":
        return False
    if _MULTIPLY_NOTHING.fullmatch(name) or _MULTIPLY_NOTHING.fullmatch(name.rstrip("_")):
        return True
    packet = getattr(torch.ops.aten, name, None)
    overloads = [getattr(packet, each) for each in packet.overloads()] if packet else []
    harmless = {torch.Tag.pointwise, torch.Tag.reduction}
    return any(harmless & set(overload.tags) for overload in overloads)


def peak_elements(module: nn.Module, example: Tensor) -> int:
    """Most elements alive at once for one example (1, C, H, W).

    Traced with fx.
    """
    traced = fx.symbolic_trace(module)
    ShapeProp(traced).propagate(example)
    # What fx records as a tuple of outputs is read by the caller and stays alive.
    nodes = [node for node in traced.graph.nodes if node.op != "output"]
    peak = 0
    alive: set[fx.Node] = set()
    for position, node in enumerate(nodes):
        later = set(nodes[position + 1 :])
        dying = {n for n in alive if not any(user in later for user in n.users)}
        reused = next((n for n in node.all_input_nodes if n in dying), None)
        in_place = _works_in_place(node, traced) and reused is not None
        live = sum(map(_elements, alive)) + (0 if in_place else _elements(node))
        peak = max(peak, live)
        alive = (alive - dying) | {node}
    return peak


def _works_in_place(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), _IN_PLACE)
    return node.target in _IN_PLACE_FUNCTIONS


def _elements(node: fx.Node) -> int:
    return sum(shape.numel() for shape in _shapes(node))


def _shapes(node: fx.Node) -> Iterator[torch.Size]:
    meta = node.meta["tensor_meta"]
    for each in meta if isinstance(meta, list) else [meta]:
        yield each.shape
