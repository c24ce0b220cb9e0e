"""Inspection of a module: the layer that is its fconv, and its measured cost.

fconv is the output of the last convolutional layer after its activation (arXiv:1907.11804,
section 4.1).  It is known by what it does: averaged over height and width it is what one
linear layer turns into the logits.

The measured cost is independent of the closed forms in `nonn_core.networks.network_cost`:
parameters are counted, MACs are fvcore's, and the peak of live activations is found by
walking the module's traced graph with the real shape of every intermediate tensor.
"""

import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.modules import global_average_pool
from nonn_core.networks.network_cost import Cost

_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """One call of a linear layer: `outputs` = `inputs` @ `weight`.T + `bias`."""

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    outputs: Tensor


@dataclass(slots=True)
class ProbeRecord:
    """Record of a probe: linear layers, and maps in the order made."""

    linear: list[LinearLayer] = field(default_factory=list)
    maps: dict[str, Tensor] = field(default_factory=dict)

    def add_maps(self, name: str, output: object) -> None:
        """Keep an output if it can be maps.

        The last output of a layer replaces those before.
        """
        if isinstance(output, Tensor) and output.dim() == 4:
            self.maps.pop(name, None)
            self.maps[name] = output


@dataclass(frozen=True, slots=True)
class Fconv:
    """The layer that was found, its maps, and the linear layer after it: (classes, filters)."""

    name: str
    maps: Tensor
    weight: Tensor
    bias: Tensor


def find_fconv(seen: ProbeRecord, logits: Tensor, name: str | None, where: str) -> Fconv | None:
    """Find the layer `name`, or the last with the largest maps.

    Returns None where no layer fits.  Raises InputError when logits are not finite, when `name` is
    none of the layers that fit, or when the maps are negative somewhere, for which the rules of
    partitioning have no meaning.
    """
    if not logits.isfinite().all():
        raise InputError("some logits are not finite; are its weights damaged?", where=where)
    last = _last_layer(seen.linear, logits)
    if last is None:
        return None
    fitting = {key: maps for key, maps in seen.maps.items() if _averages_to(maps, last.inputs)}
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
    maps = fitting[chosen]
    if maps.min() < 0:
        raise InputError(
            "fconv has negative values; partitioning needs activations >= 0, as a ReLU makes them",
            where=f"{where}: fconv {chosen}",
            found=float(maps.min()),
            fix="take a teacher whose last convolutional layer ends in a ReLU",
        )
    bias = torch.zeros(len(last.weight)) if last.bias is None else last.bias
    return Fconv(chosen, maps, last.weight.detach(), bias.detach())


def probe_modules(network: nn.Module, probe: Tensor) -> tuple[object, ProbeRecord]:
    """Run a network; return its answer and what its modules did.

    Maps of 1x1 are left out: they may be averages already, of maps that a function made and no
    module; the graph tells.
    """
    seen = ProbeRecord()

    def larger(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.shape[2:].numel() > 1:
            seen.add_maps(name, output)

    def linear(module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.linear.append(LinearLayer(inputs[0], module.weight, module.bias, output))

    handles = [m.register_forward_hook(linear) for m in network.modules() if type(m) is nn.Linear]
    modules = {name: module for name, module in network.named_modules() if name}
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
        if node.op == "call_function":
            seen.add_maps(node.name, value)
            layer = _linear_call(node, recorder.values)
            if layer is not None:
                seen.linear.append(layer)
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
    tolerance = _TOLERANCE * float(other.abs().max())
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=tolerance)


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
        return LinearLayer(inputs, weight, bias[0] if bias else None, values[node])
    if node.target == torch.ops.aten.addmm.default:
        offset, inputs, transposed = given
        return LinearLayer(inputs, transposed.T, offset, values[node])
    if node.target == torch.ops.aten.mm.default:
        inputs, transposed = given
        return LinearLayer(inputs, transposed.T, None, values[node])
    return None


def _last_layer(layers: Sequence[LinearLayer], logits: Tensor) -> LinearLayer | None:
    fitting = [layer for layer in layers if nearly_equal(layer.outputs, logits)]
    return fitting[-1] if fitting else None


def _averages_to(maps: Tensor, averages: Tensor) -> bool:
    """Whether these maps, averaged over height and width, are the averages (N, filters)."""
    return maps.shape[:2] == averages.shape and nearly_equal(global_average_pool(maps), averages)


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
                macs=fvcore_macs(module, example),
                peak_elements=peak_elements(module, example),
            )
    finally:
        module.train(was_training)


def fvcore_macs(module: nn.Module, example: Tensor) -> int:
    """Return fvcore's total; it counts one per multiply-accumulate."""
    with warnings.catch_warnings():
        # fvcore still scripts and traces through torch.jit, which torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(module, example)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        return int(analysis.total())


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
