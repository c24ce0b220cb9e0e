"""A stopwatch for a shared machine: interleaved blocks, and how much they differ.

Every round times each task in turn, so that what disturbs the machine for a while disturbs all of
them.  A block's time is the median of a few answers after one that is not counted; the time of a
task is the lower quartile of its blocks, since others only ever make it longer.

Before each answer the machine waits a moment: a board answers an image that comes after a pause,
from caches and clocks that are not those of a tight loop (half the time, for the smallest
students).
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nonn_common import Progress, silent

TimedTask = Callable[[], float]
"""Does something once; returns how long it took, in ms."""

PAUSE_S = 0.001
ANSWERS_PER_BLOCK = 5
MIN_ROUNDS, MAX_ROUNDS = 4, 60


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of a task, in ms; interquartile range of its blocks, in percent of it."""

    ms: float
    spread_pct: float
    blocks: int


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Times things; `now_s` and `sleep` are the machine's clock."""

    now_s: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep
    pause_s: float = PAUSE_S

    def timed(
        self,
        what: str,
        tasks: Mapping[str, TimedTask],
        seconds: float,
        progress: Progress = silent,
    ) -> dict[str, Timing]:
        """Time all tasks for about `seconds`, at least a few rounds."""
        blocks: dict[str, list[float]] = {name: [] for name in tasks}
        began_s, rounds = self.now_s(), 0
        while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and self.now_s() - began_s < seconds):
            for name, answering in tasks.items():
                progress(what, *self._share(began_s, seconds, rounds))
                blocks[name].append(self._block(answering))
            rounds += 1
        return {name: _timing(times) for name, times in blocks.items()}

    def once(self, work: Callable[[], object]) -> float:
        """Do something once and return how long it took, in ms."""
        began_s = self.now_s()
        work()
        return 1000 * (self.now_s() - began_s)

    def _block(self, answering: TimedTask) -> float:
        answering()
        times = []
        for _ in range(ANSWERS_PER_BLOCK):
            self.sleep(self.pause_s)
            times.append(answering())
        return float(np.median(times))

    def _share(self, began_s: float, seconds: float, rounds: int) -> tuple[int, int]:
        """Progress of the measurement, in tenths of a second."""
        total = max(1, round(10 * seconds))
        by_time = min(total, round(10 * (self.now_s() - began_s)))
        return (by_time, total) if rounds < MAX_ROUNDS else (total, total)


def _timing(blocks: list[float]) -> Timing:
    low, high = np.quantile(blocks, (0.25, 0.75))
    spread_pct = 100 * (high - low) / low if low > 0 else 0.0
    return Timing(float(low), round(float(spread_pct), 1), len(blocks))


def drift_pct(before: Timing, after: Timing) -> float:
    """Drift of a task's time from before to after, in percent."""
    return 100 * (after.ms / before.ms - 1)
