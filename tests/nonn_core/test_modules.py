import pytest
import torch
from torch import nn

from nonn_core.family import parse_network
from nonn_core.modules import Block, build_classifier, pooled

SPEC = parse_network("wrn10:4,6,8")


@pytest.mark.parametrize(
    ("height", "width", "last"), [(8, 8, (2, 2)), (9, 6, (3, 2)), (1, 1, (1, 1)), (5, 7, (2, 2))]
)
def test_two_groups_halve_the_maps_upwards(height, width, last):
    network = build_classifier(SPEC, 3, 5, seed=0).eval()
    logits, maps = network(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 5)
    assert maps.shape == (2, 8, *last)


def test_fconv_is_active_or_zero_and_its_mean_gives_the_logits():
    network = build_classifier(SPEC, 3, 5, seed=0).eval()
    logits, maps = network(torch.randn(4, 3, 8, 8))
    assert (maps >= 0).all()
    assert (maps > 0).any()
    by_hand = maps.mean(dim=(2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(logits, by_hand)


def test_pooled_is_the_mean_over_height_and_width():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert pooled(maps).tolist() == [[5.5, 17.5]]


def test_a_block_adds_its_input_where_the_shape_allows_it():
    block = Block(3, 3, stride=1).eval()
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 3, 4, 4)
    assert torch.equal(block(maps), maps)
    assert Block(3, 3, stride=2).shortcut is not None
    assert Block(3, 4, stride=1).shortcut is not None


def test_a_projecting_block_projects_the_activation():
    block = Block(3, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    maps = torch.randn(2, 3, 4, 4)
    norm = block.norm1(maps).clamp(min=0)
    torch.testing.assert_close(block(maps), block.shortcut(norm))


def test_the_seed_decides_the_weights_and_nothing_else_is_touched():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    one, same = build_classifier(SPEC, 3, 5, seed=1), build_classifier(SPEC, 3, 5, seed=1)
    other = build_classifier(SPEC, 3, 5, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(one.fc.weight, other.fc.weight)
    assert not torch.equal(one.group0[0].weight, other.group0[0].weight)


def test_convolutions_start_with_he_s_variance_over_the_fan_out():
    network = build_classifier(parse_network("wrn10:64,64,64"), 3, 5, seed=0)
    weight = network.trunk.groups[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert not network.fc.bias.any()
