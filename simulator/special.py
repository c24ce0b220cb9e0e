"""Special steps: more than a constant time on one resource or two that nothing disturbs."""

import math
from dataclasses import dataclass

from simulator.failures import Uptime
from simulator.noise import Draws
from simulator.recorder import Recorder
from simulator.shared_cpu import MOST_TRIES, SharedCpu, endless
from simulator.throttling import Speed


@dataclass(frozen=True, slots=True)
class Special:
    """A step by its index: what it holds, for how long, on which boards and clocks.

    One that `stays` keeps its resources until its boards are up again: nobody else could use them.
    """

    step: int
    resources: tuple[int, ...]
    draws: Draws
    uptime: Uptime | None
    speed: Speed | None
    cpu: SharedCpu | None
    lane: str
    stays: bool
    recorder: Recorder

    def hold(
        self, inference: int, start_ms: float, hold_ms: float
    ) -> tuple[float, float, float | None]:
        """Return start and end of the last try on its resources, and the repair if that failed.

        The repair is at infinity if it never comes.  Raises SimulationError for a step that stays
        and never gets through.
        """
        for _ in range(MOST_TRIES):
            if self.speed is None:
                free_ms = start_ms + hold_ms
            else:
                free_ms = self.speed.end_ms(start_ms, hold_ms)
            down = self.uptime.touched(start_ms, free_ms) if self.uptime else None
            if down is None:
                return start_ms, free_ms, None
            down_ms, up_ms = down
            if start_ms < down_ms:
                speed = self.speed or Speed()
                done_ms = speed.work_ms(start_ms, down_ms)
                self.recorder.broke(inference, self.step, start_ms, down_ms, done_ms)
            if up_ms == math.inf or not self.stays:
                return start_ms, max(start_ms, down_ms), up_ms
            start_ms = up_ms
        raise endless(self.step, hold_ms)
