import json
import subprocess
import sys
from dataclasses import replace

import pytest
from made_hardware import figure

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.results import statistics
from simulator.results.breakdown import IntervalRow, MessageRow
from simulator.scenario import (
    ClosedLoop,
    Periodic,
    Poisson,
    RenewalFailure,
    Scenario,
    Throttle,
    TimedFailure,
    Times,
)
from simulator.workloads.fan_out import FanOut, SingleModel


def test_progress_is_told_batch_by_batch(make_fan_out, monkeypatch):
    graph = make_fan_out().graph()
    monkeypatch.setattr(statistics, "BATCH_VALUES", 3 * len(graph.steps))
    told = []
    simulate(graph, 8, progress=told.append)
    assert told == [3, 6, 8]


def test_the_story_of_one_image_by_hand(make_fan_out):
    result = simulate(make_fan_out())
    assert [(row.resource, row.activity) for row in result.intervals] == [
        ("host.nic", "send"),
        ("host.nic", "send"),
        ("fast.cpu/b", "compute"),
        ("fast.cpu/c", "compute"),
        ("fast.up", "reply"),
        ("slow.cpu", "compute"),
        ("slow.up", "reply"),
        ("host.cpu", "join"),
    ]
    times = [(row.start_ms, row.end_ms) for row in result.intervals]
    expected = [
        (0, 12),
        (12, 13.8),
        (13.8, 21.3),  # b has half the processor: 2 * 1.25 * 3 ms
        (13.8, 22.55),  # c is left with 1.25 ms, alone
        (22.55, 23.35),
        (12, 32),
        (32, 40),
        (40, 43),
    ]
    for found, wanted in zip(times, expected, strict=True):
        assert found == pytest.approx(wanted)
    assert result.messages[0] == MessageRow(0, "host", "slow", 1000, 0.0, 12.0, step=0)
    assert [(row.sender, row.receiver, row.size_bytes) for row in result.messages] == [
        ("host", "slow", 1000),
        ("host", "fast", 1000),
        ("fast", "host", 1000),
        ("slow", "host", 1000),
    ]
    assert (result.total_ms, result.compute_ms, result.communication_ms) == pytest.approx(
        (43, 20, 23)
    )
    assert (result.queue_ms, result.wait_ms) == pytest.approx((0, (3 + 19.65) / 2))
    assert (result.energy_per_node_mj, result.energy_total_mj) == pytest.approx((35, 70))


def test_the_board_rows_of_a_loop_are_per_image(make_fan_out):
    slow, fast = simulate(make_fan_out(), inferences=4).boards
    assert (slow.send_done_ms, slow.busy_ms, slow.done_ms) == pytest.approx((12, 20, 40))
    assert (fast.send_done_ms, fast.busy_ms, fast.done_ms) == pytest.approx((13.8, 8.75, 23.35))
    assert (slow.students, fast.students, slow.energy_mj) == (1, 2, 40)


def test_a_closed_loop_has_one_image_under_way(make_fan_out):
    rows = simulate(make_fan_out(), inferences=3).inferences
    assert [row.inference for row in rows] == [0, 1, 2]
    assert [row.start_ms for row in rows] == pytest.approx([0, 43, 86])
    assert [row.end_ms for row in rows] == pytest.approx([43, 86, 129])
    assert [row.latency_ms for row in rows] == pytest.approx([43, 43, 43])


@pytest.mark.parametrize(
    ("arrivals", "grows"),
    [
        (Poisson(60), True),
        (Poisson(50), True),  # by chance, at the very capacity, it has no bound either
        (Poisson(49), False),
        (Periodic(19.9), True),
        (Periodic(20), False),
        (Times((0, 10, 25, 40)), True),
        (Times((0, 10, 25, 60, 61)), False),  # the first four come in 60 ms
        (Times((5, 5, 5, 5)), False),  # all at once, and then none
        (ClosedLoop(), False),
    ],
)
def test_more_images_than_a_board_can_take_are_said(make_fan_out, arrivals, grows):
    """Slow computes for 20 ms an image: 50 a second."""
    warnings = simulate(make_fan_out(), 4, Scenario(arrivals)).warnings
    assert len(warnings) == grows
    assert all("slow.cpu can take 50: its queue grows" in text for text in warnings)


@pytest.mark.parametrize(
    ("scenario", "told"),
    [
        ({"throttling": (Throttle("slow", 9, 0.8),)}, "slow.cpu can take 40"),
        ({"throttling": (Throttle("slow", 0, 0.5), Throttle("slow", 9, 1.0))}, None),
        ({"throttling": (Throttle("fast", 9, 0.1),)}, "fast.cpu can take 11.43"),  # 87.5 ms
        ({"failures": (RenewalFailure(("slow",), 900, 100),)}, "slow.cpu can take 45"),
        ({"failures": (TimedFailure(("slow",), 5, 9),)}, None),
        ({"failures": (RenewalFailure(("slow",), 900, 100),), "on_failure": "lose"}, None),
    ],
)  # fmt: skip
def test_slow_clocks_and_repairs_leave_less(make_fan_out, scenario, told):
    warnings = simulate(make_fan_out(), 2, Scenario(Poisson(47), **scenario)).warnings
    assert [text.split(", and ")[1].split(":")[0] for text in warnings] == [told] * bool(told)


def test_lost_messages_leave_less(host, slow, fast, students):
    """A try on the host's card takes 12 ms; every second one is repeated after 12 + 8 ms."""
    noisy = slow.link.model_copy(update={"loss_pct": figure(50), "retransmit_ms": figure(12)})
    boards = (replace(slow, link=noisy), fast)
    fan_out = FanOut(host, boards, students, ("slow", "fast"), 1000)
    (text,) = simulate(fan_out, 2, Scenario(Poisson(40))).warnings
    assert "host.nic can take 29.59:" in text  # 12 + 20 ms, and 1.8 for fast
    assert simulate(fan_out, 2, Scenario(Poisson(29))).warnings == ()


def test_a_model_alone(slow):
    result = simulate(SingleModel(slow.device, 5_000_000), inferences=2)
    assert (result.total_ms, result.compute_ms, result.communication_ms) == (20, 20, 0)
    assert result.messages == ()
    assert result.intervals == (
        IntervalRow(0, "tortoise", "compute", 0.0, 20.0, 0.0, "tortoise.cpu", 0),
        IntervalRow(1, "tortoise", "compute", 20.0, 40.0, 20.0, "tortoise.cpu", 0),
    )
    (row,) = result.boards
    assert (row.send_done_ms, row.busy_ms, row.done_ms, row.energy_mj) == (0, 20, 20, 40)


def test_no_inference_is_no_question(make_fan_out):
    with pytest.raises(SimulationError, match="found 0"):
        simulate(make_fan_out(), inferences=0)


def test_plain_data_for_json(make_fan_out):
    plain = json.loads(json.dumps(simulate(make_fan_out(), inferences=2).to_dict()))
    assert plain["total_ms"] == pytest.approx(43)
    assert plain["energy_per_node_mj"] == pytest.approx(35)
    assert (len(plain["intervals"]), len(plain["messages"])) == (16, 8)
    assert plain["messages"][0]["receiver"] == "slow"


def test_the_simulator_loads_no_model_framework_and_no_solver():
    script = (
        "import sys, simulator.workloads.fan_out, simulator.workloads.closed_form; "
        "import simulator.results.breakdown; "
        "unwanted = {'torch', 'ortools', 'scipy', 'numpy', 'simpy'}; "
        "print(sorted(unwanted & set(sys.modules))); "
        "import simulator.engine.simulation, simulator.student_sweep; "
        "print(sorted({'torch', 'ortools', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["[]", "[]"], "")
