"""Pipeline: stages by hand, and what many images in a row take."""

from itertools import pairwise

import pytest
from made_hardware import device, link
from split_models import conv, fc

from nonn_common.errors import SimulationError
from profiles.fleet import Board
from simulator.engine.simulation import simulate
from simulator.scenario import Scenario, Times
from simulator.task_graph import period_ms
from simulator.workloads import pipeline
from simulator.workloads.pipeline import best_cuts, pipeline_latency_ms

# Image of 1 x 8 x 8 (256 bytes, 2.048 ms), 2 x 8 x 8 (4.096 ms), 2 x 4 x 4 (1.024 ms), 10 values.
TABLE = (conv(1, 2, 8), conv(2, 2, 8, stride=2), fc(32, 10))
FIRST_MS, SECOND_MS, LAST_MS = (layer.macs / 100 for layer in TABLE)


def board(name, fixed=5):
    profile = device("device", compute_fixed_ms=fixed, compute_ms_per_mmac=10_000, message_ms=2)
    return Board(name, profile, link("wire", 1_000_000))


BOARDS = (board("a"), board("b"), board("c"))


def test_three_stages_by_hand(host):
    split = pipeline.pipeline_graph(TABLE, BOARDS, host, (1, 2))
    stages_ms = (5 + FIRST_MS, 5 + SECOND_MS, 5 + LAST_MS)
    hops_ms = (4.048, 2 + 4.096, 2 + 1.024, 0.32)
    total_ms = sum(stages_ms) + sum(hops_ms) + 2.5
    result = simulate(split)
    assert result.total_ms == pytest.approx(total_ms)
    # All of it is on the critical path: each board computes in its turn.
    path = {row.actor: row for row in result.critical_path}
    assert [path[name].compute_ms for name in "abc"] == pytest.approx(stages_ms)
    assert [row.busy_ms for row in result.boards] == pytest.approx(stages_ms)
    messages_ms = (path[name].message_ms for name in ("host", "a", "b", "c"))
    assert list(messages_ms) == pytest.approx(hops_ms)
    assert path["host"].join_ms == 2.5
    assert pipeline_latency_ms(split) == pytest.approx(total_ms)
    assert period_ms(split) == pytest.approx(max(*stages_ms, *hops_ms))


def test_a_board_without_layers_is_passed_over(host):
    split = pipeline.pipeline_graph(TABLE, BOARDS, host, (1, 1))
    receivers = [step.message.receiver for step in split.steps if step.message]
    assert receivers == ["a", "c", "host"]


def test_all_on_one_board(host):
    split = pipeline.pipeline_graph(TABLE, BOARDS[:1], host, ())
    assert pipeline_latency_ms(split) == pytest.approx(
        4.048 + 5 + FIRST_MS + SECOND_MS + LAST_MS + 0.32 + 2.5
    )


def test_one_image_wants_one_board_and_many_want_several(host):
    assert best_cuts(TABLE, BOARDS, host, "latency") in {(3, 3), (0, 3), (0, 0)}
    cuts = best_cuts(TABLE, BOARDS, host)
    found_ms = period_ms(pipeline.pipeline_graph(TABLE, BOARDS, host, cuts))
    assert found_ms == pytest.approx(max(5 + SECOND_MS, 5 + FIRST_MS))


def test_images_in_a_row_leave_at_the_period(host):
    """Of twenty images that are there at once, one leaves per period."""
    split = pipeline.pipeline_graph(TABLE, BOARDS, host, (1, 2))
    result = simulate(split, 20, Scenario(arrivals=Times((0.0,) * 20)))
    ends_ms = [row.end_ms for row in result.inferences]
    assert ends_ms[0] == pytest.approx(pipeline_latency_ms(split))
    for before_ms, after_ms in pairwise(ends_ms):
        assert after_ms - before_ms == pytest.approx(period_ms(split))


def test_cuts_rise(host):
    for cuts in ((1,), (2, 1), (1, 4), (-1, 2)):
        with pytest.raises(SimulationError, match="3 boards need 2 cuts that rise from 0 to 3"):
            pipeline.pipeline_graph(TABLE, BOARDS, host, cuts)
