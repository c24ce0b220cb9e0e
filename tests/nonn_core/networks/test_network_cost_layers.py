"""Layer tables against a built module: shapes by forward hooks, what is alive by its graph."""

import operator

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape, build_classifier, build_nonn
from nonn_core.networks.network_cost import student_table, teacher_table

KINDS = {nn.Conv2d: "conv", nn.BatchNorm2d: "norm", nn.MaxPool2d: "pool", nn.Linear: "fc"}
POOLING = torch.nn.functional.adaptive_avg_pool2d

TEACHERS = [
    ("wrn10:8,12,20", ImageShape(3, 9, 12)),
    ("wrn16:16,16,16", ImageShape(3, 8, 8)),
    ("vgg11:4,6,8,10,12", ImageShape(1, 33, 20)),
    ("resnet18:4,6,8,10", ImageShape(3, 37, 70)),
    ("resnet18-cifar:4,4,8,8", ImageShape(3, 9, 7)),
    ("resnet50:4,6,8,10", ImageShape(3, 40, 33)),
    ("mobilenetv2-0.1", ImageShape(3, 37, 64)),
    ("mobilenetv2-cifar-0.2", ImageShape(2, 11, 9)),
]


def traced(module, image):
    graph = fx.symbolic_trace(module.eval())
    ShapeProp(graph).propagate(torch.zeros(1, image.channels, image.height, image.width))
    return graph


def elements(node):
    return node.meta["tensor_meta"].shape.numel()


def layer_nodes(graph):
    """Return each layer's kind and node in the order of execution; element-wise ones are none."""
    found = []
    for node in graph.graph.nodes:
        if node.op == "call_module":
            kind = KINDS.get(type(graph.get_submodule(str(node.target))))
            if kind:
                found.append((kind, node))
        elif node.target is POOLING:
            found.append(("pool", node))
    return found


def alive_before(node, graph):
    """Return the elements that are needed from `node` on: made earlier, used there or later."""
    nodes = [each for each in graph.graph.nodes if each.op != "output"]
    position = nodes.index(node)
    later = set(nodes[position:])
    return sum(elements(n) for n in nodes[:position] if any(user in later for user in n.users))


def whole(shape):
    return tuple(shape) if len(shape) == 4 else (*shape, 1, 1)


def assert_describes(table, module, image):
    graph = traced(module, image)
    nodes = layer_nodes(graph)
    assert [layer.kind for layer in table] == [kind for kind, _ in nodes]
    for layer, (kind, node) in zip(table, nodes, strict=True):
        (argument, *_) = node.all_input_nodes
        inputs = whole(argument.meta["tensor_meta"].shape)
        outputs = whole(node.meta["tensor_meta"].shape)
        assert (1, layer.in_channels, layer.in_height, layer.in_width) == inputs, layer.name
        assert (1, layer.out_channels, layer.out_height, layer.out_width) == outputs, layer.name
        assert layer.side == ("shortcut" in str(node.target)), layer.name
        if kind == "conv":
            conv = graph.get_submodule(str(node.target))
            assert (layer.kernel, layer.kernel) == conv.kernel_size
            assert (layer.stride, layer.groups) == (conv.stride[0], conv.groups)
            assert layer.kernel // 2 == conv.padding[0]
        if kind != "pool":
            module_of = graph.get_submodule(str(node.target))
            assert layer.weights == sum(p.numel() for p in module_of.parameters())
    return graph, nodes


@pytest.mark.parametrize(("name", "image"), TEACHERS, ids=[name for name, _ in TEACHERS])
def test_a_teacher_s_table_is_what_its_module_does(name, image):
    spec = parse_network(name)
    table = teacher_table(spec, image, classes=7)
    module = build_classifier(spec, image.channels, 7, seed=0)
    # The features of every stage are an output of the classifier too; only the logits count here.
    graph, nodes = assert_describes(table, OnlyLogits(module), image)
    for layer, (_, node) in zip(table, (nodes[1:]), strict=False):
        assert layer.out_elements + layer.held_elements == alive_before(node, graph), layer.name
    assert table[-1].held_elements == 0


@pytest.mark.parametrize(("name", "image"), TEACHERS, ids=[name for name, _ in TEACHERS])
def test_a_student_s_table_is_what_its_module_does(name, image):
    spec = parse_network(name)
    table = student_table(spec, image, filters=5)
    (student,) = build_nonn([StudentShape(spec, 5)], image.channels, 3, seed=0).deployed()
    graph, nodes = assert_describes(table, student, image)
    for layer, (_, node) in zip(table, (nodes[1:]), strict=False):
        assert layer.out_elements + layer.held_elements == alive_before(node, graph), layer.name
    assert (table[-1].out_elements, table[-1].held_elements) == (5, 0)


class OnlyLogits(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, images):
        return operator.getitem(self.module(images), 0)


def test_a_projection_by_hand():
    """WRN10-2 on 3x8x8: stem 16, block to 32 channels with a projection of what was normalised."""
    table = teacher_table(parse_network("wrn10-2"), ImageShape(3, 8, 8), classes=10)
    stem, before, shortcut, first, norm, second = table[:6]
    assert (stem.out_elements, stem.held_elements) == (16 * 64, 0)
    assert (before.kind, before.held_elements) == ("norm", 0)
    assert (shortcut.side, shortcut.kernel, shortcut.held_elements) == (True, 1, 16 * 64)
    assert (first.side, first.in_channels, first.held_elements) == (False, 16, 32 * 64)
    assert (norm.macs, norm.weights, norm.held_elements) == (2 * 32 * 64, 64, 32 * 64)
    assert (second.macs, second.held_elements) == (32 * 32 * 9 * 64, 0)
    pool, fc = table[-2:]
    assert (pool.kernel, pool.stride, pool.in_height, pool.out_elements) == (2, 2, 2, 128)
    assert (fc.in_elements, fc.out_elements, fc.macs, fc.weights) == (128, 10, 1280, 1290)
