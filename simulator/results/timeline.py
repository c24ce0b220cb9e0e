"""A timeline of a run: a lane per resource, drawn as a Gantt chart.

Actors and their resources are the lanes of every picture of a run; a box is a step.
"""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from nonn_common.document import write_atomic
from simulator.results.breakdown import InferenceRow, IntervalRow
from simulator.results.recording import Recording
from simulator.results.simulation_result import SimulationResult, recorded
from simulator.task_graph import HOST, TaskGraph, owner_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_TITLES = {
    "nic": "network card",
    "down": "link in",
    "wire": "link",
    "cpu": "processor",
    "up": "link out",
}
"""Titles of a board's (or the host's) resources, in the order in which an image meets them."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One resource, the actor it belongs to, and its title.

    A shared medium is its own actor.
    """

    owner: str
    resource: str
    title: str


def lanes(graph: TaskGraph) -> tuple[Lane, ...]:
    """Lanes of the host, of each board in the order of nodes, of media."""
    found = [_lane(resource) for resource in graph.resources]
    rank = {name: number for number, name in enumerate(actors(graph))}
    kinds = list(_TITLES)
    return tuple(sorted(found, key=lambda lane: (rank[lane.owner], kinds.index(_kind(lane)))))


def actors(graph: TaskGraph) -> tuple[str, ...]:
    """Host, boards in the order of nodes, then shared media, where present."""
    there = {_lane(resource).owner for resource in graph.resources}
    there |= {step.actor for step in graph.steps} | {node.name for node in graph.nodes}
    named = (HOST, *(node.name for node in graph.nodes))
    return tuple(dict.fromkeys([name for name in named if name in there] + sorted(there)))


def _lane(resource: str) -> Lane:
    board = owner_of(resource)
    if board is None:
        return Lane(resource.replace(":", " ", 1), resource, "shared")
    kind, _, own = resource.removeprefix(f"{board}.").partition("/")
    return Lane(board, resource, own or _TITLES.get(kind, kind))


def _kind(lane: Lane) -> str:
    kind = lane.resource.removeprefix(f"{lane.owner}.").partition("/")[0]
    return kind if kind in _TITLES else "nic"


def never_overlapping(intervals: Iterable[tuple[int, int]]) -> list[int]:
    """Rows for intervals, in the order of their starts, without any overlap.

    The first row that is free, so that there are as few as can be.
    """
    until: list[int] = []
    rows = []
    for start, end in intervals:
        row = next((r for r, last in enumerate(until) if last <= start), len(until))
        until[row:] = [end, *until[row + 1 :]]
        rows.append(row)
    return rows


IMAGES = 3
"""How many images a picture shows; more can be read in the trace for Perfetto."""

COLOURS = {
    "send": "#4c78a8",
    "compute": "#f2a93b",
    "exchange": "#9467bd",
    "reply": "#3a9e7e",
    "join": "#c44e52",
}
EDGES = {
    "send": "#2f5478",
    "compute": "#a86f12",
    "exchange": "#613d86",
    "reply": "#1f6b53",
    "join": "#8a2f33",
}
"""One colour per activity, and a darker one for its edge, which shows however short it is."""

LANE_INCHES = 0.25
WIDTH_INCHES = 12.0
NUMBERED_PART = 0.03
"""Boxes at least this part of the picture's width tell their image's number."""

INK, FAINT, BAND = "#222222", "#9a9a9a", "#f3f4f6"


def write_gantt(result: SimulationResult, path: Path) -> None:
    """Draw the first images of a recorded `result` as PNG; raises SimulationError without any."""
    stream = io.BytesIO()
    gantt(result).savefig(stream, format="png", dpi=150)
    write_atomic(path, stream.getvalue())


def gantt(result: SimulationResult) -> "Figure":
    """Picture of the first images of a recorded `result`."""
    from matplotlib.figure import Figure

    recording = recorded(result)
    images = recording.inferences[:IMAGES]
    rows = [row for row in recording.intervals if row.inference < len(images)]
    shown = lanes(recording.graph)
    height = 1.5 + LANE_INCHES * len(shown)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    _draw_lanes(axes, shown)
    start_ms = min((row.start_ms for row in images), default=0.0)
    width_ms = max((row.end_ms for row in rows), default=start_ms) - start_ms or 1.0
    _draw_boxes(axes, recording, shown, rows)
    if len(images) > 1:
        _number_boxes(axes, shown, rows, NUMBERED_PART * width_ms)
    _draw_images(axes, images)
    axes.set_xlim(start_ms, start_ms + 1.01 * width_ms)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("ms", fontsize=9, color=INK)
    axes.set_title(_title(result, len(images)), loc="left", fontsize=11, color=INK, pad=32)
    _legend(axes, rows)
    return figure


def _draw_lanes(axes: "Axes", shown: Sequence[Lane]) -> None:
    """Name each lane; shade every second owner, and name it once."""
    axes.set_yticks(range(len(shown)), [lane.title for lane in shown], fontsize=8, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=INK)
    for spine in ("top", "right", "left"):
        axes.spines[spine].set_visible(False)
    numbered = enumerate(groupby(enumerate(shown), key=lambda pair: pair[1].owner))
    for number, (owner, group) in numbered:
        at = [position for position, _ in group]
        if number % 2:
            axes.axhspan(at[0] - 0.5, at[-1] + 0.5, color=BAND, zorder=0)
        axes.annotate(
            owner,
            xy=(0, (at[0] + at[-1]) / 2),
            xycoords=("axes fraction", "data"),
            xytext=(-92, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            fontweight="bold",
            color=INK,
        )


def _draw_boxes(
    axes: "Axes", recording: Recording, shown: Sequence[Lane], rows: Iterable[IntervalRow]
) -> None:
    position = {lane.resource: number for number, lane in enumerate(shown)}
    boxes: defaultdict[tuple[int, str, bool], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for resource in recording.graph.steps[row.step].resources:
            kind = position[resource], row.activity, row.lost
            boxes[kind].append((row.start_ms, row.end_ms - row.start_ms))
    for (at, activity, lost), spans in boxes.items():
        axes.broken_barh(
            spans,
            (at - 0.36, 0.72),
            facecolors="white" if lost else COLOURS[activity],
            edgecolors=COLOURS[activity] if lost else EDGES[activity],
            hatch="////" if lost else None,
            linewidth=0.7,
            zorder=3,
        )


def _number_boxes(
    axes: "Axes", shown: Sequence[Lane], rows: Iterable[IntervalRow], least_ms: float
) -> None:
    """Write the number of its image on each box that is wide enough."""
    position = {lane.resource: number for number, lane in enumerate(shown)}
    for row in rows:
        if row.end_ms - row.start_ms >= least_ms and row.resource:
            axes.text(
                (row.start_ms + row.end_ms) / 2,
                position[row.resource],
                f"{row.inference + 1} lost" if row.lost else f"{row.inference + 1}",
                ha="center",
                va="center_baseline",
                fontsize=7,
                color=INK if row.lost or row.activity == "compute" else "white",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if row.lost else None,
                zorder=5,
            )


def _draw_images(axes: "Axes", images: Sequence[InferenceRow]) -> None:
    """Mark where images start and where they are answered."""
    for row in images:
        axes.axvline(row.start_ms, color=INK, linewidth=0.8, zorder=4)
        text = f"image {row.inference + 1}"
        text += f": {row.latency_ms:.1f} ms" if row.answered else ": lost"
        axes.annotate(
            text,
            xy=(row.start_ms, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3 + 11 * (row.inference % 2)),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
        if row.answered:
            axes.axvline(row.end_ms, color=FAINT, linewidth=0.8, linestyle="--", zorder=2)


def _legend(axes: "Axes", rows: Iterable[IntervalRow]) -> None:
    from matplotlib.patches import Patch

    there = {row.activity for row in rows}
    handles = [Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in there]
    axes.legend(
        handles=handles,
        ncols=len(handles),
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=2.6,
        frameon=False,
        fontsize=8,
    )


def _title(result: SimulationResult, drawn: int) -> str:
    total = result.answered + result.lost
    boards = f"{len(result.boards)} board{'s' * (len(result.boards) != 1)}"
    shown = f"; the first {drawn} of {total} images" if drawn < total else ""
    return f"{boards}, mean latency {result.total_ms:.1f} ms{shown}"
