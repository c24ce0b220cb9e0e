import subprocess
import sys

import pytest

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import (
    Cost,
    classifier_params,
    group0_cost,
    student_cost,
    student_cost_line,
    student_layers,
    teacher_cost,
    teacher_layers,
)
from nonn_core.networks.resnet import WrnSpec


def test_a_teacher_computed_by_hand():
    # wrn10:16,16,16 on 1x4x4 with 3 classes; groups work on 4x4, 2x2 and 1x1.
    stem = 1 * 16 * 9
    convolution, projection, norm = 16 * 16 * 9, 16 * 16, 2 * 16
    block = 2 * convolution + 2 * norm
    params = stem + block + 2 * (block + projection) + norm + (16 * 3 + 3)
    macs = (
        stem * 16
        + 2 * convolution * 16
        + (2 * convolution + projection) * 4
        + (2 * convolution + projection) * 1
        + 16 * 3
        # Two per normalised element: 4x4 in group 0 and before group 1, then 2x2, 2x2, 1x1, 1x1.
        + 2 * 16 * (16 + 16 + 16 + 4 + 4 + 1 + 1)
        # One per pooled element.
        + 16 * 1
    )
    # Most is alive in the first block: kept input, activation, and the convolution's output.
    peak = 3 * 16 * 16
    assert (params, macs, peak) == (14755, 102272, 768)
    assert teacher_cost(WrnSpec(10, (16, 16, 16)), ImageShape(1, 4, 4), 3) == Cost(
        params, macs, peak
    )


def test_a_student_is_its_teacher_with_a_1x1_convolution_in_place_of_the_classifier():
    spec, image = WrnSpec(10, (16, 16, 16)), ImageShape(1, 4, 4)
    teacher, student = teacher_cost(spec, image, 3), student_cost(spec, image, 5)
    assert student.params == teacher.params - (16 * 3 + 3) + (16 * 5 + 2 * 5)
    assert student.macs == teacher.macs - 16 * 3 - 16 + (16 * 5 + 2 * 5 + 5) * 1


def test_odd_sizes_are_halved_upwards():
    # 5x7 -> 3x4 -> 2x2: 4 values per filter, each from 6 channels, scaled, shifted and pooled.
    spec = WrnSpec(10, (4, 4, 6))
    image = ImageShape(3, 5, 7)
    more, less = student_cost(spec, image, 9), student_cost(spec, image, 8)
    assert more.macs - less.macs == (6 + 2 + 1) * 2 * 2


def test_many_filters_raise_the_peak():
    # On 1x1 final maps the pool's input and output are what is alive: 2 per filter.
    spec, image = WrnSpec(10, (1, 1, 1)), ImageShape(1, 1, 1)
    assert student_cost(spec, image, 1000).peak_elements == 2 * 1000
    # On 2x2 final maps of 64 channels, what the 1x1 convolution reads and writes.
    wide = WrnSpec(10, (1, 1, 64))
    assert student_cost(wide, ImageShape(1, 8, 8), 250).peak_elements == 4 * (64 + 250)


@pytest.mark.parametrize("filters", [1, 34, 46, 256, 5000])
def test_the_line_is_the_cost(filters):
    spec, image = parse_network("wrn16:32,64,88"), ImageShape(3, 32, 32)
    assert student_cost_line(spec, image).at(filters) == student_cost(spec, image, filters)


def test_group0_is_the_part_that_students_share():
    spec, image = parse_network("wrn10:4,6,8"), ImageShape(3, 8, 8)
    stem, projection = 3 * 16 * 9, 16 * 4
    block = 2 * 16 + 16 * 4 * 9 + 2 * 4 + 4 * 4 * 9
    cost = group0_cost(spec, image)
    assert cost.params == stem + projection + block
    norms = 2 * 16 + 2 * 4
    assert cost.macs == (stem + projection + 16 * 4 * 9 + 4 * 4 * 9 + norms) * 64
    narrow, wide = parse_network("wrn10:4,6,8"), parse_network("wrn10:4,60,80")
    assert group0_cost(narrow, image) == group0_cost(wide, image)


def test_memory_is_weights_and_activations_at_the_precision():
    cost = Cost(params=100, macs=7, peak_elements=28)
    assert cost.memory_bytes("fp32") == 512
    assert cost.memory_bytes("int8") == 128


def test_the_classifier_of_the_host():
    assert classifier_params(80, 10) == 80 * 10 + 10


def test_layer_names_are_unique():
    spec, image = parse_network("wrn16-1"), ImageShape(3, 8, 8)
    for layers in (teacher_layers(spec, image, 10), student_layers(spec, image, 4)):
        names = [layer.name for layer in layers]
        assert len(set(names)) == len(names)


def test_costs_need_no_torch():
    code = (
        "import sys, nonn_core.networks.network_cost, nonn_core.networks.family;"
        "import nonn_core.partition, nonn_core.recipe;"
        "sys.exit('torch' in sys.modules or 'fvcore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
