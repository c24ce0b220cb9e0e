"""A move: students that leave slow boards of their own, one by one, for one fast board.

Figure 7 of arXiv:1907.11804.  With n students on the fast board the others have a slow board each;
the fast board's time grows with n and the host sends to fewer slow ones, so that the total is least
about where the fast board would become the last to reply.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from profiles.device import DeviceProfile
from profiles.document import write_atomic
from profiles.fleet import Board
from profiles.link import LinkProfile
from simulator.engine import simulate
from simulator.send_order import longest_first
from simulator.workload import FanOut, StudentWork


@dataclass(frozen=True, slots=True)
class Moved:
    """One image with `moved` students on the fast board; a time is None where nobody is there.

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
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Move:
    """`students` students of `macs` each, from boards of `slow` to one of `fast`, all on `link`."""

    slow: DeviceProfile
    fast: DeviceProfile
    link: LinkProfile
    host: DeviceProfile
    students: int
    macs: int
    features: int
    image_bytes: int

    def fan_out(self, moved: int) -> FanOut:
        """Return the workload with `moved` students on the fast board."""
        slow = [
            Board(f"slow-{number + 1}", self.slow, self.link)
            for number in range(self.students - moved)
        ]
        fast = Board("fast", self.fast, self.link)
        boards = (*slow, *([fast] if moved else []))
        homes = [*(board.name for board in slow), *[fast.name] * moved]
        works = tuple(
            StudentWork(f"student-{number + 1}", home, self.macs, self.features)
            for number, home in enumerate(homes)
        )
        return FanOut(self.host, boards, works, longest_first(boards, works), self.image_bytes)

    def simulated(self) -> tuple[Moved, ...]:
        """Return one image for each number of students on the fast board, from 0 to all."""
        return tuple(self._simulated(moved) for moved in range(self.students + 1))

    def _simulated(self, moved: int) -> Moved:
        found = simulate(self.fan_out(moved))
        fast = [row.done_ms for row in found.boards if row.board == "fast"]
        slow = [row.done_ms for row in found.boards if row.board != "fast"]
        return Moved(
            moved=moved,
            total_ms=found.total_ms,
            compute_ms=found.compute_ms,
            communication_ms=found.communication_ms,
            slow_done_ms=max(slow, default=None),
            fast_done_ms=max(fast, default=None),
            energy_per_node_mj=found.energy_per_node_mj,
            energy_per_fleet_mj=found.energy_total_mj,
        )


def least_total_at(moved: Sequence[Moved]) -> int:
    """Return how many students on the fast board give the least total latency."""
    return min(moved, key=lambda row: row.total_ms).moved


def write_table(moved: Sequence[Moved], path: Path) -> None:
    """Write a row per number of students on the fast board: Parquet for .parquet, else CSV."""
    from simulator.tables import as_csv, as_parquet, table_of

    table = table_of(Moved, moved)
    write_atomic(path, as_parquet(table) if path.suffix == ".parquet" else as_csv(table))
