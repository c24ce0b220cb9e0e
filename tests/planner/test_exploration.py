"""Explorations: points of fronts that people are shown, and the time that is left."""

from types import SimpleNamespace

from planner_questions import question, stages

from planner.exploration.cell import CellRequest, CellResult, FrontPoint, TimedResult
from planner.exploration.exploration import (
    Cell,
    CellPlace,
    PlannedCell,
    run_exploration,
    thinned,
)
from planner.exploration.report import fronts


def front(*pairs):
    return [
        FrontPoint(values={"latency": x, "capacity": y}, networks=(), boards=()) for x, y in pairs
    ]


def test_points_of_a_front_differ_by_a_step_or_are_its_ends():
    points = front((0, 0), (0.5, 1), (10, 1.5), (10.4, 60), (10.6, 60.5), (100, 100))
    assert thinned(points, 5) == [True, False, True, True, False, True]
    assert thinned(points, 0) == [True] * 6
    assert thinned([], 5) == []
    assert thinned(front((1, 1)), 5) == [True]


def test_a_legend_names_the_budgets_that_are_limited():
    def title(**limits):
        place = CellPlace(
            fleet="f", memory_bytes=1, flops=None, objective="latency,capacity", **limits
        )
        points = tuple(front((1, 2), (2, 3)))
        found = CellResult(
            digest="d", kind="front", status="optimal", deterministic_time=0, points=points
        )
        return fronts([Cell(place=place, found=found)]).axes[0].get_legend().get_title().get_text()

    assert title() == "memory, FLOPs"
    assert title(power_w=2.5, ram_bytes=1) == "memory, FLOPs, power, RAM"


def test_the_time_left_goes_by_cells_of_like_kind(tmp_path, monkeypatch):
    """Two sorts of cells, of 1 and 10 s: one of each comes first, then the rest."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("planner.exploration.exploration.monotonic", lambda: clock.now)
    cells = [
        PlannedCell(
            CellPlace(fleet="rpi3x2", memory_bytes=memory, flops=None, objective=objective),
            CellRequest("plan", question(memory=memory, objective=stages(objective))),
        )
        for objective in ("latency", "capacity")
        for memory in (20_000, 30_000, 40_000)
    ]
    slow = {one.asked.digest for one in cells[3:]}

    def solve(asked):
        assert [one.digest in slow for one in asked] == [False, True, False, False, True, True]
        for one in asked:
            took_s = 10.0 if one.digest in slow else 1.0
            clock.now += took_s
            found = CellResult(
                digest=one.digest, kind="plan", status="optimal", deterministic_time=0
            )
            yield TimedResult(found, took_s)

    said = []
    run_exploration(cells, tmp_path, solve, lambda *told: said.append(told[:2]))
    assert said == [
        ("solving cells", 0),
        ("solving cells", 1),
        ("solving cells, about 22 s left", 2),
        ("solving cells, about 21 s left", 3),
        ("solving cells, about 20 s left", 4),
        ("solving cells, about 10 s left", 5),
        ("solving cells", 6),
    ]
