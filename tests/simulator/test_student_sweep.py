"""A move: every configuration is the closed form's, and its table and picture are written."""

import csv

import pytest
from pyarrow import parquet

from simulator.student_sweep import (
    StudentSweep,
    least_total_at,
    sweep_plot,
    write_sweep_plot,
    write_sweep_table,
)
from simulator.workloads.closed_form import fan_out_breakdown


@pytest.fixture
def move(host, slow, fast):
    return StudentSweep(slow.device, fast.device, fast.link, host, 5, 4_000_000, 50, 1000)


def test_each_number_of_students_costs_what_the_closed_form_says(move):
    for row in move.points():
        expected = fan_out_breakdown(move.fan_out(row.moved))
        assert row.total_ms == pytest.approx(expected.total_ms, abs=1e-9)
        assert row.compute_ms == pytest.approx(expected.compute_ms)
        assert row.energy_per_node_mj == pytest.approx(expected.energy_per_node_mj)
        assert row.energy_per_fleet_mj == pytest.approx(expected.energy_total_mj)


def test_all_students_are_somewhere(move):
    for moved in range(6):
        homes = [student.board for student in move.fan_out(moved).students]
        assert homes.count("fast") == moved
        assert len(set(homes) - {"fast"}) == 5 - moved


def test_replies_of_boards_that_are_not_there_are_unknown(move):
    first, *between, last = move.points()
    assert first.fast_done_ms is None
    assert last.slow_done_ms is None
    assert all(row.slow_done_ms and row.fast_done_ms for row in between)


def test_the_least_is_that_of_the_rows(move):
    rows = move.points()
    assert rows[least_total_at(rows)].total_ms == min(row.total_ms for row in rows)


def test_the_table_is_read_again(move, tmp_path):
    rows = move.points()
    write_sweep_table(rows, tmp_path / "sweep.csv")
    write_sweep_table(rows, tmp_path / "sweep.parquet")
    with (tmp_path / "sweep.csv").open(newline="") as stream:
        found = [float(row["total_ms"]) for row in csv.DictReader(stream)]
    assert found == [row.total_ms for row in rows]
    assert parquet.read_table(tmp_path / "sweep.parquet").to_pylist() == [
        row.to_dict() for row in rows
    ]


def test_the_picture_shows_total_and_energy(move, tmp_path):
    rows = move.points()
    latency, energy = sweep_plot(move, rows).axes
    total = next(line for line in latency.lines if line.get_label() == "total latency")
    assert list(total.get_ydata()) == [row.total_ms for row in rows]
    assert list(energy.lines[0].get_ydata()) == [row.energy_per_fleet_mj for row in rows]
    write_sweep_plot(move, rows, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
