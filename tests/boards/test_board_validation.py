"""Predicted beside measured, where what was measured is known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from emulated_plans import bundle_of, made_fleet, made_plan

from boards.board_validation import (
    AnswerTimes,
    Comparison,
    _energy_compared,
    compare_with_plan,
    median,
    write_comparison_trace,
)
from boards.host.inference import Answer, BoardTiming
from nonn_common.errors import BoardError
from nonn_core.export.bundle import read_bundle
from planner.plan_file.evaluation import plan_workload
from simulator.engine.simulation import simulate
from simulator.results.breakdown import BoardRow
from simulator.workloads import closed_form

NOTHING = (
    "nothing to calibrate anew: total, 95th percentile and each board's compute are within 15 % of "
    "what was measured"
)
LINK = {"name": "wire", "bits_per_s": 1e7, "latency_ms": 0.5}


@pytest.fixture
def plan():
    return made_plan(made_fleet([LINK, LINK], compute_ms=5.0, message_ms=2.0))


@pytest.fixture
def bundle(plan, tmp_path):
    return read_bundle(bundle_of(plan, tmp_path / "bundle"))


def answers(plan, count=9, compute=1.0, rest=1.0, missing=None):
    """Make answers of boards whose times are these multiples of the plan's prediction."""
    found = closed_form.fan_out_breakdown(plan_workload(plan))
    timings = tuple(
        BoardTiming(
            board=row.board,
            sent_ms=0.1,
            replied_ms=compute * row.busy_ms + rest * (row.done_ms - row.busy_ms),
            waited_ms=0.0,
            computed_ms=compute * row.busy_ms,
        )
        for row in found.boards
    )
    total_ms = compute * found.compute_ms + rest * found.communication_ms
    logits = np.zeros((1, 10), np.float32)
    return [Answer(k, logits, missing or {}, total_ms, timings) for k in range(count)]


def test_boards_that_do_what_was_predicted_have_no_error(plan, bundle):
    found = compare_with_plan(plan, bundle, answers(plan), 97.0, {"b0": "frames", "b1": "standard"})
    figures = [found.total_ms, found.compute_ms, found.communication_ms, found.p95_ms]
    for board in found.boards:
        figures += [board.computed_ms, board.replied_ms, board.energy_mj]
    assert [each.error_pct for each in figures] == pytest.approx([0.0] * 10, abs=1e-6)
    assert [board.wire for board in found.boards] == ["frames", "standard"]
    assert found.advice == (NOTHING,)
    assert (found.images, found.incomplete) == (9, 0)
    assert found.accuracy.measured_pct == 97.0


def test_slower_boards_ask_for_another_profile(plan, bundle):
    found = compare_with_plan(plan, bundle, answers(plan, compute=3.0), None, {})
    assert found.compute_ms.error_pct == pytest.approx(-200 / 3)
    assert found.total_ms.error_pct < -15
    # 1 W for 5 ms is 5 mJ; for three times as long three times as much.
    assert found.boards[0].energy_mj.predicted == pytest.approx(5.0)
    assert found.boards[0].energy_mj.measured == pytest.approx(15.0)
    assert any("made: b0 computed 15.00 ms, predicted 5.00 ms" in line for line in found.advice)
    assert not any(line.startswith("communication") for line in found.advice)


def test_slower_messages_ask_for_links_and_messages(plan, bundle):
    found = compare_with_plan(plan, bundle, answers(plan, rest=3.0), None, {})
    (line,) = found.advice
    assert line.startswith("communication took")
    assert "message_ms" in line


def test_an_error_within_fifteen_percent_asks_for_nothing(plan, bundle):
    found = compare_with_plan(plan, bundle, answers(plan, compute=1.1, rest=1.1), None, {})
    assert found.advice == (NOTHING,)


def test_errors_that_cancel_out_in_the_total_are_named(plan, bundle):
    """5 ms of compute are predicted and 2.5 measured; the rest takes 2.5 ms more."""
    rest = closed_form.fan_out_breakdown(plan_workload(plan)).communication_ms
    found = compare_with_plan(
        plan, bundle, answers(plan, compute=0.5, rest=1 + 2.5 / rest), None, {}
    )
    assert found.total_ms.error_pct == pytest.approx(0, abs=1e-6)
    assert found.compute_ms.error_pct == pytest.approx(100)
    assert [line[:44] for line in found.advice] == [
        f"made: {board} computed 2.50 ms, predicted 5.00 ms" for board in ("b0", "b1")
    ]


def test_a_slow_tail_alone_is_named(plan, bundle):
    some = [*answers(plan, 18), *answers(plan, 2, rest=9.0)]
    (line,) = compare_with_plan(plan, bundle, some, None, {}).advice
    assert line.startswith("the 95th percentile was")
    assert "loss and jitter" in line


def test_images_with_a_missing_student_are_left_out(plan, bundle):
    mixed = [*answers(plan, 3), *answers(plan, 2, 9.0, missing={"student-1": "b1: not connected"})]
    found = compare_with_plan(plan, bundle, mixed, None, {})
    assert (found.images, found.incomplete) == (3, 2)
    assert found.total_ms.error_pct == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(BoardError, match="b1: not connected"):
        compare_with_plan(plan, bundle, mixed[3:], None, {})


def test_what_is_not_known_is_not_compared():
    assert Comparison.of(None, 3.0).error_pct is None
    assert Comparison.of(3.0, None).error_pct is None
    assert Comparison.of(3.0, 0.0).error_pct is None
    assert Comparison.of(3.0, 4.0).error_pct == pytest.approx(-25.0)
    assert not Comparison.of(None, 3.0).accepted
    assert median([]) is None


def test_both_columns_add_up_where_some_images_take_long(bundle):
    """A lost message makes an image late: its mean is far above its median, on both sides."""
    link = {"name": "air", "bits_per_s": 1e7, "latency_ms": 0.5, "jitter_ms": 2.0}
    lossy = link | {"loss_pct": 10.0, "retransmit_ms": 200.0}
    plan = made_plan(made_fleet([lossy, lossy], compute_ms=5.0, message_ms=2.0))
    late = [answers(plan, 1, compute=1 + k / 9, rest=40.0 if k > 6 else 2.0) for k in range(9)]
    found = compare_with_plan(plan, bundle, [each for (each,) in late], None, {})
    for column in ("predicted", "measured"):
        total, compute, rest = (
            getattr(figure, column)
            for figure in (found.total_ms, found.compute_ms, found.communication_ms)
        )
        assert compute + rest == pytest.approx(total, rel=1e-12)
    assert found.compute_ms.predicted == 5.0
    # The fifth of nine: compute 1 + 4/9 of 5 ms.
    assert found.compute_ms.measured == pytest.approx(65 / 9)
    assert found.boards[0].computed_ms.measured == pytest.approx(65 / 9)


def test_what_is_simulated_is_a_median_too(bundle):
    """One message of ten is lost and comes 200 ms late: the mean of replies is far above 60 ms."""
    link = {"name": "air", "bits_per_s": 1e7, "loss_pct": 10.0, "retransmit_ms": 600.0}
    plan = made_plan(made_fleet([link], compute_ms=5.0, message_ms=2.0))
    result = simulate(plan_workload(plan), 200)
    assert result.boards[0].done_ms > 60
    found = compare_with_plan(plan, bundle, answers(plan, 200), None, {})
    (board,) = found.boards
    assert board.replied_ms.predicted < 20
    assert found.total_ms.predicted == pytest.approx(result.p50_ms)
    assert found.p95_ms.predicted == pytest.approx(result.p95_ms)
    assert board.replied_ms.predicted < found.total_ms.predicted


def test_the_typical_answer_is_the_median_s(plan):
    measured = AnswerTimes(answers(plan, 5, compute=1.5))
    assert measured.typical.total_ms == median(measured.total_ms)


def test_a_trace_shows_both_and_no_slice_is_longer_than_its_image(plan, tmp_path):
    (answer,) = answers(plan, 1)
    write_comparison_trace(plan, answer, tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    measured = {pid for pid, name in names.items() if name.startswith("measured: ")}
    assert {names[pid] for pid in measured} == {"measured: host", "measured: b0", "measured: b1"}
    assert {"host", "b0", "b1"} == {name for pid, name in names.items() if pid not in measured}
    slices = [e for e in events if e["ph"] == "X" and e["pid"] in measured]
    computing = {names[e["pid"]]: e["dur"] for e in slices if e["name"] == "compute"}
    assert computing == {"measured: b0": 5000.0, "measured: b1": 5000.0}
    assert all(0 <= e["ts"] <= e["ts"] + e["dur"] <= answer.total_ms * 1000 + 1 for e in slices)


def test_what_a_server_does_not_tell_is_unknown_and_not_0(plan, bundle, tmp_path):
    """Other servers of the standard protocol say nothing of how long they computed."""
    untold = [
        replace(
            answer,
            total_ms=2 * answer.total_ms,
            timings=tuple(one._replace(waited_ms=None, computed_ms=None) for one in answer.timings),
        )
        for answer in answers(plan)
    ]
    found = compare_with_plan(plan, bundle, untold, None, {})
    assert found.compute_ms.measured is found.communication_ms.measured is None
    assert {board.computed_ms.measured for board in found.boards} == {None}
    assert {board.energy_mj.measured for board in found.boards} == {None}
    assert found.total_ms.error_pct == pytest.approx(-50)
    (line,) = found.advice
    assert "no board says how long it computed" in line
    assert "nonn-plan profile" in line
    write_comparison_trace(plan, untold[0], tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event["name"] for event in events if event["pid"] > 100_000}
    assert "compute" not in names


@pytest.mark.parametrize(("energy_mj", "measured"), [(30.0, 45.0), (math.nan, None)])
def test_energy_is_compared_where_the_power_of_a_board_is_known(energy_mj, measured):
    """Measured as time at the predicted power: 15 ms where 10 ms were predicted."""
    row = BoardRow("b0", "device", 1, 1.0, 10.0, 12.0, energy_mj)
    found = _energy_compared(row, 15.0)
    assert found.measured == measured
    assert found.predicted == (energy_mj if measured else None)
