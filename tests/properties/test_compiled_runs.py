"""Compiled runs are the same as those in Python and numpy, to the last bit."""

from dataclasses import replace

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_hardware import device
from test_simulator_runs import bytes_of, disturbed, jobs, open_scenarios

from simulator.engine import ImageBlocks
from simulator.engine.simulation import recurrence_applies, simulate
from simulator.results import image_sums
from simulator.results.statistics import Recorder, Statistics
from simulator.scenario import UNDISTURBED, Poisson, RenewalFailure, Scenario, TimedFailure
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


@st.composite
def failing(draw, graph):
    """Failures that come once or again and again; images in a closed loop or by chance."""
    boards = st.sampled_from(tuple(sorted(graph.places))).map(lambda name: (name,))
    once = st.builds(
        lambda who, at, lasts: TimedFailure(who, at, None if lasts is None else at + lasts),
        boards,
        st.integers(0, 400).map(float),
        st.sampled_from((None, 3.0, 40.0)),
    )
    often = st.builds(
        RenewalFailure, boards, st.sampled_from((7.0, 60.0)), st.sampled_from((1.0, 9.0))
    )
    return Scenario(
        draw(st.just(UNDISTURBED.arrivals) | st.sampled_from((2.0, 80.0, 900.0)).map(Poisson)),
        tuple(draw(st.lists(often | once, max_size=3))),
        on_failure=draw(st.sampled_from(("wait", "lose"))),
        seed=draw(st.integers(0, 9)),
    )


@settings(max_examples=60)
@given(st.data(), st.sampled_from(("all", "totals")))
def test_a_compiled_event_loop_is_the_same(data, keep):
    graph = data.draw(fleets())
    scenario = data.draw(failing(graph))
    one, other = (
        simulate(graph, 200, scenario, keep, path="events", compiled=compiled)
        for compiled in (False, True)
    )
    assert told(one) == told(other)
    if keep == "all":
        assert bytes_of(one) == bytes_of(other)
        assert one.recording.breaks == other.recording.breaks


def add(blocks, batch):
    """Give images to the parts of a kernel, as Python functions; some columns are of no image."""
    steps = len(batch.ends_ms[0])
    image = image_sums.BY_STEP * steps
    first, done = blocks.next_lane, 0
    floats = blocks.tables(0, len(batch.inferences))
    rows = floats[image_sums.ROWS]
    while done < len(batch.inferences):
        count = min(image_sums.WIDTH - first, len(batch.inferences) - done)
        here, images = slice(first, first + count), slice(done, done + count)
        rows[image + image_sums.BEGAN, here] = batch.start_ms[images]
        rows[image + image_sums.ENDED, here] = batch.end_ms[images]
        for kind, times in enumerate((batch.starts_ms, batch.ends_ms, batch.frees_ms)):
            rows[kind * steps : (kind + 1) * steps, here] = times[images].T
        flat = [each.reshape(-1) for each in floats]
        wholes = [each.reshape(-1) for each in blocks.wholes]
        image_sums.add_chunk(blocks.numbers, flat, wholes, first, count)
        first, done = 0, done + count
    blocks.done()


@settings(max_examples=40)
@given(st.data())
def test_sums_are_the_same_whatever_became_of_the_images(data):
    graph = data.draw(fleets())
    batch = simulate(graph, 6, data.draw(disturbed(graph))).recording.batch
    times = data.draw(st.integers(1, 16))
    columns = (getattr(batch, name) for name in type(batch).__slots__)
    batch = type(batch)(*(np.concatenate([column] * times) for column in columns))
    recorder = Recorder(graph, "all")
    one, other = Statistics(graph, exact=True), recorder.statistics
    blocks = ImageBlocks(recorder, len(batch.inferences))
    for _ in range(2):
        one.add(batch)
        add(blocks, batch)
    assert one.sums.totals.tobytes() == other.sums.totals.tobytes()
    counts = other.at_image + 2 + len(graph.steps)
    assert [one.sums.count(at) for at in range(counts)] == [
        other.sums.count(at) for at in range(counts)
    ]
    assert list(one.survivors.items()) == list(other.survivors.items())
    assert (one.images, one.last_ms) == (other.images, other.last_ms)
    np.testing.assert_array_equal(one.percentiles(), other.percentiles())
