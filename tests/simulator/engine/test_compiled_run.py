"""When compiled code runs, and that blocks, interrupts and broken caches change no result."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib import util

import numpy as np
import pytest

from simulator.engine import compiled_run, simulation
from simulator.engine.kernel import NumberStream
from simulator.engine.simulation import simulate
from simulator.results import image_sums, statistics
from simulator.scenario import Poisson, Scenario

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


def told(result):
    return repr(replace(result, recording=None, inferences=()))


@pytest.fixture
def graph(make_fan_out, students):
    return make_fan_out(students=students[:2], needs=1).graph()


@pytest.mark.parametrize("block", [1, 3, 10_000])
def test_where_blocks_end_does_not_matter(graph, monkeypatch, block):
    scenario = Scenario(Poisson(30), seed=4)
    whole = simulate(graph, 2_000, scenario, "totals", compiled=False)
    monkeypatch.setattr(compiled_run, "BLOCK_VALUES", block * len(graph.steps))
    heard = []
    parts = simulate(graph, 2_000, scenario, "totals", heard.append, compiled=True)
    assert told(whole) == told(parts)
    assert heard[-1] == 2_000
    assert len(heard) == -(-2_000 // block)


def test_an_interrupt_ends_a_compiled_run(graph, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(compiled_run, "BLOCK_VALUES", 10 * len(graph.steps))
    with pytest.raises(KeyboardInterrupt):
        simulate(graph, 100, progress=interrupt, compiled=True)


def test_a_short_run_loads_no_numba():
    ended = subprocess.run([sys.executable, "-c", SHORT_RUN], capture_output=True, text=True)
    assert ended.stdout.endswith("False\n"), ended.stderr


def in_a_new_process(monkeypatch, *, on_disk, kept=True):
    """As if nothing were loaded; what the choice finds then is as stated."""
    monkeypatch.setattr(compiled_run, "is_loaded", lambda: False)
    monkeypatch.setattr(compiled_run, "is_kept", lambda: kept)
    monkeypatch.setattr(simulation, "_is_on_disk", lambda: on_disk)


STEPS = 25 * 10**6  # of a million images; 5 s in Python


def test_compiled_code_runs_where_it_saves_more_than_it_takes(monkeypatch):
    compiled_run.load()
    assert simulation._pays(STEPS // 50, "recurrence")
    assert not simulation._pays(1000, "recurrence")
    in_a_new_process(monkeypatch, on_disk=True)
    assert simulation._pays(STEPS // 5, "recurrence")
    assert not simulation._pays(STEPS // 10, "recurrence")
    in_a_new_process(monkeypatch, on_disk=False)
    assert simulation._pays(STEPS, "recurrence")
    assert not simulation._pays(STEPS // 5, "recurrence")


def test_where_nothing_can_be_kept_only_a_very_long_run_compiles(monkeypatch):
    in_a_new_process(monkeypatch, on_disk=False, kept=False)
    assert not simulation._pays(STEPS, "recurrence")
    assert simulation._pays(4 * STEPS, "recurrence")


def test_without_numba_python_runs(monkeypatch):
    in_a_new_process(monkeypatch, on_disk=True)
    found = util.find_spec
    monkeypatch.setattr(
        simulation, "find_spec", lambda name: None if name == "numba" else found(name)
    )
    assert not simulation._pays(10 * STEPS, "recurrence")


def test_a_cache_that_cannot_be_read_leaves_the_run_to_python(monkeypatch):
    def cut_off(*_):
        raise EOFError("Ran out of input")

    in_a_new_process(monkeypatch, on_disk=True)
    monkeypatch.setattr(compiled_run, "run_recurrence", cut_off)
    assert not simulation._pays(STEPS, "recurrence")


def test_a_cache_of_an_older_version_is_not_taken_for_one(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    assert not simulation._is_on_disk()
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    made = tmp_path / "engine_0123" / f"compiled_run._pass-1.{version}.nbi"
    made.parent.mkdir()
    made.touch()
    assert simulation._is_on_disk()
    os.utime(made, (1, 1))
    assert not simulation._is_on_disk()


def test_compiled_and_other_sums_have_one_layout():
    assert image_sums._LANES == statistics.LANES


def test_numbers_are_taken_as_they_come_whatever_the_batches():
    stream = NumberStream(iter([np.arange(3.0), np.arange(3.0, 4.0), np.arange(4.0, 9.0)]))
    assert [stream.take(count).tolist() for count in (2, 0, 3, 9)] == [
        [0, 1],
        [],
        [2, 3, 4],
        [5, 6, 7, 8],
    ]
