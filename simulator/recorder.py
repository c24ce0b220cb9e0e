"""The recorder: what the paths through the simulator tell it of each image, it keeps or adds up."""

from array import array
from collections.abc import Callable
from typing import Literal

import numpy as np

from simulator.job import Job
from simulator.recording import Batch, Break, Recording, Times
from simulator.statistics import Statistics

Keep = Literal["all", "totals"]

Progress = Callable[[int], None]
"""Called with how many images are through, whenever some more are."""

BATCH_VALUES = 2**18
"""How many values of one kind wait until they are added up: 2 MiB."""


class Recorder:
    """Collects images; each batch goes into the statistics, and on if all is to be kept."""

    def __init__(self, job: Job, keep: Keep = "all", progress: Progress | None = None) -> None:
        self.job = job
        self.statistics = Statistics(job, exact=keep == "all")
        self.shared_busy_ms: dict[str, float] = {}
        self._keeps = keep == "all"
        self._progress = progress
        self._batches: list[Batch] = []
        self._breaks: list[Break] = []
        self._delays = job.delays
        self._most = max(1, BATCH_VALUES // len(job.steps))
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
        """Take an image to which nothing more can happen; NaN is the time of what did not."""
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
            self._breaks.append(Break(inference, step, start_ms, end_ms, done_ms))

    def finish(self) -> Recording | None:
        """Add up what still waits; return the recording, if it is kept."""
        if self._waiting:
            self._flush()
        self.statistics.shared_busy_ms = self.shared_busy_ms
        if not self._keeps:
            return None
        return Recording(self.job, self._batches, self._breaks)

    def _start_batch(self) -> None:
        self._waiting = 0
        self._images = array("d")
        self._starts, self._frees, self._ends = array("d"), array("d"), array("d")

    def _flush(self) -> None:
        inferences, start_ms, end_ms = self._matrix(self._images, 3).T
        ends_ms = self._matrix(self._ends, len(self.job.steps))
        batch = Batch(
            inferences=inferences.astype(np.int64),
            start_ms=start_ms,
            end_ms=end_ms,
            starts_ms=self._matrix(self._starts, len(self.job.steps)),
            frees_ms=self._matrix(self._frees, len(self.job.steps)) if self._delays else ends_ms,
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
