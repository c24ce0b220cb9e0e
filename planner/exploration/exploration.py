"""An exploration: cells with their coordinates, as one document and as tables."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from time import monotonic
from typing import Any

from pydantic import Field

from nonn_common import LEFT, Progress
from nonn_common.document import Document, Record, check_own_place
from nonn_common.errors import NonnError
from nonn_common.units import FLOPS_PER_MAC, format_bytes, format_duration, format_flops
from planner.exploration.cell import (
    CellRequest,
    CellResult,
    FrontPoint,
    TimedResult,
    read_cell_result,
)
from planner.problem.goals import OBJECTIVES
from planner.problem.problem import Problem
from simulator.results.tables import Table, write_table

Solver = Callable[[Sequence[CellRequest]], Iterator[TimedResult]]


CELL_BUDGETS: Mapping[str, str] = {
    "memory_bytes": "memory",
    "flops": "FLOPs",
    "power_w": "power",
    "flash_bytes": "flash",
    "ram_bytes": "RAM",
}
"""Budgets of a cell, by field; all but the first two are shown where one has a limit."""


class CellPlace(Record):
    """Coordinates of a cell in the grid."""

    fleet: str = Field(description="The fleet, as it was typed.")
    memory_bytes: int | None = Field(
        description="Budget of memory on every board without one of its own; null: the device's."
    )
    flops: int | None = Field(description="Budget of FLOPs per image, likewise; null is no limit.")
    objective: str = Field(description="Stages, the measures of a front, or whose break-points.")
    power_w: float | None = Field(
        default=None, description="Power limit of boards while they compute; null is none."
    )
    flash_bytes: int | None = Field(
        default=None,
        description="Budget of flash on every board that has it apart; null: the device's.",
    )
    ram_bytes: int | None = Field(default=None, description="Budget of RAM, likewise.")
    axis: str | None = Field(
        default=None, description="Of break-points: memory, flops, flash or ram."
    )
    memory_text: str | None = Field(default=None, description="Memory, in the unit it was typed.")
    flops_text: str | None = Field(default=None, description="FLOPs, in the unit they were typed.")
    flash_text: str | None = Field(default=None, description="Flash, in the unit it was typed.")
    ram_text: str | None = Field(default=None, description="RAM, in the unit it was typed.")

    @property
    def field(self) -> str | None:
        """Field of the budget whose break-points these are."""
        return self.axis if self.axis in (None, "flops") else f"{self.axis}_bytes"

    @property
    def budgets(self) -> tuple[str, ...]:
        """Memory, FLOPs, power, flash and RAM as people read them, as in `CELL_BUDGETS`."""
        flops = self.flops
        return (
            self.memory_text or _size(self.memory_bytes),
            self.flops_text
            or ("no limit" if flops is None else format_flops(flops / FLOPS_PER_MAC)),
            "no limit" if self.power_w is None else f"{self.power_w:g} W",
            self.flash_text or _size(self.flash_bytes),
            self.ram_text or _size(self.ram_bytes),
        )

    @property
    def limits(self) -> tuple[str, ...]:
        """Memory, FLOPs, and further budgets that are limited, each told by itself."""
        further = zip(self.budgets[2:], list(CELL_BUDGETS)[2:], strict=True)
        said = [(text, field) for text, field in further if getattr(self, field) is not None]
        named = (
            text if name == "power_w" else f"{CELL_BUDGETS[name]} {text}" for text, name in said
        )
        return (*self.budgets[:2], *named)


def _size(size_bytes: int | None) -> str:
    return "device's" if size_bytes is None else format_bytes(size_bytes)


class Cell(Record):
    """A place and what was found there."""

    place: CellPlace = Field(description="Where it is.")
    found: CellResult = Field(description="What was found.")


class Exploration(Document):
    """All cells of an exploration, in the order in which they were asked for."""

    command: str = Field(description="The command that was run.")
    versions: dict[str, str] = Field(description="Versions of the program and of its solver.")
    cells: tuple[Cell, ...] = Field(min_length=1, description="The cells.")
    pictures: tuple[str, ...] = Field(default=(), description="Pictures beside this file.")

    @property
    def plans(self) -> tuple[Cell, ...]:
        """Cells of the grid."""
        return self.of("plan")

    def of(self, kind: str) -> tuple[Cell, ...]:
        """Return the cells of one kind."""
        return tuple(cell for cell in self.cells if cell.found.kind == kind)

    def with_status(self, status: str) -> int:
        """Count the cells of a status."""
        return sum(cell.found.status == status for cell in self.cells)


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell that is to be solved."""

    place: CellPlace
    asked: CellRequest


def run_exploration(
    cells: Sequence[PlannedCell], folder: Path, solve: Solver, progress: Progress
) -> tuple[tuple[Cell, ...], int]:
    """Solve the cells that `folder` lacks; all cells, and how many were there.

    Each answer is written to `folder`, whole, as soon as it is found.
    """
    wanted = {one.asked.digest: one.asked for one in cells}
    known = {
        digest: found
        for digest in wanted
        if (found := read_cell_result(cell_file(folder, digest), digest)) is not None
    }
    reused = len(known)
    for digest in wanted.keys() - known.keys():
        # A damaged file; whole ones of this name are this cell's.
        cell_file(folder, digest).unlink(missing_ok=True)
    left = _TimeLeft([one for one in cells if one.asked.digest not in known])
    progress("solving cells", reused, len(wanted))
    for timed in solve([wanted[digest] for digest in left.order]):
        found = timed.found
        if found.digest not in wanted:
            raise NonnError("a worker answered another question: it has other hardware profiles")
        found.write(cell_file(folder, found.digest))
        known[found.digest] = found
        progress(f"solving cells{left.after(timed)}", len(known), len(wanted))
    for found in _with_standings([one.asked for one in cells], known):
        found.write(cell_file(folder, found.digest))
        known[found.digest] = found
    return tuple(Cell(place=one.place, found=known[one.asked.digest]) for one in cells), reused


def _with_standings(
    asked: Sequence[CellRequest], known: Mapping[str, CellResult]
) -> Iterator[CellResult]:
    """Yield infeasible results, with what that rests on, the roomiest budgets first.

    Break-points are of many budgets at once: nobody else is asked about them.
    """
    refused = {
        one.digest: one.problem
        for one in asked
        if known[one.digest].status == "infeasible" and known[one.digest].refusal is None
    }
    if not refused:
        return
    from planner.solvers.second_opinion import RefusalCheck

    check = RefusalCheck()
    for digest in sorted(refused, key=lambda each: -_room(refused[each])):
        found, standing = known[digest], "unconfirmed"
        if found.enumerated_plans is not None:
            standing = "enumerated"
        elif found.kind != "breakpoints":
            standing = check.standing(refused[digest])
        yield found.model_copy(update={"refusal": standing})


def _room(problem: Problem) -> float:
    """Bytes times MACs of all boards; infinite where nothing limits MACs."""
    return sum(
        one.size_bytes * (math.inf if one.macs is None else one.macs) for one in problem.budgets
    )


REFUSALS = {
    "enumerated": "proven by enumeration of all plans",
    "certified": "certified by prices in whole numbers",
    "seconded": "seconded by HiGHS, which is no proof",
    "unconfirmed": "not confirmed: OR-Tools CP-SAT alone says so",
}
"""Reasons that a refusal is believed, for people."""


def refusals_told(cells: Sequence[Cell]) -> str:
    """Reasons of the infeasible cells, counted; empty where there are none."""
    counts = Counter[str](cell.found.refusal for cell in cells if cell.found.refusal is not None)
    return "; ".join(f"{counts[kind]} {told}" for kind, told in REFUSALS.items() if counts[kind])


class _TimeLeft:
    """Time left, by solved cells of like kind: one fleet, objective and sort."""

    def __init__(self, cells: Sequence[PlannedCell]) -> None:
        self._kinds = {
            one.asked.digest: (one.asked.kind, one.place.fleet, one.place.objective)
            for one in cells
        }
        self._waiting, self._start_s = Counter(self._kinds.values()), monotonic()
        self._took: dict[tuple[str, str, str], list[float]] = {}

    @property
    def order(self) -> list[str]:
        """Digests of the cells, one of each kind first."""
        first: dict[tuple[str, str, str], str] = {}
        for digest, kind in self._kinds.items():
            first.setdefault(kind, digest)
        return [*first.values(), *(one for one in self._kinds if one not in first.values())]

    def after(self, timed: TimedResult) -> str:
        """Words on the time left; none until each kind has a solved cell."""
        kind = self._kinds[timed.found.digest]
        self._waiting[kind] -= 1
        self._took.setdefault(kind, []).append(timed.took_s)
        waiting = {each: count for each, count in self._waiting.items() if count}
        if not waiting or waiting.keys() - self._took.keys():
            return ""
        work_s = sum(count * mean(self._took[each]) for each, count in waiting.items())
        spent_s = sum(map(sum, self._took.values()))
        # So many cells are solved at once.
        pace = max(1.0, spent_s / max(monotonic() - self._start_s, 1e-9))
        return f", about {format_duration(work_s / pace)}{LEFT}"


def thinned(points: Sequence[FrontPoint], step_pct: float) -> list[bool]:
    """Which points of a front people are shown.

    Each differs from the one shown before in some measure by at least `step_pct` percent of that
    measure's range; the first and the last are always shown.
    """
    if not points:
        return []
    names = list(points[0].values)
    values = [[point.values[name] for name in names] for point in points]
    ranges = [max(column) - min(column) for column in zip(*values, strict=True)]
    shown, last = [], values[0]
    for row in values:
        far = any(
            wide > 0 and abs(here - before) * 100 >= step_pct * wide
            for here, before, wide in zip(row, last, ranges, strict=True)
        )
        shown.append(far or row is values[0] or row is values[-1])
        last = row if shown[-1] else last
    return shown


def cell_file(folder: Path, digest: str) -> Path:
    """Return the file of a cell."""
    return folder / f"{digest}.json"


def plan_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a tidy row per plan of the grid; units are in the names."""
    return [
        {
            **_place(cell),
            "status": cell.found.status,
            **_columns(cell.found.values),
            "networks": " ".join(cell.found.networks) or None,
        }
        for cell in cells
        if cell.found.kind == "plan"
    ]


def front_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a tidy row per point of a front."""
    return [
        {
            **_place(cell),
            "status": cell.found.status,
            "point": number,
            **_columns(point.values),
            "students": len(point.networks),
            "networks": " ".join(point.networks),
        }
        for cell in cells
        for number, point in enumerate(cell.found.points, start=1)
    ]


def breakpoint_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a tidy row per break-point."""
    return [
        {
            **_place(cell),
            "status": cell.found.status,
            "axis": cell.place.axis,
            "least_bytes": None if cell.place.axis == "flops" else step.least,
            "least_flops": step.least if cell.place.axis == "flops" else None,
            "starts_below_range": step.below_range,
            **_columns(step.values),
        }
        for cell in cells
        for step in cell.found.breakpoints
    ]


def labelled(name: str) -> str:
    """Objective with its unit, as pictures and tables name it."""
    facts = OBJECTIVES.get(name)
    return f"{name} ({facts.unit})" if facts and facts.unit else name


def _columns(values: dict[str, float]) -> dict[str, float]:
    return {OBJECTIVES[name].column: value for name, value in values.items()}


def _place(cell: Cell) -> dict[str, Any]:
    place = cell.place
    return {
        "fleet": place.fleet,
        "memory_bytes": place.memory_bytes,
        "flops": place.flops,
        **{
            name: getattr(place, name)
            for name in list(CELL_BUDGETS)[2:]
            if getattr(place, name) is not None
        },
        "objective": place.objective,
    }


_KINDS: dict[str, Callable[[Sequence[Cell]], list[dict[str, Any]]]] = {
    "cells": plan_rows,
    "front": front_rows,
    "breakpoints": breakpoint_rows,
}
_WHOLE = (
    "memory_bytes",
    "flops",
    "flash_bytes",
    "ram_bytes",
    "point",
    "least_bytes",
    "least_flops",
)
_TEXT = ("fleet", "objective", "status", "networks", "axis")


def check_tables(folder: Path) -> None:
    """Make sure that the tables can be written, over nothing but such tables."""
    for name in _KINDS:
        check_own_place(folder / f"{name}.csv", b'"fleet","memory_bytes","flops"')
        check_own_place(folder / f"{name}.parquet", b"PAR1")


def write_tables(cells: Sequence[Cell], folder: Path) -> None:
    """Write a table of each kind that has rows, and always that of the cells."""
    for name, rows_of in _KINDS.items():
        found = rows_of(cells)
        if found or name == "cells":
            write_table(_table(found), folder, name)


def _table(found: Sequence[dict[str, Any]]) -> Table:
    """Table with a column for every name of any row, null where missing."""
    names = dict.fromkeys(name for row in found for name in row)
    columns = {name: [row.get(name) for row in found] for name in names}
    return Table.of(columns, {name: _type(name) for name in names})


def _type(name: str) -> type[Any]:
    if name in _WHOLE:
        return int
    if name == "starts_below_range":
        return bool
    return str if name in _TEXT else float
