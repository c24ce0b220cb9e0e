"""The kernel of the engine: clock, events, images under way, shared processors.

The clock is SimPy's environment, with events at a time in place of processes and delays: of SimPy
only the queue of events and the order of those at one time are used.

A processor that students share has a queue for each, and the heads of the queues run at once: with
n heads each runs at 1/n of the clock (processor sharing), so that n students that start together
are done when the sum of their work is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappush
from itertools import chain, repeat
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from simpy import Environment
from simpy.events import NORMAL, Event

from nonn_common.errors import SimulationError
from profiles.time_spread import MEAN_BEYOND, SCALE_PER_DEVIATION
from simulator.scenario import Availability, ClockSpeed, DownTimes, random_stream
from simulator.task_graph import Step, TaskGraph

Floats = NDArray[np.float64]

SampledTimes = Iterator[tuple[float, float]]
"""Per image: how long a step holds its resources, and how long its message is then under way."""

SAMPLE_BATCH = 1024


def sample_times(step: Step, index: int, seed: int) -> SampledTimes:
    """Holding time and delay of `step`, in ms, for image after image."""
    if is_constant(step):
        return repeat((step.duration_ms, step.transit.latency_ms))
    batches = sample_batches(step, index, seed)
    return chain.from_iterable(zip(*batch.tolist(), strict=True) for batch in batches)


def is_constant(step: Step) -> bool:
    """Whether holding time and delay are the same for each image."""
    noisy = step.cv or step.transit.loss_pct or step.transit.jitter_ms
    return step.service == "constant" and not noisy


def sample_batches(step: Step, index: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Holding times and delays of `step`, as two rows, for some images at a time."""
    transit = step.transit
    service, loss, jitter = (
        random_stream(seed, name, index) for name in ("service", "loss", "jitter")
    )
    # One stream for all steps of a board: an image that finds it slow finds it slow in each.
    spread = random_stream(seed, "spread", crc32(step.actor.encode()))
    while True:
        holds = np.full(SAMPLE_BATCH, step.duration_ms)
        if step.service == "exponential":
            holds = service.exponential(step.duration_ms, SAMPLE_BATCH)
        if step.cv:
            beyond = spread.gumbel(size=SAMPLE_BATCH) - MEAN_BEYOND
            holds = holds * np.maximum(0.0, 1 + step.cv * SCALE_PER_DEVIATION * beyond)
        if transit.loss_pct:
            tries = loss.geometric(1 - transit.loss_pct / 100, SAMPLE_BATCH)
            holds = holds + (tries - 1) * transit.retry_ms
        delays = np.full(SAMPLE_BATCH, transit.latency_ms)
        if transit.jitter_ms:
            delays = delays + jitter.exponential(transit.jitter_ms, SAMPLE_BATCH)
        yield np.stack([holds, delays])


class NumberStream:
    """Numbers that come some at a time, and are taken as somebody needs them."""

    def __init__(self, batches: Iterator[NDArray[np.float64]]) -> None:
        self._batches = batches
        self._left: NDArray[np.float64] | None = None

    def take(self, count: int) -> NDArray[np.float64]:
        """Next numbers, `count` of them along the last axis; fewer where they end."""
        pieces = [] if self._left is None else [self._left]
        there = sum(piece.shape[-1] for piece in pieces)
        while there < count and (batch := next(self._batches, None)) is not None:
            pieces.append(batch)
            there += batch.shape[-1]
        taken = np.concatenate(pieces, axis=-1)
        self._left = taken[..., count:]
        return taken[..., :count]


LATE = 2
"""Priority of an event that comes after all others of its time."""


class CallbackEvent(Event):
    """An event that is certain to happen and calls functions.

    It costs less than SimPy's Timeout.

    `callbacks` may be one tuple for all moments of a kind: SimPy never changes it.
    """

    __slots__ = ("callbacks",)
    _ok = True
    _value = None

    def __init__(self, callbacks: Sequence[Callable[[Any], None]]) -> None:
        self.callbacks = callbacks  # type: ignore[assignment]


class Clock(Environment):
    """SimPy's environment, which also takes events at an absolute time.

    Going through a delay would round: now + (end - now) is not always end.
    """

    def at(self, time_ms: float, event: Event, priority: int = NORMAL) -> None:
        """Let `event` happen at `time_ms`, after all events of that time that came before."""
        heappush(self._queue, (time_ms, priority, next(self._eid), event))  # type: ignore[misc]


NOT_YET = math.nan
"""The time of what has not happened, and maybe never will."""


class ImageState:
    """State of one image: the waiting, start and end of each step.

    `under_way` counts the moments to come; with none left nothing more can happen to the image.
    `repairs_ms` holds, for each step that a failure lost, when its boards are up again.
    """

    __slots__ = (
        "end_ms",
        "ends_ms",
        "frees_ms",
        "inference",
        "missing",
        "repairs_ms",
        "settled",
        "start_ms",
        "starts_ms",
        "under_way",
    )

    def __init__(self, inference: int, start_ms: float, missing: list[int]) -> None:
        self.inference = inference
        self.start_ms = start_ms
        self.end_ms = NOT_YET
        self.missing = missing
        self.starts_ms = [NOT_YET] * len(missing)
        self.frees_ms = self.starts_ms[:]
        self.ends_ms = self.starts_ms[:]
        self.repairs_ms: dict[int, float] = {}
        self.under_way = 0
        self.settled = False


def answerable_ms(graph: TaskGraph, image: ImageState) -> float:
    """Time of the repair that makes an answer to `image` possible; infinity if never.

    A step that was lost can be done from its repair on, a step that never began when as many of
    those before it as it needs can be done; nothing hinders the others.
    """
    can_ms: list[float] = []
    for index, step in enumerate(graph.steps):
        if index in image.repairs_ms:
            can_ms.append(image.repairs_ms[index])
        elif image.missing[index] > 0:
            can_ms.append(sorted(can_ms[earlier] for earlier in step.after)[step.needed - 1])
        else:
            can_ms.append(0.0)
    return can_ms[graph.sink]


class StepEnd(CallbackEvent):
    """The end of one step of an image."""

    __slots__ = ("image", "step")

    def __init__(
        self, callbacks: Sequence[Callable[[Any], None]], image: ImageState, step: int
    ) -> None:
        self.callbacks = callbacks  # type: ignore[assignment]
        self.image = image
        self.step = step


class StepRetry(StepEnd):
    """The repair after which a step queues again.

    The times that were drawn for it at first still hold.
    """

    __slots__ = ("drawn_ms", "tries")

    def __init__(
        self,
        callbacks: Sequence[Callable[[Any], None]],
        image: ImageState,
        step: int,
        drawn_ms: tuple[float, float],
        tries: int,
    ) -> None:
        super().__init__(callbacks, image, step)
        self.drawn_ms = drawn_ms
        self.tries = tries


MOST_TRIES = 10_000
"""A step that failures interrupt more often than this is taken never to end."""


class DownTable:
    """Down times of failures as arrays, some ahead of the clock; DownTimes makes them."""

    def __init__(self, failures: Sequence[DownTimes]) -> None:
        self._failures = failures

    def ahead(
        self, now_ms: float, until_ms: float, some: int
    ) -> tuple[Floats, Floats, list[tuple[int, ...]], float]:
        """Intervals that end after `now_ms`: when each begins and ends, failure by failure.

        For each failure: where its intervals begin, how many there are, 0, and whether there are
        more.  Last comes a time after `until_ms` to which each has at least `some` more, or all.
        """
        downs_ms: list[float] = []
        ups_ms: list[float] = []
        rows: list[tuple[int, ...]] = []
        safe_ms = math.inf
        for failure in self._failures:
            first, beyond, up_ms = len(ups_ms), 0, now_ms
            while beyond < 2 * some:
                down_ms, up_ms = failure.next(up_ms)
                if down_ms == math.inf:
                    break
                downs_ms.append(down_ms)
                ups_ms.append(up_ms)
                beyond += up_ms > until_ms
            renews = beyond == 2 * some
            safe_ms = min(safe_ms, ups_ms[-some - 1]) if renews else safe_ms
            rows.append((first, len(ups_ms) - first, 0, renews))
        return np.array(downs_ms, float), np.array(ups_ms, float), rows, safe_ms


class QueuedStep(StepEnd):
    """One step of an image in its queue.

    Its work is `work_ms` at factor 1, `left_ms` of it to do.
    """

    __slots__ = ("left_ms", "start_ms", "tries", "work_ms")

    def __init__(self, image: ImageState, step: int, work_ms: float) -> None:
        super().__init__((), image, step)
        self.work_ms = self.left_ms = work_ms
        self.start_ms = 0.0
        self.tries = 0


@dataclass(frozen=True, slots=True)
class CpuCallbacks:
    """Functions that a processor calls, with a step and a time in ms.

    The step is done; a try of it broke off; or it is lost, with the time of the board's repair.
    """

    done: Callable[[QueuedStep, float], None]
    broke: Callable[[QueuedStep, float], None]
    lost: Callable[[QueuedStep, float], None]


class SharedCpu:
    """One processor with its queues, which plans the next event."""

    def __init__(
        self,
        clock: Clock,
        speed: ClockSpeed,
        availability: Availability | None,
        loses: bool,
        notify: CpuCallbacks,
    ) -> None:
        self.busy_ms = 0.0
        self._clock, self._speed, self._availability = clock, speed, availability
        self._loses, self._notify = loses, notify
        self._queues: dict[str, deque[QueuedStep]] = {}
        self._heads: list[QueuedStep] = []
        self._since_ms = 0.0  # work is accounted for up to here; ahead of the clock while down
        self._next: CallbackEvent | None = None

    def take(self, queue: str, queued: QueuedStep, now_ms: float) -> None:
        """Let `queued` wait in the queue of this name."""
        waiting = self._queues.setdefault(queue, deque())
        waiting.append(queued)
        if len(waiting) == 1:
            self._catch_up(now_ms)
            self._start(queued)
            self._plan()

    def _start(self, queued: QueuedStep) -> None:
        queued.start_ms = self._since_ms
        queued.left_ms = queued.work_ms
        self._heads.append(queued)

    def _catch_up(self, now_ms: float) -> None:
        """Account for the work done up to now."""
        if now_ms <= self._since_ms:
            return
        if self._heads:
            share_ms = self._speed.work_ms(self._since_ms, now_ms) / len(self._heads)
            for queued in self._heads:
                queued.left_ms = max(0.0, queued.left_ms - share_ms)
            self.busy_ms += now_ms - self._since_ms
        self._since_ms = now_ms

    def _plan(self) -> None:
        """Foresee the next end of a step, or the failure that comes before it."""
        self._next = None
        if not self._heads:
            return
        share_ms = min(queued.left_ms for queued in self._heads)
        end_ms = self._speed.end_ms(self._since_ms, share_ms * len(self._heads))
        down = self._availability.touched(self._since_ms, end_ms) if self._availability else None
        if down is None:
            self._next = CallbackEvent((partial(self._finish, share_ms=share_ms, now_ms=end_ms),))
            self._clock.at(end_ms, self._next)
        else:
            now_ms = max(down[0], self._since_ms)
            self._next = CallbackEvent((partial(self._break, now_ms=now_ms, up_ms=down[1]),))
            self._clock.at(now_ms, self._next)

    def _finish(self, event: CallbackEvent, share_ms: float, now_ms: float) -> None:
        """Each head has done `share_ms`; those with nothing left are done, the next move up."""
        if event is not self._next:
            return
        self.busy_ms += now_ms - self._since_ms
        self._since_ms = now_ms
        for queued in self._heads:
            queued.left_ms -= share_ms
        done = [queued for queued in self._heads if queued.left_ms <= 0]
        self._heads = [queued for queued in self._heads if queued.left_ms > 0]
        for queue in self._queues.values():
            if queue and queue[0] in done:
                queue.popleft()
                if queue:
                    self._start(queue[0])
        self._plan()
        for queued in done:
            self._notify.done(queued, now_ms)

    def _break(self, event: CallbackEvent, now_ms: float, up_ms: float) -> None:
        """Break off what runs: it begins anew when the board is up, or never."""
        if event is not self._next:
            return
        self._catch_up(now_ms)
        for queued in self._heads:
            if queued.start_ms < now_ms:
                self._notify.broke(queued, now_ms)
        if self._loses or up_ms == float("inf"):
            self._lose_all(up_ms)
            return
        self._since_ms = up_ms
        for queued in self._heads:
            queued.start_ms, queued.left_ms, queued.tries = up_ms, queued.work_ms, queued.tries + 1
            if queued.tries > MOST_TRIES:
                raise endless_step(queued.step, queued.work_ms)
        self._plan()

    def _lose_all(self, up_ms: float) -> None:
        """Lose what waits, too: it would begin on a board that is down."""
        lost = [queued for queue in self._queues.values() for queued in queue]
        self._queues.clear()
        self._heads = []
        self._next = None
        for queued in lost:
            self._notify.lost(queued, up_ms)


def endless_step(step: int, work_ms: float) -> SimulationError:
    """The error for a step that never gets through between two failures."""
    return SimulationError(
        f"step {step} needs {work_ms:g} ms, and failures broke it off {MOST_TRIES} times; "
        "raise mttf_ms or let a failed step be lost"
    )
