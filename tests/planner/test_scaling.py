import pytest

from nonn_core.networks.blueprint import ImageShape
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_cost_line
from planner.data.modes import (
    UNITS_PER_MJ,
    UNITS_PER_MS,
    busy_units,
    energy_units,
    least_within,
    most_within,
    round_down,
    round_up,
)
from profiles.device import DEVICES
from simulator.workloads.fan_out import busy_mj, busy_ms


def test_costs_go_up_and_capacities_down():
    assert round_up(0.0000012, UNITS_PER_MS) == 2
    assert round_down(0.0000019, UNITS_PER_MS) == 1
    assert round_down(None, UNITS_PER_MS) is None


def test_decimal_figures_are_not_pushed_up_by_binary_noise():
    assert round_up(1.1, 10**6) == 1_100_000


@pytest.mark.parametrize(
    ("best", "tolerance_pct", "least", "most"),
    [(1000, 5, 950, 1050), (999, 5, 950, 1048), (-100, 10, -110, -90), (7, 0, 7, 7)],
)
def test_a_tolerance_is_taken_from_the_size_of_the_best(best, tolerance_pct, least, most):
    assert least_within(best, tolerance_pct) == least
    assert most_within(best, tolerance_pct) == most


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("units", "cost", "scale"),
    [(busy_units, busy_ms, UNITS_PER_MS), (energy_units, busy_mj, UNITS_PER_MJ)],
)
def test_scaled_figures_are_the_simulators_rounded_up(units, cost, scale, several):
    line = student_cost_line(parse_network("wrn16:32,64,88"), ImageShape(3, 32, 32))
    students = 3 if several else 1
    for filters in (1, 80):
        real = cost(DEVICES.get("odroid-xu4s"), [line.at(filters).macs] * students) * scale
        scaled = students * units(DEVICES.get("odroid-xu4s"), line, several).at(filters)
        assert real - 1e-2 <= scaled <= real + students * (1 + filters)
