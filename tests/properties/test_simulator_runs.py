"""Properties of every job in every scenario, and all ways to the same result agree."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import groupby, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_hardware import device, figure
from overlapping_images import inference_times
from test_fan_out_properties import boards, devices, milliseconds

from profiles.device import Hosting
from simulator.engine import simulation
from simulator.engine.simulation import simulate
from simulator.graph_builder import GraphBuilder
from simulator.results import statistics
from simulator.results.simulation_result import power_draws
from simulator.scenario import (
    UNDISTURBED,
    Periodic,
    Poisson,
    Scenario,
    Throttle,
    TimedFailure,
    Times,
)
from simulator.task_graph import Message, Node, Step, TaskGraph, Transit
from simulator.workloads.fan_out import FanOut, StudentWork

TOLERANCE_MS = 1e-6  # 1e-9 s
RESOURCES = ("host.nic", "a.cpu", "a.up", "b.cpu", "b.down", "medium:air")

whole = st.integers(0, 8).map(float)  # sums of these are exact, so that ties are ties


# Strategies are made once: to make them for each draw takes longer than what is drawn.
two_resources = st.lists(st.sampled_from(RESOURCES), max_size=2, unique=True)
lane_resources = st.sampled_from(("c.cpu/1", "c.cpu/2", "c.cpu"))
actors = st.permutations(("host", "a", "b"))
sizes = st.integers(0, 1000)
earlier_steps = cache(lambda index: st.lists(st.integers(0, index - 1), max_size=4))
needed_of = cache(lambda count: st.none() | st.integers(1, count))


@cache
@st.composite
def steps(draw, index, lanes):
    resources = draw(two_resources)
    in_lane = lanes and draw(st.booleans())
    if in_lane:
        resources = [draw(lane_resources)]
    after = draw(earlier_steps(index)) if index else []
    ends = draw(actors)[:2]
    carries = not in_lane and draw(st.booleans())
    return Step(
        actor="c" if in_lane else ends[0],
        activity="send" if carries else "compute",
        resources=tuple(resources),
        duration_ms=draw(whole),
        after=tuple(after),
        needs=draw(needed_of(len(after))) if after else None,
        message=Message(*ends, draw(sizes)) if carries else None,
        transit=Transit(latency_ms=draw(whole)) if carries else Transit(),
    )


counts = st.integers(1, 9)


@cache
@st.composite
def jobs(draw, lanes=True):
    made = tuple(draw(steps(index, lanes)) for index in range(draw(counts)))
    return TaskGraph(made, sink=draw(st.integers(0, len(made) - 1)))


arrivals = st.lists(whole, min_size=6, max_size=6).map(
    lambda gaps: Times(tuple(sum(gaps[: i + 1]) for i in range(6)))
)
open_scenarios = arrivals.map(Scenario)


times_of_failures = st.integers(0, 60)
repair_times = st.none() | st.integers(1, 30)
speeds = st.sampled_from((0.25, 0.5, 2))
outages_of = cache(
    lambda places: st.lists(
        st.tuples(st.sampled_from(places), times_of_failures, repair_times), max_size=3
    )
)
throttles_of = cache(
    lambda places: st.lists(
        st.tuples(st.sampled_from(places), times_of_failures, speeds), max_size=2
    )
)
some_arrivals = st.just(UNDISTURBED.arrivals) | arrivals
policies = st.sampled_from(("wait", "lose"))


@st.composite
def disturbed(draw, graph):
    """Failures and throttling of what has a part in the job."""
    places = tuple(sorted(graph.places))
    outages, throttles = draw(outages_of(places)), draw(throttles_of(places))
    return Scenario(
        draw(some_arrivals),
        tuple(
            TimedFailure((name,), at, None if takes is None else at + takes)
            for name, at, takes in outages
        ),
        tuple(Throttle(*each) for each in throttles),
        draw(policies),
    )


@st.composite
def scenes(draw):
    """A scenario and what happened in it."""
    graph = draw(jobs())
    scenario = draw(disturbed(graph))
    return scenario, simulate(graph, 6, scenario)


runs = scenes().map(lambda scene: scene[1])


def bytes_of(result):
    batch = result.recording.batch
    return [getattr(batch, name).tobytes() for name in type(batch).__slots__]


@settings(max_examples=300)
@given(jobs(lanes=False), st.just(UNDISTURBED) | open_scenarios)
def test_fused_is_the_same_as_events_to_the_last_bit(graph, scenario):
    assume(simulation.recurrence_applies(graph, scenario))
    one, other = (simulate(graph, 6, scenario, path=path) for path in ("events", "recurrence"))
    assert bytes_of(one) == bytes_of(other)


@given(jobs())
def test_fused_is_the_same_as_events_with_shared_processors(graph):
    assume(simulation.recurrence_applies(graph, UNDISTURBED))
    one, other = (simulate(graph, 6, path=path) for path in ("events", "recurrence"))
    for found, wanted in zip(other.inferences, one.inferences, strict=True):
        assert found.end_ms == pytest.approx(wanted.end_ms, rel=0, abs=TOLERANCE_MS)
    assert other.utilisation == pytest.approx(one.utilisation)


def queued_ms(row, places, failures):
    """When a step queued for the last time, at the latest: at a repair of what it needs, or so."""
    repairs = [
        failure.repaired_ms
        for failure in failures
        if failure.repaired_ms is not None and places & set(failure.boards)
    ]
    return max([row.ready_ms, *(each for each in repairs if row.ready_ms < each <= row.start_ms)])


@given(scenes())
def test_a_resource_does_one_thing_at_a_time_first_come_first_served(scene):
    scenario, result = scene
    graph = result.recording.graph
    for resource in graph.resources:
        users = {i for i, step in enumerate(graph.steps) if resource in step.resources}
        rows = sorted(
            (row for row in result.intervals if row.step in users),
            key=lambda row: (row.start_ms, row.end_ms),
        )
        for earlier, later in pairwise(rows):
            assert earlier.end_ms <= later.start_ms + TOLERANCE_MS
            if not (earlier.lost or later.lost):
                queued = queued_ms(later, graph.steps[later.step].places, scenario.failures)
                assert earlier.ready_ms <= queued or earlier.end_ms == later.start_ms


@given(runs)
def test_nothing_begins_before_it_is_ready_or_while_its_board_is_down(result):
    for row in result.intervals:
        assert row.ready_ms <= row.start_ms <= row.end_ms
        assert row.ready_ms >= result.inferences[row.inference].start_ms


@given(st.data())
def test_what_was_done_was_done_while_everything_was_up(data):
    graph = data.draw(jobs())
    scenario = data.draw(disturbed(graph))
    for row in simulate(graph, 6, scenario).intervals:
        for outage in scenario.failures:
            if set(outage.boards) & graph.steps[row.step].places and not row.lost:
                before = row.end_ms <= outage.at_ms
                after = outage.repaired_ms is not None and row.start_ms >= outage.repaired_ms
                assert before or after or row.end_ms == row.start_ms


@given(runs)
def test_little_s_law(result):
    """Mean number of images in the system = rate of answers x mean latency; so for each queue."""
    answered = [row for row in result.inferences if row.answered]
    assume(answered and result.duration_ms > 0)
    changes = [(row.start_ms, 1) for row in answered] + [(row.end_ms, -1) for row in answered]
    per_ms = result.throughput_per_s / 1000
    assert mean_level(changes, result.duration_ms) == pytest.approx(per_ms * result.total_ms)
    done = [row for row in result.intervals if not row.lost]
    for resource in {row.resource for row in done}:
        rows = [row for row in done if row.resource == resource]
        changes = [(row.ready_ms, 1) for row in rows] + [(row.start_ms, -1) for row in rows]
        wait_ms = sum(row.start_ms - row.ready_ms for row in rows) / len(rows)
        rate = len(rows) / result.duration_ms
        assert mean_level(changes, result.duration_ms) == pytest.approx(rate * wait_ms)


def mean_level(changes, duration_ms):
    """Mean over time of a level that starts at 0, from its changes."""
    level, area, since = 0, 0.0, 0.0
    for time, group in groupby(sorted(changes), key=lambda change: change[0]):
        area += level * (time - since)
        level, since = level + sum(change for _, change in group), time
    assert level == 0
    return area / duration_ms


@given(runs)
def test_bytes_are_conserved(result):
    """Each message that a step carried came once, whole; what was not carried did not come."""
    graph = result.recording.graph
    wanted, found = Counter(), Counter()
    for row in result.intervals:
        message = graph.steps[row.step].message
        if message is not None and not row.lost:
            wanted[row.inference, message.sender, message.receiver] += message.size_bytes
    for row in result.messages:
        found[row.inference, row.sender, row.receiver] += row.size_bytes
        assert row.sent_ms <= row.received_ms
    assert +wanted == +found
    if result.lost == 0 and graph.waits_for_all:
        each = sum(step.message.size_bytes for step in graph.steps if step.message)
        assert found.total() == each * len(result.inferences)


@given(runs)
def test_work_is_conserved(result):
    """A resource is busy for as long as its steps say, and no longer than the run."""
    graph = result.recording.graph
    for resource, share in result.utilisation.items():
        assert -1e-9 <= share <= 1 + 1e-9
        rows = [row for row in result.intervals if resource in graph.steps[row.step].resources]
        if resource not in graph.processors.values():
            busy_ms = sum(row.end_ms - row.start_ms for row in rows)
            assert share * result.duration_ms == pytest.approx(busy_ms)


watts = st.floats(0, 5)
wire_shares = st.none() | st.sampled_from((0.25, 0.5, 1.0))
losses_pct = st.sampled_from((0, 0, 60))
radio_parts_of = cache(lambda receiver: st.sampled_from(((), (("c", 1.0), (receiver, 0.3)))))
relays = st.sampled_from(((), ("c",)))
seeds = st.integers(0, 3)


@st.composite
def on_the_air(draw, step):
    """The step with its energy; a message is on the wire at the end of each of its tries."""
    step = replace(step, energy_mj=draw(watts) * step.duration_ms)
    if step.message is None:
        return step
    wire_share, loss_pct = draw(wire_shares), draw(losses_pct)
    wire_ms = None if wire_share is None else wire_share * step.duration_ms
    transit = replace(
        step.transit,
        wire_ms=wire_ms,
        loss_pct=loss_pct,
        retry_ms=(wire_ms or 0.0) + draw(whole) if loss_pct else 0.0,
        radio_parts=draw(radio_parts_of(step.message.receiver)),
    )
    via = draw(relays)
    return replace(step, message=replace(step.message, via=via), transit=transit)


@st.composite
def powered_runs(draw):
    """Runs with failures in which every board draws, computing, idle and for its radio."""
    graph = draw(jobs())
    made = tuple(draw(on_the_air(step)) for step in graph.steps)
    ends = (step.message.places for step in made if step.message)
    boards = {step.actor for step in made}.union(*ends) - {"host"}
    busy = {"power_fixed_w": 1.0, "power_busy_w": 1.0}
    nodes = tuple(
        Node(name, device(name, idle_w=draw(watts), radio_w=draw(watts), **busy))
        for name in sorted(boards)
    )
    graph = TaskGraph(made, graph.sink, nodes=nodes)
    return simulate(graph, 6, replace(draw(disturbed(graph)), seed=draw(seeds)))


@settings(max_examples=300)
@given(powered_runs())
def test_what_a_board_draws_over_time_is_its_energy(result):
    for row in result.boards:
        drawn = power_draws(result)[row.board]
        area_mj = sum(each.watts * (each.end_ms - each.start_ms) for each in drawn)
        energy_mj = row.energy_mj + row.idle_mj + row.radio_mj
        assert area_mj / 6 == pytest.approx(energy_mj, rel=1e-6, abs=1e-9)
        assert all(each.watts >= 0 and each.start_ms <= each.end_ms for each in drawn)


@given(st.data())
def test_the_same_seed_gives_the_same_bytes(data):
    graph = data.draw(jobs())
    scenario = data.draw(disturbed(graph))
    one, other = (simulate(graph, 6, scenario) for _ in range(2))
    assert bytes_of(one) == bytes_of(other)
    assert (one.intervals, one.messages) == (other.intervals, other.messages)


@st.composite
def fan_outs(draw):
    """One student on each board, so that a recurrence describes it."""
    names = [f"board-{i}" for i in range(draw(st.integers(1, 5)))]
    work = tuple(
        StudentWork(f"on {name}", name, draw(st.integers(0, 10**8)), draw(st.integers(1, 640)))
        for name in names
    )
    hosting = Hosting(join_fixed_ms=figure(draw(milliseconds)), fc_ms=figure(draw(milliseconds)))
    fleet = []
    for name in names:
        board, latency_ms = draw(boards(name)), figure(draw(st.sampled_from((0, 3.7))))
        link = board.link.model_copy(update={"latency_ms": latency_ms})
        fleet.append(replace(board, link=link))
    return FanOut(
        host=draw(devices(hosting=hosting)),
        boards=tuple(fleet),
        students=work,
        send_order=tuple(draw(st.permutations(names))),
        image_bytes=draw(st.integers(1, 200_000)),
        needs=draw(st.none() | st.integers(1, len(names))),
    )


@given(
    fan_outs(),
    st.just(UNDISTURBED)
    | st.builds(Scenario, st.builds(Poisson, st.floats(0.5, 200)), seed=whole.map(int)),
)
def test_engine_equals_recurrence_on_each_inference(workload, scenario):
    images = 12
    for path in ("events", "recurrence"):
        rows = simulate(workload.graph(), images, scenario, path=path).inferences
        starts = None if scenario is UNDISTURBED else [row.start_ms for row in rows]
        for found, wanted in zip(rows, inference_times(workload, images, starts), strict=True):
            assert found.start_ms == pytest.approx(wanted.start_ms, rel=0, abs=TOLERANCE_MS)
            assert found.end_ms == pytest.approx(wanted.end_ms, rel=0, abs=TOLERANCE_MS)


def channel_split_ms(boards, fixed_ms, shares_ms, wires_ms, exchange_ms, peer_message_ms):
    """Latency of a model whose layers are split by channels over equal `boards`, in ms.

    Per layer each board computes a share for shares_ms[l]; then all exchange, which costs
    exchange_ms and one message to each other board, each peer_message_ms + wires_ms[l].
    """
    others = boards - 1
    exchanged_ms = (exchange_ms + others * (peer_message_ms + wire_ms) for wire_ms in wires_ms)
    return fixed_ms + sum(shares_ms) + sum(exchanged_ms)


@given(
    st.integers(2, 5),
    st.lists(st.tuples(milliseconds, st.integers(0, 100_000)), min_size=1, max_size=4),
    milliseconds,
    milliseconds,
    st.data(),
)
def test_a_channel_split_takes_its_closed_form(count, layers, exchange_ms, message_ms, data):
    """Equal boards: per layer a share each, a barrier, then messages to all others in rounds."""
    first = data.draw(boards("board-0"))
    fleet = [type(first)(f"board-{i}", first.device, first.link) for i in range(count)]
    build, barrier = GraphBuilder(), ()
    for share_ms, size in layers:
        done = [build.compute(board, ms=share_ms, mj=0, after=barrier) for board in fleet]
        met = build.add(Step("host", "join", (), exchange_ms, tuple(done)))
        barrier = tuple(
            build.exchange(fleet[b], fleet[(b + k) % count], size, (met,), message_ms=message_ms)
            for k in range(1, count)
            for b in range(count)
        )
    graph = build.graph(build.join(barrier, ms=0))
    formula = channel_split_ms(
        boards=count,
        fixed_ms=0,
        shares_ms=[share_ms for share_ms, _ in layers],
        wires_ms=[8000 * size / first.link.bits_per_s.value for _, size in layers],
        exchange_ms=exchange_ms,
        peer_message_ms=message_ms,
    )
    for path in ("events", "recurrence"):
        for row in simulate(graph, 2, path=path).inferences:
            assert row.latency_ms == pytest.approx(formula, rel=1e-12, abs=TOLERANCE_MS)


def test_totals_need_no_more_memory_for_more_images(monkeypatch):
    monkeypatch.setattr(statistics, "BATCH_VALUES", 2**10)
    graph = TaskGraph((Step("a", "compute", ("a.cpu",), 1.0, service="exponential"),), sink=0)
    peaks = []
    for images in (3_000, 30_000):
        tracemalloc.start()
        simulate(graph, images, Scenario(Periodic(2)), keep="totals")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
