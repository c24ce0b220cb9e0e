"""Spread of a join: a million joins drawn here, by numpy, beside the closed form."""

from dataclasses import replace

import numpy as np
import pytest
from made_hardware import figure

from nonn_common.errors import SimulationError
from profiles.fleet import parse_fleet, resolve
from simulator.workloads.closed_form import fan_out_breakdown, join_spread
from simulator.workloads.fan_out import FanOut, SharedGroup, StudentWork

JOINS = 1_000_000


def with_cv(board, cv):
    return replace(board, device=board.device.model_copy(update={"compute_cv": figure(cv)}))


def pis(boards):
    host, found = resolve(parse_fleet(f"rpi-3b*{boards}"))
    works = tuple(StudentWork(f"on {b.name}", b.name, 83_500_000, 46) for b in found)
    return FanOut(host, found, works, tuple(b.name for b in found), image_bytes=12_288)


@pytest.mark.parametrize("boards", [2, 8])
def test_the_expected_join_is_that_of_a_million_joins(boards):
    workload = pis(boards)
    rows = fan_out_breakdown(workload).boards
    generator = np.random.default_rng(1)
    longest = np.zeros(JOINS)
    done = np.zeros(JOINS)
    for row, board in zip(rows, workload.boards, strict=True):
        scale = board.device.compute_cv.value * row.busy_ms * np.sqrt(6) / np.pi
        times = generator.gumbel(row.busy_ms - np.euler_gamma * scale, scale, JOINS)
        longest = np.maximum(longest, times)
        done = np.maximum(done, row.done_ms - row.busy_ms + times)
    around_ms = fan_out_breakdown(workload).total_ms - max(row.done_ms for row in rows)
    found = join_spread(workload)
    assert found.compute_ms == pytest.approx(longest.mean(), rel=1e-3)
    assert found.expected_ms == pytest.approx(done.mean() + around_ms, rel=1e-3)
    assert found.p95_ms == pytest.approx(np.quantile(done, 0.95) + around_ms, rel=1e-3)


def test_a_board_alone_is_as_fast_as_its_mean():
    found = join_spread(pis(1))
    assert found.expected_ms == pytest.approx(fan_out_breakdown(pis(1)).total_ms)
    assert found.p95_ms > found.expected_ms


def test_without_spread_all_images_take_as_long(make_fan_out):
    workload = make_fan_out()
    found, known = join_spread(workload), fan_out_breakdown(workload)
    assert found.expected_ms == found.p95_ms == pytest.approx(known.total_ms)
    assert found.compute_ms == known.compute_ms


def test_students_of_one_board_are_slow_together(make_fan_out, slow, fast, idle):
    """`fast` has two students: its whole work is drawn once, not each student by itself."""
    parts = {"boards": (slow, with_cv(fast, 0.3), idle), "send_order": ("fast",)}
    workload = make_fan_out(**parts, students=make_students(fast))
    found, busy_ms = join_spread(workload), fan_out_breakdown(workload).compute_ms
    assert found.p95_ms - found.expected_ms == pytest.approx(
        0.3 * busy_ms * (np.sqrt(6) / np.pi) * (-np.log(-np.log(0.95)) - np.euler_gamma)
    )


def make_students(board):
    return tuple(StudentWork(name, board.name, 4_000_000, 100) for name in "ab")


def test_what_is_not_independent_has_no_closed_form(make_fan_out, slow, fast, students):
    shared = {"link": slow.link.model_copy(update={"duplex": "half", "shared": True})}
    both = (*students, StudentWork("a", "fast", macs=5_000_000, features=250))
    for changed, match in (
        ({"g0": SharedGroup("slow", macs=0, size_bytes=500)}, "behind a board for G0 alone"),
        ({"students": both}, "students on several boards"),
        ({"boards": (replace(slow, **shared), replace(fast, **shared))}, "on a shared medium"),
        ({"needs": 2}, "joins k of n"),
    ):
        with pytest.raises(SimulationError, match=match):
            join_spread(make_fan_out(**changed))
