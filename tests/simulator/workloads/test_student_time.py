"""Students' times by their layers: one line in the filters, the same wherever it is read."""

from dataclasses import replace

import pytest
from drawn_instances import made_rates
from made_hardware import figure

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import StudentOutline, group0_table, student_table
from planner.plan_file.decision_workload import student_time
from profiles.device import model_ms
from profiles.layer import KindCost, LayerModel
from profiles.layer_rates import WORKS
from simulator.engine.simulation import simulate
from simulator.workloads.closed_form import fan_out_breakdown
from simulator.workloads.layer_parts import time_line

CIFAR = ImageShape(3, 32, 32)
RATES = made_rates({name: 0.05 + n / 500 for n, name in enumerate(WORKS)})
NETWORKS = ["wrn16:16,64,96", "wrn10:6,8,10", "mobilenetv2-cifar-0.5", "vgg11"]


def measured(*kinds):
    costs = tuple(
        KindCost(kind=kind, kernels=("pointwise", "spatial"), layers=9, terms=terms)
        for kind, terms in kinds
    )
    return LayerModel(kinds=costs, layers=9, residual_pct=1, held_out_pct=None, source="this test")


def with_layers(board, **update):
    return replace(board, device=board.device.model_copy(update=update))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_line_by_rates_is_exact_but_for_multiples_of_four(fast, name, precision):
    """There it is above by the surcharge of other numbers, on the head alone."""
    device = with_layers(fast, layer_rates=RATES).device.model_copy(update={"precision": precision})
    outline = StudentOutline(parse_network(name), CIFAR)
    line = time_line(device, outline)
    odd = "int8 odd channels" if precision == "int8" else "odd channels"
    for filters in (1, 3, 7, 8, 46, 64, 129, 640):
        table = student_table(parse_network(name), CIFAR, filters)
        assert table == outline.body() + outline.head(filters)
        exact, found = model_ms(device, table), line.at(filters)
        head = next(layer for layer in table if layer.name == "fconv.0")
        even = filters % 4 == 0 and head.in_channels % 4 == 0
        surcharge_ms = RATES.ms_per_unit[odd] * head.macs / 1e6 if even else 0.0
        assert found.ms == pytest.approx(exact.ms + surcharge_ms, rel=1e-12)
        assert (found.low_ms, found.high_ms) == pytest.approx((0.75 * found.ms, 1.25 * found.ms))


def test_a_line_by_measured_layers_is_exact(fast):
    terms = {
        "fixed_ms": figure(0.1),
        "ms_per_pointwise_mmac": figure(0.3),
        "ms_per_spatial_mmac": figure(0.2),
        "ms_per_activation_mb": figure(1.5),
        "ms_per_weight_mb": figure(2.5),
    }
    layers = measured(("conv", terms), ("norm", {"fixed_ms": figure(0.2)}), ("pool", terms))
    device = with_layers(fast, layers=layers).device
    spec = parse_network("wrn16:16,64,96")
    skipped = len(group0_table(spec, CIFAR))
    for own in (True, False):
        line = time_line(device, StudentOutline(spec, CIFAR, own))
        for filters in (1, 4, 46, 640):
            table = student_table(spec, CIFAR, filters)[0 if own else skipped :]
            assert line.at(filters).ms == pytest.approx(model_ms(device, table).ms, rel=1e-12)
            assert line.at(filters).high_ms is None


def test_engine_and_closed_form_take_what_layers_predict(make_fan_out, slow, fast):
    """Two students on `fast`, which slows down by 1.25; `slow` stays affine in the MACs."""
    known = with_layers(fast, layer_rates=RATES)
    fan_out = make_fan_out(boards=(slow, known))
    plain = {row.board: row for row in fan_out_breakdown(fan_out).boards}
    time = student_time(known.device, "wrn10:4,8,8", CIFAR, 9)
    students = tuple(
        replace(each, time=time if each.board == "fast" else None) for each in fan_out.students
    )
    timed = replace(fan_out, students=students)
    found = {row.board: row for row in fan_out_breakdown(timed).boards}
    assert found["fast"].busy_ms == pytest.approx(1.25 * 2 * time.ms)
    assert found["fast"].energy_mj == pytest.approx(
        fast.device.power_busy_w.value * found["fast"].busy_ms
    )
    assert found["slow"] == replace(plain["slow"], send_done_ms=found["slow"].send_done_ms)
    for row in simulate(timed).boards:
        assert row.busy_ms == pytest.approx(found[row.board].busy_ms)
        assert row.energy_mj == pytest.approx(found[row.board].energy_mj)
    assert simulate(timed).total_ms == pytest.approx(fan_out_breakdown(timed).total_ms)


def test_a_device_that_lacks_a_layer_predicts_nothing_by_layers(fast):
    only_conv = with_layers(fast, layers=measured(("conv", {"fixed_ms": figure(7)})))
    assert student_time(only_conv.device, "wrn10:4,8,8", CIFAR, 9) is None
    assert student_time(fast.device, "wrn10:4,8,8", CIFAR, 9) is None


def test_energy_is_unknown_where_power_is_and_times_are_not(make_fan_out, slow, fast):
    dark = with_layers(fast, power_busy_w=None, power_fixed_w=None)
    fan_out = make_fan_out(boards=(slow, dark))
    lit = make_fan_out(boards=(slow, fast))
    for run in (fan_out_breakdown, simulate):
        found, known = run(fan_out), run(lit)
        assert found.total_ms == known.total_ms
        plain = found.to_dict()
        assert plain["energy_total_mj"] is plain["energy_per_node_mj"] is None
        energies = {row["board"]: row["energy_mj"] for row in plain["boards"]}
        assert energies["fast"] is None
        assert energies["slow"] > 0
