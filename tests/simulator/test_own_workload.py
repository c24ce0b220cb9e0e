"""The examples run, and say what they say they do."""

import runpy
from pathlib import Path

import pytest

from simulator.engine.simulation import simulate

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_of_two_boards_the_faster_one_answers(capsys):
    shown = runpy.run_path(str(EXAMPLES / "own_workload.py"), run_name="__main__")
    assert "p99" in capsys.readouterr().out
    both = simulate(shown["race"]())
    fast = simulate(shown["race"]("odroid-xu4s"))
    sent_first_ms = both.boards[0].send_done_ms
    assert both.total_ms == pytest.approx(fast.total_ms + sent_first_ms)
