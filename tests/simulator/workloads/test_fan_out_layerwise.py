"""Students layer by layer where the device knows their layers, affine in MACs elsewhere."""

import pytest
from made_hardware import figure
from split_models import conv, fc

from profiles.layer import KindCost, LayerModel
from simulator.engine.simulation import simulate
from simulator.workloads.fan_out import layerwise_graph

TABLE = (conv(2, 4, 8), fc(4, 10))


def measured(board, *kinds):
    costs = tuple(
        KindCost(kind=kind, kernels=(kernel,), layers=9, terms={"fixed_ms": figure(each_ms)})
        for kind, kernel, each_ms in kinds
    )
    model = LayerModel(kinds=costs, layers=9, residual_pct=1, held_out_pct=None, source="this test")
    return type(board)(board.name, board.device.model_copy(update={"layers": model}), board.link)


def test_a_measured_board_takes_what_its_layers_take(make_fan_out, slow, fast):
    """Two students of 7 + 2 ms on `fast`, which slows down by 1.25; `slow` stays as it is."""
    known = measured(fast, ("conv", "spatial", 7), ("fc", "pointwise", 2))
    fan_out = make_fan_out(boards=(slow, known))
    tables = {"a": TABLE, "b": TABLE, "c": TABLE}
    found = {row.board: row for row in simulate(layerwise_graph(fan_out, tables)).boards}
    plain = {row.board: row for row in simulate(fan_out).boards}
    assert found["fast"].busy_ms == pytest.approx(1.25 * 2 * (7 + 2))
    assert found["fast"].energy_mj == pytest.approx(4 * found["fast"].busy_ms)
    assert found["slow"].busy_ms == plain["slow"].busy_ms


def test_a_board_that_knows_only_some_layers_stays_affine(make_fan_out, slow, fast):
    known = measured(fast, ("conv", "spatial", 7))
    fan_out = make_fan_out(boards=(slow, known))
    assert layerwise_graph(fan_out, {"b": TABLE, "c": TABLE}) == fan_out.graph()
