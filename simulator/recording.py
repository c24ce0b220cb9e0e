"""A recording: when each step of each image was ready, began, was through and ended.

One row per image and one column per step, so that a million images are a few arrays; the tidy
tables of `trace` are written from them when somebody asks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulator.job import Job, Step
from simulator.trace import InferenceRow, IntervalRow, MessageRow

Times = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Images as rows, in the order in which nothing more could happen to them; NaN: never.

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
class Break:
    """A try of a step that a failure broke off, with `done_ms` of its work done in vain."""

    inference: int
    step: int
    start_ms: float
    end_ms: float
    done_ms: float


class Recording:
    """All images of one run, by number, and the tries that failed."""

    def __init__(self, job: Job, batches: Sequence[Batch], breaks: Sequence[Break]) -> None:
        self.job, self.breaks = job, tuple(breaks)
        self.batch = _joined(batches)

    @cached_property
    def ready_ms(self) -> Times:
        """When each step was ready, as a matrix of images and steps."""
        return ready_ms(self.job, self.batch)

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
        batch, steps = self.batch, self.job.steps
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
        step = self.job.steps[index]
        resource = step.resources[0] if step.resources else ""
        return IntervalRow(
            image, step.actor, step.activity, start, end, ready, resource, index, lost
        )


def ready_ms(job: Job, batch: Batch) -> Times:
    """Return when each step was ready (images x steps): the end of the last one it needed.

    NaN where that never happened.
    """
    ready = np.empty_like(batch.ends_ms)
    shapes: dict[tuple[int, int], list[int]] = {}
    for index, step in enumerate(job.steps):
        shapes.setdefault((len(step.after), step.needed), []).append(index)
    for (count, needed), members in shapes.items():
        if not count:
            ready[:, members] = batch.start_ms[:, None]
            continue
        after = np.array([job.steps[index].after for index in members])
        if count == 1:
            ready[:, members] = batch.ends_ms[:, after[:, 0]]
            continue
        came = batch.ends_ms[:, after]
        if needed == count:
            ready[:, members] = came.max(axis=2)
        else:  # NaN sorts last
            ready[:, members] = np.partition(came, needed - 1, axis=2)[:, :, needed - 1]
    for index, step in enumerate(job.steps):
        if step.deadline_ms is not None:
            ready[:, index] = np.fmin(ready[:, index], batch.start_ms + step.deadline_ms)
    return ready


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return all batches as one, sorted by the number of the image."""
    names = Batch.__slots__
    columns = {name: np.concatenate([getattr(each, name) for each in batches]) for name in names}
    order = np.argsort(columns["inferences"], kind="stable")
    if (order[1:] > order[:-1]).all():
        return Batch(**columns)
    return Batch(**{name: column[order] for name, column in columns.items()})


def _entries(
    where: NDArray[np.bool_], by: Times, tables: tuple[Times, Times, Times]
) -> Iterator[tuple[int, int, float, float, float]]:
    """Yield image, step and three values for each place that is true, in the order of `by`."""
    images, steps = np.nonzero(where)
    order = np.argsort(by[images, steps], kind="stable")
    images, steps = images[order], steps[order]
    values = (table[images, steps].tolist() for table in tables)
    return zip(images.tolist(), steps.tolist(), *values, strict=True)


def _tries(step: Step, held_ms: float) -> int:
    """Return how often a message was sent that held its resources for so long."""
    retry_ms = step.transit.retry_ms
    if not retry_ms or step.service != "constant":
        return 1
    return 1 + round((held_ms - step.duration_ms) / retry_ms)
