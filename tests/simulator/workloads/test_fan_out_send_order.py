"""Longest first is the best of all orders."""

from dataclasses import replace
from itertools import permutations

import pytest
from made_hardware import figure

from profiles.fleet import Board
from simulator.workloads.closed_form import fan_out_breakdown
from simulator.workloads.fan_out import FanOut, StudentWork, awaited_first, longest_first


@pytest.mark.parametrize("macs", [(5, 4, 6, 1), (1, 2, 3, 90), (30, 1, 1, 1)])
@pytest.mark.parametrize("latency_ms", [0, 25])
def test_no_order_is_faster(host, slow, fast, macs, latency_ms):
    far = fast.link.model_copy(update={"latency_ms": figure(latency_ms)})
    boards = (slow, fast, replace(fast, name="far", link=far), Board("last", slow.device, far))
    works = tuple(
        StudentWork(f"on {board.name}", board.name, each * 1_000_000, 100)
        for board, each in zip(boards, macs, strict=True)
    )

    def total_ms(order):
        return fan_out_breakdown(FanOut(host, boards, works, order, image_bytes=1000)).total_ms

    names = [board.name for board in boards]
    best_ms = min(total_ms(order) for order in permutations(names))
    assert total_ms(longest_first(boards, works)) == pytest.approx(best_ms, abs=1e-9)


@pytest.mark.parametrize("macs", [(1, 1, 9), (30, 20, 1), (0, 40, 2)])
def test_no_order_of_boards_is_faster_with_an_image_for_each_student(host, slow, fast, idle, macs):
    boards = (slow, fast, idle)
    works = tuple(
        StudentWork(f"{n} on {board.name}", board.name, each * 1_000_000, 50)
        for board, each in zip(boards, macs, strict=True)
        for n in range(2 if board is slow else 3)
    )

    def total_ms(order):
        each = FanOut(host, boards, works, order, image_bytes=1000, sending="per-student")
        return fan_out_breakdown(each).total_ms

    best_ms = min(total_ms(order) for order in permutations(board.name for board in boards))
    assert total_ms(longest_first(boards, works, 1000)) == pytest.approx(best_ms, rel=1e-2)


def test_boards_without_students_get_nothing(slow, fast, idle):
    works = (StudentWork("a", "fast", 1_000_000, 10),)
    assert longest_first((slow, fast, idle), works) == ("fast",)


def test_boards_that_nobody_waits_for_come_last(slow, fast, idle):
    works = tuple(
        StudentWork("a", board.name, macs, 10)
        for board, macs in ((slow, 9_000_000), (fast, 1_000_000), (idle, 5_000_000))
    )
    assert longest_first((fast, idle, slow), works) == ("slow", "idle", "fast")
    assert awaited_first((fast, idle, slow), works, {"fast"}) == ("fast", "slow", "idle")
    assert awaited_first((fast, idle, slow), works, {"fast", "idle"}) == ("idle", "fast", "slow")
