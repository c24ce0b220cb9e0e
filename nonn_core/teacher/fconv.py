"""fconv of anybody's network: the last maps, known by what the network does with them.

fconv is the output of the last convolutional layer after its activation (arXiv:1907.11804,
section 4.1).  Averaged over height and width, and normalised where a normalisation follows, it
is what one linear layer turns into the logits.  Where a hidden layer stands between, as in
MobileNetV3, the values that the last linear layer reads are fconv: maps of 1x1.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from nonn_common.errors import InputError
from nonn_core.networks.modules import global_average_pool

REQUIRED = (
    "no fconv was found: a teacher must average maps over height and width, and one linear layer "
    "must turn the averages into its answer, the logits"
)
WRAP = "wrap the network so that it does, and export a program in evaluation mode (eval)"

_TOLERANCE = 1e-4
_ROUNDINGS = 4
"""Of a format with fewer digits than float32: so many roundings may lie between equal values."""


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """One call of a linear layer: `outputs` = `inputs` @ `weight`.T + `bias`.

    `reads` names the module, or the node of the graph that gives the inputs.
    """

    reads: str
    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    outputs: Tensor


@dataclass(slots=True)
class ProbeRecord:
    """Record of a probe: layers and their values in the order made.

    `maps` have four dimensions, `vectors` two; `norms` are inputs and outputs of normalisations.
    """

    linear: list[LinearLayer] = field(default_factory=list)
    norms: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, output: object) -> None:
        """Keep an output if it can be activations; masks and indices cannot.

        The last output of a layer replaces those before.
        """
        if isinstance(output, Tensor) and output.is_floating_point():
            kept = {4: self.maps, 2: self.vectors}.get(output.dim(), {})
            kept.pop(name, None)
            kept[name] = output

    def add_norm(self, inputs: Tensor, outputs: object) -> None:
        """Keep what a normalisation did; a decomposed one gives its statistics, too."""
        normed = outputs[0] if isinstance(outputs, tuple) else outputs
        if isinstance(normed, Tensor) and normed.dim() > 1:
            self.norms.append((inputs, normed))


@dataclass(frozen=True, slots=True)
class Fconv:
    """The layer that was found, its maps, and the linear layer after it: (classes, filters).

    `reads` is that of the `LinearLayer`.
    """

    name: str
    maps: Tensor
    reads: str
    weight: Tensor
    bias: Tensor


def find_fconv(seen: ProbeRecord, logits: Tensor, name: str | None, where: str) -> Fconv | None:
    """Find the layer `name`, or the last with the largest maps.

    Returns None where no layer fits.  Raises InputError when logits are not finite or
    probabilities, when the last layer reads every place of the maps, and when `name` is none of
    the layers that fit.
    """
    if not logits.isfinite().all():
        raise InputError("some logits are not finite; are its weights damaged?", where=where)
    last = _last_layer(seen.linear, logits, where)
    if last is None:
        return None
    fitting = _fitting_maps(seen, last.inputs, where)
    if not fitting:
        return None
    if name is not None and name not in fitting:
        raise InputError(
            "is not the last convolutional layer: it is not there, or what the last linear layer "
            "reads is not its output averaged over height and width",
            where=f"{where}: fconv",
            found=name,
            allowed=", ".join(fitting),
        )
    # Pooling in steps, or to 1x1 and then flattening, makes smaller maps of the same averages.
    chosen = name or max(reversed(fitting), key=lambda key: fitting[key][0, 0].numel())
    bias = torch.zeros(len(last.weight)) if last.bias is None else last.bias
    return Fconv(
        chosen, fitting[chosen], last.reads, last.weight.detach().float(), bias.detach().float()
    )


def _last_layer(layers: Sequence[LinearLayer], logits: Tensor, where: str) -> LinearLayer | None:
    """Last linear layer whose outputs are the answer, or whose log-softmax is.

    The softmax of both is the same at every temperature, and so is all that students learn.
    """
    layers = [layer for layer in layers if layer.outputs.shape == logits.shape]
    for layer in reversed(layers):
        outputs = layer.outputs
        if nearly_equal(outputs, logits) or nearly_equal(outputs.log_softmax(-1), logits):
            return layer
    if any(nearly_equal(layer.outputs.softmax(-1), logits) for layer in layers):
        raise InputError(
            "answers probabilities, not logits: they come from a softmax after the last layer",
            where=where,
            fix="leave the softmax out, or take log_softmax in its place",
        )
    return None


def _fitting_maps(seen: ProbeRecord, inputs: Tensor, where: str) -> dict[str, Tensor]:
    """Maps whose averages, normalised or as they are, the last linear layer reads (N, filters).

    Without any, the vectors that it reads itself, as maps of 1x1.
    """
    before_norm = [one for one, normed in seen.norms if nearly_equal(normed.flatten(1), inputs)]
    for averages in (*before_norm, inputs):
        fitting = {k: m for k, m in seen.maps.items() if _averages_to(m, averages.flatten(1))}
        if fitting:
            return fitting
    for key, maps in seen.maps.items():
        if nearly_equal(maps.flatten(1), inputs):
            raise InputError(
                f"{REQUIRED}; its last linear layer reads every place of the maps of {key}",
                where=where,
                fix="take a network that averages its last maps",
            )
    vectors = seen.vectors.items()
    return {key: one[:, :, None, None] for key, one in vectors if nearly_equal(one, inputs)}


_NORMS = (
    nn.modules.batchnorm._NormBase,  # noqa: SLF001  (what all batch and instance norms are)
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_NORM_FUNCTIONS = ("layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm")
_SAME_VALUES = (
    torch.ops.aten.dropout.default,
    torch.ops.aten.dropout_.default,
    torch.ops.aten.detach.default,
)
"""Nodes that change nothing in evaluation mode; what they read has the better name."""


def probe_modules(network: nn.Module, probe: Tensor) -> tuple[object, ProbeRecord]:
    """Run a network; return its answer and what its modules did.

    Vectors, and maps of 1x1, are left out: they may be averages already, of maps that a function
    made and no module; the graph tells.
    """
    seen = ProbeRecord()

    def larger(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            seen.add(name, output)

    def watch(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if type(module) is nn.Linear:
                layer = LinearLayer(name, inputs[0], module.weight, module.bias, output)
                seen.linear.append(layer)
            elif isinstance(module, _NORMS):
                seen.add_norm(inputs[0], output)

        return module.register_forward_hook(hook)

    modules = {name: module for name, module in network.named_modules() if name}
    handles = [watch(name, module) for name, module in modules.items()]
    try:
        with watch_outputs(modules, larger):
            answer = network(probe)
    finally:
        for handle in handles:
            handle.remove()
    return answer, seen


def probe_graph(graph: fx.GraphModule, probe: Tensor) -> tuple[Tensor, ProbeRecord]:
    """Run an exported graph; return its logits and what its nodes did."""
    recorder = _Recorder(graph)
    recorder.run(probe)
    seen = ProbeRecord()
    for node, value in recorder.values.items():
        if node.op != "call_function" or node.target in _SAME_VALUES:
            continue
        seen.add(node.name, value)
        layer = _linear_call(node, recorder.values)
        if layer is not None:
            seen.linear.append(layer)
        if any(name in str(node.target) for name in _NORM_FUNCTIONS):
            seen.add_norm(recorder.values[node.all_input_nodes[0]], value)
    return recorder.values[logits_node(graph)], seen


def logits_node(graph: fx.GraphModule) -> fx.Node:
    """Return the node whose value is the first of what an exported graph answers."""
    (answers,) = graph.graph.output_node().args
    assert isinstance(answers, Sequence)  # noqa: S101  (exported graphs answer a flat tuple)
    first = answers[0]
    assert isinstance(first, fx.Node)  # noqa: S101
    return first


def nearly_equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal but for rounding, judged against the largest value."""
    if one.shape != other.shape or not other.isfinite().all():
        return False
    kinds = [each.dtype for each in (one, other) if each.is_floating_point()]
    share = max([_TOLERANCE, *(_ROUNDINGS * torch.finfo(kind).eps for kind in kinds)])
    one, other = one.double(), other.double()
    return torch.allclose(one, other, rtol=share, atol=share * float(other.abs().max()))


@contextmanager
def watch_outputs(modules: Mapping[str, nn.Module], keep: Any) -> Iterator[None]:
    """While this lasts, call `keep(name, output)` for each call of one of these modules."""

    def hook(name: str) -> Any:
        return lambda module, inputs, output: keep(name, output)  # noqa: ARG005

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(fx.Interpreter):
    """Keeps what every node of a graph gave."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n] = value
        return value


def _linear_call(node: fx.Node, values: Mapping[fx.Node, Any]) -> LinearLayer | None:
    """Linear layer of a node, also as decompositions write it, or None."""
    given: list[Any] = [values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args]
    if node.target == torch.ops.aten.linear.default:
        inputs, weight, *bias = given
        offset = bias[0] if bias else None
        return LinearLayer(str(node.args[0]), inputs, weight, offset, values[node])
    if node.target == torch.ops.aten.addmm.default:
        offset, inputs, transposed = given
        return LinearLayer(str(node.args[1]), inputs, transposed.T, offset, values[node])
    if node.target == torch.ops.aten.mm.default:
        inputs, transposed = given
        return LinearLayer(str(node.args[0]), inputs, transposed.T, None, values[node])
    return None


def _averages_to(maps: Tensor, averages: Tensor) -> bool:
    """Whether these maps, averaged over height and width, are the averages (N, filters)."""
    return maps.shape[:2] == averages.shape and nearly_equal(global_average_pool(maps), averages)
