"""Throttling: the clock of a board changes over time, and its computing with it.

The clock factor is piecewise constant, so that work done by a time is exact: a step of d ms that
starts at s ends at the e with  integral from s to e of factor(t) dt = d.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from profiles.errors import SimulationError


@dataclass(frozen=True, slots=True)
class Throttle:
    """From `at_ms` on the clock of `board` is `factor` times that of its profile."""

    board: str
    at_ms: float
    factor: float

    def __post_init__(self) -> None:
        if not (0 <= self.at_ms < math.inf and 0 < self.factor < math.inf):
            raise SimulationError(
                f"throttling of {self.board} needs a time of at least 0 ms and a clock factor "
                f"above 0; found {self.at_ms:g} ms and {self.factor:g}"
            )


class Speed:
    """The clock factor of one board over time; 1 until its first throttle."""

    def __init__(self, throttles: Sequence[Throttle] = ()) -> None:
        ordered = sorted(throttles, key=lambda throttle: throttle.at_ms)
        self._since_ms = [0.0, *(throttle.at_ms for throttle in ordered)]
        self._factors = [1.0, *(throttle.factor for throttle in ordered)]
        self._done_ms = [0.0]
        for factor, (since_ms, until_ms) in zip(
            self._factors, pairwise(self._since_ms), strict=False
        ):
            self._done_ms.append(self._done_ms[-1] + factor * (until_ms - since_ms))

    def end_ms(self, start_ms: float, work_ms: float) -> float:
        """Return when `work_ms` of work, at factor 1, are done if they start at `start_ms`."""
        piece = bisect_right(self._since_ms, start_ms) - 1
        end_ms = start_ms + work_ms / self._factors[piece]
        if piece + 1 == len(self._since_ms) or end_ms <= self._since_ms[piece + 1]:
            return end_ms
        done_ms = self._done(piece, start_ms) + work_ms
        piece = bisect_right(self._done_ms, done_ms) - 1
        return self._since_ms[piece] + (done_ms - self._done_ms[piece]) / self._factors[piece]

    def work_ms(self, start_ms: float, end_ms: float) -> float:
        """Return the work, at factor 1, that is done from `start_ms` to `end_ms`."""
        first = bisect_right(self._since_ms, start_ms) - 1
        last = bisect_right(self._since_ms, end_ms) - 1
        if first == last:
            return (end_ms - start_ms) * self._factors[first]
        return self._done(last, end_ms) - self._done(first, start_ms)

    def _done(self, piece: int, time_ms: float) -> float:
        return self._done_ms[piece] + self._factors[piece] * (time_ms - self._since_ms[piece])
