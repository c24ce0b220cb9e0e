"""When compiled code runs, and that blocks, interrupts and broken caches change no result."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from nonn_common.errors import SimulationError
from simulator import engine
from simulator.engine import compiled_events, compiled_run, simulation
from simulator.engine.kernel import NumberStream
from simulator.engine.simulation import simulate
from simulator.results import image_sums, statistics
from simulator.scenario import (
    Periodic,
    Poisson,
    RenewalFailure,
    Scenario,
    Throttle,
    TimedFailure,
)

SHORT_RUN = """
import sys
from nonn_plan.__main__ import run
sys.argv = ["nonn-plan", "simulate", "--students", "2", "--student", "wrn16:32,64,88",
            "--fleet", "rpi3x2", "--inferences", "1000", "--arrivals", "poisson:2/s"]
try:
    run()
finally:
    print("numba" in sys.modules)
"""

LONG_RUN = """
import sys
from simulator.engine.simulation import simulate
from simulator.engine.compiled_run import RECURRENCE
from simulator.task_graph import Step, TaskGraph
simulate(TaskGraph((Step("one", "compute", ("one.cpu",), 1.0),), 0), 2_000_000, keep="totals")
print(RECURRENCE.is_loaded, "numba" in sys.modules)
"""


def told(result):
    return repr(replace(result, recording=None, inferences=()))


@pytest.fixture
def graph(make_fan_out, students):
    return make_fan_out(students=students[:2], needs=1).graph()


@pytest.mark.parametrize("block", [1, 3, 10_000])
def test_where_blocks_end_does_not_matter(graph, monkeypatch, block):
    scenario = Scenario(Poisson(30), seed=4)
    whole = simulate(graph, 2_000, scenario, "totals", compiled=False)
    monkeypatch.setattr(engine, "BLOCK_VALUES", block * len(graph.steps))
    heard = []
    parts = simulate(graph, 2_000, scenario, "totals", heard.append, compiled=True)
    assert told(whole) == told(parts)
    assert heard[-1] == 2_000
    assert len(heard) == -(-2_000 // block)


@pytest.fixture
def disturbed(graph):
    """Boards that fail again and again; a late join takes what came, and messages take chances."""
    steps = tuple(
        replace(step, transit=replace(step.transit, jitter_ms=2.0)) if step.message else step
        for step in graph.steps
    )
    failures = tuple(RenewalFailure((name,), 300.0, 30.0) for name in ("slow", "fast"))
    return replace(graph, steps=steps), Scenario(Poisson(30), failures, on_failure="lose", seed=4)


@pytest.mark.parametrize(
    ("block", "some", "downs"), [(1, 2**14, 128), (10_000, 3, 128), (10_000, 2**14, 2), (50, 9, 1)]
)
def test_where_the_event_loop_pauses_does_not_matter(disturbed, monkeypatch, block, some, downs):
    graph, scenario = disturbed
    whole = simulate(graph, 500, scenario, compiled=False)
    monkeypatch.setattr(engine, "BLOCK_VALUES", block * len(graph.steps))
    monkeypatch.setattr(compiled_run, "SOME", some)
    monkeypatch.setattr(compiled_run, "DOWNS", downs)
    parts = simulate(graph, 500, scenario, compiled=True)
    assert told(whole) == told(parts)
    assert repr(whole.inferences[:]) == repr(parts.inferences[:])
    assert 0 < whole.lost < 500


def test_a_thousand_images_may_be_under_way(graph):
    scenario = Scenario(Periodic(0.01), (TimedFailure(("fast",), 5.0, 500.0),))
    one, other = (simulate(graph, 1000, scenario, compiled=each) for each in (False, True))
    assert told(one) == told(other)


def test_a_step_that_never_gets_through_is_told_either_way(graph):
    scenario = Scenario(failures=(RenewalFailure(("slow",), 0.5, 1.0),))
    for compiled in (False, True):
        with pytest.raises(SimulationError, match="broke it off"):
            simulate(graph, 2, scenario, compiled=compiled)


def test_shared_processors_and_throttling_are_left_to_python(graph, students, make_fan_out):
    assert simulation._event_kernel(graph, Scenario()) is compiled_events.EVENTS
    assert simulation._event_kernel(graph, Scenario(throttling=(Throttle("slow", 1, 0.5),))) is None
    assert simulation._event_kernel(make_fan_out(students=students).graph(), Scenario()) is None


def test_an_interrupt_ends_a_compiled_run(graph, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "BLOCK_VALUES", 10 * len(graph.steps))
    with pytest.raises(KeyboardInterrupt):
        simulate(graph, 100, progress=interrupt, compiled=True)


def test_a_short_run_loads_no_numba():
    ended = subprocess.run([sys.executable, "-c", SHORT_RUN], capture_output=True, text=True)
    assert ended.stdout.endswith("False\n"), ended.stderr


def test_a_long_run_that_finds_compiled_code_loads_no_numba():
    assert compiled_run.RECURRENCE.make()
    ended = subprocess.run([sys.executable, "-c", LONG_RUN], capture_output=True, text=True)
    assert ended.stdout == "True False\n", ended.stderr


class KernelOf:
    """A kernel of which it is known what a process finds of it, and whether it can be compiled."""

    def __init__(self, loaded=False, kept=False, compiles=True):
        self.is_loaded, self._kept, self._compiles = loaded, kept, compiles

    def find(self):
        self.is_loaded |= self._kept
        return self.is_loaded

    def make(self):
        self.is_loaded = self.find() or self._compiles
        return self.is_loaded


STEPS = 25 * 10**6  # of a million images; 5 s in Python


def test_compiled_code_runs_where_it_saves_more_than_it_takes():
    assert simulation._pays(STEPS // 50, KernelOf(loaded=True))
    assert not simulation._pays(1000, KernelOf(loaded=True))
    assert simulation._pays(STEPS // 10, KernelOf(kept=True))
    assert not simulation._pays(STEPS // 50, KernelOf(kept=True))
    assert simulation._pays(STEPS, KernelOf())
    assert not simulation._pays(STEPS // 5, KernelOf())


def test_where_nothing_can_be_kept_only_a_very_long_run_compiles(monkeypatch):
    monkeypatch.setattr(simulation, "has_place", lambda: False)
    assert not simulation._pays(STEPS, KernelOf())
    assert simulation._pays(8 * STEPS, KernelOf())


def test_without_numba_python_runs_unless_compiled_code_is_there(monkeypatch):
    monkeypatch.setattr(simulation, "find_spec", lambda _: None)
    assert not simulation._pays(10 * STEPS, KernelOf())
    assert simulation._pays(10 * STEPS, KernelOf(kept=True))


def test_what_cannot_be_compiled_runs_in_python(graph, monkeypatch):
    assert not simulation._pays(STEPS, KernelOf(compiles=False))
    monkeypatch.setattr(simulation, "RECURRENCE", KernelOf(compiles=False))
    with pytest.raises(SimulationError, match="cannot compile"):
        simulate(graph, 100, compiled=True)


def test_compiled_and_other_sums_have_one_layout():
    assert image_sums.LANES == statistics.LANES


def test_numbers_are_taken_as_they_come_whatever_the_batches():
    stream = NumberStream(iter([np.arange(3.0), np.arange(3.0, 4.0), np.arange(4.0, 9.0)]))
    assert [stream.take(count).tolist() for count in (2, 0, 3, 9)] == [
        [0, 1],
        [],
        [2, 3, 4],
        [5, 6, 7, 8],
    ]
