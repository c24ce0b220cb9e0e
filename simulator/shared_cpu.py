"""A processor that students share: each is a queue, and the heads of the queues run at once.

With n heads each runs at 1/n of the clock (processor sharing), so that n students that start
together are done when the sum of their work is.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from profiles.errors import SimulationError
from simulator.clock import Clock, Moment
from simulator.failures import Uptime
from simulator.image import Hop, Image
from simulator.throttling import Speed

MOST_TRIES = 10_000
"""A step that failures interrupt more often than this is taken never to end."""


class Task(Hop):
    """One step of an image in its lane: `work_ms` at factor 1, `left_ms` of it to do."""

    __slots__ = ("left_ms", "start_ms", "tries", "work_ms")

    def __init__(self, image: Image, step: int, work_ms: float) -> None:
        super().__init__((), image, step)
        self.work_ms = self.left_ms = work_ms
        self.start_ms = 0.0
        self.tries = 0


@dataclass(frozen=True, slots=True)
class Hooks:
    """Whom a processor tells: a task is done, a try of it broke off; and when.

    Or it is lost; and when the board is up again.
    """

    done: Callable[[Task, float], None]
    broke: Callable[[Task, float], None]
    lost: Callable[[Task, float], None]


class SharedCpu:
    """One processor with its lanes; it plans the next thing that happens and waits for it."""

    def __init__(
        self, clock: Clock, speed: Speed, uptime: Uptime | None, loses: bool, hooks: Hooks
    ) -> None:
        self.busy_ms = 0.0
        self._clock, self._speed, self._uptime = clock, speed, uptime
        self._loses, self._hooks = loses, hooks
        self._lanes: dict[str, deque[Task]] = {}
        self._heads: list[Task] = []
        self._since_ms = 0.0  # work is accounted for up to here; ahead of the clock while down
        self._next: Moment | None = None

    def take(self, lane: str, task: Task, now_ms: float) -> None:
        """Queue `task` in `lane`."""
        queue = self._lanes.setdefault(lane, deque())
        queue.append(task)
        if len(queue) == 1:
            self._catch_up(now_ms)
            self._start(task)
            self._plan()

    def _start(self, task: Task) -> None:
        task.start_ms = self._since_ms
        task.left_ms = task.work_ms
        self._heads.append(task)

    def _catch_up(self, now_ms: float) -> None:
        """Account for the work done up to now."""
        if now_ms <= self._since_ms:
            return
        if self._heads:
            share_ms = self._speed.work_ms(self._since_ms, now_ms) / len(self._heads)
            for task in self._heads:
                task.left_ms = max(0.0, task.left_ms - share_ms)
            self.busy_ms += now_ms - self._since_ms
        self._since_ms = now_ms

    def _plan(self) -> None:
        """Foresee the next end of a task, or the failure that comes before it."""
        self._next = None
        if not self._heads:
            return
        share_ms = min(task.left_ms for task in self._heads)
        end_ms = self._speed.end_ms(self._since_ms, share_ms * len(self._heads))
        down = self._uptime.touched(self._since_ms, end_ms) if self._uptime else None
        if down is None:
            self._next = Moment((partial(self._finish, share_ms=share_ms, now_ms=end_ms),))
            self._clock.at(end_ms, self._next)
        else:
            now_ms = max(down[0], self._since_ms)
            self._next = Moment((partial(self._break, now_ms=now_ms, up_ms=down[1]),))
            self._clock.at(now_ms, self._next)

    def _finish(self, moment: Moment, share_ms: float, now_ms: float) -> None:
        """Each head has done `share_ms`; those with nothing left are done, the next move up."""
        if moment is not self._next:
            return
        self.busy_ms += now_ms - self._since_ms
        self._since_ms = now_ms
        for task in self._heads:
            task.left_ms -= share_ms
        done = [task for task in self._heads if task.left_ms <= 0]
        self._heads = [task for task in self._heads if task.left_ms > 0]
        for queue in self._lanes.values():
            if queue and queue[0] in done:
                queue.popleft()
                if queue:
                    self._start(queue[0])
        self._plan()
        for task in done:
            self._hooks.done(task, now_ms)

    def _break(self, moment: Moment, now_ms: float, up_ms: float) -> None:
        """Break off what runs: it begins anew when the board is up, or never."""
        if moment is not self._next:
            return
        self._catch_up(now_ms)
        for task in self._heads:
            if task.start_ms < now_ms:
                self._hooks.broke(task, now_ms)
        if self._loses or up_ms == float("inf"):
            self._lose_all(up_ms)
            return
        self._since_ms = up_ms
        for task in self._heads:
            task.start_ms, task.left_ms, task.tries = up_ms, task.work_ms, task.tries + 1
            if task.tries > MOST_TRIES:
                raise endless(task.step, task.work_ms)
        self._plan()

    def _lose_all(self, up_ms: float) -> None:
        """Lose what waits, too: it would begin on a board that is down."""
        lost = [task for queue in self._lanes.values() for task in queue]
        self._lanes.clear()
        self._heads = []
        self._next = None
        for task in lost:
            self._hooks.lost(task, up_ms)


def endless(step: int, work_ms: float) -> SimulationError:
    """Return the error for a step that never gets through between two failures."""
    return SimulationError(
        f"step {step} needs {work_ms:g} ms, and failures broke it off {MOST_TRIES} times; "
        "raise mttf_ms or let a failed step be lost"
    )
