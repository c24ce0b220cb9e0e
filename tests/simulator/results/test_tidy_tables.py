"""Tidy tables, written and read again."""

import csv
import math
from dataclasses import astuple, fields

import pyarrow.csv as arrow_csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from simulator.engine.simulation import simulate
from simulator.results.breakdown import BoardRow, InferenceRow, IntervalRow, MessageRow
from simulator.results.tables import Table, as_csv, plain_csv, tables, write_tables
from simulator.scenario import Periodic, Scenario, TimedFailure

LOSING = Scenario(Periodic(60), (TimedFailure(("slow",), 20, 100),), on_failure="lose")
ROWS = {"inferences": InferenceRow, "intervals": IntervalRow, "messages": MessageRow}
ROWS["boards"] = BoardRow


@pytest.fixture
def result(make_fan_out):
    found = simulate(make_fan_out(), 5, LOSING)
    assert found.lost
    assert any(row.lost for row in found.intervals)
    return found


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_read_is_what_happened(result, tmp_path, name, suffix):
    write_tables(result, tmp_path)
    read = arrow_csv.read_csv if suffix == "csv" else parquet.read_table
    table = read(tmp_path / f"{name}.{suffix}")
    columns = [field.name for field in fields(ROWS[name])]
    found = [tuple(row[column] for column in columns) for row in table.to_pylist()]
    expected = [tuple(map(none_for_nan, astuple(row))) for row in getattr(result, name)]
    assert found == expected


def none_for_nan(value):
    return None if isinstance(value, float) and math.isnan(value) else value


def test_a_lost_image_has_no_end_and_no_latency(result):
    rows = list(tables(result)["inferences"].rows())
    lost = [row for row in rows if row["end_ms"] is None]
    assert len(lost) == result.lost
    assert all(row["latency_ms"] is None for row in lost)
    for row in rows:
        if row not in lost:
            assert row["latency_ms"] == row["end_ms"] - row["start_ms"]


def test_columns_of_quantities_tell_their_units(result):
    for table in tables(result).values():
        for name, kind in table.types.items():
            if kind is float and name != "utilisation":
                assert name.endswith(("_ms", "_mj", "_w"))


def test_totals_leave_only_boards(make_fan_out):
    found = tables(simulate(make_fan_out(), 5, keep="totals"))
    assert [name for name, table in found.items() if list(table.rows())] == ["boards"]


def test_a_csv_is_plain(result, tmp_path):
    """Read without Arrow: a header, and one line per row."""
    write_tables(result, tmp_path)
    with (tmp_path / "messages.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["received_ms"]) for row in rows] == [
        row.received_ms for row in result.messages
    ]


def test_nothing_else_is_left_in_the_folder(result, tmp_path):
    written = write_tables(result, tmp_path / "new")
    assert sorted(written) == sorted((tmp_path / "new").iterdir())
    assert len(written) == 8


@pytest.mark.parametrize("name", ROWS)
def test_csv_is_the_same_without_arrow(result, name):
    table = tables(result)[name]
    assert plain_csv(table) == as_csv(table)


@given(st.lists(st.floats(), min_size=1), st.lists(st.text(st.characters(codec="utf-8"))))
def test_any_number_and_any_text_is_written_as_arrow_writes_it(numbers, texts):
    for kind, column in ((float, numbers), (str, texts)):
        table = Table.of({"column": column}, {"column": kind})
        assert plain_csv(table) == as_csv(table)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e10, 9999999999.0, 1e-6, 9.99e-7, 5e-324, 1.7e308])
def test_numbers_at_the_ends_of_plain_notation(value):
    table = Table.of({"column": [value, None]}, {"column": float})
    assert plain_csv(table) == as_csv(table)


def test_without_arrow_only_csv_is_written(result, tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.results.tables.HAS_PARQUET", False)
    assert {path.suffix for path in write_tables(result, tmp_path)} == {".csv"}
