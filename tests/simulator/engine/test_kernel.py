import random

import pytest

from simulator.engine.simulation import simulate
from simulator.scenario import Scenario, TimedFailure, Times
from simulator.task_graph import Step, TaskGraph
from simulator.workloads.fan_out import FanOut, StudentWork, busy_ms

FAILURE = (TimedFailure(("a",), 8, 20),)


def lanes(*works_ms):
    steps = (Step("a", "compute", (f"a.cpu/{i}",), work_ms) for i, work_ms in enumerate(works_ms))
    last = Step("host", "join", (), 0.0, tuple(range(len(works_ms))))
    return TaskGraph((*steps, last), sink=len(works_ms))


def small_steps(arrivals_ms, works_ms, step_ms=0.002):
    """Ends of each lane's steps, by giving the heads their share of one small step at a time."""
    ends = [[] for _ in works_ms]
    left = [[work] * len(arrivals_ms) for work in works_ms]
    now = 0.0
    while any(len(done) < len(arrivals_ms) for done in ends):
        heads = [
            lane
            for lane, done in enumerate(ends)
            if len(done) < len(arrivals_ms) and arrivals_ms[len(done)] <= now
        ]
        now += step_ms
        for lane in heads:
            left[lane][len(ends[lane])] -= step_ms / len(heads)
            if left[lane][len(ends[lane])] <= 0:
                ends[lane].append(now)
    return ends


@pytest.mark.parametrize("seed", range(5))
def test_the_heads_of_the_lanes_share_the_processor(seed):
    draw = random.Random(seed)  # noqa: S311
    works_ms = [draw.uniform(1, 8) for _ in range(draw.randint(2, 4))]
    arrivals_ms = sorted(draw.uniform(0, 40) for _ in range(5))
    result = simulate(lanes(*works_ms), 5, Scenario(Times(tuple(arrivals_ms))))
    for lane, wanted in enumerate(small_steps(arrivals_ms, works_ms)):
        found = [row.end_ms for row in result.intervals if row.resource == f"a.cpu/{lane}"]
        assert found == pytest.approx(wanted, abs=0.1)
    work_ms = 5 * sum(works_ms)
    assert result.utilisation["a.cpu"] * result.duration_ms == pytest.approx(work_ms)


def test_students_that_start_together_end_when_the_planner_says(host, fast):
    macs = (4_000_000, 6_000_000, 1_000_000)
    students = tuple(StudentWork(f"s{i}", "fast", each, 10) for i, each in enumerate(macs))
    result = simulate(FanOut(host, (fast,), students, ("fast",), 1000))
    assert result.compute_ms == pytest.approx(busy_ms(fast.device, macs))
    assert result.boards[0].busy_ms == pytest.approx(busy_ms(fast.device, macs))


def test_one_lane_is_a_plain_server():
    scenario = Scenario(Times((0.0, 3.0, 4.0, 40.0)))
    alone = TaskGraph((Step("a", "compute", ("a.cpu",), 10.0),), sink=0)
    shared = TaskGraph((Step("a", "compute", ("a.cpu/only",), 10.0),), sink=0)
    ends = [
        [row.end_ms for row in simulate(graph, 4, scenario).inferences] for graph in (alone, shared)
    ]
    assert ends[0] == pytest.approx(ends[1])


def test_a_failure_takes_all_students_of_a_board_with_it():
    scenario = Scenario(failures=FAILURE)
    result = simulate(lanes(5.0, 10.0), 1, scenario)
    assert [(row.resource, row.start_ms, row.end_ms, row.lost) for row in result.intervals] == [
        ("a.cpu/0", 0, 8, True),
        ("a.cpu/1", 0, 8, True),
        ("a.cpu/0", 20, 30, False),
        ("a.cpu/1", 20, 35, False),
        ("", 35, 35, False),
    ]
    assert [row.done_ms for row in result.recording.breaks] == [4, 4]


def test_a_failure_loses_what_waits_behind_the_heads_too():
    scenario = Scenario(Times((0.0, 1.0, 50.0)), FAILURE, on_failure="lose")
    result = simulate(lanes(5.0, 10.0), 3, scenario)
    assert [row.answered for row in result.inferences] == [False, False, True]
    assert result.duration_ms == 65


def test_a_closed_loop_takes_up_the_next_image_when_the_board_is_up_again():
    result = simulate(lanes(5.0, 10.0), 3, Scenario(failures=FAILURE, on_failure="lose"))
    # Broken off at 8; from 20 on 5 + 10 ms of work per image.
    assert [row.start_ms for row in result.inferences] == [0, 20, 35]
    assert [row.answered for row in result.inferences] == [False, True, True]


def test_a_closed_loop_is_the_same_on_both_paths():
    graph = lanes(5.0, 10.0, 2.5)
    slow, quick = (
        simulate(graph, 20, path="events"),
        simulate(graph, 20, path="recurrence"),
    )
    for found, wanted in zip(quick.intervals, slow.intervals, strict=True):
        assert (found.inference, found.resource) == (wanted.inference, wanted.resource)
        assert (found.start_ms, found.end_ms) == pytest.approx((wanted.start_ms, wanted.end_ms))
    assert quick.utilisation == pytest.approx(slow.utilisation)


def test_a_processor_named_as_a_whole_shares_with_its_lanes():
    steps = (Step("a", "compute", ("a.cpu",), 6.0), Step("a", "compute", ("a.cpu/1",), 6.0))
    graph = TaskGraph((*steps, Step("host", "join", (), 0.0, (0, 1))), sink=2)
    assert [row.end_ms for row in simulate(graph).intervals] == [12, 12, 12]
