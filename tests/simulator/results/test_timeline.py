"""Lanes and actors of a job, and rows in which nothing overlaps."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from simulator.engine.simulation import simulate
from simulator.results.timeline import actors, lanes, never_overlapping

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=30)


def test_host_first_then_boards_from_link_in_to_link_out(make_fan_out):
    graph = make_fan_out().graph()
    assert actors(graph) == ("host", "slow", "fast")
    assert [(lane.owner, lane.title) for lane in lanes(graph)] == [
        ("host", "network card"),
        ("host", "processor"),
        ("slow", "link in"),
        ("slow", "processor"),
        ("slow", "link out"),
        ("fast", "link in"),
        ("fast", "b"),
        ("fast", "c"),
        ("fast", "link out"),
    ]


def test_every_resource_has_one_lane(make_fan_out):
    graph = make_fan_out().graph()
    assert sorted(lane.resource for lane in lanes(graph)) == sorted(graph.resources)


def test_every_actor_of_a_run_is_one_of_the_actors(make_fan_out):
    result = simulate(make_fan_out())
    assert {row.actor for row in result.intervals} <= set(actors(result.recording.graph))


@given(SPANS)
def test_rows_never_overlap_and_are_as_few_as_can_be(spans):
    intervals = sorted((start, start + length) for start, length in spans)
    rows = never_overlapping(intervals)
    for row in set(rows):
        own = [interval for interval, at in zip(intervals, rows, strict=True) if at == row]
        assert all(end <= start for (_, end), (start, _) in pairwise(own))
    most_at_once = max(
        (sum(s <= moment < e for s, e in intervals) for moment in range(40)), default=0
    )
    lasting = [row for (s, e), row in zip(intervals, rows, strict=True) if e > s]
    assert len(set(lasting)) <= max(most_at_once, 1) or not lasting
