import json
import math
from dataclasses import replace

import numpy as np
import pytest
from made_hardware import figure

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.scenario import Periodic, Poisson, Scenario
from simulator.task_graph import Step, TaskGraph
from simulator.workloads.fan_out import FanOut, SharedGroup, StudentWork


def powered(board, **watts):
    figures = {name: figure(value) for name, value in watts.items()}
    return replace(board, device=board.device.model_copy(update=figures))


def test_the_parts_of_a_board_s_time_by_hand(make_fan_out):
    slow, fast = simulate(make_fan_out(), 2).boards
    # fast's send waits 12 ms for the sender; after its reply at 23.35 it waits until 43.
    assert (slow.queue_ms, fast.queue_ms) == pytest.approx((0, 12))
    assert (slow.wait_ms, fast.wait_ms) == pytest.approx((3, 19.65))
    assert (slow.utilisation, fast.utilisation) == pytest.approx((20 / 43, 8.75 / 43))


def test_queueing_is_what_the_answer_waited_for(make_fan_out):
    # An image each 30 ms: nothing queues.  Each 15 ms: slow's processor needs 20.
    assert simulate(make_fan_out(), 5, Scenario(Periodic(30))).queue_ms == 0
    result = simulate(make_fan_out(), 5, Scenario(Periodic(15)))
    assert result.queue_ms == pytest.approx((0 + 5 + 10 + 15 + 20) / 5)
    assert result.total_ms == pytest.approx(43 + result.queue_ms)


def path_of(result):
    return {
        row.actor: (row.compute_ms, row.message_ms, row.join_ms, row.wait_ms)
        for row in result.critical_path
    }


def test_the_critical_path_by_hand(make_fan_out):
    """The host sends to slow for 12 ms; it computes for 20 and replies for 8; the join takes 3."""
    result = simulate(make_fan_out(), 3)
    assert path_of(result) == {"host": (0, 12, 3, 0), "slow": (20, 8, 0, 0)}
    assert sum(row.total_ms for row in result.critical_path) == result.total_ms == 43


def test_queues_are_on_the_critical_path(make_fan_out):
    result = simulate(make_fan_out(), 5, Scenario(Periodic(15)))
    assert path_of(result)["slow"] == pytest.approx((20, 8, 0, 10))
    assert sum(row.total_ms for row in result.critical_path) == pytest.approx(result.total_ms)


def test_a_wait_for_the_deadline_is_the_host_s_on_the_critical_path(make_fan_out):
    """Fast has replied at 23.35 ms, slow not by the deadline of 30."""
    result = simulate(make_fan_out(deadline_ms=30), 2)
    assert path_of(result) == {"host": (0, 0, 3, 30)}
    assert (result.total_ms, result.queue_ms) == (33, 0)


def test_answers_without_every_student_are_counted(make_fan_out):
    assert simulate(make_fan_out(), 4).partial == 0
    late = simulate(make_fan_out(deadline_ms=30), 4, keep="totals")
    assert (late.answered, late.partial, late.lost) == (4, 4, 0)
    nobody = simulate(make_fan_out(deadline_ms=1.0), 4)
    assert (nobody.answered, nobody.partial, nobody.lost) == (0, 0, 4)
    assert nobody.critical_path == ()


def test_energy_apart_for_computing_idling_and_the_radio(host, slow, fast, students):
    boards = (powered(slow, idle_w=2, radio_w=0.5), powered(fast, idle_w=1))
    result = simulate(FanOut(host, boards, students, ("slow", "fast"), 1000), 3)
    one, other = result.boards
    assert (one.energy_mj, other.energy_mj) == pytest.approx((40, 30))
    assert (one.idle_mj, other.idle_mj) == pytest.approx((2 * 23, 34.25))
    assert one.radio_mj == pytest.approx(0.5 * 16)  # 8 ms there and 8 ms back; no software time
    assert other.radio_mj is None
    assert result.idle_total_mj == pytest.approx(80.25)
    assert result.radio_total_mj is None
    assert result.energy_total_mj == pytest.approx(70)


def test_a_lost_message_costs_the_radio_each_try(host, slow, students):
    noisy = slow.link.model_copy(update={"loss_pct": figure(40), "retransmit_ms": figure(100)})
    board = replace(powered(slow, radio_w=0.5), link=noisy)
    result = simulate(FanOut(host, (board,), students[:1], ("slow",), 1000), 50)
    tries = sum(row.tries for row in result.messages)
    assert tries > 120
    assert result.boards[0].radio_mj == pytest.approx(0.5 * 8 * tries / 50)


def test_totals_are_those_of_the_whole_recording(make_fan_out):
    scenario = Scenario(Poisson(30), seed=4)
    whole = simulate(make_fan_out(), 20_000, scenario)
    totals = simulate(make_fan_out(), 20_000, scenario, keep="totals")
    assert (totals.inferences, totals.intervals, totals.messages) == ((), (), ())
    assert totals.boards == whole.boards
    for name in ("total_ms", "compute_ms", "queue_ms", "wait_ms", "utilisation", "survivors"):
        assert getattr(totals, name) == getattr(whole, name)
    latencies = [row.latency_ms for row in whole.inferences]
    assert whole.percentile_error_pct == 0
    assert (whole.p50_ms, whole.p95_ms, whole.p99_ms) == tuple(
        np.percentile(latencies, [50, 95, 99])
    )
    assert totals.percentile_error_pct == 0.1
    for q, found in ((50, totals.p50_ms), (95, totals.p95_ms), (99, totals.p99_ms)):
        exact = np.percentile(latencies, q, method="lower")
        assert found == pytest.approx(exact, rel=0.0015)


def test_throughput_counts_answers_over_the_time_until_all_is_quiet(make_fan_out):
    result = simulate(make_fan_out(), 10)
    assert result.duration_ms == pytest.approx(430)
    assert result.throughput_per_s == pytest.approx(1000 / 43)


def test_g0_on_a_board_of_its_own_by_hand(host, slow, fast, idle, students):
    group = SharedGroup("idle", macs=2_000_000, size_bytes=500)
    graph = FanOut(host, (slow, fast, idle), students, ("slow", "fast"), 1000, g0=group)
    result = simulate(graph)
    # Image to idle 12, G0 14 ms, maps to slow 4 + 4 ms, then to fast 1 + 4 ms over slow's rate.
    g0, slow_row, fast_row = result.boards
    assert [row.board for row in result.boards] == ["idle", "slow", "fast"]
    assert (g0.send_done_ms, g0.busy_ms, g0.students) == (12, 14, 0)
    assert (slow_row.send_done_ms, fast_row.send_done_ms) == pytest.approx((34, 39))
    assert slow_row.done_ms == pytest.approx(34 + 20 + 8)
    assert result.total_ms == pytest.approx(65)


def test_the_board_of_g0_keeps_its_maps_for_its_own_student(host, slow, fast, students):
    group = SharedGroup("slow", macs=0, size_bytes=500)
    result = simulate(FanOut(host, (slow, fast), students, ("slow", "fast"), 1000, g0=group))
    assert [(row.sender, row.receiver) for row in result.messages][:2] == [
        ("host", "slow"),
        ("slow", "fast"),
    ]
    assert len(result.messages) == 4


def test_the_first_replica_wins(host, slow, fast):
    both = tuple(StudentWork("a", name, 5_000_000, 250) for name in ("slow", "fast"))
    result = simulate(FanOut(host, (slow, fast), both, ("slow", "fast"), 1000))
    # fast: 12 + 1.8 + 3.5 + 0.8; slow would be there at 40 and is still at work.
    assert result.total_ms == pytest.approx(18.1 + 3)
    assert result.duration_ms == pytest.approx(40)
    assert result.survivors == {frozenset("a"): 1}
    assert result.compute_ms <= result.total_ms


def test_k_of_n_counts_students(make_fan_out):
    # fast brings b and c at 23.35, slow brings a at 40.
    assert simulate(make_fan_out(needs=2)).total_ms == pytest.approx(26.35)
    assert simulate(make_fan_out(needs=2)).survivors == {frozenset("bc"): 1}
    assert simulate(make_fan_out(needs=3)).total_ms == pytest.approx(43)
    with pytest.raises(SimulationError, match="from 1 to 3 students; found 4"):
        make_fan_out(needs=4)


def test_accuracy_is_that_of_the_students_that_answered(make_fan_out):
    result = simulate(make_fan_out(), 3)
    assert result.accuracy_pct({frozenset("abc"): 92.5}) == 92.5
    with pytest.raises(SimulationError, match="students alone: a, b, c"):
        result.accuracy_pct({frozenset("ab"): 92.5})
    with pytest.raises(SimulationError, match="names no students"):
        simulate(TaskGraph((Step("a", "compute", (), 1.0),), sink=0)).accuracy_pct({})


def test_json_has_no_number_that_is_none(make_fan_out):
    graph = make_fan_out(deadline_ms=1.0)
    text = json.dumps(simulate(graph).to_dict(), allow_nan=False)
    plain = json.loads(text)
    assert plain["total_ms"] is None
    assert (plain["answered"], plain["lost"]) == (0, 1)
    assert plain["survivors"] == [{"students": [], "images": 1}]
    assert plain["utilisation"]["slow.cpu"] > 0
    assert math.isnan(simulate(graph).total_ms)


def test_many_batches_are_one_run():
    graph = TaskGraph((Step("a", "compute", ("a.cpu",), 1.0),), sink=0)
    images = 2**18 + 5
    result = simulate(graph, images, keep="totals")
    assert (result.answered, result.duration_ms, result.p99_ms) == (
        images,
        images,
        pytest.approx(1, rel=0.0011),
    )
