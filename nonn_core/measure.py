"""The measured cost of a built module, independent of the closed forms in `nonn_core.costs`.

Parameters are counted, MACs are fvcore's, and the peak of live activations is found by walking
the module's traced graph with the real shape of every intermediate tensor.
"""

import operator
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from nonn_core.costs import Cost
from nonn_core.image import Image

_IN_PLACE = (nn.BatchNorm2d, nn.ReLU, nn.Hardtanh)
_IN_PLACE_FUNCTIONS = (F.relu, operator.add, torch.flatten, "flatten")


def measured_cost(module: nn.Module, image: Image) -> Cost:
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
    """Return the most elements alive at once for one example (1, C, H, W), traced with fx."""
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
