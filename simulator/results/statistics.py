"""Statistics: sums over images that make a result, added up batch by batch.

A recorder takes each image from the engine.  All that follows from the times of the steps is added
up, whether the recording is kept or not.  Only the percentiles differ: exact where latencies are
kept, else from a sketch (DDSketch, Masson et al. 2019) whose values are off by at most
`SKETCH_ERROR_PCT` of themselves.

A sum of floats depends on its order.  Here image i is added to lane i % LANES, image after image,
and the lanes are added at the end: so numpy and compiled code come to the same bits.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from ddsketch import DDSketch

from simulator.results.recording import (
    BoardSteps,
    BrokenTry,
    Recording,
    Times,
    TraceBatch,
    board_steps,
    critical_path,
    on_wire_ms,
    ready_ms,
    sum_columns,
    survivors,
    union_ms,
)
from simulator.task_graph import TaskGraph

SKETCH_ERROR_PCT = 0.1
PERCENTILES = (50, 95, 99)

LANES = 8
"""Sums side by side, as a processor's vector instructions add them."""


class LaneSums:
    """Sums over images, and numbers of values, of many quantities (quantities x lanes)."""

    def __init__(self, quantities: int) -> None:
        self.totals = np.zeros((quantities, LANES))
        self.counts = np.zeros((quantities, LANES))

    def add(self, first: int, at: int, values: Times) -> None:
        """Take values (images x quantities) of the images from `first` on.

        They are of the quantities from `at` on; NaN is no value.
        """
        images, quantities = values.shape
        lane = first % LANES
        there = ~np.isnan(values)
        lanes = np.zeros((1 - (-(lane + images) // LANES), LANES, quantities))
        lanes[0] = self.totals[at : at + quantities].T
        lanes[1:].reshape(-1, quantities)[lane : lane + images] = np.where(there, values, 0.0)
        self.totals[at : at + quantities] = np.add.accumulate(lanes, axis=0)[-1].T
        self.counts[at : at + quantities, 0] += there.sum(axis=0)

    def total(self, at: int) -> float:
        """Sum of one quantity."""
        return float(sum(self.totals[at].tolist()))

    def all_totals(self, at: range) -> Times:
        """Sums of the quantities at `at`."""
        return sum_columns(self.totals[at.start : at.stop])

    def count(self, at: int) -> int:
        """Number of values of one quantity."""
        return int(self.counts[at].sum())

    def mean(self, at: int) -> float:
        """Mean of one quantity; NaN of nothing."""
        count = self.count(at)
        return self.total(at) / count if count else float("nan")


class BoardStatistics:
    """Means over the images of what concerns one board, in ms; quantities from `at` on."""

    QUANTITIES = ("send_done", "busy", "done", "queue", "wait")

    def __init__(self, steps: BoardSteps, sums: LaneSums, at: int) -> None:
        self.steps, self._sums, self._at = steps, sums, at

    def mean_ms(self, quantity: str) -> float:
        """Mean of one quantity.

        Times since an image's start at which the first message to the board was there, and at which
        its last step had ended; times in which it computed, its steps waited for resources, and
        none of them was ready or under way.
        """
        return self._sums.mean(self._at + self.QUANTITIES.index(quantity))

    def quantities(self, batch: TraceBatch, ready: Times, queue: Times, busy: Times) -> list[Times]:
        """Values of a batch; `ready`, `queue` and `busy` are times of its steps."""
        steps, start = self.steps, batch.start_ms
        sent = np.full(len(start), np.nan)
        if steps.receiving:
            sent = np.fmin.reduce(batch.ends_ms[:, steps.receiving], axis=1) - start
        ends = batch.ends_ms[:, steps.concerning]
        done = np.fmax.reduce(ends, axis=1) - start
        queued = sum_columns(queue[:, steps.queueing])
        concerned = union_ms(ready[:, steps.concerning], np.fmin(ends, batch.end_ms[:, None]))
        return [sent, busy, done, queued, batch.end_ms - start - concerned]


class Statistics:
    """Everything a result needs of the images so far; `exact` keeps each latency."""

    def __init__(self, graph: TaskGraph, exact: bool) -> None:
        steps = graph.steps
        self.graph = graph
        self.images = 0
        self.last_ms = 0.0
        found = board_steps(graph)
        self.at_image = len(BoardStatistics.QUANTITIES) * len(found)
        self.sums = LaneSums(self.at_image + 2 + 4 * len(steps))
        self.boards = [
            BoardStatistics(each, self.sums, len(BoardStatistics.QUANTITIES) * place)
            for place, each in enumerate(found)
        ]
        self.survivors: Counter[frozenset[str]] = Counter()
        self.wasted_ms = np.zeros(len(steps))
        self.wasted_work_ms = np.zeros(len(steps))
        self.wasted_wire_ms = np.zeros(len(steps))
        self.shared_busy_ms: dict[str, float] = {}
        self._latencies: list[Times] | None = [] if exact else None
        self._bins = LatencyBins()

    @property
    def answered(self) -> int:
        """Number of images with an answer."""
        return self.sums.count(self.at_image)

    @property
    def latency_ms(self) -> float:
        """Mean latency of the answers."""
        return self.sums.mean(self.at_image)

    @property
    def compute_ms(self) -> float:
        """Mean time in which the board that computed longest did so, over the answers."""
        return self.sums.mean(self.at_image + 1)

    @property
    def path_waits_ms(self) -> Times:
        """Waits for resources on the way to the answers, by step."""
        return self.sums.all_totals(self._of_steps(1))

    @property
    def path_steps_ms(self) -> Times:
        """Times of the steps on the way to the answers."""
        return self.sums.all_totals(self._of_steps(2))

    @property
    def path_due_ms(self) -> float:
        """Waits for deadlines on the way to the answers."""
        return float(sum(self.sums.all_totals(self._of_steps(3)).tolist()))

    @property
    def held_ms(self) -> Times:
        """Time for which each step held its resources, of those that were done."""
        return self.sums.all_totals(self._of_steps(0))

    def done(self, step: int) -> int:
        """How often a step was done."""
        return self.sums.count(self._of_steps(0)[step])

    def done_ms(self, step: int) -> float:
        """Time for which a step held its resources."""
        return self.sums.total(self._of_steps(0)[step])

    @property
    def percentile_error_pct(self) -> float:
        """How far off a percentile may be, in per cent of it."""
        return SKETCH_ERROR_PCT if self._latencies is None else 0.0

    def add(self, batch: TraceBatch) -> None:
        """Take a batch of images."""
        ready = ready_ms(self.graph, batch)
        there = ~np.isnan(batch.end_ms)
        latencies = batch.end_ms - batch.start_ms
        path = critical_path(self.graph, batch, ready, np.flatnonzero(there))
        *of_boards, longest = self._of_boards(batch, ready)
        self.sums.add(self.images, 0, np.stack([*of_boards, latencies, longest], axis=1))
        by_step = np.concatenate([batch.frees_ms - batch.starts_ms, *path], axis=1)
        self.sums.add(self.images, self.at_image + 2, by_step)
        if self.graph.students:
            self.survivors.update(survivors(self.graph, batch, ready))
        last_ms = float(np.fmax.reduce(batch.ends_ms, axis=None, initial=0.0))
        self.count(len(there), max(last_ms, self._given_up_ms(batch)), latencies[there])

    def count(self, images: int, last_ms: float, latencies: Times) -> None:
        """Take images whose quantities are summed: until when they went on, and the answers'."""
        self.images += images
        self.last_ms = max(self.last_ms, last_ms)
        if self._latencies is not None:
            self._latencies.append(latencies)
        else:
            self._bins.add(latencies)

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
        sketch = self._bins.sketch()
        return tuple(sketch.get_quantile_value(each / 100) or 0.0 for each in PERCENTILES)

    def _of_steps(self, kind: int) -> range:
        """Places of one kind of quantity: held, and on the way: waits, steps, deadlines."""
        steps = len(self.graph.steps)
        at = self.at_image + 2 + kind * steps
        return range(at, at + steps)

    def _given_up_ms(self, batch: TraceBatch) -> float:
        """Time until which the host waited for the last image.

        At least until it came.
        """
        deadlines_ms = [step.deadline_ms or 0.0 for step in self.graph.steps]
        lost = np.isnan(batch.end_ms)
        return float((batch.start_ms + max(deadlines_ms) * lost).max(initial=0.0))

    def _of_boards(self, batch: TraceBatch, ready: Times) -> Iterator[Times]:
        """Yield the quantities of all boards, then the longest time that one computed."""
        queue = batch.starts_ms - ready
        queue[np.isnan(queue)] = 0.0
        longest = np.zeros(len(batch.inferences))
        for board in self.boards:
            starts = batch.starts_ms[:, board.steps.computing]
            frees = batch.frees_ms[:, board.steps.computing]
            busy = union_ms(starts, frees)
            yield from board.quantities(batch, ready, queue, busy)
            if not self.graph.waits_for_all:  # what goes on after the answer made nobody wait
                busy = union_ms(starts, np.fmin(frees, batch.end_ms[:, None]))
            longest = np.fmax(longest, busy)
        yield np.where(np.isnan(batch.end_ms), np.nan, longest)


class LatencyBins:
    """Bins of a sketch: how many latencies are in each, and the first of them.

    A bin holds what has the same logarithm, rounded up, to (1 + error)/(1 - error).
    """

    def __init__(self) -> None:
        self._zeros, self._least = 0, 0
        self._counts, self._firsts = np.zeros(0, np.int64), np.zeros(0)

    def add(self, latencies: Times) -> None:
        """Put latencies into their bins."""
        error = SKETCH_ERROR_PCT / 100
        positive = latencies[latencies > 0]
        self._zeros += latencies.size - positive.size
        if not positive.size:
            return
        bins = np.ceil(np.log(positive) / np.log((1 + error) / (1 - error))).astype(np.int64)
        self._reach(int(bins.min()), int(bins.max()))
        bins -= self._least
        firsts = np.zeros(self._counts.size)
        firsts[bins[::-1]] = positive[::-1]
        self._firsts = np.where(self._counts, self._firsts, firsts)
        self._counts += np.bincount(bins, minlength=self._counts.size)

    def sketch(self) -> DDSketch:
        """The sketch of all that was added."""
        sketch = DDSketch(SKETCH_ERROR_PCT / 100)
        if self._zeros:
            sketch.add(0.0, self._zeros)
        for place in np.flatnonzero(self._counts).tolist():
            sketch.add(float(self._firsts[place]), int(self._counts[place]))
        return sketch

    def _reach(self, least: int, most: int) -> None:
        if not self._counts.size:
            self._least = least
        more = max(0, self._least - least), max(0, most + 1 - self._least - self._counts.size)
        self._least -= more[0]
        self._counts, self._firsts = np.pad(self._counts, more), np.pad(self._firsts, more)


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
        self.keeps = keep == "all"
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
        if self.keeps:
            self._breaks.append(BrokenTry(inference, step, start_ms, end_ms, done_ms))

    def keep(self, batch: TraceBatch) -> None:
        """Keep a batch for the recording, if there is to be one."""
        if self.keeps:
            self._batches.append(batch)

    def tell(self) -> None:
        """Tell the caller how many images are through."""
        if self._progress:
            self._progress(self.statistics.images)

    def finish(self) -> Recording | None:
        """Add up what still waits; return the recording, if it is kept."""
        if self._waiting:
            self._flush()
        self.statistics.shared_busy_ms = self.shared_busy_ms
        if not self.keeps:
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
        self.keep(batch)
        self.tell()
        self._start_batch()

    @staticmethod
    def _matrix(values: "array[float]", columns: int) -> Times:
        matrix: Times = np.frombuffer(values).reshape(-1, columns)
        return matrix
