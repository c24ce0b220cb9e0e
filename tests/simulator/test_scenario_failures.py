from itertools import pairwise

import numpy as np
import pytest

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.scenario import (
    DownTimes,
    Periodic,
    RenewalFailure,
    Scenario,
    TimedFailure,
    random_stream,
)
from simulator.task_graph import Step, TaskGraph
from simulator.workloads.fan_out import SingleModel


def on(name, duration_ms, after=(), **parts):
    return Step(name, "compute", (f"{name}.cpu",), duration_ms, tuple(after), **parts)


def join(after, **parts):
    return Step("host", "join", (), 1.0, tuple(after), **parts)


ALONE = TaskGraph((on("a", 10.0, energy_mj=5.0),), sink=0)
PAIR = TaskGraph(
    (on("a", 10.0), on("b", 20.0), join((0, 1))), sink=2, students={0: ("x",), 1: ("y",)}
)


def test_a_step_that_is_hit_begins_anew_after_the_repair():
    outages = (TimedFailure(("a",), 4, 6), TimedFailure(("a",), 14, 30))
    result = simulate(ALONE, 2, Scenario(failures=outages))
    # 0-4 lost, 6-14 lost, 30-40 and 40-50 done.
    assert [(row.start_ms, row.end_ms, row.lost) for row in result.intervals] == [
        (0, 4, True),
        (6, 14, True),
        (30, 40, False),
        (40, 50, False),
    ]
    assert [row.latency_ms for row in result.inferences] == [40, 10]
    assert result.utilisation == {"a.cpu": (4 + 8 + 10 + 10) / 50}
    assert result.queue_ms == 15  # 30 ms of the first image


def test_a_board_is_up_at_the_very_moment_of_its_repair_and_until_that_of_its_failure():
    assert simulate(ALONE, 1, Scenario(failures=(TimedFailure(("a",), 10, 20),))).total_ms == 10
    touching = Scenario(Periodic(20), failures=(TimedFailure(("a",), 10, 20),))
    assert [row.latency_ms for row in simulate(ALONE, 2, touching).inferences] == [10, 10]


def test_work_in_vain_costs_energy(slow):
    workload = SingleModel(slow.device, 5_000_000)  # 20 ms and 40 mJ
    result = simulate(workload, 2, Scenario(failures=(TimedFailure(("tortoise",), 10, 12),)))
    assert result.boards[0].energy_mj == 50  # (40 / 2 + 40 + 40) / 2
    assert result.boards[0].busy_ms == 20
    assert result.boards[0].utilisation == pytest.approx(50 / 52)


def test_a_lost_step_never_ends_and_the_image_is_counted_as_lost():
    scenario = Scenario(failures=(TimedFailure(("a",), 25, 31),), on_failure="lose")
    result = simulate(ALONE, 4, scenario)
    # The third image, taken up at 20, breaks off at 25; the fourth is taken up at the repair.
    assert [row.answered for row in result.inferences] == [True, True, False, True]
    assert [row.start_ms for row in result.inferences] == [0, 10, 20, 31]
    assert (result.answered, result.lost) == (3, 1)
    assert result.total_ms == 10
    assert result.duration_ms == 41


def test_a_board_that_stays_down_never_hangs_a_run():
    for on_failure in ("wait", "lose"):
        scenario = Scenario(failures=(TimedFailure(("a",), 15),), on_failure=on_failure)
        result = simulate(ALONE, 3000, scenario, keep="totals")
        assert (result.answered, result.lost) == (1, 2999)
        nothing = simulate(ALONE, 2, Scenario(failures=(TimedFailure(("a",), 0),)))
        assert nothing.answered == 0
        assert nothing.to_dict()["total_ms"] is None


def test_a_deadline_uses_what_came():
    graph = TaskGraph(
        (*PAIR.steps[:2], join((0, 1), deadline_ms=50.0)), sink=2, students=PAIR.students
    )
    scenario = Scenario(Periodic(100), (TimedFailure(("b",), 105, 290),), on_failure="lose")
    result = simulate(graph, 4, scenario)
    assert [row.latency_ms for row in result.inferences] == [21, 51, 51, 21]
    assert result.survivors == {frozenset("xy"): 2, frozenset("x"): 2}
    accuracy = {frozenset("xy"): 90.0, frozenset("x"): 70.0}
    assert result.accuracy_pct(accuracy) == 80
    with pytest.raises(SimulationError, match="no accuracy is known for these students alone: x"):
        result.accuracy_pct({frozenset("xy"): 90.0})


def test_a_deadline_that_nothing_meets_loses_the_image_there():
    graph = TaskGraph(
        (*PAIR.steps[:2], join((0, 1), deadline_ms=5.0)), sink=2, students=PAIR.students
    )
    result = simulate(graph, 3)
    # In a closed loop the host gives up at 5 ms and takes up the next image; the boards go on.
    assert [row.start_ms for row in result.inferences] == [0, 5, 10]
    assert result.lost == 3
    assert result.survivors == {frozenset(): 3}
    assert result.accuracy_pct({}) == 0


def test_a_run_lasts_until_its_last_image_came_and_was_given_up():
    dead = Scenario(Periodic(100), (TimedFailure(("a",), 15),), on_failure="lose")
    assert simulate(ALONE, 4, dead).duration_ms == 300
    graph = TaskGraph(
        (*PAIR.steps[:2], join((0, 1), deadline_ms=50.0)), sink=2, students=PAIR.students
    )
    gone = Scenario(Periodic(100), (TimedFailure(("a", "b"), 105),), on_failure="lose")
    for keep in ("all", "totals"):
        result = simulate(graph, 4, gone, keep=keep)
        assert (result.answered, result.duration_ms) == (1, 350)
        assert result.throughput_per_s == pytest.approx(1 / 0.35)


def test_what_comes_at_the_very_deadline_counts():
    graph = TaskGraph(
        (*PAIR.steps[:2], join((0, 1), deadline_ms=20.0)), sink=2, students=PAIR.students
    )
    assert simulate(graph).survivors == {frozenset("xy"): 1}


def test_boards_behind_one_switch_fail_together():
    switch = Scenario(
        Periodic(100), (RenewalFailure(("a", "b"), 300, 300),), on_failure="lose", seed=2
    )
    result = simulate(PAIR, 200, switch)
    assert set(result.survivors) == {frozenset("xy"), frozenset()}
    apart = (RenewalFailure(("a",), 300, 300), RenewalFailure(("b",), 300, 300))
    graph = TaskGraph(
        (*PAIR.steps[:2], join((0, 1), deadline_ms=50.0)), sink=2, students=PAIR.students
    )
    single = simulate(graph, 200, Scenario(Periodic(100), apart, on_failure="lose", seed=2))
    assert set(single.survivors) == {frozenset("xy"), frozenset("x"), frozenset("y"), frozenset()}


def test_renewal_has_its_mean_times():
    downs = DownTimes(
        RenewalFailure(("a",), mttf_ms=300, mttr_ms=100), random_stream(3, "failures")
    )
    intervals = [(0.0, 0.0)]
    for _ in range(20_000):
        intervals.append(downs.next(intervals[-1][1]))
    repairs = np.array([up - down for down, up in intervals[1:]])
    lives = np.array([later - up for (_, up), (later, _) in pairwise(intervals)])
    assert repairs.mean() == pytest.approx(100, rel=0.03)
    assert lives.mean() == pytest.approx(300, rel=0.03)


def test_a_step_that_failures_never_let_through_is_an_error():
    with pytest.raises(SimulationError, match="broke it off 10000 times"):
        simulate(ALONE, 1, Scenario(failures=(RenewalFailure(("a",), 0.1, 0.1),)))


def test_a_board_that_is_not_there_cannot_fail():
    with pytest.raises(SimulationError, match="no part in this workload: c; it has: a, b, host"):
        simulate(PAIR, 1, Scenario(failures=(TimedFailure(("a", "c"), 1),)))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (lambda: TimedFailure((), 1), "at least one board"),
        (lambda: TimedFailure(("a",), -1), "at least 0 ms; found -1"),
        (lambda: TimedFailure(("a",), 5, 5), "repaired after that; found 5 ms"),
        (lambda: RenewalFailure(("a",), 0, 5), "above 0 ms; found 0 and 5"),
    ],
)
def test_failures_that_make_no_sense_are_refused(failure, message):
    with pytest.raises(SimulationError, match=message):
        failure()
