"""One image on its way: who still owes what, and the answer when enough is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from boards.host.connection import Request
from boards.host.task import Task
from boards.protocol.frames import Features, Values


class BoardTiming(NamedTuple):
    """When one board did what, in ms since the host took the image up.

    How long the image waited and was computed is None where the board's server does not say.
    """

    board: str
    sent_ms: float
    replied_ms: float
    waited_ms: float | None
    computed_ms: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the host says to one request of `n` images."""

    number: int
    logits: Values
    missing: Mapping[str, str]
    """Students whose features were taken as zero, and why."""
    total_ms: float
    timings: tuple[BoardTiming, ...]

    @property
    def labels(self) -> list[int]:
        """Class of each image."""
        return [int(label) for label in np.argmax(self.logits, axis=1)]


@dataclass(slots=True)
class Pending:
    """A request that is not answered yet.  Times are of `time.perf_counter_ns`."""

    request: Request
    started_ns: int
    tasks: Mapping[str, Task]
    spared: set[str] = field(default_factory=set)
    """Boards that were not sent the images, but can be if others fail."""
    owed: dict[str, int] = field(default_factory=dict)
    """Boards that were sent the images and may still answer, and when that was done."""
    features: dict[str, Values] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)
    timings: list[BoardTiming] = field(default_factory=list)
    failed: bool = False
    """Whether any board will not answer."""

    def not_sent(self, board: str, why: str) -> None:
        """Note that a board was not sent the images, or that its answer will not come."""
        self.owed.pop(board, None)
        self.failed = True
        for student in self.tasks[board].students:
            self.why_not.setdefault(student, f"{board}: {why}")

    def replied(self, board: str, features: Features, now_ns: int, *, timed: bool) -> None:
        """Take a board's features; the first of replicas count."""
        sent_ns = self.owed.pop(board)
        start = 0
        for model in self.tasks[board].models:
            width = len(model.filters)
            self.features.setdefault(model.name, features.values[:, start : start + width])
            start += width
        self.timings.append(
            BoardTiming(
                board=board,
                sent_ms=(sent_ns - self.started_ns) / 1e6,
                replied_ms=(now_ns - self.started_ns) / 1e6,
                waited_ms=features.waited_ns / 1e6 if timed else None,
                computed_ms=features.computed_ns / 1e6 if timed else None,
            )
        )

    def enough(self, needed: int) -> bool:
        """Whether `needed` students answered, or no board can add one that is missing."""
        if len(self.features) >= needed:
            return True
        # Without a failure what is not there is still coming.
        return (self.failed or not self.owed) and not self._coming()

    def fallbacks(self) -> list[str]:
        """Return spared boards with a student that nobody else will answer."""
        coming = self._coming() | set(self.features)
        return [board for board in self.spared if not coming.issuperset(self._students(board))]

    def _coming(self) -> set[str]:
        """Return the students that did not answer and still may."""
        owed = {student for board in self.owed for student in self._students(board)}
        return owed - set(self.features)

    def _students(self, board: str) -> tuple[str, ...]:
        return self.tasks[board].students

    def missing(self, students: Sequence[str], otherwise: str) -> dict[str, str]:
        """Return the students that did not answer, and why; `otherwise` where it was not told."""
        return {
            student: self.why_not.get(student, otherwise)
            for student in students
            if student not in self.features
        }
