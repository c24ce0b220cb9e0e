"""Statistics: sums over images that make a result, added up batch by batch.

All that follows from the times of the steps, whether the recording is kept or not.  Only the
percentiles differ: exact where latencies are kept, else from a sketch (DDSketch, Masson et al.
2019) whose values are off by at most `SKETCH_ERROR_PCT` of themselves.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from ddsketch import DDSketch
from numpy.typing import NDArray

from simulator.job import HOST, Job
from simulator.radio import on_wire_ms
from simulator.recording import Batch, Times, ready_ms

SKETCH_ERROR_PCT = 0.1
PERCENTILES = (50, 95, 99)

Steps = list[int]


@dataclass(frozen=True, slots=True)
class BoardSteps:
    """Which steps concern one board, by what they tell about it.

    A board that does nothing but pass on what is for others is concerned by that.
    """

    computing: Steps = field(default_factory=list)
    queueing: Steps = field(default_factory=list)  # where it acts, or the host sends to it
    concerning: Steps = field(default_factory=list)
    receiving: Steps = field(default_factory=list)
    carrying: Steps = field(default_factory=list)  # where it sends, receives or passes on

    @property
    def passes_on(self) -> bool:
        """Whether it does nothing else: it never acts and nothing is for it."""
        return bool(self.carrying) and not (self.queueing or self.receiving)


def board_steps(job: Job) -> list[BoardSteps]:
    """Find the steps that concern each board of `job`."""
    boards = {node.name: BoardSteps() for node in job.nodes}
    nobody = BoardSteps()
    for index, step in enumerate(job.steps):
        actor = boards.get(step.actor, nobody)
        actor.queueing.append(index)
        actor.concerning.append(index)
        if step.activity == "compute":
            actor.computing.append(index)
        if step.message is None:
            continue
        receiver = boards.get(step.message.receiver, nobody)
        receiver.receiving.append(index)
        receiver.concerning.append(index)
        if step.actor == HOST:
            receiver.queueing.append(index)
        for name in step.message.places:
            boards.get(name, nobody).carrying.append(index)
    for board in boards.values():
        if board.passes_on:
            board.concerning.extend(board.carrying)
    return list(boards.values())


@dataclass(slots=True)
class Mean:
    """A mean that grows."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Times) -> None:
        """Take the values that are there (not NaN)."""
        there = values[~np.isnan(values)]
        self.total += float(there.sum())
        self.count += there.size

    @property
    def value(self) -> float:
        """The mean; NaN of nothing."""
        return self.total / self.count if self.count else float("nan")


class BoardStatistics:
    """Means over the images of what concerns one board, in ms."""

    def __init__(self, steps: BoardSteps) -> None:
        self.steps = steps
        self.send_done, self.busy, self.done = Mean(), Mean(), Mean()
        self.queue, self.wait = Mean(), Mean()

    def add(self, batch: Batch, ready: Times, queue: Times, busy: Times) -> None:
        """Take a batch, with the time each step was ready, queued, and the board computed."""
        steps, start = self.steps, batch.start_ms
        self.busy.add(busy)
        self.queue.add(queue[:, steps.queueing].sum(axis=1))
        ends = batch.ends_ms[:, steps.concerning]
        self.done.add(_last(ends) - start)
        concerned = union_ms(ready[:, steps.concerning], np.fmin(ends, batch.end_ms[:, None]))
        self.wait.add(batch.end_ms - start - concerned)
        if steps.receiving:
            self.send_done.add(np.fmin.reduce(batch.ends_ms[:, steps.receiving], axis=1) - start)


class Statistics:
    """Everything a result needs of the images so far; `exact` keeps each latency."""

    def __init__(self, job: Job, exact: bool) -> None:
        steps = job.steps
        self.job = job
        self.images = self.answered = 0
        self.last_ms = 0.0
        self.latency, self.compute, self.queue = Mean(), Mean(), Mean()
        self.boards = [BoardStatistics(each) for each in board_steps(job)]
        self.survivors: Counter[frozenset[str]] = Counter()
        self.done = np.zeros(len(steps), dtype=np.int64)
        self.held_ms = np.zeros(len(steps))
        self.wasted_ms = np.zeros(len(steps))
        self.wasted_work_ms = np.zeros(len(steps))
        self.wasted_wire_ms = np.zeros(len(steps))
        self.shared_busy_ms: dict[str, float] = {}
        self._latencies: list[Times] | None = [] if exact else None
        self._sketch = DDSketch(SKETCH_ERROR_PCT / 100)

    @property
    def percentile_error_pct(self) -> float:
        """How far off a percentile may be, in per cent of it."""
        return SKETCH_ERROR_PCT if self._latencies is None else 0.0

    def add(self, batch: Batch) -> None:
        """Take a batch of images."""
        ready = ready_ms(self.job, batch)
        self.images += len(batch.inferences)
        self.last_ms = max(
            self.last_ms,
            float(np.fmax.reduce(batch.ends_ms, axis=None, initial=0.0)),
            self._given_up_ms(batch),
        )
        self._add_steps(batch)
        self._add_boards(batch, ready)
        self._add_latencies(batch, ready)
        if self.job.students:
            self.survivors.update(survivors(self.job, batch, ready))

    def waste(self, step: int, start_ms: float, end_ms: float, work_ms: float) -> None:
        """Take a try of `step` that broke off, with `work_ms` done in vain."""
        self.last_ms = max(self.last_ms, end_ms)
        self.wasted_ms[step] += end_ms - start_ms
        self.wasted_work_ms[step] += work_ms
        self.wasted_wire_ms[step] += on_wire_ms(self.job.steps[step], end_ms - start_ms)

    def percentiles(self) -> tuple[float, ...]:
        """Return the latencies that 50, 95 and 99 % of the answers do not exceed; NaN of none."""
        if not self.answered:
            return (float("nan"),) * len(PERCENTILES)
        if self._latencies is not None:
            return tuple(np.percentile(np.concatenate(self._latencies), PERCENTILES).tolist())
        return tuple(self._sketch.get_quantile_value(each / 100) or 0.0 for each in PERCENTILES)

    def _given_up_ms(self, batch: Batch) -> float:
        """Return until when the host waited for the last image: at least until it came."""
        deadlines_ms = [step.deadline_ms or 0.0 for step in self.job.steps]
        lost = np.isnan(batch.end_ms)
        return float((batch.start_ms + max(deadlines_ms) * lost).max(initial=0.0))

    def _add_steps(self, batch: Batch) -> None:
        held = batch.frees_ms - batch.starts_ms
        there = ~np.isnan(held)
        self.done += there.sum(axis=0)
        self.held_ms += held.sum(axis=0, where=there)

    def _add_boards(self, batch: Batch, ready: Times) -> None:
        queue = batch.starts_ms - ready
        queue[np.isnan(queue)] = 0.0
        longest = np.zeros(len(batch.inferences))
        for board in self.boards:
            starts = batch.starts_ms[:, board.steps.computing]
            frees = batch.frees_ms[:, board.steps.computing]
            busy = union_ms(starts, frees)
            board.add(batch, ready, queue, busy)
            if not self.job.waits_for_all:  # what goes on after the answer made nobody wait
                busy = union_ms(starts, np.fmin(frees, batch.end_ms[:, None]))
            longest = np.fmax(longest, busy)
        self.compute.add(np.where(np.isnan(batch.end_ms), np.nan, longest))

    def _add_latencies(self, batch: Batch, ready: Times) -> None:
        there = ~np.isnan(batch.end_ms)
        latencies = (batch.end_ms - batch.start_ms)[there]
        self.answered += latencies.size
        self.latency.add(latencies)
        self.queue.add(queueing_ms(self.job, batch, ready, np.flatnonzero(there)))
        if self._latencies is not None:
            self._latencies.append(latencies)
        else:
            _sketch(self._sketch, latencies)


def union_ms(starts: Times, ends: Times) -> Times:
    """Return how long at least one of a row's intervals lasts; NaN where none is there.

    Intervals of which an end is NaN are not there; one that ends before it starts counts nothing.
    """
    if starts.shape[1] == 1:  # the usual case
        alone: Times = np.maximum(ends[:, 0] - starts[:, 0], 0.0)
        return alone
    missing = np.isnan(starts) | np.isnan(ends)
    if missing.any():
        starts, ends = np.where(missing, np.inf, starts), np.where(missing, -np.inf, ends)
    if (starts[:, 1:] < starts[:, :-1]).any():
        order = np.argsort(starts, axis=1, kind="stable")
        starts, ends = (np.take_along_axis(each, order, axis=1) for each in (starts, ends))
    until = np.maximum.accumulate(ends, axis=1)
    since = starts.copy()
    since[:, 1:] = np.maximum(starts[:, 1:], until[:, :-1])
    covered = np.maximum(ends - since, 0.0).sum(axis=1)
    return np.where(missing.all(axis=1), np.nan, covered)


def queueing_ms(job: Job, batch: Batch, ready: Times, rows: NDArray[np.int64]) -> Times:
    """Return, for the images `rows`, the waiting for resources on the way to the answer.

    That way goes back from the answer: each time to the step whose end let the next one begin.
    """
    queue = np.zeros(len(batch.inferences))
    way = {job.answer: rows} if rows.size else {}
    while way:
        step = max(way)
        here = way.pop(step)
        began = ready[here, step]
        queue[here] += batch.starts_ms[here, step] - began
        left = np.ones(here.size, dtype=bool)
        for earlier in job.steps[step].after:
            if not left.any():
                break
            last = left & (batch.ends_ms[here, earlier] == began)
            if last.any():
                left &= ~last
                way[earlier] = np.concatenate([way.get(earlier, here[:0]), here[last]])
    return queue[rows]


def survivors(job: Job, batch: Batch, ready: Times) -> Counter[frozenset[str]]:
    """Count the images by the students whose features are in the answer (none, if it is lost)."""
    used = {job.answer: ~np.isnan(batch.end_ms)}
    for index in range(job.answer - 1, -1, -1):
        ways = [
            used[follower] & (batch.ends_ms[:, index] <= ready[:, follower])
            for follower in job.followers[index]
            if follower in used
        ]
        if ways:
            used[index] = np.logical_or.reduce(ways)
    nobody = np.zeros(len(batch.inferences), dtype=bool)
    brought = np.stack([used.get(index, nobody) for index in job.students], axis=1)
    if brought.all():
        return Counter({_names(job, [True] * len(job.students)): len(brought)})
    counts: Counter[frozenset[str]] = Counter()
    for row, count in Counter(map(bytes, brought)).items():
        counts[_names(job, row)] += count
    return counts


def _names(job: Job, brought: Iterable[int]) -> frozenset[str]:
    """Return the students of the replies that were brought."""
    replies = zip(job.students.values(), brought, strict=True)
    return frozenset(name for names, there in replies if there for name in names)


def _last(times: Times) -> Times:
    last: Times = np.fmax.reduce(times, axis=1)
    return last


def _sketch(sketch: DDSketch, latencies: Times) -> None:
    """Put latencies into a sketch, those that fall into one of its bins in one go.

    A bin of the sketch holds what has the same logarithm, rounded up, to (1 + error)/(1 - error).
    """
    positive = latencies[latencies > 0]
    if zeros := latencies.size - positive.size:
        sketch.add(0.0, zeros)
    error = SKETCH_ERROR_PCT / 100
    bins = np.ceil(np.log(positive) / np.log((1 + error) / (1 - error)))
    _, first, counts = np.unique(bins, return_index=True, return_counts=True)
    for value, count in zip(positive[first].tolist(), counts.tolist(), strict=True):
        sketch.add(value, count)
