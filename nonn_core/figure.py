"""Figures of what a teacher knows and of what was trained: matplotlib's, for people.

Filter networks, delta_val, epochs, missing students.  Each shows a document that a command has
written, and nothing that the document does not say.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation, RepeatedEvaluation
from nonn_core.partition import Community, Partition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Colours of Okabe and Ito (2008), which people with any colour vision tell apart."""
SMALL = 8
"""Size of type in legends and at points."""
_MARKERS = ("o", "s", "^", "D", "v", "P")
_GREY = "0.35"
_MOST_NAMED = 20
_MANY, _LONGEST = 10, 24
"""Numbers side by side, and letters of a name, for which there is room."""


def panels(count: int) -> "tuple[Figure, Sequence[Axes]]":
    """Figure of `count` axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 * count, 4.8), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def finish(axes: "Axes", title: str, across: str, up: str, *, legend: bool = True) -> None:
    """Write title, labels and legend; a name with two dollars is no formula."""
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        for text in axes.legend(fontsize=SMALL).get_texts():
            text.set_parse_math(False)


def partition_figure(partition: Partition) -> "Figure":
    """Figure of a filter network with its communities, and of delta_val where it was measured."""
    measured = [
        (point.filters, point.delta_val_pct, point.loss_bound_pct)
        for point in partition.curve or partition.drop_steps
        if point.delta_val_pct is not None
    ]
    figure, axes = panels(2 if measured else 1)
    _draw_network(axes[0], partition)
    if measured:
        _draw_drops(axes[1], partition, measured)
    return figure


def _draw_network(axes: "Axes", partition: Partition) -> None:
    """Draw a ring for each community, as long as it has filters, and the links."""
    p0 = partition.p0(partition.bound_pct)
    dropped = set() if p0 is None else set(p0.communities)
    centres, radii = _rings(partition.communities)
    gap = _gap(partition.filters)
    room = radii[:, None] + gap
    low, high = (centres - room).min(axis=0), (centres + room).max(axis=0)
    # A filter has one unit of its ring, of which there are so many in some 5 inches.
    size = min(6.0, max(1.2, 0.7 * 5 * 72 / float((high - low).max()))) ** 2
    places, home = np.zeros((partition.filters, 2)), np.zeros(partition.filters, dtype=np.int64)
    for one, centre, radius in zip(partition.communities, centres, radii, strict=True):
        turns = 2 * np.pi * np.arange(len(one.filters)) / len(one.filters)
        own = centre + radius * np.stack((np.cos(turns), np.sin(turns)), axis=1)
        places[list(one.filters)], home[list(one.filters)] = own, one.id
        colour = COLOURS[one.id % len(COLOURS)]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            marker=_MARKERS[one.id % len(_MARKERS)],
            edgecolors=colour,
            facecolors="white" if one.id in dropped else colour,
            linewidths=0.8,
            zorder=3,
        )
    if partition.links:
        _draw_links(axes, partition, places, home)
    middle = (low + high) / 2
    for one in sorted(partition.communities, key=lambda one: -len(one.filters))[:_MOST_NAMED]:
        out = centres[one.id] - middle
        away = float(np.hypot(*out))
        right, up = out / away if away else (0.0, 1.0)
        x, y = centres[one.id] + (radii[one.id] + gap / 5) * np.array((right, up))
        side = "left" if right > 0.4 else "right" if right < -0.4 else "center"
        level = "bottom" if up > 0.4 else "top" if up < -0.4 else "center"
        axes.text(x, y, f"{one.id}: {len(one.filters)}", ha=side, va=level, fontsize=9)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_axis_off()
    lines = "\nlines: links, wide for much weight, grey between communities"
    axes.set_title(
        f"{partition.filters} filters in {len(partition.communities)} communities, modularity "
        f"{partition.modularity:.2f}\nnumber of the community: its filters"
        + "; hollow: dropped, P0" * bool(dropped)
        + lines * bool(partition.links),
        fontsize=9,
    )


def _draw_links(
    axes: "Axes", partition: Partition, places: NDArray[np.float64], home: NDArray[np.int64]
) -> None:
    """Draw the links; those between communities first, below the others."""
    from matplotlib.collections import LineCollection

    ends = np.array([(one, other) for one, other, _ in partition.links])
    weights = np.array([weight for _, _, weight in partition.links])
    widths = 0.2 + 1.2 * np.sqrt(weights / weights.max())
    inside = home[ends[:, 0]] == home[ends[:, 1]]
    faint = max(0.05, min(0.35, 140 / len(ends)))
    for chosen, order in ((~inside, 1), (inside, 2)):
        colours = [COLOURS[number % len(COLOURS)] for number in home[ends[chosen, 0]]]
        axes.add_collection(
            LineCollection(
                list(places[ends[chosen]]),
                colors=colours if order == 2 else "0.5",
                linewidths=widths[chosen].tolist(),
                alpha=0.6 if order == 2 else faint,
                zorder=order,
            )
        )


def _gap(filters: int) -> float:
    """Room around a ring, for its name; like all lengths there it counts filters."""
    return max(6.0, filters / 20)


def _rings(communities: Sequence[Community]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (communities, 2) and radii of rings in a circle that do not touch."""
    radii = np.array([len(one.filters) / (2 * np.pi) for one in communities])
    if len(radii) == 1:
        return np.zeros((1, 2)), radii
    gap = _gap(sum(len(one.filters) for one in communities))
    widths = 2 * radii + gap
    turns = 2 * np.pi * (np.cumsum(widths) - widths / 2) / widths.sum()
    # Two at turns a and b of a circle of radius R are 2 R |sin((a - b) / 2)| apart.
    apart = 2 * np.abs(np.sin((turns[:, None] - turns) / 2)) + np.eye(len(radii))
    needed = (radii[:, None] + radii + gap) / apart
    np.fill_diagonal(needed, 0.0)
    return needed.max() * np.stack((np.cos(turns), np.sin(turns)), axis=1), radii


def _draw_drops(
    axes: "Axes", partition: Partition, measured: Sequence[tuple[int, float, float | None]]
) -> None:
    """Draw delta_val, the bound on what may be lost, epsilon and P0."""
    filters, deltas = [count for count, _, _ in measured], [delta for _, delta, _ in measured]
    axes.plot(filters, deltas, ".-", markersize=4, color=COLOURS[0], label="measured")
    # A bound on the loss, from above, is one on delta_val from below.
    bounds = [(count, -bound) for count, _, bound in measured if bound is not None]
    if bounds and partition.confidence_pct is not None:
        label = f"not below, with {partition.confidence_pct:g} % confidence"
        axes.plot(*zip(*bounds, strict=True), "--", color=COLOURS[1], label=label)
    epsilon = partition.bound_pct
    if epsilon:
        for line, label in ((epsilon, f"epsilon: {epsilon:g} either way"), (-epsilon, "_")):
            axes.axhline(line, color=_GREY, linestyle=":", linewidth=1.2, label=label)
    p0 = partition.p0(epsilon)
    if p0 is not None:
        label = f"dropped, P0: {p0.filters} filters"
        axes.axvline(p0.filters, color=COLOURS[5], linestyle="-.", linewidth=1.2, label=label)
    unit, lowest = "delta_val, points of validation accuracy", min(deltas)
    if epsilon and lowest < -10 * epsilon:
        axes.set_yscale("symlog", linthresh=epsilon, linscale=0.7)
        axes.set_ylim(bottom=1.5 * lowest)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        unit += "\n(logarithmic beyond epsilon)"
    images = "" if partition.images is None else f", {partition.images} validation images"
    finish(axes, f"The teacher without some filters{images}", "filters dropped", unit)


class EpochRow(Record):
    """A line of a run's metrics."""

    epoch: int = Field(ge=1, description="Number of the epoch.")
    learning_rate: float = Field(description="Its learning rate.")
    losses: dict[str, float] = Field(min_length=1, description="Mean training losses.")
    validation_accuracy_pct: float = Field(description="Validation accuracy after it, in percent.")


def read_metrics(path: Path) -> tuple[EpochRow, ...]:
    """Epochs of a run's metrics file, a line each; raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    epochs = []
    for number, line in enumerate(lines, start=1):
        try:
            plain = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"is not JSON: {error}", where=f"{path}, line {number}") from None
        epochs.append(EpochRow.check(plain, where=f"{path}, line {number}"))
    if not epochs:
        raise InputError("holds no finished epoch", where=str(path), fix="train on, then draw")
    return tuple(epochs)


def training_figure(epochs: Sequence[EpochRow]) -> "Figure":
    """Figure of a run's training losses and validation accuracy, epoch by epoch."""
    from matplotlib.ticker import MaxNLocator

    figure, (losses, accuracy) = panels(2)
    names = dict.fromkeys(name for row in epochs for name in row.losses)
    for place, name in enumerate(names):
        known = [(row.epoch, row.losses[name]) for row in epochs if name in row.losses]
        losses.plot(
            *zip(*known, strict=True),
            color=COLOURS[place % len(COLOURS)],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=4,
            label=name,
        )
    lowest = min(value for row in epochs for value in row.losses.values())
    if positive := lowest > 0:
        losses.set_yscale("log")
    else:
        losses.set_ylim(bottom=1.05 * lowest)
    up = "mean over the epoch" + ", logarithmic" * positive
    finish(losses, "Training losses", "epoch", up)
    values = [row.validation_accuracy_pct for row in epochs]
    accuracy.plot([row.epoch for row in epochs], values, ".-", color=COLOURS[0])
    accuracy.set_ylim(0, 105)
    last = f"{values[-1]:.2f} % after epoch {epochs[-1].epoch}"
    finish(accuracy, f"Validation accuracy: {last}", "epoch", "right images, %", legend=False)
    for axes in (losses, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def accuracies_by_students(found: Evaluation | RepeatedEvaluation) -> dict[int, list[float]]:
    """Accuracies in percent of all choices of students, by how many answer."""
    by_count: dict[int, list[float]] = {}
    for one in found.subsets:
        by_count.setdefault(len(one.students), []).append(one.accuracy_pct)
    return by_count


def subsets_figure(
    found: Evaluation | RepeatedEvaluation, by_count: Mapping[int, Sequence[float]], across: str
) -> "Figure":
    """Figure of least, mean and most accuracy over the choices of so many.

    `by_count` has the accuracies by how many there are, such as of `accuracies_by_students`;
    `across` says of what.
    """
    counts = sorted(by_count)
    figure, (axes,) = panels(1)
    least, most = ([pick(by_count[n]) for n in counts] for pick in (min, max))
    means = [mean(by_count[n]) for n in counts]
    axes.fill_between(counts, least, most, color=COLOURS[0], alpha=0.12, linewidth=0)
    for label, values, style, colour in (
        ("most", most, "^:", COLOURS[2]),
        ("mean", means, "o-", COLOURS[0]),
        ("least", least, "v:", COLOURS[5]),
    ):
        axes.plot(counts, values, style, color=colour, label=label)
    axes.margins(x=0.1, y=0.1)
    rows = zip(counts, most, means, least, strict=True)
    labels = [f"{n}\n{high:.1f}\n{middle:.1f}\n{low:.1f}" for n, high, middle, low in rows]
    axes.set_xticks(counts, labels, fontsize=SMALL if len(counts) <= _MANY else SMALL - 2)
    data = found.data if len(found.data) <= _LONGEST else f"{found.data[: _LONGEST - 1]}…"
    begins = f"the axis begins at {axes.get_ylim()[0]:.0f}"
    finish(
        axes,
        f"{data}, {found.images} test images, all choices",
        f"{across}; below: most, mean, least",
        f"right images, % ({begins})",
    )
    return figure
