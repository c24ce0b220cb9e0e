import pytest
import torch
from torch import nn

from nonn_core.networks.blueprint import Conv, MaxPool, Norm, Relu, Residual
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import (
    ResidualBlock,
    build_classifier,
    build_sequence,
    global_average_pool,
)

SPEC = parse_network("wrn10:4,6,8")
BEFORE_AND_BODY = {"before": (Norm(3), Relu()), "body": (Conv(3, 3, 3), Conv(3, 3, 3))}


@pytest.mark.parametrize(
    ("height", "width", "last"), [(8, 8, (2, 2)), (9, 6, (3, 2)), (1, 1, (1, 1)), (5, 7, (2, 2))]
)
def test_two_groups_halve_the_maps_upwards(height, width, last):
    network = build_classifier(SPEC, 3, 5, seed=0).eval()
    logits, maps = network(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 5)
    assert [m.shape[1] for m in maps] == [4, 6, 8]
    assert maps[-1].shape == (2, 8, *last)


@pytest.mark.parametrize("name", ["wrn10:4,6,8", "vgg11:4,4,6,6,8", "resnet18-cifar:4,6,8,8"])
def test_fconv_is_active_or_zero_and_its_mean_gives_the_logits(name):
    network = build_classifier(parse_network(name), 3, 5, seed=0).eval()
    logits, maps = network(torch.randn(4, 3, 16, 16))
    assert (maps[-1] >= 0).all()
    assert (maps[-1] > 0).any()
    by_hand = maps[-1].mean(dim=(2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(logits, by_hand)


def test_pooled_is_the_mean_over_height_and_width():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert global_average_pool(maps).tolist() == [[5.5, 17.5]]


def test_a_block_without_a_shortcut_adds_its_input():
    block = ResidualBlock(Residual(**BEFORE_AND_BODY)).eval()
    nn.init.zeros_(block.body[1].weight)
    maps = torch.randn(2, 3, 4, 4)
    assert torch.equal(block(maps), maps)


def test_a_shortcut_reads_what_comes_before():
    block = ResidualBlock(Residual(**BEFORE_AND_BODY, shortcut=(Conv(3, 3, 1),))).eval()
    nn.init.zeros_(block.body[1].weight)
    maps = torch.randn(2, 3, 4, 4)
    active = block.before[0](maps).clamp(min=0)
    torch.testing.assert_close(block(maps), block.shortcut(active))


def test_what_comes_after_works_on_the_sum():
    block = ResidualBlock(Residual(body=(Conv(3, 3, 3),), after=(Relu(),))).eval()
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(block(maps), (block.body(maps) + maps).clamp(min=0))


def test_operations_compute_what_torch_computes():
    maps = torch.randn(2, 4, 7, 6)
    conv, pool, cut = build_sequence((Conv(4, 4, 3, 2, 4), MaxPool(3), Relu(6.0)))
    by_hand = nn.functional.conv2d(maps, conv.weight, None, 2, 1, 1, 4)
    assert torch.equal(conv(maps), by_hand)
    assert torch.equal(pool(maps), nn.functional.max_pool2d(maps, 3, 2, 1))
    assert torch.equal(cut(10 * maps), nn.functional.relu6(10 * maps))
    assert build_sequence((MaxPool(2),))(maps).shape == (2, 4, 3, 3)


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
    weight = network.trunk[0][0].body[3].weight
    assert weight.shape == (64, 64, 3, 3)
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)
    assert not network.fc.bias.any()
