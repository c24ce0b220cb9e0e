"""Real figures to the solver's integers, in this one place: costs up, capacities down.

CP-SAT counts in whole numbers.  A cost that is rounded up and a capacity that is rounded down keep
the promise that what the solver accepts really fits; what rounding can hide is bounded by
`rounding`, and proven bounds are lowered by that much before anybody sees them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from nonn_core.costs import StudentCostLine
from profiles.device import DeviceProfile
from profiles.fleet import Board
from simulator.workload import busy_mj, busy_ms, reply_ms, send_ms

UNITS_PER_MS = 10**6
UNITS_PER_MJ = 10**6
UNITS_PER_POINT = 10**6
UNITS_PER_INDEX = 10**6
"""Units per 1 of ln(parameters) + ln(MACs), what accuracy grows with."""
LATEST = 10**9 * UNITS_PER_MS
"""No plan answers later; a bound that only the solver's arithmetic needs."""
TOGETHER = 2
"""How many students stand for `several` where a device slows down for two or more."""


@dataclass(frozen=True, slots=True)
class Affine:
    """A cost in solver units: `constant` plus `per_filter` for each filter of a student."""

    constant: int
    per_filter: int

    def at(self, filters: int) -> int:
        """Return the cost for this many filters."""
        return self.constant + self.per_filter * filters


Units = Callable[[DeviceProfile, StudentCostLine, bool], Affine]
"""Cost of one student on a device, alone (False) or as its share among several (True)."""


def up(value: float, units: int) -> int:
    """Scale a cost: the least whole number of units that is not below it.

    A thousandth of a unit is taken for noise of binary fractions: 1.1 points are 1,100,000
    millionths, not one more.
    """
    return math.ceil(value * units - 1e-3)


def within(limit: float | None, units: int) -> int | None:
    """Scale a capacity: the most whole units that fit; None stays None."""
    return None if limit is None else math.floor(limit * units + 1e-3)


def at_least(best: int, tolerance_pct: float) -> int:
    """Return the least that a maximised measure may fall to, within a tolerance of its best."""
    return math.ceil(best - abs(best) * tolerance_pct / 100 - 1e-6)


def at_most(best: int, tolerance_pct: float) -> int:
    """Return the most that a minimised measure may rise to, within a tolerance of its best."""
    return math.floor(best + abs(best) * tolerance_pct / 100 + 1e-6)


def send_units(board: Board, image_bytes: int) -> int:
    """Time of the host's sender for one image to `board`."""
    return up(send_ms(board, image_bytes), UNITS_PER_MS)


def delay_units(board: Board) -> int:
    """Time under way to `board` and back, while nothing is busy."""
    return up(2 * board.link.latency_ms.value, UNITS_PER_MS)


def one_way_units(board: Board) -> int:
    """Time under way to `board`, or back from it."""
    return up(board.link.latency_ms.value, UNITS_PER_MS)


def reply_units(board: Board) -> int:
    """Time of a reply from `board` per filter; the model's reply has no fixed part."""
    return up(reply_ms(board, 1), UNITS_PER_MS)


def busy_units(device: DeviceProfile, line: StudentCostLine, several: bool) -> Affine:
    """Time of one student on `device`, alone or as its share among several."""
    students = TOGETHER if several else 1
    constant_ms = busy_ms(device, [line.macs] * students) / students
    further_ms = busy_ms(device, [line.macs + line.macs_per_filter] * students) / students
    return Affine(up(constant_ms, UNITS_PER_MS), up(further_ms - constant_ms, UNITS_PER_MS))


def energy_units(device: DeviceProfile, line: StudentCostLine, several: bool) -> Affine:
    """Energy of one student on `device`, alone or as its share among several."""
    students = TOGETHER if several else 1
    constant_mj = busy_mj(device, [line.macs] * students) / students
    further_mj = busy_mj(device, [line.macs + line.macs_per_filter] * students) / students
    return Affine(up(constant_mj, UNITS_PER_MJ), up(further_mj - constant_mj, UNITS_PER_MJ))


def rounding(boards: int, students: int, filters: int) -> int:
    """Bound, in solver units, what rounding up adds to a latency or to a fleet's energy.

    Each send and delay, each student's constant, each filter's compute and reply, and the join are
    rounded once, by less than one unit; a delay twice where boards share a medium, but then only
    the delays of two boards count.
    """
    return 2 * boards + students + 2 * filters + 1


def unlike_delays(boards: Iterable[Board]) -> int:
    """Bound, in solver units, what unlike latencies on one medium add to a latency.

    The model lets the last reply on a shared medium take the longest latency of its boards.
    """
    media: dict[str, list[int]] = defaultdict(list)
    for board in boards:
        if board.link.shared:
            media[board.link.name].append(one_way_units(board))
    return max((max(delays) - min(delays) for delays in media.values()), default=0)
