"""The engine: task graphs run in a scenario, by events or by a recurrence.

Both have a compiled way, too; here are the blocks of images that it fills and adds up.
"""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from simulator.native_code import Floats, Wholes, flat_lists
from simulator.results import image_sums as sums
from simulator.results.image_sums import BEGAN, BY_STEP, ENDED, ENDS, OWN_NUMBERS, WIDTH
from simulator.results.recording import TraceBatch, brought_names
from simulator.results.statistics import LANES, BoardStatistics, Recorder
from simulator.task_graph import TaskGraph

BLOCK_VALUES = 2**18
"""How many values of one kind are computed before Python sees to them: 2 MiB."""


class ImageBlocks:
    """Blocks of images that a kernel adds up, kept whole if the recorder keeps them."""

    def __init__(self, recorder: Recorder, images: int) -> None:
        graph, self._recorder, self._statistics = recorder.graph, recorder, recorder.statistics
        steps, boards = len(graph.steps), [board.steps for board in self._statistics.boards]
        self.block = max(1, BLOCK_VALUES // steps)
        self.numbers = np.zeros(OWN_NUMBERS + 32, dtype=np.int64)
        replies, quantities = len(graph.students), self._statistics.at_image + 2 + steps
        parts = (0, steps, graph.sink, len(boards), graph.waits_for_all, graph.delays, replies)
        self.numbers[:OWN_NUMBERS] = (*parts, quantities, recorder.keeps)
        kinds = ("computing", "queueing", "concerning", "receiving")
        of_boards = (getattr(board, kind) for kind in kinds for board in boards)
        after = (step.after for step in graph.steps)
        lists = flat_lists([*after, *graph.followers, *of_boards, graph.students])
        needed = np.array([step.needed for step in graph.steps], dtype=np.int64)
        self._brought = np.zeros((min(self.block, images), replies), dtype=np.int64)
        plan = _ready_at(graph), _pairs(graph, recorder)
        self.wholes = [*lists, needed, *plan, np.zeros(steps, np.int64), self._brought]
        due_ms = [np.nan if s.deadline_ms is None else s.deadline_ms for s in graph.steps]
        rows = BY_STEP * steps + sums.OF_IMAGE + sums.OF_BOARD * len(boards)
        longest = 1 + sum(len(step.after) + 1 for step in graph.steps)
        added, self._last_ms = self._statistics.sums, np.zeros(1)
        arrays = (np.array(due_ms, float), np.empty(longest), np.empty(longest))
        self._sums = [np.zeros((rows, WIDTH)), added.totals, added.counts, *arrays]
        self._batch = self._room(images if recorder.keeps else 0, steps, graph.delays)
        recorder.keep(self._batch)

    @staticmethod
    def _room(images: int, steps: int, delays: bool) -> TraceBatch:
        ends_ms = np.empty((images, steps))
        frees_ms = np.empty((images, steps)) if delays else ends_ms
        times = (np.empty(images), np.empty(images), np.empty((images, steps)), frees_ms, ends_ms)
        return TraceBatch(np.arange(images), *times)

    @property
    def next_lane(self) -> int:
        """Lane of the next image."""
        return self._statistics.images % LANES

    def inferences(self, first: int, count: int) -> Wholes:
        """Room for the numbers of images from `first` on, where all are kept."""
        return self._batch.inferences[first : first + count]

    def tables(self, first: int, count: int) -> list[Floats]:
        """Arrays of floats that a kernel fills for `count` images from `first` on."""
        batch, self._latencies_ms = self._batch, np.empty(count)
        columns = (batch.start_ms, batch.end_ms, batch.starts_ms, batch.frees_ms, batch.ends_ms)
        kept = (column[first : first + count] for column in columns)
        self._last_ms[0] = self.numbers[sums.DONE] = 0
        *added, sorting, beside = self._sums
        return [*added, sorting, self._latencies_ms, self._last_ms, *kept, beside]

    def done(self) -> None:
        """Take what a kernel found of the images that it added."""
        statistics, count = self._statistics, int(self.numbers[sums.DONE])
        latencies_ms = self._latencies_ms[:count]
        answered = ~np.isnan(latencies_ms)
        if statistics.graph.students:
            self._count(count, answered)
        latencies_ms = latencies_ms if answered.all() else latencies_ms[answered]
        statistics.count(count, float(self._last_ms[0]), latencies_ms)
        self._recorder.tell()

    def _count(self, count: int, answered: NDArray[np.bool_]) -> None:
        """Count survivors; after the first image with all of them, such are counted at once."""
        survivors, graph = self._statistics.survivors, self._statistics.graph
        everybody = brought_names(graph, [True] * len(graph.students))
        if graph.waits_for_all and answered.all():
            survivors[everybody] += count
            return
        brought = self._brought[:count].astype(np.uint8)
        if graph.waits_for_all:
            brought[:] = answered[:, None]
        if brought.all():
            survivors[everybody] += count
            return
        if everybody in survivors:
            whole = brought.all(axis=1)
            survivors[everybody] += int(whole.sum())
            brought = brought[~whole]
        for row, times in Counter(map(bytes, brought)).items():
            survivors[brought_names(graph, row)] += times


def _ready_at(graph: TaskGraph) -> Wholes:
    """For each step, the row of its ready times; its own, if still unknown."""
    steps = len(graph.steps)
    rows = []
    for index, step in enumerate(graph.steps):
        row = sums.READY * steps + index
        if step.deadline_ms is None and len(step.after) <= 1:
            row = ENDS * steps + step.after[0] if step.after else BY_STEP * steps + BEGAN
        rows.append(row)
    return np.array(rows, dtype=np.int64)


def _pairs(graph: TaskGraph, recorder: Recorder) -> Wholes:
    """For each quantity, the two rows whose difference it is."""
    steps = len(graph.steps)
    image, freed = BY_STEP * steps, (sums.FREES if graph.delays else ENDS) * steps
    began, zero = image + BEGAN, image + sums.ZERO
    pairs: list[tuple[int, int]] = []
    for number, board in enumerate(recorder.statistics.boards):
        at = image + sums.OF_IMAGE + sums.OF_BOARD * number
        ends = []
        for found, row in (("receiving", sums.FIRST), ("concerning", sums.FINISHED)):
            those = getattr(board.steps, found)
            ends.append((ENDS * steps + those[0] if len(those) == 1 else at + row, began))
        waits = (image + sums.LATENCY, at + sums.CONCERNED)
        rows = ends[0], (at + sums.BUSY, zero), ends[1], (at + sums.QUEUED, zero), waits
        pairs.extend(rows)
        if len(rows) != len(BoardStatistics.QUANTITIES):
            raise AssertionError("compiled sums and those of numpy have different layouts")
    pairs += [(image + ENDED, began), (image + sums.LONGEST, zero)]
    pairs += [(freed + step, step) for step in range(steps)]
    return np.array(pairs, dtype=np.int64)
