"""One-dimensional slices: shares by speed, rounds by hand."""

from dataclasses import replace

import pytest
from made_hardware import device, link
from split_models import conv, fc

from profiles.fleet import Board
from simulator.engine.simulation import simulate
from simulator.workloads import spatial_split
from simulator.workloads.layer_parts import Span


def board(name, per_mmac, fixed=5):
    profile = device("device", compute_fixed_ms=fixed, compute_ms_per_mmac=per_mmac, message_ms=2)
    return Board(name, profile, link("wire", 1_000_000))


@pytest.fixture
def desk(host):
    slow = {"compute_fixed_ms": 3, "compute_ms_per_mmac": 1000}
    return replaced(host, slow)


def replaced(host, figures):
    return device("desk", host.hosting, **figures)


def test_rows_go_by_speed():
    regions = spatial_split.cut_slices(conv(1, 1, 12), (3.0, 1.0, 2.0))
    assert [region.rows for region in regions] == [Span(0, 6), Span(6, 8), Span(8, 12)]
    assert {region.columns for region in regions} == {Span(0, 12)}


def test_the_longer_side_is_cut():
    wide = replace(conv(1, 1, 12), out_height=3)
    assert [region.columns for region in spatial_split.cut_slices(wide, (1.0, 2.0))] == [
        Span(0, 4),
        Span(4, 12),
    ]


def test_a_board_without_a_row_sits_out():
    assert spatial_split.cut_slices(conv(1, 1, 4), (100.0, 1.0))[1] is None


def test_two_boards_by_hand(desk):
    """A 3x3 convolution of 1 x 8 x 8 to 2 channels on boards of 1 and 3 parts, then an FC layer.

    Rows 0-1 read rows 0-2 (96 bytes, 0.768 ms), rows 2-7 read rows 1-7 (224 bytes, 1.792 ms); they
    return 128 and 384 bytes (1.024 and 3.072 ms).
    """
    layer, last = conv(1, 2, 8), fc(2, 10)
    slow, fast = board("slow", 3000), board("fast", 1000)
    result = simulate(spatial_split.slices_graph((layer, last), (slow, fast), desk))
    slow_ms = 2.768 + (5 + 3000 * layer.macs / 4 / 1e6) + 1.024
    fast_ms = 2.768 + 3.792 + (5 + 1000 * layer.macs * 3 / 4 / 1e6) + 3.072
    assert result.total_ms == pytest.approx(
        max(slow_ms, fast_ms) + 2.5 + 3 + 1000 * last.macs / 1e6
    )


def test_a_fixed_part_is_paid_once(desk):
    table = (conv(1, 1, 8), conv(1, 1, 8))
    once = simulate(spatial_split.slices_graph(table, (board("a", 100, fixed=0),), desk)).total_ms
    assert simulate(
        spatial_split.slices_graph(table, (board("a", 100, fixed=40),), desk)
    ).total_ms == (pytest.approx(once + 40))
