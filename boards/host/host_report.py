"""The report of the host: accuracy, latency and missing students, also by image."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from operator import eq
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from boards.host.inference import Answer, BoardTiming
from nonn_common.document import Record
from nonn_core.class_accuracy import UNANSWERED, ClassAccuracy, class_accuracies

if TYPE_CHECKING:
    from boards.host.session import HostImage

_COLUMNS = ("image", "class", "label", "total_ms", "missing")


class Percentiles(Record):
    """A time in ms: its median and its upper percentiles."""

    p50_ms: float = Field(ge=0, description="Median.")
    p95_ms: float = Field(ge=0, description="95th percentile.")
    p99_ms: float = Field(ge=0, description="99th percentile.")


class BoardReport(Record):
    """One board, over all images that it answered."""

    board: str = Field(description="Name of the board.")
    wire: str = Field(description="frames or standard; empty where it is not connected.")
    answered: int = Field(ge=0, description="Images that it answered in time.")
    sent_ms: Percentiles | None = Field(description="Until the image had been handed to it.")
    waited_ms: Percentiles | None = Field(description="In the worker's queue, as it says.")
    computed_ms: Percentiles | None = Field(description="Computing, as the worker says.")
    replied_ms: Percentiles | None = Field(description="Until its features were there.")


class HostReport(Record):
    """All images of one run."""

    images: int = Field(ge=0, description="Images that were sent out.")
    unanswered: int = Field(ge=0, description="Of these, images that no student answered.")
    incomplete: int = Field(ge=0, description="Images of which some, not all, students answered.")
    accuracy_pct: float | None = Field(
        description="Images whose class was named, in percent of those with a known class; one "
        "that no student answered counts as wrong.  Null where no class is known."
    )
    class_accuracy: tuple[ClassAccuracy, ...] = Field(
        default=(),
        description="Accuracy of each class, and what it was taken for; empty where no class is "
        "known.",
    )
    total_ms: Percentiles | None = Field(
        description="From taking an image up to its logits, of images that any student answered."
    )
    throughput_per_s: float = Field(ge=0, description="Images answered per second.")
    missing: dict[str, int] = Field(description="How many images each student was missing at.")
    reasons: dict[str, str] = Field(description="Why a student was missing, most often.")
    boards: tuple[BoardReport, ...] = Field(
        description="The boards, in the sending order; those of later plans behind."
    )
    plans: tuple[str, ...] = Field(
        default=(), description="What became of the plans that came while images went."
    )


class AnswerLog:
    """A log of answers, with a few figures of each."""

    def __init__(self, boards: Sequence[str], class_names: Sequence[str]) -> None:
        self._boards = boards
        self._class_names = class_names
        self._rows: list[tuple[str, str, str, float, str]] = []
        self._labels: list[int] = []
        self._named: list[int] = []
        self._unanswered = self._incomplete = 0
        self._answered_ms: list[float] = []
        self._timings: dict[str, list[BoardTiming]] = defaultdict(list)
        self._missing: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, image: "HostImage", answer: Answer, students: int) -> None:
        """Note one answer."""
        unanswered = len(answer.missing) == students
        (label,) = answer.labels
        self._unanswered += unanswered
        self._incomplete += bool(answer.missing) and not unanswered
        if not unanswered:
            self._answered_ms.append(answer.total_ms)
        if image.label is not None:
            self._labels.append(image.label)
            self._named.append(UNANSWERED if unanswered else label)
        for timing in answer.timings:
            self._timings[timing.board].append(timing)
        for student, why in answer.missing.items():
            self._missing[student][why] += 1
        known = "" if image.label is None else self._class_names[image.label]
        named = "" if unanswered else self._class_names[label]
        self._rows.append((image.title, named, known, answer.total_ms, " ".join(answer.missing)))

    def report(self, seconds: float, protocols: Mapping[str, str]) -> HostReport:
        """Sum up what took `seconds` in all, of all boards that answered, or are connected."""
        boards = dict.fromkeys((*self._boards, *self._timings, *protocols))
        images, known = len(self._rows), len(self._labels)
        right = sum(map(eq, self._labels, self._named))
        return HostReport(
            images=images,
            unanswered=self._unanswered,
            incomplete=self._incomplete,
            accuracy_pct=100 * right / known if known else None,
            class_accuracy=class_accuracies(self._class_names, self._labels, self._named)
            if known
            else (),
            total_ms=percentiles(self._answered_ms),
            throughput_per_s=(images - self._unanswered) / seconds if seconds > 0 else 0.0,
            missing={student: whys.total() for student, whys in self._missing.items()},
            reasons={s: whys.most_common(1)[0][0] for s, whys in self._missing.items()},
            boards=tuple(self._board(board, protocols.get(board, "")) for board in boards),
        )

    def csv(self) -> str:
        """Return a CSV line for each image: name, predicted class, label, ms, missing students."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for title, named, known, total_ms, missing in self._rows:
            writer.writerow((title, named, known, f"{total_ms:.3f}", missing))
        return stream.getvalue()

    def _board(self, board: str, wire: str) -> BoardReport:
        timings = self._timings[board]
        return BoardReport(
            board=board,
            wire=wire,
            answered=len(timings),
            sent_ms=percentiles([each.sent_ms for each in timings]),
            waited_ms=percentiles([each.waited_ms for each in timings]),
            computed_ms=percentiles([each.computed_ms for each in timings]),
            replied_ms=percentiles([each.replied_ms for each in timings]),
        )


def percentiles(times_ms: Sequence[float | None]) -> Percentiles | None:
    """Return the percentiles of those times that are known; None without any."""
    known = [each for each in times_ms if each is not None]
    if not known:
        return None
    p50, p95, p99 = np.percentile(known, (50, 95, 99))
    return Percentiles(p50_ms=float(p50), p95_ms=float(p95), p99_ms=float(p99))
