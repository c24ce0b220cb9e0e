"""Explorations as people see them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nonn_plan.output import Output
from profiles.units import FLOPS_PER_MAC, format_bytes, format_flops

if TYPE_CHECKING:
    from planner.exploration.exploration import Cell, Exploration, Place


def show_exploration(output: Output, found: "Exploration") -> None:
    """Show a table for each fleet and objective, each front, and each budget's break-points."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in found.cells:
        key = (cell.found.kind, cell.place.fleet, cell.place.objective)
        groups.setdefault(key, []).append(cell)
    for (kind, fleet, objective), cells in groups.items():
        names = [part.split(":")[0] for part in objective.split(",")]
        if kind == "plan":
            _show_plans(output, f"{fleet}: {objective}", names, cells)
        else:
            noun = "front" if kind == "front" else f"break-points of {cells[0].place.axis},"
            _show_steps(output, f"{fleet}: {noun} {objective}", names, cells)


def _show_plans(output: Output, title: str, names: Sequence[str], cells: "Sequence[Cell]") -> None:
    from planner.exploration.exploration import labelled

    output.table(
        title,
        ("memory", "FLOPs", *map(labelled, names), "students", "status"),
        [
            (
                *_budgets(cell.place),
                *(_value(cell.found.values.get(name)) for name in names),
                _value(cell.found.values.get("students")),
                cell.found.status,
            )
            for cell in cells
        ],
    )


def _show_steps(output: Output, title: str, names: Sequence[str], cells: "Sequence[Cell]") -> None:
    from planner.exploration.exploration import labelled

    rows = []
    for cell in cells:
        found = [(_budgets(cell.place), one.values) for one in cell.found.points]
        for step in cell.found.breakpoints:
            memory, flops = _budgets(cell.place)
            below = " or less" if step.below_range else ""
            if cell.place.axis == "memory":
                memory = f"{step.least:,} B{below}"
            else:
                flops = f"{step.least:,} FLOP{below}"
            found.append(((memory, flops), step.values))
        rows += [
            (*budgets, *(_value(values.get(name)) for name in names), cell.found.status)
            for budgets, values in found or [(_budgets(cell.place), {})]
        ]
    output.table(title, ("memory", "FLOPs", *map(labelled, names), "status"), rows)


def _budgets(place: "Place") -> tuple[str, str]:
    memory = "-" if place.memory_bytes is None else format_bytes(place.memory_bytes)
    flops = "-" if place.flops is None else format_flops(place.flops / FLOPS_PER_MAC)
    return memory, flops


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
