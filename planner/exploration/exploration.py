"""An exploration: cells with their coordinates, as one document and as tables."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from nonn_common import Progress
from nonn_common.document import Document, Record, check_own_place
from nonn_common.errors import NonnError
from planner.exploration.cell import CellRequest, CellResult, read_cell_result
from planner.problem.goals import OBJECTIVES
from planner.problem.problem import Problem
from simulator.results.tables import Table, write_table

Solver = Callable[[Sequence[CellRequest]], Iterator[CellResult]]


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
    axis: str | None = Field(default=None, description="Of break-points: memory or flops.")


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
    progress("solving cells", reused, len(wanted))
    for found in solve([asked for digest, asked in wanted.items() if digest not in known]):
        if found.digest not in wanted:
            raise NonnError("a worker answered another question: it has other hardware profiles")
        found.write(cell_file(folder, found.digest))
        known[found.digest] = found
        progress("solving cells", len(known), len(wanted))
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
        one.memory_bytes * (math.inf if one.macs is None else one.macs) for one in problem.budgets
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
            "least_bytes": step.least if cell.place.axis == "memory" else None,
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
        **({} if place.power_w is None else {"power_w": place.power_w}),
        "objective": place.objective,
    }


_KINDS: dict[str, Callable[[Sequence[Cell]], list[dict[str, Any]]]] = {
    "cells": plan_rows,
    "front": front_rows,
    "breakpoints": breakpoint_rows,
}
_WHOLE = ("memory_bytes", "flops", "point", "least_bytes", "least_flops")
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
