"""Splits by name: each is the module of that name with its usual settings."""

from typing import get_args

import pytest
from split_models import conv, fc

from profiles.device import compute_ms
from profiles.fleet import parse_fleet, resolve
from simulator.engine.simulation import simulate
from simulator.workloads import model_split, pipeline, spatial_split

TABLE = (conv(3, 8, 16), conv(8, 8, 16), conv(8, 64, 16), conv(64, 64, 8, stride=2), fc(64, 10))


@pytest.fixture
def fleet():
    return resolve(parse_fleet("rpi-3b*2,odroid-xu4s"))


def test_each_name_is_its_module(fleet):
    host, boards = fleet
    early = spatial_split.early_layers(TABLE)
    cut = model_split.best_cut(TABLE, boards[0], host)
    cuts = pipeline.best_cuts(TABLE, boards, host)
    expected = {
        "channels": model_split.channel_split_graph(TABLE, boards, host),
        "slices": spatial_split.slices_graph(TABLE, boards, host),
        "grid": spatial_split.grid_graph(TABLE, boards, host),
        "tiles": spatial_split.tiles_graph(TABLE, boards, host, fused=early, rows=1, columns=3),
        "cut": model_split.layer_cut_graph(TABLE, boards[0], host, cut),
        "pipeline": pipeline.pipeline_graph(TABLE, boards, host, cuts),
    }
    assert set(expected) == set(get_args(model_split.SplitName))
    for name, graph in expected.items():
        assert model_split.split_model(name, TABLE, boards, host).graph == graph


def test_words_say_where_the_cuts_are(fleet):
    host, boards = fleet
    cut = model_split.best_cut(TABLE, boards[0], host)
    assert (
        f"the first {cut} of 5 layers"
        in model_split.split_model("cut", TABLE, boards, host).description
    )
    assert "1 x 3 tiles" in model_split.split_model("tiles", TABLE, boards, host).description


def test_alone_is_the_time_of_all_macs(fleet):
    _, boards = fleet
    found = simulate(model_split.single_board_graph(TABLE, boards[0]))
    macs = sum(layer.macs for layer in TABLE)
    assert found.total_ms == pytest.approx(compute_ms(boards[0].device, macs))


@pytest.mark.parametrize("tiles", range(1, 40))
def test_a_grid_has_a_tile_for_each_board_and_less_than_a_row_to_spare(tiles):
    rows, columns = model_split.near_square(tiles)
    assert tiles <= rows * columns < tiles + rows
    assert rows <= columns
