"""Greedy two-dimensional cuts: rectangles by speed."""

import pytest
from split_models import conv

from simulator.workloads.layer_parts import Region, Span, input_region
from simulator.workloads.spatial_split import cut_grid, cut_slices


def test_the_fastest_cuts_first_and_across_the_longer_side():
    """12 x 12: half for the fastest, then the lower 6 x 12 is cut across its columns."""
    slow, fast, slower = cut_grid(conv(1, 1, 12), (2.0, 3.0, 1.0))
    assert fast == Region(Span(0, 6), Span(0, 12))
    assert slow == Region(Span(6, 12), Span(0, 8))
    assert slower == Region(Span(6, 12), Span(8, 12))


def test_a_board_without_a_place_sits_out():
    assert cut_grid(conv(1, 1, 1), (1.0, 2.0)) == (
        None,
        Region(Span(0, 1), Span(0, 1)),
    )


@pytest.mark.parametrize("boards", [4, 8, 16])
def test_squares_read_less_halo_than_slices(boards):
    layer, speeds = conv(1, 1, 64), (1.0,) * boards
    read = {
        cut: sum(input_region(layer, region).area for region in cut(layer, speeds))
        for cut in (cut_grid, cut_slices)
    }
    assert 64 * 64 < read[cut_grid] < read[cut_slices]
