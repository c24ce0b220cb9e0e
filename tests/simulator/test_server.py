import pytest
from hypothesis import given
from hypothesis import strategies as st
from simpy import Environment

from simulator.server import Server


def serve_all(jobs):
    """Serve (arrival, duration) jobs, given by arrival; return (start, end) as they end."""
    environment = Environment()
    server, ended = Server(environment), []
    for arrival, duration in jobs:
        environment.timeout(arrival).callbacks.append(
            lambda _, duration=duration: server.serve(duration, lambda *row: ended.append(row))
        )
    environment.run()
    return ended


def test_a_job_waits_for_the_one_before_it():
    # The second arrives at 1 and waits until 5; the third finds the server idle at 20.
    assert serve_all([(0, 5), (1, 2), (20, 3)]) == [(0, 5), (5, 7), (20, 23)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=12))
def test_waiting_follows_lindley(jobs):
    jobs.sort(key=lambda job: job[0])
    rows = serve_all(jobs)
    assert len(rows) == len(jobs)
    waited = 0
    for index, ((arrival, duration), (start, end)) in enumerate(zip(jobs, rows, strict=True)):
        if index:
            earlier, service = jobs[index - 1]
            waited = max(0, waited + service - (arrival - earlier))  # Lindley 1952
        assert (start, end) == pytest.approx((arrival + waited, arrival + waited + duration))
