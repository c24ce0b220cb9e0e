"""The recurrence in compiled code: the same times as in Python, to the last bit.

This module loads numba and is itself loaded only where a long run pays for it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import NonnError
from simulator.engine.kernel import NumberStream
from simulator.results.image_sums import (
    BY_STEP,
    IS_KEPT,
    QUANTITIES,
    WIDTH,
    add_images,
    kept_on_disk,
    part,
)
from simulator.results.recording import TraceBatch, brought_names
from simulator.results.statistics import LANES, Recorder, Statistics
from simulator.task_graph import Step, TaskGraph

Floats = NDArray[np.float64]

BLOCK_VALUES = 2**18
"""How many values of one kind are computed before they are added up: 2 MiB."""

_NONE = np.nan


def flat_lists(lists: Iterable[Iterable[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lists in one array: list i is items[begins[i]:begins[i + 1]]; begins, and items."""
    made = [list(each) for each in lists]
    begins = np.cumsum([0, *map(len, made)], dtype=np.int64)
    return begins, np.array([item for each in made for item in each], dtype=np.int64)


class CompiledSums:
    """Adds images to statistics in compiled code."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        graph, boards = statistics.graph, [board.steps for board in statistics.boards]
        kinds = ("computing", "queueing", "concerning", "receiving")
        of_boards = (getattr(board, kind) for kind in kinds for board in boards)
        after = (step.after for step in graph.steps)
        lists = flat_lists([*after, *graph.followers, *of_boards, graph.students])
        needed = np.array([step.needed for step in graph.steps], dtype=np.int64)
        deadlines = [step.deadline_ms for step in graph.steps]
        due_ms = np.array([_NONE if each is None else each for each in deadlines])
        form = (graph.sink, len(boards), graph.waits_for_all, graph.delays)
        self._plan = (*lists, needed, due_ms, form)
        rows = (BY_STEP - 3) * len(needed) + QUANTITIES + len(statistics.sums.totals) + 4
        self._rows = np.full((rows, WIDTH), _NONE)
        self._sorting = np.empty((2, 1 + sum(len(step.after) + 1 for step in graph.steps)))

    def add(self, batch: TraceBatch) -> None:
        """Take all images of a batch."""
        statistics, students = self._statistics, self._statistics.graph.students
        latencies_ms = np.empty(len(batch.inferences))
        brought = np.zeros((len(latencies_ms), len(students)), dtype=np.uint8)
        image_ms, sums = (batch.start_ms, batch.end_ms), statistics.sums
        times, scratch = _matrices(batch), (self._rows, self._sorting)
        first, found = statistics.images % LANES, (latencies_ms, brought)
        last_ms = add_images(
            *self._plan, image_ms, times, scratch, first, (sums.totals, sums.counts), found
        )
        answered = ~np.isnan(latencies_ms)
        if students:
            if statistics.graph.waits_for_all:
                brought[answered] = 1
            self._count(brought)
        statistics.count(len(answered), last_ms, latencies_ms[answered])

    def _count(self, brought: NDArray[np.uint8]) -> None:
        """Count survivors; after the first image with all of them, such are counted at once."""
        survivors, graph = self._statistics.survivors, self._statistics.graph
        everybody = brought_names(graph, [True] * len(graph.students))
        if brought.all():
            survivors[everybody] += len(brought)
            return
        if everybody in survivors:
            whole = brought.all(axis=1)
            survivors[everybody] += int(whole.sum())
            brought = brought[~whole]
        for row, count in Counter(map(bytes, brought)).items():
            survivors[brought_names(graph, row)] += count


def _matrices(batch: TraceBatch) -> tuple[Floats, Floats, Floats]:
    return batch.starts_ms, batch.frees_ms, batch.ends_ms


class TraceBlocks:
    """Blocks of images that become known, kept whole if the recorder keeps them."""

    def __init__(self, recorder: Recorder, images: int) -> None:
        self.block = max(1, BLOCK_VALUES // len(recorder.graph.steps))
        self._recorder, self._sums = recorder, CompiledSums(recorder.statistics)
        rows = images if recorder.keeps else min(images, self.block)
        steps = len(recorder.graph.steps)
        ends_ms = np.empty((rows, steps))
        self._batch = TraceBatch(
            inferences=np.arange(rows),
            start_ms=np.empty(rows),
            end_ms=np.empty(rows),
            starts_ms=np.empty((rows, steps)),
            frees_ms=np.empty((rows, steps)) if recorder.graph.delays else ends_ms,
            ends_ms=ends_ms,
        )
        recorder.keep(self._batch)

    def at(self, first: int, count: int) -> TraceBatch:
        """Room for images from `first` on."""
        first = first if self._recorder.keeps else 0
        columns = (getattr(self._batch, name) for name in TraceBatch.__slots__)
        return TraceBatch(*(column[first : first + count] for column in columns))

    def done(self, batch: TraceBatch) -> None:
        """Add up a block that is filled."""
        self._sums.add(batch)
        self._recorder.tell()


def is_loaded() -> bool:
    """Whether everything is compiled, or found on disk, in this process."""
    return bool(_pass.signatures)


def is_kept() -> bool:
    """Whether there is a place where numba keeps what it compiles."""
    return IS_KEPT


def load() -> bool:
    """Whether a run of one image, which compiles or finds everything, succeeds.

    It may fail in many ways: a file that is cut off, a folder that cannot be read any more.
    """
    graph = TaskGraph((Step("one", "compute", ("one.cpu",), 1.0),), 0)
    row: RecurrenceRow = (0, (1,), 1, (0,), 1.0, 0.0, None)
    try:
        run_recurrence([row], None, 1, 1, Recorder(graph, "totals"))
    except NonnError:  # somebody stops the program
        raise
    except Exception:  # errors of numba and of its cache share no other base
        return False
    return True


RecurrenceRow = tuple[int, Sequence[int], int, Sequence[int], float, float, Iterator[Floats] | None]
"""A step: its index, what it waits for and how many of it, its resources, ms, and draws if any."""


def run_recurrence(
    rows: Sequence[RecurrenceRow],
    arrivals: Iterator[Floats] | None,
    images: int,
    resources: int,
    recorder: Recorder,
) -> None:
    """Let image after image pass through `rows`, the steps in their order.

    A step may wait for step number `steps`: that is the image's start.
    """
    graph = recorder.graph
    blocks = TraceBlocks(recorder, images)
    lists = flat_lists([*(row[1] for row in rows), *(row[3] for row in rows)])
    streams = [NumberStream(row[6]) for row in rows if row[6] is not None]
    kinds = np.array([_kind(row) for row in rows])
    needed = np.array([row[2] for row in rows])
    places = np.array([(row[0], row[1][0], *_first_and_last(row[3])) for row in rows], np.uint64)
    times_ms = np.array([(row[4], row[5]) for row in rows])
    came = None if arrivals is None else NumberStream(arrivals)
    free_ms, ends_ms = np.zeros(resources), np.zeros(len(rows) + 1)
    longest = max(len(row[1]) for row in rows)
    for first in range(0, images, blocks.block):
        batch = blocks.at(first, min(blocks.block, images - first))
        count = len(batch.inferences)
        if came is not None:
            batch.start_ms[:] = came.take(count)
        draws = np.zeros((len(streams), 2, count))
        for place, stream in enumerate(streams):
            draws[place] = stream.take(count)
        _pass(
            *lists,
            kinds,
            needed,
            places,
            times_ms,
            draws,
            (came is None, graph.sink, graph.delays),
            (batch.start_ms, batch.end_ms),
            _matrices(batch),
            free_ms,
            ends_ms,
            np.empty(longest),
        )
        blocks.done(batch)


def _kind(row: RecurrenceRow) -> int:
    """Kind of a step, by what `_pass` must do for it."""
    plain = len(row[1]) == 1 and row[5] == 0 and row[6] is None and 1 <= len(row[3]) <= 2
    return len(row[3]) - 1 if plain else 2 if row[6] is None else 3


def _first_and_last(resources: Sequence[int]) -> tuple[int, int]:
    return (resources[0], resources[-1]) if resources else (0, 0)


@kept_on_disk
def _pass(  # type: ignore[no-untyped-def]
    begins,
    items,
    kinds,
    needed,
    places,
    times_ms,
    draws,
    form,
    image_ms,
    times,
    free,
    ends,
    sorting,
):
    """Let images pass through all steps, one after the other."""
    closed, sink, delays = form
    (start_ms, end_ms), (starts_ms, frees_ms, ends_ms) = image_ms, times
    number = len(kinds)
    for image in range(len(start_ms)):
        if closed:
            start_ms[image] = ends[sink]
        ends[number] = start_ms[image]
        draw = 0
        for row in range(number):
            step, hold, delay = places[row, 0], times_ms[row, 0], 0.0
            if kinds[row] < 2:
                start, resource = ends[places[row, 1]], places[row, 2]
                start = free[resource] if start < free[resource] else start
                through = start + hold
                if kinds[row]:
                    other = places[row, 3]
                    start = free[other] if start < free[other] else start
                    through = start + hold
                    free[other] = through
                free[resource] = through
            else:
                delay = times_ms[row, 1]
                if kinds[row] == 3:
                    hold, delay = draws[draw, 0, image], draws[draw, 1, image]
                    draw += 1
                start = _gathered(begins, items, row, needed[row], ends, sorting)
                start = _queued(begins, items, number + row, free, start)
                through = start + hold
                for place in range(begins[number + row], begins[number + row + 1]):
                    free[items[place]] = through
            starts_ms[image, step] = start
            if delays:
                frees_ms[image, step] = through
            ends_ms[image, step] = ends[step] = through + delay
        end_ms[image] = ends[sink]


@part
def _queued(begins, items, row, free, start):  # type: ignore[no-untyped-def]
    """Time at which the resources are free, too."""
    for place in range(begins[row], begins[row + 1]):
        until = free[items[place]]
        start = until if start < until else start
    return start


@part
def _gathered(begins, items, row, needed, ends, sorting):  # type: ignore[no-untyped-def]
    """Time at which so many of those before a step have ended."""
    begin, end = begins[row], begins[row + 1]
    found = ends[items[begin]]
    if needed == end - begin:
        for place in range(begin + 1, end):
            found = max(found, ends[items[place]])
        return found
    for place in range(end - begin):
        ended, at = ends[items[begin + place]], place
        while at and sorting[at - 1] > ended:
            sorting[at] = sorting[at - 1]
            at -= 1
        sorting[at] = ended
    return sorting[needed - 1]
