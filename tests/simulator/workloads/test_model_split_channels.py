"""Channel split: the formula for boards that are alike, and the published measurements."""

from dataclasses import replace

import pytest
from made_hardware import device, link
from split_models import conv, fc

from nonn_common.errors import ProfileError, SimulationError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_table
from profiles.device import DEVICES, compute_ms
from profiles.fleet import Board
from profiles.link import LINKS, wire_ms
from simulator.engine.simulation import simulate
from simulator.workloads import model_split
from simulator.workloads.model_split import channel_share, channels_of

CIFAR = ImageShape(3, 32, 32)
FIGURES = {
    "compute_fixed_ms": 10,
    "compute_ms_per_mmac": 1000,
    "exchange_ms": 7,
    "peer_message_ms": 2,
    "message_ms": 3,
}


def board(name, bits_per_s=1_000_000, **figures):
    return Board(name, device("tortoise", **{**FIGURES, **figures}), link("wire", bits_per_s))


def alike(count):
    return tuple(board(f"board-{i}") for i in range(count))


def published(device_name, count, wire):
    profile, wire = DEVICES.get(device_name), LINKS.get(wire)
    return tuple(Board(f"board-{i}", profile, wire) for i in range(count))


def test_two_boards_by_hand():
    """Maps of 4 channels x 5 x 5; 2 of them are 200 bytes, 1.6 ms on a wire of 1 Mbit/s."""
    first, last = conv(2, 4, 5), fc(4, 10)
    result = simulate(model_split.channel_split_graph((first, last), alike(2)))
    computing_ms = 10 + (first.macs + last.macs) / 2 / 1000
    assert result.total_ms == pytest.approx(computing_ms + 7 + 2 + 1.6)


def test_a_host_sends_the_image_and_receives_the_shares(host):
    """Image: 200 bytes, 1.6 + 3 ms to each board; 5 of 10 outputs: 0.16 ms back; 2.5 ms to join."""
    table = (conv(2, 4, 5), fc(4, 10))
    without = simulate(model_split.channel_split_graph(table, alike(2))).total_ms
    result = simulate(model_split.channel_split_graph(table, alike(2), host))
    assert result.total_ms == pytest.approx(4.6 + 4.6 + without + 0.16 + 2.5)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_boards_that_are_alike_take_what_the_formula_says(count):
    table = teacher_table(parse_network("wrn40-2"), CIFAR, 8)
    boards = alike(count)
    exchanges = [layer for layer in table if layer.kind == "conv"]
    computing_ms = compute_ms(boards[0].device, sum(layer.macs for layer in table)) - 10
    messages_ms = sum(
        7 + (count - 1) * (2 + wire_ms(boards[0].link, 4 * layer.out_elements // count))
        for layer in exchanges
    )
    total_ms = 10 + computing_ms / count + (messages_ms if count > 1 else 0)
    assert simulate(model_split.channel_split_graph(table, boards)).total_ms == pytest.approx(
        total_ms, rel=0, abs=1e-6
    )


def test_wrn40_4_on_two_x86_machines():
    """Section 3 of arXiv:1907.11804: 86 ms on one machine, 1006 ms on two."""
    table = teacher_table(parse_network("wrn40-4"), CIFAR, 10)
    one = simulate(model_split.channel_split_graph(table, published("x86-host", 1, "wired-1gbit")))
    two = simulate(model_split.channel_split_graph(table, published("x86-host", 2, "wired-1gbit")))
    assert one.total_ms == pytest.approx(86, rel=0.05)
    assert two.total_ms == pytest.approx(1006, rel=0.05)


@pytest.mark.parametrize(("count", "total_s", "mflops"), [(4, 23.0, 163), (8, 28.5, 82)])
def test_wrn40_2_on_raspberry_pis(count, total_s, mflops):
    """Table 8 of arXiv:1907.11804: total time, and FLOPs per device."""
    table = teacher_table(parse_network("wrn40-2"), CIFAR, 10)
    result = simulate(
        model_split.channel_split_graph(table, published("rpi-3b-pytorch", count, "wired-100mbit"))
    )
    assert result.total_ms == pytest.approx(1000 * total_s, rel=0.05)
    shares = [channel_share(layer, 0, count) for layer in table]
    assert 2e-6 * sum(each.macs for each in shares if each) == pytest.approx(mflops, rel=0.015)


def test_channels_that_do_not_divide_go_to_the_first_boards():
    layer = conv(2, 7, 5)
    assert [channels_of(layer, number, 3) for number in range(3)] == [3, 2, 2]
    assert channel_share(conv(2, 2, 5), 2, 3) is None


def test_a_share_of_a_depthwise_layer_reads_its_own_channels_alone():
    layer = replace(conv(6, 6, 5), groups=6)
    own = channel_share(layer, 0, 3)
    assert (own.in_channels, own.out_channels, own.groups) == (2, 2, 2)
    mixing = channel_share(conv(6, 6, 5), 0, 3)
    assert (mixing.in_channels, mixing.out_channels, mixing.groups) == (6, 2, 1)


def test_what_cannot_be_split():
    table = (conv(2, 4, 5), fc(4, 10))
    with pytest.raises(SimulationError, match="found 0 boards"):
        model_split.channel_split_graph(table, ())
    with pytest.raises(SimulationError, match="0 layers"):
        model_split.channel_split_graph((), alike(2))
    with pytest.raises(SimulationError, match="unique"):
        model_split.channel_split_graph(table, (board("a"), board("a")))
    lame = device("lame", compute_fixed_ms=1, compute_ms_per_mmac=1)
    with pytest.raises(ProfileError, match="exchange_ms"):
        model_split.channel_split_graph(table, (board("a"), Board("b", lame, link("wire", 1000))))
