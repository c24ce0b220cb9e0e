"""Failures: when boards are down, and whether a step falls into such a time.

The boards of one failure go down and come up together: one switch, one supply.  Failures do not
depend on what the boards do, so their times can be looked up ahead of the simulation's clock.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.errors import SimulationError
from simulator.noise import stream


@dataclass(frozen=True, slots=True)
class Outage:
    """`boards` fail at `at_ms` and are up again at `repaired_ms`; never, if None."""

    boards: tuple[str, ...]
    at_ms: float
    repaired_ms: float | None = None

    def __post_init__(self) -> None:
        _require_boards(self.boards)
        if not 0 <= self.at_ms < math.inf:
            raise SimulationError(f"boards fail at a time of at least 0 ms; found {self.at_ms:g}")
        if self.repaired_ms is not None and not self.at_ms < self.repaired_ms < math.inf:
            raise SimulationError(
                f"boards that fail at {self.at_ms:g} ms are repaired after that; "
                f"found {self.repaired_ms:g} ms"
            )


@dataclass(frozen=True, slots=True)
class Renewal:
    """`boards` fail and are repaired again and again, with exponential times of these means."""

    boards: tuple[str, ...]
    mttf_ms: float
    mttr_ms: float

    def __post_init__(self) -> None:
        _require_boards(self.boards)
        if not (0 < self.mttf_ms < math.inf and 0 < self.mttr_ms < math.inf):
            raise SimulationError(
                "mean times to failure and to repair must be above 0 ms; "
                f"found {self.mttf_ms:g} and {self.mttr_ms:g}"
            )


Failure = Outage | Renewal


class Downs:
    """The intervals [down, up) of one failure, made as far ahead as somebody asks."""

    def __init__(self, failure: Failure, generator: np.random.Generator) -> None:
        self.boards = frozenset(failure.boards)
        self._downs_ms: list[float] = []
        self._ups_ms: list[float] = []
        self._renewal = failure if isinstance(failure, Renewal) else None
        self._generator = generator
        if isinstance(failure, Outage):
            repaired_ms = math.inf if failure.repaired_ms is None else failure.repaired_ms
            self._downs_ms.append(failure.at_ms)
            self._ups_ms.append(repaired_ms)

    def next(self, time_ms: float) -> tuple[float, float]:
        """Return the first interval that ends after `time_ms`; at infinity if there is none."""
        while self._renewal and (not self._ups_ms or self._ups_ms[-1] <= time_ms):
            self._go_on(self._renewal)
        index = bisect_right(self._ups_ms, time_ms)
        if index == len(self._ups_ms):
            return math.inf, math.inf
        return self._downs_ms[index], self._ups_ms[index]

    def _go_on(self, renewal: Renewal) -> None:
        up_ms = self._ups_ms[-1] if self._ups_ms else 0.0
        down_ms = up_ms + self._generator.exponential(renewal.mttf_ms)
        self._downs_ms.append(down_ms)
        self._ups_ms.append(down_ms + self._generator.exponential(renewal.mttr_ms))


class Uptime:
    """When all the places that a step needs are up.

    Between `quiet_from_ms` and `quiet_to_ms`, which each look-up renews, nothing goes down.
    """

    def __init__(self, downs: tuple[Downs, ...]) -> None:
        self._downs = downs
        self.quiet_from_ms = self.quiet_to_ms = 0.0

    def touched(self, start_ms: float, end_ms: float) -> tuple[float, float] | None:
        """Return the first down time (from, to) that touches [start, end), or None."""
        down_ms, up_ms = min(downs.next(start_ms) for downs in self._downs)
        if down_ms < end_ms:
            return down_ms, up_ms
        self.quiet_from_ms, self.quiet_to_ms = start_ms, down_ms
        return None


class Uptimes:
    """The uptime of any set of places, all from the same failures."""

    def __init__(self, failures: Sequence[Failure], seed: int) -> None:
        self._downs = [
            Downs(failure, stream(seed, "failures", index))
            for index, failure in enumerate(failures)
        ]
        self._made: dict[frozenset[str], Uptime | None] = {}

    def of(self, places: frozenset[str]) -> Uptime | None:
        """Return when all `places` are up; None where none of them ever fails."""
        if places not in self._made:
            downs = tuple(each for each in self._downs if each.boards & places)
            self._made[places] = Uptime(downs) if downs else None
        return self._made[places]


def _require_boards(boards: tuple[str, ...]) -> None:
    if not boards:
        raise SimulationError("a failure needs at least one board")
