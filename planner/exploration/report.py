"""Reports of an exploration: heat maps, fronts, and one self-contained HTML page."""

import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import count, zip_longest
from typing import TYPE_CHECKING, Any

from nonn_common.units import FLOPS_PER_MAC, format_bytes, format_count, format_flops
from planner.exploration.exploration import (
    CELL_BUDGETS,
    REFUSALS,
    Cell,
    Exploration,
    labelled,
    thinned,
)
from planner.problem.goals import OBJECTIVES, Objective

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MOST_LABELS = 12
"""Of more budgets than this the picture of fronts names none."""
_LONGEST_NAME = 100


def draw_pictures(exploration: Exploration) -> dict[str, bytes]:
    """Return the pictures, PNG by file name."""
    found: dict[str, bytes] = {}
    for kind, draw in (("plan", heat_maps), ("front", fronts)):
        groups: dict[tuple[object, ...], list[Cell]] = {}
        apart = _apart(exploration) if kind == "plan" else ()
        for cell in exploration.of(kind):
            key = (cell.place.fleet, cell.place.objective)
            key += tuple(getattr(cell.place, field) for field in apart)
            groups.setdefault(key, []).append(cell)
        noun = "heat-map" if kind == "plan" else "front"
        for cells in groups.values():
            place = cells[0].place
            words = re.sub(r"[^a-z0-9]+", "-", f"{noun}-{place.fleet}-{place.objective}".lower())
            stem = words[:_LONGEST_NAME].strip("-")
            names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
            name = next(name for name in names if f"{name}.png" not in found)
            stream = io.BytesIO()
            draw(cells).savefig(stream, format="png", dpi=130)
            found[f"{name}.png"] = stream.getvalue()
    return found


def _apart(exploration: Exploration) -> list[str]:
    """Budgets that vary beyond a map's two; each of their values has a map."""
    places = [cell.place for cell in exploration.plans]
    fields = (field for field in CELL_BUDGETS if len({getattr(one, field) for one in places}) > 1)
    return list(fields)[2:]


def heat_maps(cells: Sequence[Cell]) -> "Figure":
    """Picture of maps of each level's value over two budgets of a fleet."""
    from matplotlib.figure import Figure

    across, up = _two_axes(cells)
    stages = [part.split(":")[0].strip() for part in cells[0].place.objective.split(",")]
    columns = min(2, len(stages))
    height = math.ceil(len(stages) / columns)
    size = (
        columns * (2.4 + 0.75 * max(2, len(across.values))),
        0.7 + height * (1.5 + 0.42 * max(2, len(up.values))),
    )
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).ravel()
    for axes, stage in zip(panels, stages, strict=False):
        _heat_map(axes, cells, stage, across, up)
    for axes in panels[len(stages) :]:
        axes.set_axis_off()
    place = cells[0].place
    alike = [text for text in place.limits[2:] if all(text in one.place.limits for one in cells)]
    figure.suptitle(", ".join((f"{place.fleet}: {place.objective}", *alike)), fontsize=11)
    marks = []
    if any(cell.found.status == "infeasible" for cell in cells):
        marks.append("hatched: proven infeasible")
    if any(cell.found.status == "unproven" for cell in cells):
        marks.append("*: not proven optimal")
    if marks:
        figure.supxlabel("; ".join(marks), fontsize=8)
    return figure


@dataclass(frozen=True, slots=True)
class _GridAxis:
    """Values of one budget in a map, with their label and texts."""

    field: str
    label: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]

    def place_of(self, cell: Cell) -> int:
        """Place of a cell along the axis."""
        return self.values.index(getattr(cell.place, self.field))


def _two_axes(cells: Sequence[Cell]) -> tuple[_GridAxis, _GridAxis]:
    """Axes of a map: budgets that differ between cells first."""
    kinds = (
        ("memory_bytes", "memory per board"),
        ("flops", "FLOPs per board and image"),
        ("power_w", "power of a board while it computes"),
        ("flash_bytes", "flash per board"),
        ("ram_bytes", "RAM per board"),
    )
    every = []
    for number, (field, label) in enumerate(kinds):
        texts = {getattr(c.place, field): c.place.budgets[number] for c in cells}
        values = tuple(sorted(texts, key=_sized))
        every.append(_GridAxis(field, label, tuple(texts[value] for value in values), values))
    first, second, *_ = sorted(every, key=lambda axis: len(axis.values) == 1)
    return first, second


def _heat_map(
    axes: "Axes", cells: Sequence[Cell], stage: str, across: "_GridAxis", up: "_GridAxis"
) -> None:
    from matplotlib.patches import Rectangle

    grid = [[math.nan] * len(across.values) for _ in up.values]
    for cell in cells:
        x, y = across.place_of(cell), up.place_of(cell)
        grid[y][x] = cell.found.values.get(stage, math.nan)
    known = [value for row in grid for value in row if not math.isnan(value)]
    image = axes.imshow(grid, origin="lower", aspect="auto", cmap="viridis")
    if known:
        bar = axes.figure.colorbar(image, ax=axes)
        bar.ax.yaxis.set_major_formatter(lambda value, _: _short(value))
    middle = (min(known) + max(known)) / 2 if known else 0.0
    for cell in cells:
        x, y = across.place_of(cell), up.place_of(cell)
        if cell.found.status == "infeasible":
            box = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.6")
            axes.add_patch(box)
            continue
        value = grid[y][x]
        text = "?" if math.isnan(value) else _short(value)
        text += "*" if cell.found.status == "unproven" else ""
        colour = "white" if not math.isnan(value) and value < middle else "black"
        axes.text(x, y, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_title(labelled(stage), fontsize=10)
    axes.set_xticks(range(len(across.values)), across.texts, rotation=45, fontsize=8)
    axes.set_yticks(range(len(up.values)), up.texts, fontsize=8)
    axes.set_xlabel(across.label, fontsize=9)
    axes.set_ylabel(up.label, fontsize=9)


def _budget_names(cells: Sequence[Cell]) -> str:
    """Memory and FLOPs, and further budgets that limit some cell."""
    first, second, *further = CELL_BUDGETS
    limited = [
        field for field in further if any(getattr(one.place, field) is not None for one in cells)
    ]
    return ", ".join(CELL_BUDGETS[field] for field in (first, second, *limited))


def fronts(cells: Sequence[Cell]) -> "Figure":
    """Picture of the fronts of all budgets, one over the other; larger budgets are stronger."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names = cells[0].place.objective.split(",")
    figure = Figure(figsize=(8.0, 5.4), layout="constrained")
    axes = figure.subplots()
    shades = colormaps["viridis_r"]
    for number, cell in enumerate(cells):
        points = cell.found.points
        first, second = ([point.values[name] for point in points] for name in names[:2])
        colour = shades(number / max(1, len(cells) - 1))
        label = ", ".join(cell.place.limits) if len(cells) <= _MOST_LABELS else None
        sizes = 24.0 if len(names) == 2 else _sizes([one.values[names[2]] for one in points])
        axes.scatter(first, second, s=sizes, color=[colour], label=label, alpha=0.8, linewidths=0)
        if len(names) == 2:
            axes.plot(first, second, color=colour, linewidth=0.8)
    axes.set_xlabel(labelled(names[0]))
    axes.set_ylabel(labelled(names[1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: _short(value))
    axes.grid(alpha=0.25)
    if not any(cell.found.points for cell in cells):
        axes.text(0.5, 0.5, "no plan", ha="center", transform=axes.transAxes)
    elif len(cells) <= _MOST_LABELS:
        axes.legend(fontsize=7, title=_budget_names(cells))
    size = f"; size: {labelled(names[2])}" if len(names) > 2 else ""
    notes = [
        f"{count_} of {len(cells)} {word}"
        for status, word in (("infeasible", "infeasible"), ("unproven", "not proven complete"))
        if (count_ := sum(cell.found.status == status for cell in cells))
    ]
    title = f"{cells[0].place.fleet}: fronts of {', '.join(names[:2])}, {len(cells)} budgets{size}"
    figure.suptitle("; ".join([title, *notes]), fontsize=10)
    return figure


def _sizes(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [14 + 60 * (value - low) / ((high - low) or 1) for value in values]


def _sized(budget: float | None) -> float:
    return math.inf if budget is None else budget


def _flops(flops: int) -> str:
    return format_flops(flops / FLOPS_PER_MAC)


def _short(value: float) -> str:
    """Write a value in the few letters that a picture has room for."""
    return format_count(value).rstrip() if abs(value) >= 1e4 else f"{value:.4g}"


START = b"<!doctype html>\n<!-- nonn-plan explore -->\n"
"""How such a page begins."""
ALWAYS: tuple[Objective, ...] = ("latency", "accuracy", "boards", "students")
"""Figures that the page shows of each plan, whatever was asked for."""
FRONT_STEP_PCT = 2.0
"""Part of a measure's range by which points differ that people are shown."""


def render_page(exploration: Exploration, front_step_pct: float = FRONT_STEP_PCT) -> bytes:
    """Return the page: data, and a program that draws them; it loads nothing."""
    states = ("optimal", "infeasible", "unproven")
    counts = ", ".join(f"{exploration.with_status(state)} {state}" for state in states)
    versions = ", ".join(f"{name} {is_}" for name, is_ in exploration.versions.items())
    groups = _groups(exploration)
    rows = [
        row
        for number, cells in enumerate(groups.values())
        for cell in cells
        for row in _page_rows(cell, number, front_step_pct)
    ]
    names = dict.fromkeys(name for row in rows for name in row["values"])
    data = {
        "command": exploration.command,
        "counts": f"{len(exploration.cells)} cells: {counts}. {versions}.",
        "always": ALWAYS,
        "others": [name for name in names if name not in ALWAYS],
        "units": {name: OBJECTIVES[name].unit for name in OBJECTIVES if OBJECTIVES[name].unit},
        "groups": [
            {
                "number": number,
                "kind": kind,
                "fleet": fleet,
                "objective": objective,
                "goals": [part.split(":")[0] for part in objective.split(",")],
            }
            for number, (kind, fleet, objective) in enumerate(groups)
        ],
        "rows": rows,
    }
    template = files("planner.exploration").joinpath("page.html").read_text(encoding="utf-8")
    # No text of data ends the element that holds them.
    content = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return START + template.replace("/*DATA*/", content).encode()


def _groups(exploration: Exploration) -> dict[tuple[str, str, str], list[Cell]]:
    """Cells of one kind, fleet with its further limits, and objective."""
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in exploration.cells:
        fleet = ", ".join((cell.place.fleet, *cell.place.limits[2:]))
        key = (cell.found.kind, fleet, cell.place.objective)
        found.setdefault(key, []).append(cell)
    return found


def _page_rows(cell: Cell, group: int, step_pct: float) -> Iterator[dict[str, Any]]:
    """Rows of the page's table: a plan, the points of a front, or break-points."""
    found, place = cell.found, cell.place
    memory, flops, *_ = place.budgets
    base: dict[str, Any] = {
        "group": group,
        "what": {"plan": "plan", "front": "front", "breakpoints": "break-points"}[found.kind],
        "fleet": ", ".join((place.fleet, *place.limits[2:])),
        "objective": place.objective,
        "status": found.status,
        "memory": memory,
        "memory_bytes": place.memory_bytes,
        "flops": flops,
        "flops_count": place.flops,
        "values": {},
        "students": [],
        "conflict": found.conflict,
        "refusal": "" if found.refusal is None else REFUSALS[found.refusal],
    }
    steps = thinned(found.points, step_pct)
    for number, (point, shown) in enumerate(zip(found.points, steps, strict=True), start=1):
        figures: dict[str, float] = {"students": len(point.networks), **point.figures}
        yield {
            **base,
            "what": f"point {number} of front",
            "point": number,
            "shown": shown,
            "values": {**figures, **point.values},
            "students": _students(point.boards, point.networks, point.filters),
        }
    for step in found.breakpoints:
        least = _flops(step.least) if place.axis == "flops" else format_bytes(step.least)
        noun = f"{CELL_BUDGETS[f'{place.axis}_bytes']} " if place.axis in ("flash", "ram") else ""
        below = " or less" if step.below_range else ""
        own = {
            "memory": {"memory_bytes": step.least, "memory": f"{step.least:,}"},
            "flops": {"flops_count": step.least, "flops": f"{step.least:,}"},
        }.get(place.axis or "", {})
        what = f"from {noun}{least}{below} on"
        yield {**base, "what": what, **own, "values": step.values}
    if not found.points and not found.breakpoints:
        students = _students(found.boards, found.networks, found.filters)
        yield {**base, "values": found.values, "students": students}


def _students(
    boards: Sequence[str], networks: Sequence[str], filters: Sequence[int]
) -> list[tuple[str, str, str]]:
    """Board, network and filters of each student; files of before say less."""
    return [
        (board or "", network or "", "" if count is None else str(count))
        for board, network, count in zip_longest(boards, networks, filters)
    ]
