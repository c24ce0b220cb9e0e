"""Statistics: sums over images that make a result, added up batch by batch.

A recorder takes each image from the engine.  All that follows from the times of the steps is added
up, whether the recording is kept or not.  Only the percentiles differ: exact where latencies are
kept, else from a sketch (DDSketch, Masson et al. 2019) whose values are off by at most
`SKETCH_ERROR_PCT` of themselves.
"""

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from ddsketch import DDSketch

from simulator.results.recording import (
    BrokenTry,
    Recording,
    Times,
    TraceBatch,
    critical_path,
    on_wire_ms,
    ready_ms,
    survivors,
    union_ms,
)
from simulator.task_graph import HOST, TaskGraph

SKETCH_ERROR_PCT = 0.1
PERCENTILES = (50, 95, 99)

Steps = list[int]


@dataclass(frozen=True, slots=True)
class BoardSteps:
    """Steps that concern one board, by the statistics that they enter.

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


def board_steps(graph: TaskGraph) -> list[BoardSteps]:
    """Find the steps that concern each board of `graph`."""
    boards = {node.name: BoardSteps() for node in graph.nodes}
    nobody = BoardSteps()
    for index, step in enumerate(graph.steps):
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

    def add(self, batch: TraceBatch, ready: Times, queue: Times, busy: Times) -> None:
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

    def __init__(self, graph: TaskGraph, exact: bool) -> None:
        steps = graph.steps
        self.graph = graph
        self.images = self.answered = 0
        self.last_ms = 0.0
        self.latency, self.compute = Mean(), Mean()
        self.boards = [BoardStatistics(each) for each in board_steps(graph)]
        self.survivors: Counter[frozenset[str]] = Counter()
        self.done = np.zeros(len(steps), dtype=np.int64)
        self.held_ms = np.zeros(len(steps))
        self.wasted_ms = np.zeros(len(steps))
        self.wasted_work_ms = np.zeros(len(steps))
        self.wasted_wire_ms = np.zeros(len(steps))
        self.path_waits_ms = np.zeros(len(steps))
        self.path_steps_ms = np.zeros(len(steps))
        self.path_due_ms = 0.0
        self.shared_busy_ms: dict[str, float] = {}
        self._latencies: list[Times] | None = [] if exact else None
        self._sketch = DDSketch(SKETCH_ERROR_PCT / 100)

    @property
    def percentile_error_pct(self) -> float:
        """How far off a percentile may be, in per cent of it."""
        return SKETCH_ERROR_PCT if self._latencies is None else 0.0

    def add(self, batch: TraceBatch) -> None:
        """Take a batch of images."""
        ready = ready_ms(self.graph, batch)
        self.images += len(batch.inferences)
        self.last_ms = max(
            self.last_ms,
            float(np.fmax.reduce(batch.ends_ms, axis=None, initial=0.0)),
            self._given_up_ms(batch),
        )
        self._add_steps(batch)
        self._add_boards(batch, ready)
        self._add_latencies(batch, ready)
        if self.graph.students:
            self.survivors.update(survivors(self.graph, batch, ready))

    def waste(self, step: int, start_ms: float, end_ms: float, work_ms: float) -> None:
        """Take a try of `step` that broke off, with `work_ms` done in vain."""
        self.last_ms = max(self.last_ms, end_ms)
        self.wasted_ms[step] += end_ms - start_ms
        self.wasted_work_ms[step] += work_ms
        self.wasted_wire_ms[step] += on_wire_ms(self.graph.steps[step], end_ms - start_ms)

    def percentiles(self) -> tuple[float, ...]:
        """Latencies that 50, 95 and 99 % of answers do not exceed.

        NaN without any answer.
        """
        if not self.answered:
            return (float("nan"),) * len(PERCENTILES)
        if self._latencies is not None:
            return tuple(np.percentile(np.concatenate(self._latencies), PERCENTILES).tolist())
        return tuple(self._sketch.get_quantile_value(each / 100) or 0.0 for each in PERCENTILES)

    def _given_up_ms(self, batch: TraceBatch) -> float:
        """Time until which the host waited for the last image.

        At least until it came.
        """
        deadlines_ms = [step.deadline_ms or 0.0 for step in self.graph.steps]
        lost = np.isnan(batch.end_ms)
        return float((batch.start_ms + max(deadlines_ms) * lost).max(initial=0.0))

    def _add_steps(self, batch: TraceBatch) -> None:
        held = batch.frees_ms - batch.starts_ms
        there = ~np.isnan(held)
        self.done += there.sum(axis=0)
        self.held_ms += held.sum(axis=0, where=there)

    def _add_boards(self, batch: TraceBatch, ready: Times) -> None:
        queue = batch.starts_ms - ready
        queue[np.isnan(queue)] = 0.0
        longest = np.zeros(len(batch.inferences))
        for board in self.boards:
            starts = batch.starts_ms[:, board.steps.computing]
            frees = batch.frees_ms[:, board.steps.computing]
            busy = union_ms(starts, frees)
            board.add(batch, ready, queue, busy)
            if not self.graph.waits_for_all:  # what goes on after the answer made nobody wait
                busy = union_ms(starts, np.fmin(frees, batch.end_ms[:, None]))
            longest = np.fmax(longest, busy)
        self.compute.add(np.where(np.isnan(batch.end_ms), np.nan, longest))

    def _add_latencies(self, batch: TraceBatch, ready: Times) -> None:
        there = ~np.isnan(batch.end_ms)
        latencies = (batch.end_ms - batch.start_ms)[there]
        self.answered += latencies.size
        self.latency.add(latencies)
        waits_ms, steps_ms, due_ms = critical_path(self.graph, batch, ready, np.flatnonzero(there))
        self.path_waits_ms += waits_ms
        self.path_steps_ms += steps_ms
        self.path_due_ms += due_ms
        if self._latencies is not None:
            self._latencies.append(latencies)
        else:
            _sketch(self._sketch, latencies)


def _last(times: Times) -> Times:
    last: Times = np.fmax.reduce(times, axis=1)
    return last


def _sketch(sketch: DDSketch, latencies: Times) -> None:
    """Put latencies into a sketch, bin by bin.

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


Keep = Literal["all", "totals"]

ImageProgress = Callable[[int], None]
"""Called with how many images are through, whenever some more are."""

BATCH_VALUES = 2**18
"""How many values of one kind wait until they are added up: 2 MiB."""


class Recorder:
    """A recorder of images, which adds them up batch by batch."""

    def __init__(
        self, graph: TaskGraph, keep: Keep = "all", progress: ImageProgress | None = None
    ) -> None:
        self.graph = graph
        self.statistics = Statistics(graph, exact=keep == "all")
        self.shared_busy_ms: dict[str, float] = {}
        self._keeps = keep == "all"
        self._progress = progress
        self._batches: list[TraceBatch] = []
        self._breaks: list[BrokenTry] = []
        self._delays = graph.delays
        self._most = max(1, BATCH_VALUES // len(graph.steps))
        self._start_batch()

    def add(
        self,
        inference: int,
        start_ms: float,
        end_ms: float,
        starts_ms: list[float],
        frees_ms: list[float],
        ends_ms: list[float],
    ) -> None:
        """Take a settled image; NaN is the time of what never happened."""
        self._images.extend((inference, start_ms, end_ms))
        self._starts.fromlist(starts_ms)
        if self._delays:
            self._frees.fromlist(frees_ms)
        self._ends.fromlist(ends_ms)
        self._waiting += 1
        if self._waiting == self._most:
            self._flush()

    def broke(
        self, inference: int, step: int, start_ms: float, end_ms: float, done_ms: float
    ) -> None:
        """Take a try of a step that a failure broke off after `done_ms` of work."""
        self.statistics.waste(step, start_ms, end_ms, done_ms)
        if self._keeps:
            self._breaks.append(BrokenTry(inference, step, start_ms, end_ms, done_ms))

    def finish(self) -> Recording | None:
        """Add up what still waits; return the recording, if it is kept."""
        if self._waiting:
            self._flush()
        self.statistics.shared_busy_ms = self.shared_busy_ms
        if not self._keeps:
            return None
        return Recording(self.graph, self._batches, self._breaks)

    def _start_batch(self) -> None:
        self._waiting = 0
        self._images = array("d")
        self._starts, self._frees, self._ends = array("d"), array("d"), array("d")

    def _flush(self) -> None:
        inferences, start_ms, end_ms = self._matrix(self._images, 3).T
        ends_ms = self._matrix(self._ends, len(self.graph.steps))
        batch = TraceBatch(
            inferences=inferences.astype(np.int64),
            start_ms=start_ms,
            end_ms=end_ms,
            starts_ms=self._matrix(self._starts, len(self.graph.steps)),
            frees_ms=self._matrix(self._frees, len(self.graph.steps)) if self._delays else ends_ms,
            ends_ms=ends_ms,
        )
        self.statistics.add(batch)
        if self._keeps:
            self._batches.append(batch)
        if self._progress:
            self._progress(self.statistics.images)
        self._start_batch()

    @staticmethod
    def _matrix(values: "array[float]", columns: int) -> Times:
        matrix: Times = np.frombuffer(values).reshape(-1, columns)
        return matrix
