import numpy as np
import pytest
from scipy import stats

from simulator.engine import simulation
from simulator.engine.simulation import simulate
from simulator.scenario import Periodic, Scenario
from simulator.task_graph import Message, Step, TaskGraph, Transit


def message(**transit):
    carried = Message("a", "host", 100)
    return Step("a", "reply", ("a.up",), 5.0, message=carried, transit=Transit(**transit))


def test_a_message_is_tried_until_it_comes_through():
    graph = TaskGraph((message(loss_pct=30, retry_ms=12),), sink=0)
    result = simulate(graph, 20_000)
    tries = np.array([row.tries for row in result.messages])
    latencies = np.array([row.latency_ms for row in result.inferences])
    assert latencies == pytest.approx(5 + 12 * (tries - 1))
    # Geometric: mean 1 / 0.7 tries, variance 0.3 / 0.7 ** 2.
    error = np.sqrt(0.3 / 0.49 / len(tries))
    assert abs(tries.mean() - 1 / 0.7) < 3 * error
    counts = np.bincount(tries, minlength=6)[1:]
    wanted = len(tries) * stats.geom.pmf(range(1, 6), 0.7)
    wanted = np.append(wanted[:4], len(tries) - wanted[:4].sum())
    found = np.append(counts[:4], counts[4:].sum())
    assert stats.chisquare(found, wanted).pvalue > 0.01


def test_latency_delays_a_message_while_the_link_is_free_again():
    graph = TaskGraph((message(latency_ms=20),), sink=0)
    result = simulate(graph, 2, Scenario(Periodic(1)))
    assert [(row.sent_ms, row.received_ms) for row in result.messages] == [(0, 25), (5, 30)]
    assert [(row.start_ms, row.end_ms) for row in result.intervals] == [(0, 5), (5, 10)]


def test_jitter_is_exponential_and_added():
    graph = TaskGraph((message(latency_ms=2, jitter_ms=10),), sink=0)
    delays = np.array([row.latency_ms for row in simulate(graph, 20_000).inferences]) - 7
    assert stats.kstest(delays, stats.expon(scale=10).cdf).pvalue > 0.01


def test_messages_may_overtake_each_other_only_by_jitter():
    graph = TaskGraph(
        (message(jitter_ms=50), Step("host", "join", ("host.cpu",), 1.0, (0,))), sink=1
    )
    assert not simulation.keeps_order(graph)
    rows = simulate(graph, 200, Scenario(Periodic(5))).inferences
    ends = [row.end_ms for row in rows]
    assert ends != sorted(ends)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others():
    graph = TaskGraph((message(loss_pct=20, retry_ms=3, jitter_ms=1),), sink=0)

    def tables(seed):
        batch = simulate(graph, 300, Scenario(seed=seed)).recording.batch
        return b"".join(getattr(batch, name).tobytes() for name in type(batch).__slots__)

    assert tables(1) == tables(1)
    assert tables(1) != tables(2)


def test_noise_of_one_step_leaves_the_numbers_of_another_alone():
    quiet, noisy = message(), message(loss_pct=40, retry_ms=9)
    last = Step("host", "compute", ("host.cpu",), 4.0, (0,), service="exponential")
    held = []
    for first in (quiet, noisy):
        batch = simulate(TaskGraph((first, last), sink=1), 50).recording.batch
        held.append((batch.frees_ms - batch.starts_ms)[:, 1])
    assert held[0] == pytest.approx(held[1])


def test_noise_is_the_same_on_both_paths():
    last = Step("host", "join", ("host.cpu",), 1.0, (0, 1), service="exponential")
    graph = TaskGraph((message(loss_pct=30, retry_ms=5, latency_ms=3), message(), last), sink=2)
    scenario = Scenario(Periodic(9), seed=5)
    assert simulation.recurrence_applies(graph, scenario)
    one, other = (simulate(graph, 3000, scenario, path=path) for path in ("events", "recurrence"))
    for name in type(one.recording.batch).__slots__:
        left, right = (getattr(each.recording.batch, name) for each in (one, other))
        assert left.tobytes() == right.tobytes()
