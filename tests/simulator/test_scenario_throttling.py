import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_common.errors import SimulationError
from simulator.engine.simulation import simulate
from simulator.scenario import ClockSpeed, Periodic, Scenario, Throttle, TimedFailure
from simulator.task_graph import Step, TaskGraph

STEP = Step("a", "compute", ("a.cpu",), 10.0)


def test_a_clock_that_halves_and_recovers_by_hand():
    throttles = (Throttle("a", 15, 0.5), Throttle("a", 40, 2))
    result = simulate(TaskGraph((STEP,), sink=0), 5, Scenario(throttling=throttles))
    # 10; then 5 + 5 / 0.5 = 15; then 10 / 0.5 from 25 to 45: 15 ms do 7.5, the rest at 2.
    assert [row.end_ms for row in result.inferences] == pytest.approx([10, 25, 41.25, 46.25, 51.25])


def test_only_computing_slows_down():
    graph = TaskGraph((STEP, Step("a", "reply", ("a.up",), 10.0, (0,))), sink=1)
    assert simulate(graph, 1, Scenario(throttling=(Throttle("a", 0, 0.5),))).total_ms == 30


def test_students_that_share_a_throttled_processor():
    lanes = (Step("a", "compute", ("a.cpu/1",), 10.0), Step("a", "compute", ("a.cpu/2",), 20.0))
    graph = TaskGraph((*lanes, Step("host", "join", (), 0.0, (0, 1))), sink=2)
    result = simulate(graph, 1, Scenario(throttling=(Throttle("a", 10, 0.5),)))
    # By 10 ms each has done 5; both run on to 30 ms, at a quarter of the clock each.
    assert [row.end_ms for row in result.intervals] == pytest.approx([30, 50, 50])
    assert result.utilisation == {"a.cpu": 1}


def test_a_try_on_a_throttled_board_breaks_off_with_the_work_it_did():
    scenario = Scenario(
        Periodic(100), (TimedFailure(("a",), 12, 20),), throttling=(Throttle("a", 4, 0.5),)
    )
    result = simulate(TaskGraph((STEP,), sink=0), 1, scenario)
    assert result.recording.breaks[0].done_ms == 8  # 4 at 1, then 8 ms at 0.5
    assert result.total_ms == 40


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 4)), max_size=5),
    st.floats(0, 120),
    st.floats(0, 100),
)
def test_work_and_end_are_each_other_s_inverse(pieces, start_ms, work_ms):
    speed = ClockSpeed([Throttle("a", at_ms, factor) for at_ms, factor in pieces])
    end_ms = speed.end_ms(start_ms, work_ms)
    assert speed.work_ms(start_ms, end_ms) == pytest.approx(work_ms, abs=1e-9)


def test_work_is_the_integral_of_the_clock():
    speed = ClockSpeed([Throttle("a", 30, 0.25), Throttle("a", 10, 0.5), Throttle("a", 60, 1.5)])
    times = (np.arange(100_000) + 0.5) / 1000
    factors = np.select([times < 10, times < 30, times < 60], [1, 0.5, 0.25], 1.5)
    for start_ms, end_ms in ((0, 100), (5, 35), (12, 20), (59, 61)):
        inside = (times > start_ms) & (times < end_ms)
        wanted = factors[inside].sum() / 1000
        assert speed.work_ms(start_ms, end_ms) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("at_ms", "factor"), [(-1, 1), (0, 0), (0, -1), (0, float("nan"))])
def test_a_clock_never_stands_still(at_ms, factor):
    with pytest.raises(SimulationError, match="clock factor above 0"):
        Throttle("a", at_ms, factor)
