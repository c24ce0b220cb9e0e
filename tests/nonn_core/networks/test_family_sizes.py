"""Every family: names, published sizes, and built networks against the closed form."""

from itertools import pairwise

import pytest
import torch

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape, Norm
from nonn_core.networks.family import parse_network, single_network, student_candidates
from nonn_core.networks.mobilenet import MobileNetSpec
from nonn_core.networks.modules import StudentShape, build_classifier, build_nonn
from nonn_core.networks.network_cost import (
    classifier_params,
    group0_cost,
    student_cost,
    student_cost_line,
    student_layers,
    teacher_cost,
)
from nonn_core.networks.resnet import ResNetSpec
from nonn_core.networks.vgg import VggSpec
from nonn_core.teacher.inspection import measured_cost

CIFAR, LARGE = ImageShape(3, 32, 32), ImageShape(3, 224, 224)

# Parameters as their authors' and torchvision's own tables give them (1,000 classes, 224 x 224),
# and multiply-accumulates of convolutions and linear layers in G, in the same tables.
LARGE_PUBLISHED = [
    ("resnet18", 11_689_512, 1.81),
    ("resnet34", 21_797_672, 3.66),
    ("resnet50", 25_557_032, 4.09),
    ("resnet101", 44_549_160, 7.80),
    ("resnet152", 60_192_808, 11.51),
    ("mobilenetv2", 3_504_872, 0.30),
]
NARROW = [
    "wrn10:4,6,8",
    "wrn16:8,8,8",
    "vgg11:4,6,6,8,8",
    "vgg16:2,4,8,8,6",
    "resnet18:4,6,8,8",
    "resnet18-cifar:4,4,8,10",
    "resnet50-cifar:2,3,4,5",
    "mobilenetv2-cifar-0.1",
    "mobilenetv2-0.25",
]


@pytest.mark.parametrize(("name", "params", "gmacs"), LARGE_PUBLISHED)
def test_large_networks_are_those_of_the_literature(name, params, gmacs):
    cost = teacher_cost(parse_network(name), LARGE, 1000)
    assert cost.params == params
    # Ours counts what is normalised and pooled too.
    assert gmacs * 1e9 < cost.macs < 1.09 * gmacs * 1e9


# B's VGG rows: 20.0 M and 9.2 M parameters.
@pytest.mark.parametrize(("name", "mparams"), [("vgg19", 20.0), ("vgg11", 9.2)])
def test_vgg_networks_are_those_of_source_b(name, mparams):
    cost = teacher_cost(parse_network(name), CIFAR, 10)
    assert cost.params / 1e6 == pytest.approx(mparams, abs=0.05)


def test_vgg16_by_hand():
    # Thirteen 3x3 convolutions with normalisations, then 512 x 10 + 10.
    widths = [3, 64, 64, 128, 128, *[256] * 3, *[512] * 6]
    convolutions = sum(9 * a * b + 2 * b for a, b in pairwise(widths))
    assert teacher_cost(VggSpec(16), CIFAR, 10).params == convolutions + 512 * 10 + 10


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("image", [CIFAR, ImageShape(1, 33, 40)])
def test_a_built_network_costs_what_the_closed_form_says(name, image):
    spec = parse_network(name)
    built = build_classifier(spec, image.channels, 7, seed=0)
    assert measured_cost(built, image) == teacher_cost(spec, image, 7)


@pytest.mark.parametrize("name", NARROW)
def test_built_students_cost_what_the_closed_form_says(name):
    spec = parse_network(name)
    network = build_nonn([StudentShape(spec, 5), StudentShape(spec, 300)], 3, 4, seed=0)
    for student, filters in zip(network.deployed(), (5, 300), strict=True):
        assert measured_cost(student, CIFAR) == student_cost(spec, CIFAR, filters)
        assert student_cost_line(spec, CIFAR).at(filters) == student_cost(spec, CIFAR, filters)


@pytest.mark.parametrize("name", NARROW)
def test_a_head_without_g0_costs_what_the_closed_form_says(name):
    spec = parse_network(name)
    network = build_nonn([StudentShape(spec, 5)], 3, 4, seed=0)
    (head,) = network.deployed_heads()
    maps = network.group0[0](torch.zeros(1, 3, 32, 32))
    _, channels, height, width = maps.shape
    line = student_cost_line(spec, CIFAR, own_group0=False)
    assert measured_cost(head, ImageShape(channels, height, width)) == line.at(5)
    whole, shared = student_cost(spec, CIFAR, 5), group0_cost(spec, CIFAR)
    assert line.at(5).params == whole.params - shared.params
    assert line.at(5).macs == whole.macs - shared.macs


@pytest.mark.parametrize("name", NARROW)
def test_names_are_read_back_and_layers_are_told_apart(name):
    spec = parse_network(name)
    assert parse_network(str(spec)) == spec
    names = [layer.name for layer in student_layers(spec, CIFAR, 3)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", NARROW)
def test_students_of_a_family_are_no_larger_and_share_g0_in_groups(name):
    teacher = parse_network(name)
    found = student_candidates(teacher)
    assert len(set(found)) == len(found)
    largest = teacher_cost(teacher, CIFAR, 10).params
    assert all(student_cost(spec, CIFAR, 1).params <= largest for spec in found)
    assert len({spec.group0 for spec in found}) <= len(found)


@pytest.mark.parametrize("name", ["vgg11", "resnet18-cifar", "wrn16-2", "mobilenetv2-cifar"])
def test_a_single_network_of_a_size_is_the_nearest_of_its_family(name):
    like = parse_network(name)
    wanted = teacher_cost(like.proportional(24), CIFAR, 10).params
    assert single_network(wanted, like, CIFAR, 10) == like.proportional(24)


def test_students_of_unequal_depth_can_have_a_g0_each():
    shapes = [
        StudentShape(parse_network("wrn10:4,6,8"), 3),
        StudentShape(parse_network("wrn16:8,6,8"), 4),
    ]
    network = build_nonn(shapes, 3, 4, seed=0, shared_group0=False)
    logits, maps = network(torch.randn(2, 3, 16, 16))
    assert logits.shape == (2, 4)
    assert [m.shape for m in maps] == [(2, 3, 4, 4), (2, 4, 4, 4)]
    for shape, student in zip(shapes, network.deployed(), strict=True):
        assert measured_cost(student, CIFAR) == student_cost(shape.spec, CIFAR, shape.filters)
    params = sum(parameter.numel() for parameter in network.parameters())
    apart = sum(student_cost(s.spec, CIFAR, s.filters).params for s in shapes)
    assert params == apart + classifier_params(7, 4)


def test_widths_of_mobilenet_are_rounded_as_published():
    # 1.4 x 16 = 22.4 -> 24; 0.75 x 24 = 18 -> 24, since 16 would be less than nine tenths of it.
    assert MobileNetSpec(140).blueprint(3).group0[-1] == Norm(24)
    last = MobileNetSpec(75).blueprint(3)
    assert last.stages[0][-1].body[-1].channels == 24
    # The last convolution never shrinks.
    assert MobileNetSpec(50).blueprint(3).features == 1280
    assert MobileNetSpec(140).blueprint(3).features == 1792


def test_bottlenecks_are_four_times_as_wide_outside():
    assert ResNetSpec(50).blueprint(3).channels == 2048
    assert ResNetSpec(34).blueprint(3).channels == 512


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("vgg12", "not the depth of a VGG network"),
        ("resnet20", "not the depth of a residual network"),
        ("vgg11:1,2,3", "5 numbers of 1 to 16384 channels"),
        ("resnet18:0,1,1,1", "4 numbers of 1 to 16384 channels"),
        ("mobilenetv2-9", "allowed: 0.05 to 4"),
    ],
)
def test_what_no_family_has_is_refused(name, found):
    with pytest.raises(InputError, match=found):
        parse_network(name)


def test_an_image_that_leaves_nothing_to_pool_is_refused():
    with pytest.raises(InputError, match="too small for this network"):
        teacher_cost(VggSpec(11), ImageShape(3, 8, 8), 10)
