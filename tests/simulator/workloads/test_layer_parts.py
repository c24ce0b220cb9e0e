"""A pace: per layer where the profile has a model of all layers, by MACs otherwise."""

import pytest
from made_hardware import device, figure
from split_models import conv, fc

from nonn_common.errors import ProfileError
from profiles.device import compute_mj, compute_ms, model_ms
from profiles.layer import KindCost, LayerModel
from simulator.workloads.layer_parts import LayerCostModel, Region, Span, part_of_layer

FIGURES = {
    "compute_fixed_ms": 5,
    "compute_ms_per_mmac": 1000,
    "power_fixed_w": 1,
    "power_busy_w": 3,
}
TABLE = (conv(2, 4, 8), conv(4, 4, 8), fc(4, 10))
CONVOLUTIONS = KindCost(
    kind="conv",
    kernels=("spatial",),
    layers=9,
    terms={"fixed_ms": figure(2), "ms_per_spatial_mmac": figure(100)},
)
LAST = KindCost(kind="fc", kernels=("pointwise",), layers=9, terms={"fixed_ms": figure(0.5)})


def board(*kinds):
    profile = device("device", **FIGURES)
    if not kinds:
        return profile
    model = LayerModel(kinds=kinds, layers=9, residual_pct=1, held_out_pct=None, source="this test")
    return profile.model_copy(update={"layers": model})


def test_by_macs_without_measured_layers():
    cost_model, macs = LayerCostModel(board(), TABLE), sum(layer.macs for layer in TABLE)
    whole = cost_model.begin + cost_model.layers(TABLE)
    assert whole.ms == pytest.approx(compute_ms(board(), macs))
    assert whole.mj == pytest.approx(compute_mj(board(), macs))


def test_per_layer_where_all_were_measured():
    measured = board(CONVOLUTIONS, LAST)
    cost_model = LayerCostModel(measured, TABLE)
    whole = cost_model.begin + cost_model.layers(TABLE)
    assert model_ms(measured, TABLE).how == "per-layer"
    assert whole.ms == pytest.approx(model_ms(measured, TABLE).ms)
    assert whole.ms == pytest.approx(4.5 + 100 * (TABLE[0].macs + TABLE[1].macs) / 1e6)
    assert whole.mj == pytest.approx(3 * whole.ms)


def test_by_macs_where_one_kind_was_not_measured():
    cost_model = LayerCostModel(board(CONVOLUTIONS), TABLE)
    assert cost_model.layers(TABLE[:1]).ms == pytest.approx(TABLE[0].macs / 1000)
    assert cost_model.begin.ms == 5


def test_half_of_a_layer_pays_its_fixed_part_in_full():
    half = part_of_layer(TABLE[0], Region(Span(0, 4), Span(0, 8)))
    cost_model = LayerCostModel(board(CONVOLUTIONS, LAST), TABLE)
    assert cost_model.layers((half,)).ms == pytest.approx(2 + 100 * TABLE[0].macs / 2 / 1e6)


def test_a_device_without_power_costs_no_energy_and_one_without_time_is_refused():
    bare = device("bare", compute_fixed_ms=1, compute_ms_per_mmac=1)
    cost_model = LayerCostModel(bare, TABLE)
    assert (cost_model.begin + cost_model.layers(TABLE)).mj == 0
    with pytest.raises(ProfileError, match="compute_ms_per_mmac"):
        LayerCostModel(device("empty"), TABLE).layers(TABLE)
