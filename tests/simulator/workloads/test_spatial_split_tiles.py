"""Fused tiles: what tiles repeat, by hand and by counting, and what they take."""

from dataclasses import replace

import pytest
from made_hardware import device, link
from split_models import conv, fc

from nonn_common.errors import SimulationError
from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import teacher_table
from profiles.fleet import Board
from simulator.engine.simulation import simulate
from simulator.workloads import spatial_split
from simulator.workloads.spatial_split import (
    cut_tiles,
    early_layers,
    fusable,
)


def board(name, per_mmac=1000):
    profile = device("device", compute_fixed_ms=5, compute_ms_per_mmac=per_mmac, message_ms=2)
    return Board(name, profile, link("wire", 1_000_000))


@pytest.fixture
def desk(host):
    return device("desk", host.hosting, compute_fixed_ms=3, compute_ms_per_mmac=10)


STACK = (conv(1, 2, 8), conv(2, 2, 8))
POOL = replace(conv(2, 2, 8, 8, 8), kind="pool", macs=128, weights=0)


def redundancy(table, fused, rows, columns):
    """Tiles' multiply-accumulates over those of the layers undivided.

    It is below 1 where tiles repeat nothing and a pooling passes over a last row that they leave
    out.
    """
    whole = sum(layer.macs for layer in table[:fused])
    return sum(tile.macs for tile in cut_tiles(table, fused, rows, columns)) / whole


def test_two_tiles_by_hand(desk):
    """Two 3x3 convolutions on 8 x 8: half of the output reads 5 rows of the first, 6 of the image.

    Each sends 6 x 8 values (192 bytes, 1.536 ms) and returns 2 x 4 x 8 (256 bytes, 2.048 ms).
    """
    upper, lower = cut_tiles(STACK, 2, 2, 1)
    assert (upper.reads.rows.start, upper.reads.rows.end) == (0, 6)
    assert (lower.reads.rows.start, lower.reads.rows.end) == (2, 8)
    macs = STACK[0].macs * 5 // 8 + STACK[1].macs // 2
    assert (upper.macs, lower.macs) == (macs, macs)
    assert redundancy(STACK, 2, 2, 1) == pytest.approx(2 * macs / (288 * 4 + 576 * 4))
    boards = (board("a"), board("b"))
    split = spatial_split.tiles_graph(
        (*STACK, POOL, fc(2, 10)), boards, desk, fused=2, rows=2, columns=1
    )
    at_host_ms = 3 + 10 * (128 + 20) / 1e6
    assert simulate(split).total_ms == pytest.approx(
        2 * 3.536 + 5 + macs / 1000 + 2.048 + 2.5 + at_host_ms
    )


def test_tiles_are_dealt_in_turn_and_queue_on_their_board(desk):
    """Four tiles on one board: four sends while it computes one after the other; one fixed part."""
    slow = board("a", per_mmac=10_000)
    split = spatial_split.tiles_graph(STACK, (slow,), desk, fused=2, rows=2, columns=2)
    each = cut_tiles(STACK, 2, 2, 2)[0].macs / 100
    reads_ms = 8 * 4 * 36 / 1000  # 6 x 6 values
    returned_ms = 8 * 4 * 2 * 16 / 1000
    assert each > 2 + reads_ms
    assert simulate(split).total_ms == pytest.approx(
        2 + reads_ms + 5 + 4 * each + returned_ms + 2.5
    )


def test_one_tile_repeats_nothing():
    table = teacher_table(parse_network("wrn16-1"), ImageShape(3, 32, 32), 10)
    for fused in fusable(table):
        assert redundancy(table, fused, 1, 1) == 1


def test_fused_layers_end_where_no_shortcut_is_open():
    table = teacher_table(parse_network("wrn10-1"), ImageShape(3, 16, 16), 10)
    named = [table[fused - 1].name for fused in fusable(table)]
    # The first block of 16 channels keeps its input; the others project it.
    assert named[:2] == ["group0.0", "group0.1.body.3"]
    assert named[-2:] == ["pool", "fc"]
    with pytest.raises(SimulationError, match="no shortcut is open"):
        cut_tiles(table, 2, 2, 2)
    with pytest.raises(SimulationError, match="at least one tile"):
        cut_tiles(table, 1, 0, 2)


def test_there_are_no_more_tiles_than_places():
    assert len(cut_tiles((conv(1, 1, 3),), 1, 5, 2)) == 6


def test_counted_place_by_place():
    """Every place of every layer that each tile needs, through 3x3 windows clipped to the maps."""
    sizes, strides = (9, 9, 5, 5), (1, 2, 1)
    stack = tuple(
        conv(1, 1, size, 3, stride) for size, stride in zip(sizes[:-1], strides, strict=True)
    )
    counted = 0
    for tile in cut_tiles(stack, 3, 2, 2):
        wanted = {
            (row, column)
            for row in range(tile.writes.rows.start, tile.writes.rows.end)
            for column in range(tile.writes.columns.start, tile.writes.columns.end)
        }
        for layer in reversed(stack):
            counted += 9 * len(wanted)
            wanted = {
                (row * layer.stride + down, column * layer.stride + right)
                for row, column in wanted
                for down in (-1, 0, 1)
                for right in (-1, 0, 1)
                if 0 <= row * layer.stride + down < layer.in_height
                if 0 <= column * layer.stride + right < layer.in_width
            }
        assert len(wanted) == tile.reads.area
    whole = sum(layer.macs for layer in stack)
    assert redundancy(stack, 3, 2, 2) == pytest.approx(counted / whole)
    assert counted > whole


def test_early_layers_are_those_whose_maps_outweigh_their_weights():
    """WRN40-4: 64 x 64 x 9 weights make 64 x 32 x 32 values, 64 x 128 x 9 only 128 x 16 x 16."""
    table = teacher_table(parse_network("wrn40-4"), ImageShape(3, 32, 32), 10)
    # The second group begins with a normalisation that its body and its projection both read.
    assert table[early_layers(table) - 1].name == "stages.0.0.before.0"
    assert early_layers((conv(1, 9, 1), fc(9, 10))) == 1
