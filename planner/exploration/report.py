"""Reports of an exploration: heat maps, fronts, and one self-contained HTML page."""

import base64
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import TYPE_CHECKING, Any

from nonn_common.units import FLOPS_PER_MAC, format_bytes, format_count, format_flops
from planner.exploration.exploration import (
    Cell,
    Exploration,
    breakpoint_rows,
    front_rows,
    labelled,
    plan_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure


_MOST_PANELS = 12
"""Of more budgets than this the front's picture shows the first ones; the table has all."""
_MOST_LEVELS = 12
"""So many whole numbers can be told apart by colour."""
_COLUMNS = 3
_LONGEST_NAME = 100


def draw_pictures(exploration: Exploration) -> dict[str, bytes]:
    """Return the pictures, PNG by file name."""
    found: dict[str, bytes] = {}
    for kind, draw in (("plan", heat_maps), ("front", fronts)):
        groups: dict[tuple[str, str, float | None], list[Cell]] = {}
        for cell in exploration.of(kind):
            apart = cell.place.power_w if kind == "plan" and _is_cube(exploration) else None
            key = (cell.place.fleet, cell.place.objective, apart)
            groups.setdefault(key, []).append(cell)
        noun = "heat-map" if kind == "plan" else "front"
        for (fleet, objective, _), cells in groups.items():
            words = re.sub(r"[^a-z0-9]+", "-", f"{noun}-{fleet}-{objective}".lower())
            stem = words[:_LONGEST_NAME].strip("-")
            names = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
            name = next(name for name in names if f"{name}.png" not in found)
            stream = io.BytesIO()
            draw(cells).savefig(stream, format="png", dpi=130)
            found[f"{name}.png"] = stream.getvalue()
    return found


def _is_cube(exploration: Exploration) -> bool:
    """Whether three budgets vary, so that there is a map for each power limit."""
    places = [cell.place for cell in exploration.plans]
    fields = ("memory_bytes", "flops", "power_w")
    return all(len({getattr(place, field) for place in places}) > 1 for field in fields)


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
    limits = {cell.place.power_w for cell in cells}
    limit = f", {_power(place.power_w)}" if len(limits) == 1 and place.power_w else ""
    figure.suptitle(f"{place.fleet}: {place.objective}{limit}", fontsize=11)
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
    text: Callable[[Any], str]
    values: tuple[Any, ...]

    def place_of(self, cell: Cell) -> int:
        """Place of a cell along the axis."""
        return self.values.index(getattr(cell.place, self.field))

    @property
    def texts(self) -> list[str]:
        """Values as people read them."""
        return [self.text(value) for value in self.values]


def _two_axes(cells: Sequence[Cell]) -> tuple[_GridAxis, _GridAxis]:
    """Axes of a map: budgets that differ between cells first."""
    kinds: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("memory_bytes", "memory per board", _memory),
        ("flops", "FLOPs per board and image", _flops),
        ("power_w", "power of a board while it computes", _power),
    )
    every = [
        _GridAxis(*kind, tuple(sorted({getattr(c.place, kind[0]) for c in cells}, key=_sized)))
        for kind in kinds
    ]
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


def fronts(cells: Sequence[Cell]) -> "Figure":
    """Picture with a panel per budget: two objectives, the third in colour."""
    from matplotlib.figure import Figure

    shown = cells[:_MOST_PANELS]
    columns = min(_COLUMNS, len(shown))
    height = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(0.6 + 4.2 * columns, 0.8 + 3.3 * height), layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).ravel()
    for axes, cell in zip(panels, shown, strict=False):
        _front(axes, cell)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    place = cells[0].place
    more = f" (first {len(shown)} of {len(cells)} budgets)" if len(cells) > len(shown) else ""
    figure.suptitle(f"{place.fleet}: front of {place.objective}{more}", fontsize=11)
    return figure


def _front(axes: "Axes", cell: Cell) -> None:
    names = cell.place.objective.split(",")
    points = cell.found.points
    note = {"infeasible": ": infeasible", "unproven": ": not proven complete"}
    title = f"{_memory(cell.place.memory_bytes)}, {_flops(cell.place.flops)}"
    title += "" if cell.place.power_w is None else f", {_power(cell.place.power_w)}"
    axes.set_title(title + note.get(cell.found.status, ""), fontsize=9)
    axes.set_xlabel(labelled(names[0]), fontsize=9)
    axes.set_ylabel(labelled(names[1]), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: _short(value))
    if not points:
        axes.text(0.5, 0.5, "no plan", ha="center", transform=axes.transAxes)
        return
    axes.locator_params(axis="x", nbins=5)
    first, second = ([point.values[name] for point in points] for name in names[:2])
    if len(names) == 2:
        axes.plot(first, second, "o--", markersize=4, linewidth=0.8)
        return
    third = [point.values[names[2]] for point in points]
    levels = _levels(third)
    dots = axes.scatter(first, second, c=third, cmap="viridis", s=24, norm=_norm(levels))
    bar = axes.figure.colorbar(dots, ax=axes)
    bar.set_label(labelled(names[2]), fontsize=8)
    bar.ax.tick_params(labelsize=8)
    if levels:
        bar.set_ticks(list(levels))


def _levels(values: Sequence[float]) -> range:
    """Whole numbers from least to most, where there are only a few of them."""
    if any(value != int(value) for value in values) or max(values) - min(values) >= _MOST_LEVELS:
        return range(0)
    return range(int(min(values)), int(max(values)) + 1)


def _norm(levels: range) -> "Normalize | None":
    """Give each level a colour of its own; None without levels, for colours that run."""
    from matplotlib.colors import BoundaryNorm

    if len(levels) < 2:
        return None
    edges = [level - 0.5 for level in (*levels, levels[-1] + 1)]
    return BoundaryNorm(edges, ncolors=256)


def _power(power_w: float | None) -> str:
    return "no limit" if power_w is None else f"{power_w:g} W"


def _sized(budget: float | None) -> float:
    return math.inf if budget is None else budget


def _memory(size_bytes: int | None) -> str:
    return "device's" if size_bytes is None else format_bytes(size_bytes)


def _flops(flops: int | None) -> str:
    return "no limit" if flops is None else format_flops(flops / FLOPS_PER_MAC)


def _short(value: float) -> str:
    """Write a value in the few letters that a picture has room for."""
    return format_count(value).rstrip() if abs(value) >= 1e4 else f"{value:.4g}"


START = b"<!doctype html>\n<!-- nonn-plan explore -->\n"
"""How such a page begins."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #222; }
pre { background: #f4f4f4; padding: .6rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
img { max-width: 100%; height: auto; display: block; margin: 1rem 0; }
"""


def render_page(exploration: Exploration, pictures: Mapping[str, bytes]) -> bytes:
    """Return the page."""
    states = ("optimal", "infeasible", "unproven")
    counts = ", ".join(f"{exploration.with_status(state)} {state}" for state in states)
    parts = [
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>nonn-plan explore</title><style>{_STYLE}</style></head><body>",
        "<h1>What if</h1>",
        f"<pre>{escape(exploration.command)}</pre>",
        f"<p>{len(exploration.cells)} cells: {counts}. "
        f"{escape(', '.join(f'{name} {is_}' for name, is_ in exploration.versions.items()))}.</p>",
    ]
    for name, content in pictures.items():
        data = base64.b64encode(content).decode()
        title = escape(name.removesuffix(".png"))
        parts.append(f'<img alt="{title}" src="data:image/png;base64,{data}">')
    tables = (
        ("Optimal plans", plan_rows(exploration.cells)),
        ("Pareto front", front_rows(exploration.cells)),
        (
            "Break-points: the least budget from which on a plan is as good",
            breakpoint_rows(exploration.cells),
        ),
    )
    parts += [f"<h2>{title}</h2>{_table(found)}" for title, found in tables if found]
    conflicts = [
        f"<li>{escape(_where(cell.place.model_dump()))}: "
        f"{escape('; '.join(cell.found.conflict))}</li>"
        for cell in exploration.plans
        if cell.found.conflict
    ]
    if conflicts:
        parts.append(f"<h2>What cannot hold together</h2><ul>{''.join(conflicts)}</ul>")
    parts.append("</body></html>\n")
    return START + "\n".join(parts).encode()


def _where(place: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in place.items() if value is not None)


def _table(found: Sequence[Mapping[str, Any]]) -> str:
    names = [
        name
        for name in dict.fromkeys(name for row in found for name in row)
        if any(row.get(name) is not None for row in found)
    ]
    numeric = {name for name in names if any(_is_number(row.get(name)) for row in found)}

    def cell(tag: str, name: str, text: str) -> str:
        kind = ' class="number"' if name in numeric else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", name, name.replace("_", " ")) for name in names)
    body = "".join(
        f"<tr>{''.join(cell('td', name, _text(row.get(name))) for name in names)}</tr>\n"
        for row in found
    )
    return f'<div class="table"><table><tr>{head}</tr>\n{body}</table></div>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.5g}"
    return str(value)
