from itertools import islice

import numpy as np
import pytest

from nonn_common.errors import InputError, SimulationError
from simulator.engine.simulation import simulate
from simulator.scenario import Periodic, Poisson, Scenario, Times, random_stream


def test_a_poisson_stream_has_its_rate_and_exponential_gaps():
    times = np.array(list(islice(Poisson(per_s=50).times(random_stream(1, "arrivals")), 40_000)))
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(20, rel=0.02)
    assert gaps.std() == pytest.approx(20, rel=0.03)


def test_images_start_when_they_come(make_fan_out):
    every = simulate(make_fan_out(), 3, Scenario(Periodic(100))).inferences
    assert [row.start_ms for row in every] == [0, 100, 200]
    assert [row.latency_ms for row in every] == pytest.approx([43] * 3)
    traced = simulate(make_fan_out(), 2, Scenario(Times((5.0, 5.0)))).inferences
    # The second image waits for 13.8 ms of sends, and then 8 ms for slow's processor.
    assert [row.start_ms for row in traced] == [5, 5]
    assert [row.latency_ms for row in traced] == pytest.approx([43, 63])


def test_times_from_a_csv_trace(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("image,start_ms\na,0\nb,12.5\nc,12.5\n")
    assert Times.from_csv(path) == Times((0.0, 12.5, 12.5))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as spreadsheets write it
    assert Times.from_csv(path) == Times((0.0, 12.5, 12.5))


@pytest.mark.parametrize(("sign", "name"), [(";", "semicolon"), ("\t", "tab")])
def test_times_from_a_sheet_say_how_its_cells_are_divided(tmp_path, sign, name):
    path = tmp_path / "trace.csv"
    path.write_text("image,start_ms\na,0\n,\nb,12.5\n".replace(",", sign))
    found = Times.from_csv(path)
    assert found == Times((0.0, 12.5))
    assert found.source == f"{path} (delimiter: {name})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column of arrivals; found 'an empty file'"),
        ("when\n1\n", "no column of arrivals; found 'when'; allowed: a header line"),
        ("start_ms\n1\nsoon\n", "line 3, column start_ms: not a time; found 'soon'"),
        ("start_ms\n-1\n", "line 2, column start_ms: not a time; found '-1'"),
        ("start_ms\nnan\n", "not a time"),
        ("image,start_ms\na\n", "line 2, column start_ms: not a time"),
        ("start_ms\n5\n4\n", "must not fall; found 4 ms after 5 ms at position 1"),
        ("start_ms\n", "at least one time"),
        # 12.5 as half of Europe writes it was 12.
        ("start_ms\n12,5\n20,5\n", "line 2: more cells than columns; found '12,5'"),
        ("image;start_ms\na;12,5\n", "line 2, column start_ms: not a time; found '12,5'"),
        ("start_ms,start_ms\n1,2\n", "a column is there twice; found 'start_ms'"),
    ],
)
def test_a_trace_that_is_wrong_is_named_with_its_place(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        Times.from_csv(path)
    assert str(path) in str(error.value)


def test_a_trace_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Times.from_csv(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        Times.from_csv(tmp_path / "binary.csv")


def test_a_trace_holds_as_many_images_as_are_asked_for(make_fan_out):
    with pytest.raises(SimulationError, match="holds 2 arrivals; 3 inferences are too many"):
        simulate(make_fan_out(), 3, Scenario(Times((0.0, 1.0))))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_stream_needs_a_positive_rate(value):
    with pytest.raises(SimulationError, match="above 0 1/s"):
        Poisson(value)
    with pytest.raises(SimulationError, match="above 0 ms"):
        Periodic(value)
