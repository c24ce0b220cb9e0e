"""Regions: against what gradients say a part of an output depends on."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split_models import conv, images, specs
from torch import nn
from torch.nn import functional as F

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import build_classifier
from nonn_core.networks.network_cost import teacher_table
from simulator.workloads.layer_parts import (
    Region,
    Span,
    input_region,
    output_region,
    part_of_layer,
    walk_back,
)
from simulator.workloads.spatial_split import fusable


def hull(mask):
    """Return the smallest span that holds every True."""
    places = torch.nonzero(mask).flatten()
    return Span(int(places.min()), int(places.max()) + 1)


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 30), st.data())
def test_rows_of_a_convolution(half, stride, size, data):
    kernel = 2 * (half // 2) + 1
    out = -(-size // stride)
    start = data.draw(st.integers(0, out - 1))
    span = Span(start, data.draw(st.integers(start + 1, out)))
    layer = conv(1, 1, size, kernel, stride)
    row = torch.ones(1, 1, size, requires_grad=True)
    output = F.conv1d(row, torch.ones(1, 1, kernel), stride=stride, padding=kernel // 2)
    output[0, 0, span.start : span.end].sum().backward()
    reads = hull(row.grad[0, 0] > 0)
    assert input_region(layer, Region(span, span)) == Region(reads, reads)


@given(st.sampled_from([2, 3]), st.integers(2, 30), st.data())
def test_rows_of_a_pooling(kernel, size, data):
    pool = nn.AvgPool1d(kernel, 2, (kernel - 1) // 2)
    row = torch.ones(1, 1, size, requires_grad=True)
    output = pool(row)
    out = output.shape[-1]
    start = data.draw(st.integers(0, out - 1))
    span = Span(start, data.draw(st.integers(start + 1, out)))
    output[0, 0, span.start : span.end].sum().backward()
    layer = replace(conv(1, 1, size, kernel), kind="pool", stride=2, out_height=out, out_width=out)
    assert input_region(layer, Region(span, Span(0, out))).rows == hull(row.grad[0, 0] > 0)


def test_a_global_pooling_needs_all():
    layer = replace(conv(3, 3, 7, 7, 7), kind="pool")
    whole = output_region(layer)
    assert whole.area == 1
    assert input_region(layer, whole) == Region(Span(0, 7), Span(0, 7))


@given(st.integers(1, 50), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_a_cut_covers_each_row_once_in_proportion(rows, weights):
    spans = list(Span(3, 3 + rows).cut(weights))
    assert [row for span in spans for row in range(span.start, span.end)] == [*range(3, 3 + rows)]
    for span, weight in zip(spans, weights, strict=True):
        assert span.length == pytest.approx(rows * weight / sum(weights), abs=1.0001)


def test_a_part_of_a_layer_by_hand():
    layer = conv(2, 4, 8)
    middle = part_of_layer(layer, Region(Span(2, 4), Span(0, 8)))
    assert (middle.in_height, middle.in_width) == (4, 8)
    assert (middle.out_height, middle.out_width) == (2, 8)
    assert middle.macs == layer.macs // 4
    assert middle.weights == layer.weights
    edge = part_of_layer(layer, Region(Span(0, 2), Span(7, 8)))
    assert (edge.in_height, edge.in_width) == (3, 2)


class Smooth(nn.Module):
    """A classifier's trunk whose gradients are positive exactly where an output depends."""

    def __init__(self, spec, channels):
        super().__init__()
        built = build_classifier(spec, channels, 2, seed=0)
        self.trunk = nn.Sequential(built.group0, *built.trunk).double().eval()
        for module in self.trunk.modules():
            if isinstance(module, nn.Conv2d):
                inputs = module.in_channels // module.groups
                nn.init.constant_(module.weight, 1 / (inputs * module.kernel_size[0] ** 2))
        smooth(self.trunk)

    def forward(self, pixels):
        """Return the output of each layer of the table, in the table's order."""
        outputs = []
        for module in self.trunk.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.AvgPool2d)):
                module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
        self.trunk(pixels)
        for output in outputs:
            output.retain_grad()
        return outputs


def smooth(module):
    """Put average poolings in place of maxima, and nothing in place of activations."""
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool2d):
            setattr(module, name, nn.AvgPool2d(child.kernel_size, 2, child.padding))
        elif isinstance(child, (nn.ReLU, nn.Hardtanh)):
            setattr(module, name, nn.Identity())
        else:
            smooth(child)


@settings(max_examples=25, deadline=None)
@given(specs, images, st.data())
def test_a_tile_walked_back_is_what_its_output_depends_on(spec, image, data):
    table = teacher_table(spec, image, 2)
    fused = data.draw(st.sampled_from([n for n in fusable(table) if n <= len(table) - 2]))
    whole = output_region(table[fused - 1])
    top = data.draw(st.integers(0, whole.rows.length - 1))
    left = data.draw(st.integers(0, whole.columns.length - 1))
    tile = Region(
        Span(top, data.draw(st.integers(top + 1, whole.rows.length))),
        Span(left, data.draw(st.integers(left + 1, whole.columns.length))),
    )
    reads, layers = walk_back(table[:fused], tile)

    pixels = torch.ones(1, image.channels, image.height, image.width, dtype=torch.double)
    pixels.requires_grad_()
    outputs = Smooth(spec, image.channels)(pixels)
    joined = outputs[fused - 1]
    rows, columns = tile.rows, tile.columns
    joined[0, :, rows.start : rows.end, columns.start : columns.end].sum().backward()
    dependence = pixels.grad[0].sum(dim=0) > 0
    assert reads == Region(hull(dependence.any(dim=1)), hull(dependence.any(dim=0)))
    for layer, output in zip(layers, outputs[:fused], strict=True):
        if output.grad is None:  # a shortcut that is added behind the last fused layer
            continue
        dependence = output.grad[0].sum(dim=0) > 0
        assert layer.out_height == hull(dependence.any(dim=1)).length, layer.name
        assert layer.out_width == hull(dependence.any(dim=0)).length, layer.name


def test_a_tile_of_an_image_is_all_that_its_output_needs():
    """Other pixels may be anything: with NaN outside, the tile's outputs are the same."""
    for name, image in (
        ("wrn10:6,8,10", ImageShape(3, 17, 20)),
        ("resnet18:4,4,6,8", ImageShape(3, 41, 33)),
        ("vgg11:3,4,5,6,7", ImageShape(1, 33, 32)),
    ):
        spec = parse_network(name)
        table = teacher_table(spec, image, 2)
        built = build_classifier(spec, image.channels, 2, seed=1).eval()
        pixels = torch.randn(1, image.channels, image.height, image.width)
        fused = len(table) - 2
        with torch.no_grad():
            expected = built(pixels)[1][-1]
            height, width = expected.shape[-2:]
            for row in range(height):
                for column in range(width):
                    tile = Region(Span(row, row + 1), Span(column, column + 1))
                    reads, _ = walk_back(table[:fused], tile)
                    masked = torch.full_like(pixels, torch.nan)
                    inside = (
                        ...,
                        slice(reads.rows.start, reads.rows.end),
                        slice(reads.columns.start, reads.columns.end),
                    )
                    masked[inside] = pixels[inside]
                    found = built(masked)[1][-1][..., row, column]
                    torch.testing.assert_close(found, expected[..., row, column])
