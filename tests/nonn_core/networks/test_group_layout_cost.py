import pytest

from nonn_core.distillation.splitnet import build_splitnet
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.group_layout import group_layout, split_cost
from nonn_core.teacher.inspection import measured_cost

IMAGE = ImageShape(3, 16, 16)


@pytest.mark.parametrize(
    ("network", "groups"),
    [
        ("wrn16:8,12,16", (2, 2)),
        ("wrn10:5,7,9", (2, 2, 4)),
        ("wrn10:5,7,9", (3,)),
        ("resnet18-cifar:4,6,8,10", (2, 2)),
    ],
)
def test_the_whole_costs_what_the_built_one_does(network, groups):
    """Ten classes; 9 channels into 2 and 4 are uneven groups."""
    spec = parse_network(network)
    found = split_cost(group_layout(spec, 3, 10, groups), IMAGE)
    built = measured_cost(build_splitnet(spec, 3, 10, groups, 0), IMAGE)
    assert (found.params, found.macs) == (built.params, built.macs)


def test_one_group_of_two_equal_ones_is_half_of_what_is_split():
    """All channels and classes are even, so both groups are alike beside the shared trunk."""
    spec = parse_network("wrn16:8,12,16")
    layout = group_layout(spec, 3, 10, (2, 2))
    found = split_cost(layout, IMAGE)
    whole = build_splitnet(spec, 3, 10, (2, 2), 0)
    trunk = sum(p.numel() for part in (whole.group0, whole.trunk) for p in part.parameters())
    assert found.group_params - trunk == (found.params - trunk) / 2
