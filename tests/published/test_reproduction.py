"""Simulated figures beside published ones, row by row."""

import pytest

from nonn_plan.reproduction import move_of, reproduced_figures, workload_of
from profiles.calibration_data import METRICS, published_facts
from profiles.leave_one_out import fitted_rows
from simulator.engine.simulation import simulate

WITHIN_PCT = {"Tables 6 and 7": 3, "section 3": 5, "Table 8": 5}


@pytest.fixture(scope="module")
def rows():
    return reproduced_figures()


def of(rows, table):
    return [row for row in rows if row.table.endswith(table)]


def test_every_published_figure_has_a_row(rows):
    facts = published_facts()
    expected = {
        (row.table, f"{row.device} {row.row}", quantity, row.value(quantity))
        for row in facts.measurements
        for quantity in METRICS
        if row.value(quantity) is not None or quantity in row.withheld
    }
    found = {(row.table, row.row, row.quantity, row.published) for row in rows}
    assert expected <= found
    assert {table for table, *_ in found - expected} == {facts.sweep.table}


@pytest.mark.parametrize(("table", "within_pct"), WITHIN_PCT.items())
def test_rows_used_to_fit_are_within_their_bound(rows, table, within_pct):
    used = [row for row in of(rows, table) if row.used_for_fit]
    assert used
    for row in used:
        assert abs(row.error_pct) <= within_pct, f"{row.row} {row.quantity}"


def test_each_row_used_to_fit_has_a_leave_one_out_error_or_a_reason(rows):
    for row in rows:
        assert (row.loo_error_pct is None) == (row.loo_reason is not None)


def test_a_withheld_figure_has_a_prediction_alone(rows):
    withheld = [row for row in rows if row.published is None]
    assert all(row.error_pct is None and not row.used_for_fit for row in withheld)
    assert all(row.simulated > 0 for row in withheld)
    blind = {row.quantity for row in withheld if row.row == "odroid-xu4s nonn_8s"}
    assert blind == set(METRICS)
    sweep = [row for row in withheld if row.table.endswith("Figure 7")]
    assert {row.quantity for row in sweep} == {"energy_per_fleet_mj", "communication_ms"}


def test_errors_are_relative(rows):
    for row in rows:
        if row.published is not None:
            error_pct = 100 * (row.simulated - row.published) / row.published
            assert row.error_pct == pytest.approx(error_pct, abs=1e-9)


def test_the_least_of_figure_7_is_at_four(rows):
    (row,) = [row for row in rows if row.row == "least total latency"]
    assert row.published == row.simulated == 4


def test_the_simulator_says_what_the_calibration_says(rows):
    """Two ways to the same figure: the fit's closed form, and the simulator on the library."""
    simulated = {(row.table, row.row, row.quantity): row.simulated for row in rows}
    for fit in fitted_rows():
        found = simulated[fit.table, f"{fit.device} {fit.row}", fit.quantity]
        assert found == pytest.approx(fit.fitted, rel=1e-3), f"{fit.row} {fit.quantity}"


def test_parts_of_a_published_latency_add_up():
    facts = published_facts()
    for row in facts.measurements:
        found = simulate(workload_of(row, facts))
        assert found.compute_ms + found.communication_ms == pytest.approx(found.total_ms)


def test_the_sweep_begins_with_the_published_row_of_slow_boards():
    """None moved yet: eight Raspberry Pis with a student each, as in Table 6."""
    facts = published_facts()
    row = next(
        row
        for row in facts.measured_on(facts.sweep.slow_device)
        if row.boards == facts.sweep.students
    )
    first = move_of(facts.sweep, facts).points()[0]
    assert first.total_ms == pytest.approx(simulate(workload_of(row, facts)).total_ms)
