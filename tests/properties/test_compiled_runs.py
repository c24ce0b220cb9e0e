"""Compiled runs are the same as those in Python and numpy, to the last bit."""

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_hardware import device
from test_simulator_runs import bytes_of, disturbed, jobs, open_scenarios

from simulator.engine.compiled_run import CompiledSums
from simulator.engine.simulation import recurrence_applies, simulate
from simulator.results.statistics import Statistics
from simulator.scenario import UNDISTURBED, Poisson, Scenario
from simulator.task_graph import Node, TaskGraph

poisson = st.builds(
    Scenario, st.sampled_from((2.0, 80.0, 900.0)).map(Poisson), seed=st.integers(0, 9)
)


@st.composite
def noisy(draw, step):
    """A step that may take a random time, lose messages or meet a deadline."""
    loss_pct = draw(st.sampled_from((0, 0, 30)))
    jitter_ms = draw(st.sampled_from((0, 0, 0, 1.5))) if step.message else 0
    return replace(
        step,
        service=draw(st.sampled_from(("constant", "constant", "exponential"))),
        transit=replace(
            step.transit, loss_pct=loss_pct, retry_ms=2.5 if loss_pct else 0.0, jitter_ms=jitter_ms
        ),
        cv=draw(st.sampled_from((0.0, 0.0, 0.2))),
        deadline_ms=draw(st.none() | st.sampled_from((0.0, 4.0, 9.0))) if step.after else None,
    )


@st.composite
def fleets(draw, lanes=False):
    """A job with boards and students; its steps may be noisy."""
    graph = draw(jobs(lanes))
    noise = draw(st.booleans())
    made = tuple(draw(noisy(step)) if noise else step for step in graph.steps)
    boards = {step.actor for step in made}.union(*(s.message.places for s in made if s.message))
    nodes = tuple(Node(name, device(name)) for name in sorted(boards - {"host"}))
    replies = draw(st.lists(st.sampled_from(range(len(made))), max_size=4, unique=True))
    return TaskGraph(made, graph.sink, {each: (f"s{each}",) for each in replies}, nodes)


def told(result):
    """Everything that a result says, in the order in which it says it."""
    return repr(replace(result, recording=None, inferences=()))


@settings(max_examples=60)
@given(
    fleets(), st.just(UNDISTURBED) | open_scenarios | poisson, st.sampled_from(("all", "totals"))
)
def test_a_compiled_recurrence_is_the_same(graph, scenario, keep):
    assume(recurrence_applies(graph, scenario))
    images = 6 if scenario != UNDISTURBED and not isinstance(scenario.arrivals, Poisson) else 300
    one, other = (
        simulate(graph, images, scenario, keep, path="recurrence", compiled=compiled)
        for compiled in (False, True)
    )
    assert told(one) == told(other)
    if keep == "all":
        assert bytes_of(one) == bytes_of(other)
        assert one.inferences == other.inferences


@settings(max_examples=60)
@given(st.data())
def test_compiled_sums_are_the_same_whatever_became_of_the_images(data):
    graph = data.draw(fleets())
    batch = simulate(graph, 6, data.draw(disturbed(graph))).recording.batch
    times = data.draw(st.integers(1, 30))
    columns = (getattr(batch, name) for name in type(batch).__slots__)
    batch = type(batch)(*(np.concatenate([column] * times) for column in columns))
    one, other = Statistics(graph, exact=True), Statistics(graph, exact=True)
    sums = CompiledSums(other)
    for _ in range(2):
        one.add(batch)
        sums.add(batch)
    assert one.sums.totals.tobytes() == other.sums.totals.tobytes()
    counts = other.at_image + 2 + len(graph.steps)
    assert [one.sums.count(at) for at in range(counts)] == [
        other.sums.count(at) for at in range(counts)
    ]
    assert list(one.survivors.items()) == list(other.survivors.items())
    assert (one.images, one.last_ms) == (other.images, other.last_ms)
    np.testing.assert_array_equal(one.percentiles(), other.percentiles())
