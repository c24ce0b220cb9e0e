"""A sweep: students leave slow boards of their own for one fast board.

Figure 7 of arXiv:1907.11804.  With n students on the fast board the others have a slow board each;
the fast board's time grows with n and the host sends to fewer slow ones, so that the total is
least about where the fast board would become the last to reply.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nonn_common.document import write_atomic
from profiles.device import DeviceProfile, PredictedTime, TimingMethod
from profiles.fleet import Board
from profiles.link import LinkProfile
from simulator.engine.simulation import simulate
from simulator.workloads.fan_out import FanOut, Sending, StudentWork, longest_first

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One image with `moved` students on the fast board.

    A time is None where a board has no student.

    Energy is that of computing, of the boards that work: their mean, and all together.
    """

    moved: int
    total_ms: float
    compute_ms: float
    communication_ms: float
    slow_done_ms: float | None
    fast_done_ms: float | None
    energy_per_node_mj: float
    energy_per_fleet_mj: float

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StudentSweep:
    """Students that leave boards of `slow` for one of `fast`, all on `link`.

    There are `students` of them, of `macs` each.  `sending` says whether those on the fast board
    have an image each, as published, or one together.  Without its time by layers on a device, a
    student's follows from the MACs there.
    """

    slow: DeviceProfile
    fast: DeviceProfile
    link: LinkProfile
    host: DeviceProfile
    students: int
    macs: int
    features: int
    image_bytes: int
    sending: Sending = "per-board"
    slow_time: PredictedTime | None = None
    fast_time: PredictedTime | None = None

    @property
    def timing(self) -> tuple[tuple[DeviceProfile, TimingMethod], ...]:
        """Both devices, and what predicts a student's time there."""
        times = ((self.slow, self.slow_time), (self.fast, self.fast_time))
        return tuple((device, time.how if time else "flop-affine") for device, time in times)

    def fan_out(self, moved: int) -> FanOut:
        """Workload with `moved` students on the fast board."""
        slow = [
            Board(f"slow-{number + 1}", self.slow, self.link)
            for number in range(self.students - moved)
        ]
        fast = Board("fast", self.fast, self.link)
        boards = (*slow, *([fast] if moved else []))
        homes = [*(board.name for board in slow), *[fast.name] * moved]
        works = tuple(
            StudentWork(
                f"student-{number + 1}",
                home,
                self.macs,
                self.features,
                self.fast_time if home == fast.name else self.slow_time,
            )
            for number, home in enumerate(homes)
        )
        each_bytes = self.image_bytes if self.sending == "per-student" else None
        order = longest_first(boards, works, each_bytes)
        return FanOut(self.host, boards, works, order, self.image_bytes, sending=self.sending)

    def points(self) -> tuple[SweepPoint, ...]:
        """One simulated image per number of students on the fast board."""
        return tuple(self._point(moved) for moved in range(self.students + 1))

    def _point(self, moved: int) -> SweepPoint:
        found = simulate(self.fan_out(moved))
        fast = [row.done_ms for row in found.boards if row.board == "fast"]
        slow = [row.done_ms for row in found.boards if row.board != "fast"]
        return SweepPoint(
            moved=moved,
            total_ms=found.total_ms,
            compute_ms=found.compute_ms,
            communication_ms=found.communication_ms,
            slow_done_ms=max(slow, default=None),
            fast_done_ms=max(fast, default=None),
            energy_per_node_mj=found.energy_per_node_mj,
            energy_per_fleet_mj=found.energy_total_mj,
        )


def least_total_at(points: Sequence[SweepPoint]) -> int:
    """Number of students on the fast board with the least total latency."""
    return min(points, key=lambda row: row.total_ms).moved


def write_sweep_table(points: Sequence[SweepPoint], path: Path) -> None:
    """Write a row per point: Parquet for .parquet, else CSV."""
    from simulator.results.tables import as_csv, as_parquet, table_of

    table = table_of(SweepPoint, points)
    write_atomic(path, as_parquet(table) if path.suffix == ".parquet" else as_csv(table))


def write_sweep_plot(sweep: StudentSweep, points: Sequence[SweepPoint], path: Path) -> None:
    """Draw latency and energy over the students on the fast board, as PNG."""
    stream = io.BytesIO()
    sweep_plot(sweep, points).savefig(stream, format="png", dpi=150)
    write_atomic(path, stream.getvalue())


def sweep_plot(sweep: StudentSweep, points: Sequence[SweepPoint]) -> "Figure":
    """Picture of total latency with its bounds, and of compute energy below."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.5, 6.0), layout="constrained")
    latency, energy = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    least = points[least_total_at(points)]
    for values, label, style in (
        ([row.slow_done_ms for row in points], f"last reply of a {sweep.slow.name}", "C0s:"),
        ([row.fast_done_ms for row in points], f"reply of the {sweep.fast.name}", "C1^:"),
        ([row.total_ms for row in points], "total latency", "ko-"),
    ):
        there = [(row.moved, value) for row, value in zip(points, values, strict=True) if value]
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
    latency.set_ylim(0, 1.1 * max(row.total_ms for row in points))
    latency.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=3)
    energy.plot([row.moved for row in points], [row.energy_per_fleet_mj for row in points], "C2o-")
    energy.set_ylabel("compute energy\nof the fleet, mJ")
    energy.set_ylim(0, 1.1 * max(row.energy_per_fleet_mj for row in points))
    energy.set_xlabel(f"students on the one {sweep.fast.name}, of {sweep.students}")
    energy.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (latency, energy):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
