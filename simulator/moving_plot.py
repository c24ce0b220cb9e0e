"""The picture of a move: latency and energy over the students on the fast board."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.document import write_atomic
from simulator.moving import Move, Moved, least_total_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_plot(move: Move, moved: Sequence[Moved], path: Path) -> None:
    """Draw latency and energy over the students on the fast board, as PNG."""
    stream = io.BytesIO()
    plot(move, moved).savefig(stream, format="png", dpi=150)
    write_atomic(path, stream.getvalue())


def plot(move: Move, moved: Sequence[Moved]) -> "Figure":
    """Return the picture: total latency with what bounds it, and below the compute energy."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.5, 6.0), layout="constrained")
    latency, energy = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    least = moved[least_total_at(moved)]
    for values, label, style in (
        ([row.slow_done_ms for row in moved], f"last reply of a {move.slow.name}", "C0s:"),
        ([row.fast_done_ms for row in moved], f"reply of the {move.fast.name}", "C1^:"),
        ([row.total_ms for row in moved], "total latency", "ko-"),
    ):
        there = [(row.moved, value) for row, value in zip(moved, values, strict=True) if value]
        latency.plot(*zip(*there, strict=True), style, label=label)
    latency.annotate(
        f"least: {least.total_ms:.1f} ms at {least.moved}",
        xy=(least.moved, least.total_ms),
        xytext=(0, 26),
        textcoords="offset points",
        ha="center",
        arrowprops={"arrowstyle": "->"},
    )
    latency.set_ylabel("ms")
    latency.set_ylim(0, 1.1 * max(row.total_ms for row in moved))
    latency.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3)
    energy.plot([row.moved for row in moved], [row.energy_per_fleet_mj for row in moved], "C2o-")
    energy.set_ylabel("compute energy\nof the fleet, mJ")
    energy.set_ylim(0, 1.1 * max(row.energy_per_fleet_mj for row in moved))
    energy.set_xlabel(f"students on the one {move.fast.name}, of {move.students}")
    energy.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (latency, energy):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
