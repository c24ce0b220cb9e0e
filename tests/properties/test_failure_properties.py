"""Properties of every outage: it takes no more with it than it must."""

from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st
from test_fan_out_properties import milliseconds
from test_simulator_runs import fan_outs, jobs

from simulator.engine.simulation import simulate
from simulator.scenario import Scenario, TimedFailure


@given(st.data())
def test_a_closed_loop_loses_at_most_one_image_per_outage_that_ends(data):
    """A lost image is given up at a repair after its start, and the next begins no earlier."""
    graph = data.draw(jobs())
    times = st.tuples(st.sampled_from(sorted(graph.places)), st.integers(0, 60), st.integers(1, 30))
    drawn = data.draw(st.lists(times, max_size=3))
    failures = tuple(TimedFailure((name,), at, at + takes) for name, at, takes in drawn)
    result = simulate(graph, 50, Scenario(failures=failures, on_failure="lose"))
    assert result.lost <= len(failures)


@given(fan_outs(), st.data())
def test_a_board_that_is_repaired_is_no_worse_than_one_that_is_not(workload, data):
    """One image, on links of their own: who else is up does the same at the same time.

    The repair comes after the sends to all others, of which one more would be in the way.
    """
    assume(len(workload.boards) > 1)
    graph = replace(workload, needs=1).graph()
    name = data.draw(st.sampled_from(workload.send_order))
    at_ms, takes_ms = data.draw(milliseconds), data.draw(st.floats(1, 1e4))
    last_ms = max(row.end_ms for row in simulate(graph).intervals if row.activity == "send")
    repaired, dead = (
        simulate(graph, 1, Scenario(failures=(TimedFailure((name,), at_ms, up_ms),)))
        for up_ms in (max(at_ms, last_ms) + takes_ms, None)
    )
    assert repaired.inferences[0].end_ms <= dead.inferences[0].end_ms
    one, other = (
        [row for row in found.intervals if row.activity != "join" and not hit(graph, row, name)]
        for found in (repaired, dead)
    )
    assert one == other


def hit(graph, row, name):
    return name in graph.steps[row.step].places
