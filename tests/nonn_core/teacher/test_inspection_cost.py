import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import build_classifier, build_nonn
from nonn_core.networks.network_cost import group0_cost, student_cost, teacher_cost
from nonn_core.teacher.inspection import measured_cost


class Residual(nn.Module):
    """conv(relu(x)) + x: the input stays alive beside the activation and the output."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)

    def forward(self, maps):
        return self.conv(F.relu(maps)) + maps


class Chain(nn.Module):
    """conv(relu(conv(x))): nothing is needed twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.second = nn.Conv2d(3, 1, 1, bias=False)

    def forward(self, maps):
        return self.second(F.relu(self.first(maps)))


def test_a_residual_by_hand():
    cost = measured_cost(Residual(), ImageShape(2, 4, 5))
    assert cost.params == 2 * 2 * 9
    assert cost.macs == 2 * 2 * 9 * 20
    assert cost.peak_elements == 3 * 2 * 20


def test_a_chain_by_hand():
    cost = measured_cost(Chain(), ImageShape(2, 4, 5))
    assert cost.params == 2 * 3 * 9 + 3 * 1
    assert cost.macs == (2 * 3 * 9 + 3 * 1) * 20
    assert cost.peak_elements == (2 + 3) * 20


@pytest.mark.parametrize("image", [ImageShape(3, 8, 8), ImageShape(1, 9, 6)])
def test_g0_alone_and_a_nonn_s_students_cost_what_the_closed_form_says(two_shapes, image):
    network = build_nonn(two_shapes, image.channels, 3, seed=0)
    assert measured_cost(network.group0[0], image) == group0_cost(two_shapes[0].spec, image)
    for shape, student in zip(two_shapes, network.deployed(), strict=True):
        assert measured_cost(student, image) == student_cost(shape.spec, image, shape.filters)


def test_measuring_changes_nothing():
    network = build_classifier(parse_network("wrn10:4,4,4"), 3, 3, seed=0)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measured = measured_cost(network, ImageShape(3, 8, 8))
    assert measured == teacher_cost(network.spec, ImageShape(3, 8, 8), 3)
    assert network.training
    assert all(module.training for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
