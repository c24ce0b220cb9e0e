"""The engine against queueing theory: exact mean waits, a fork and join, order statistics.

Means of a queue converge slowly.  Each estimate here is helped by control variates: quantities of
the same run whose mean is known to be zero.  With W the wait, S the service, A the time to the
next arrival, Y the idle time before it, X = S - A: Lindley's W' = W + X + Y has W independent of X
and E[Y] = -E[X], so W (X - E[X]), X^2 - E[X^2] and Y + E[X] are such quantities.
"""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from simulator.engine.simulation import simulate
from simulator.scenario import Periodic, Poisson, RenewalFailure, Scenario
from simulator.task_graph import Step, TaskGraph

IMAGES = 150_000
BLOCKS = 25
MEAN_MS = 10.0  # of one service


def server(name, service="constant", duration_ms=MEAN_MS):
    return Step(name, "compute", (f"{name}.cpu",), duration_ms, service=service)


def join(after, needs=None):
    return Step("host", "join", (), 0.0, tuple(after), needs)


def poisson(load, seed=0):
    return Scenario(Poisson(1000 * load / MEAN_MS), seed=seed)


def controls(batch, server, load, second_moment_of_service):
    """Return the zero-mean quantities of one server, a row per image but the last."""
    service = (batch.frees_ms - batch.starts_ms)[:, server]
    waits = (batch.starts_ms[:, server] - batch.start_ms)[:-1]
    gap_ms = MEAN_MS / load
    drift = MEAN_MS - gap_ms
    change = service[:-1] - np.diff(batch.start_ms)
    square = second_moment_of_service - 2 * MEAN_MS * gap_ms + 2 * gap_ms**2
    idle = np.maximum(-(waits + change), 0.0)
    return np.stack([waits * (change - drift), change**2 - square, idle + drift], axis=1)


def mean_and_half_width(values, zero_mean):
    """Return the mean and half the width of its 99 % interval, by regression on long blocks."""
    size = len(values) // BLOCKS * BLOCKS
    blocks = values[:size].reshape(BLOCKS, -1).mean(axis=1)
    known = zero_mean[:size].reshape(BLOCKS, -1, zero_mean.shape[1]).mean(axis=1)
    design = np.column_stack([np.ones(BLOCKS), known])
    found, residuals, _, _ = np.linalg.lstsq(design, blocks, rcond=None)
    freedom = BLOCKS - design.shape[1]
    error = np.sqrt(residuals[0] / freedom * np.linalg.inv(design.T @ design)[0, 0])
    return found[0], stats.t.ppf(0.995, freedom) * error


def served(load, service):
    graph = TaskGraph((server("board", service),), sink=0)
    batch = simulate(graph, IMAGES, poisson(load), path="recurrence").recording.batch
    return batch, (batch.starts_ms[:, 0] - batch.start_ms)[:-1]


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9])
def test_constant_service_waits_as_long_as_m_d_1(load):
    batch, waits = served(load, "constant")
    mean, _ = mean_and_half_width(waits, controls(batch, 0, load, MEAN_MS**2))
    assert mean == pytest.approx(load * MEAN_MS / (2 * (1 - load)), rel=0.01)


@pytest.mark.parametrize("load", [0.5, 0.8, 0.9])
def test_exponential_service_waits_as_long_as_m_m_1(load):
    batch, waits = served(load, "exponential")
    mean, half_width = mean_and_half_width(waits, controls(batch, 0, load, 2 * MEAN_MS**2))
    wanted = load * MEAN_MS / (1 - load)
    assert abs(mean - wanted) < half_width
    assert half_width < 0.03 * wanted  # the interval is narrow enough to mean something


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_fork_and_join_of_two_exponential_servers(load):
    """Mean response (12 - load) / 8 / (mu - lambda): Nelson and Tantawi 1988, exact for two."""
    graph = TaskGraph(
        (server("a", "exponential"), server("b", "exponential"), join((0, 1))), sink=2
    )
    batch = simulate(graph, IMAGES, poisson(load), path="recurrence").recording.batch
    known = np.hstack([controls(batch, i, load, 2 * MEAN_MS**2) for i in (0, 1)])
    responses = (batch.end_ms - batch.start_ms)[:-1]
    mean, half_width = mean_and_half_width(responses, known)
    wanted = (12 - load) / 8 * MEAN_MS / (1 - load)
    assert abs(mean - wanted) < half_width
    assert half_width < 0.03 * wanted


@pytest.mark.parametrize("needs", [1, 2, 3, 4, 5])
def test_k_of_n_replies_come_as_late_as_an_order_statistic(needs):
    """Mean of the kth smallest of n exponentials: the sum of 1/(n - i), i < k, of their mean."""
    names = "abcde"
    graph = TaskGraph(
        (*(server(name, "exponential") for name in names), join(range(5), needs)), sink=5
    )
    apart = Scenario(Periodic(100 * MEAN_MS))  # no image meets another
    latencies = np.array([row.latency_ms for row in simulate(graph, 40_000, apart).inferences])
    wanted = MEAN_MS * sum(1 / (5 - i) for i in range(needs))
    error = latencies.std() / np.sqrt(len(latencies))
    assert abs(latencies.mean() - wanted) < stats.norm.ppf(0.995) * error


def test_as_many_boards_answer_as_a_binomial_says():
    names = "abcdef"
    replies = tuple(Step(name, "reply", (f"{name}.up",), 1.0) for name in names)
    last = Step("host", "join", (), 0.0, tuple(range(6)), deadline_ms=5.0)
    graph = TaskGraph(
        (*replies, last), sink=6, students={i: (name,) for i, name in enumerate(names)}
    )
    failures = tuple(RenewalFailure((name,), mttf_ms=600, mttr_ms=400) for name in names)
    images = 4000
    scenario = Scenario(Periodic(20_000), failures, on_failure="lose", seed=1)
    result = simulate(graph, images, scenario)
    counts = np.zeros(7)
    for students, count in result.survivors.items():
        counts[len(students)] += count
    # A board is up at a time with probability 0.6, and through the next ms with exp(-1/600) of it.
    up = 0.6 * np.exp(-1 / 600)
    assert counts.sum() == images
    assert counts[0] == result.lost
    assert stats.chisquare(counts, images * stats.binom.pmf(range(7), 6, up)).pvalue > 0.01


def test_waiting_follows_lindley():
    scenario = poisson(0.9, seed=3)
    result = simulate(TaskGraph((server("board", "exponential"),), sink=0), 2000, scenario)
    waited_ms = 0.0
    rows = result.intervals
    for earlier, later in pairwise(rows):
        change_ms = (earlier.end_ms - earlier.start_ms) - (later.ready_ms - earlier.ready_ms)
        waited_ms = max(0.0, waited_ms + change_ms)  # Lindley 1952
        assert later.start_ms - later.ready_ms == pytest.approx(waited_ms, abs=1e-6)
