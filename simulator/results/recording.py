"""A recording: when each step of each image was ready, began and ended.

One row per image and one column per step, so that a million images are a few arrays; the tidy
tables are written from them when somebody asks.

On a wire or on the air a message is in the last part of a try, behind the time of the software;
further tries follow `retry_ms` apart.  A failure that breaks them off ends the radio's draw where
it ends them: of a single try max(0, end - start - (duration - wire)) was on the wire.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from simulator.results.breakdown import InferenceRow, IntervalRow, MessageRow
from simulator.task_graph import HOST, Step, TaskGraph

Times = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TraceBatch:
    """Images as rows, in the order in which they were settled.

    NaN stands for what never happened.

    `start_ms` and `end_ms` are those of the image; the matrices have a column per step:
    `starts_ms` and `frees_ms` bound the time on its resources, at `ends_ms` its message is there.
    """

    inferences: Whole
    start_ms: Times
    end_ms: Times
    starts_ms: Times
    frees_ms: Times
    ends_ms: Times


@dataclass(frozen=True, slots=True)
class BrokenTry:
    """A try of a step that a failure broke off.

    `done_ms` of its work was done in vain.
    """

    inference: int
    step: int
    start_ms: float
    end_ms: float
    done_ms: float


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


class Recording:
    """All images of one run, by number, and the tries that failed."""

    def __init__(
        self, graph: TaskGraph, batches: Sequence[TraceBatch], breaks: Sequence[BrokenTry]
    ) -> None:
        self.graph, self.breaks = graph, tuple(breaks)
        self.batch = _joined(batches)

    @cached_property
    def ready_ms(self) -> Times:
        """When each step was ready, as a matrix of images and steps."""
        return ready_ms(self.graph, self.batch)

    @cached_property
    def inferences(self) -> tuple[InferenceRow, ...]:
        """One row per image."""
        batch = self.batch
        columns = (batch.inferences, batch.start_ms, batch.end_ms)
        return tuple(map(InferenceRow, *(column.tolist() for column in columns)))

    @cached_property
    def intervals(self) -> tuple[IntervalRow, ...]:
        """One row per step that was done and per try that failed, as they ended."""
        batch = self.batch
        done = ~np.isnan(batch.ends_ms)
        rows = [
            self._interval(image, index, start, end, ready, lost=False)
            for image, index, start, end, ready in _entries(
                done, batch.frees_ms, (batch.starts_ms, batch.frees_ms, self.ready_ms)
            )
        ]
        for each in self.breaks:
            ready = float(self.ready_ms[each.inference, each.step])
            rows.append(
                self._interval(
                    each.inference, each.step, each.start_ms, each.end_ms, ready, lost=True
                )
            )
        return tuple(sorted(rows, key=lambda row: row.end_ms) if self.breaks else rows)

    @cached_property
    def messages(self) -> tuple[MessageRow, ...]:
        """One row per message that came, as they came."""
        batch, steps = self.batch, self.graph.steps
        came = ~np.isnan(batch.ends_ms) & [step.message is not None for step in steps]
        rows = []
        for image, index, start, free, end in _entries(
            came, batch.ends_ms, (batch.starts_ms, batch.frees_ms, batch.ends_ms)
        ):
            if (message := steps[index].message) is not None:
                ends = message.sender, message.receiver, message.size_bytes
                tries = _tries(steps[index], free - start)
                rows.append(MessageRow(image, *ends, start, end, index, tries))
        return tuple(rows)

    def _interval(
        self, image: int, index: int, start: float, end: float, ready: float, lost: bool
    ) -> IntervalRow:
        step = self.graph.steps[index]
        resource = step.resources[0] if step.resources else ""
        return IntervalRow(
            image, step.actor, step.activity, start, end, ready, resource, index, lost
        )


class InferenceRows(Sequence[InferenceRow]):
    """Rows of the images of a recording, made when somebody looks at one."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __len__(self) -> int:
        return len(self._recording.batch.inferences)

    @overload
    def __getitem__(self, place: int) -> InferenceRow: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[InferenceRow, ...]: ...
    def __getitem__(self, place: int | slice) -> InferenceRow | tuple[InferenceRow, ...]:
        return self._recording.inferences[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self[:] == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def ready_ms(graph: TaskGraph, batch: TraceBatch) -> Times:
    """Time at which each step was ready (images x steps).

    It is the end of the last step that it needed.

    NaN where that never happened.
    """
    ready = np.empty_like(batch.ends_ms)
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, step in enumerate(graph.steps):
        shapes.setdefault((len(step.after), step.needed), []).append(index)
    for (count, needed), members in shapes.items():
        if not count:
            ready[:, members] = batch.start_ms[:, None]
            continue
        after = np.array([graph.steps[index].after for index in members])
        if count == 1:
            ready[:, members] = batch.ends_ms[:, after[:, 0]]
            continue
        came = batch.ends_ms[:, after]
        if needed == count:
            ready[:, members] = came.max(axis=2)
        else:  # NaN sorts last
            ready[:, members] = np.partition(came, needed - 1, axis=2)[:, :, needed - 1]
    for index, step in enumerate(graph.steps):
        if step.deadline_ms is not None:
            ready[:, index] = np.fmin(ready[:, index], batch.start_ms + step.deadline_ms)
    return ready


def _joined(batches: Sequence[TraceBatch]) -> TraceBatch:
    """All batches as one, sorted by the number of the image."""
    if len(batches) == 1 and (batches[0].inferences[1:] > batches[0].inferences[:-1]).all():
        return batches[0]
    names = TraceBatch.__slots__
    columns = {name: np.concatenate([getattr(each, name) for each in batches]) for name in names}
    order = np.argsort(columns["inferences"], kind="stable")
    if (order[1:] > order[:-1]).all():
        return TraceBatch(**columns)
    return TraceBatch(**{name: column[order] for name, column in columns.items()})


def _entries(
    where: NDArray[np.bool_], by: Times, tables: tuple[Times, Times, Times]
) -> Iterator[tuple[int, int, float, float, float]]:
    """Image, step and three values of each true place, ordered by `by`."""
    images, steps = np.nonzero(where)
    order = np.argsort(by[images, steps], kind="stable")
    images, steps = images[order], steps[order]
    values = (table[images, steps].tolist() for table in tables)
    return zip(images.tolist(), steps.tolist(), *values, strict=True)


def _tries(step: Step, held_ms: float) -> int:
    """Number of tries of a message that held its resources for `held_ms`."""
    retry_ms = step.transit.retry_ms
    if not retry_ms or step.service != "constant":
        return 1
    return 1 + round((held_ms - step.duration_ms) / retry_ms)


def union_ms(starts: Times, ends: Times) -> Times:
    """Time in which at least one of a row's intervals lasts.

    NaN where a row has none.

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
    covered = sum_columns(np.maximum(ends - since, 0.0))
    return np.where(missing.all(axis=1), np.nan, covered)


def sum_columns(values: Times) -> Times:
    """Sum of each row of `values`, from the first column to the last."""
    if values.shape[1] > len(values):  # the same additions in the same order
        return np.add.accumulate(values, axis=1)[:, -1]
    total = np.zeros(len(values))
    for column in values.T:
        total += column
    return total


def critical_path(
    graph: TaskGraph, batch: TraceBatch, ready: Times, rows: NDArray[np.int64]
) -> tuple[Times, Times, Times]:
    """Waits and times of the steps on the way to the answers; waits for deadlines.

    All in ms, as matrices of images and steps, 0 beside the way.  The way goes back from the
    answer: each time to the step whose end let the next one begin, or to the image's start where a
    deadline did.
    """
    waits, steps, due_ms = (np.zeros_like(ready) for _ in range(3))
    path = {graph.sink: rows} if rows.size else {}
    while path:
        step = max(path)
        here = path.pop(step)
        began, start = ready[here, step], batch.starts_ms[here, step]
        waits[here, step] = start - began
        steps[here, step] = batch.ends_ms[here, step] - start
        left = np.full(here.size, bool(graph.steps[step].after))
        for earlier in graph.steps[step].after:
            if not left.any():
                break
            last = left & (batch.ends_ms[here, earlier] == began)
            if last.any():
                left &= ~last
                path[earlier] = np.concatenate([path.get(earlier, here[:0]), here[last]])
        due_ms[here[left], step] = (began - batch.start_ms[here])[left]
    return waits, steps, due_ms


def survivors(graph: TaskGraph, batch: TraceBatch, ready: Times) -> Counter[frozenset[str]]:
    """Count the images by the students whose features are in the answer.

    A lost image has none.
    """
    used = {graph.sink: ~np.isnan(batch.end_ms)}
    for index in range(graph.sink - 1, -1, -1):
        ways = [
            used[follower] & (batch.ends_ms[:, index] <= ready[:, follower])
            for follower in graph.followers[index]
            if follower in used
        ]
        if ways:
            used[index] = np.logical_or.reduce(ways)
    nobody = np.zeros(len(batch.inferences), dtype=bool)
    brought = np.stack([used.get(index, nobody) for index in graph.students], axis=1)
    if brought.all():
        return Counter({brought_names(graph, [True] * len(graph.students)): len(brought)})
    counts: Counter[frozenset[str]] = Counter()
    for row, count in Counter(map(bytes, brought)).items():
        counts[brought_names(graph, row)] += count
    return counts


def brought_names(graph: TaskGraph, brought: Iterable[int]) -> frozenset[str]:
    """Students of the replies that were brought."""
    replies = zip(graph.students.values(), brought, strict=True)
    return frozenset(name for names, there in replies if there for name in names)


def on_wire(step: Step, held_ms: float) -> Iterator[tuple[float, float]]:
    """Times on the wire of a message that broke off after `held_ms`.

    In ms since its step began.
    """
    wire_ms, retry_ms = step.transit.wire_ms, step.transit.retry_ms
    if wire_ms is None:
        yield 0.0, held_ms
        return
    begin_ms = step.duration_ms - wire_ms
    while begin_ms < held_ms:
        yield begin_ms, min(begin_ms + wire_ms, held_ms)
        if not retry_ms:
            return
        begin_ms += retry_ms


def on_wire_ms(step: Step, held_ms: float) -> float:
    """Time on the wire of a message broken off after `held_ms`, in ms."""
    return sum(end - begin for begin, end in on_wire(step, held_ms))


def radio_part(step: Step, board: str) -> float:
    """Part of a message's time on the wire for which `board` draws."""
    if step.message is None or board not in step.message.places:
        return 0.0
    return dict(step.transit.radio_parts).get(board, 1.0)
