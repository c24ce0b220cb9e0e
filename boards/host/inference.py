"""One inference: which boards are outstanding, the joined features, and the answer.

The FC layer makes logits of the features that came, and imputes those of students without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boards.host.connection import BoardTask, Reply, Request
from boards.protocol.frames import Features, Values
from nonn_common.errors import InputError
from nonn_core.export.bundle import BundledModel, Manifest, read_bundled
from nonn_core.feature_layer import FeatureLayer

_MOST_LAYERS = 4096
"""Every set of twelve students."""
_CLOCK_DRIFT, _CLOCK_STEP_MS = 0.01, 1.0
"""How much faster than the host's a board's clock may run, and how coarse it may be."""


class FeatureClassifier:
    """The FC layer of a bundle."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Read the layer; raises InputError where the bundle has none or it is another one."""
        from safetensors.numpy import load

        if manifest.fc is None:
            raise InputError(
                "the bundle is of one network that answers by itself; there is nothing to join",
                where=str(folder),
                fix="export the run of a plan",
            )
        self._layer = FeatureLayer.from_tensors(load(read_bundled(folder, manifest.fc)))
        self._layers: dict[bytes, FeatureLayer] = {}
        """Layers of the sets that came so far, by their masks."""

    def logits(
        self, images: int, students: tuple[BundledModel, ...], features: Mapping[str, Values]
    ) -> Values:
        """Logits (images, classes); students that are not in `features` are imputed.

        They count as zero where the bundle does not say how.
        """
        joined = np.zeros((images, self._layer.weight.shape[1]), dtype=np.float32)
        came = np.zeros(joined.shape[1], dtype=np.bool_)
        for student in students:
            if student.name in features and student.fc_offset is not None:
                part = slice(student.fc_offset, student.fc_offset + len(student.filters))
                joined[:, part] = features[student.name]
                came[part] = True
        if came.all():
            return self._layer.logits(joined)
        key = came.tobytes()
        if key not in self._layers:
            if len(self._layers) >= _MOST_LAYERS:
                self._layers.clear()
            self._layers[key] = self._layer.of(came)
        return self._layers[key].logits(joined[:, came])


class BoardTiming(NamedTuple):
    """Times of one board, in ms since the host took the image up.

    How long the image waited and was computed is None where the board's server does not say.
    """

    board: str
    sent_ms: float
    replied_ms: float
    waited_ms: float | None
    computed_ms: float | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The host's answer to one request of `n` images."""

    number: int
    logits: Values
    missing: Mapping[str, str]
    """Students whose features were imputed or zero, and why."""
    total_ms: float
    timings: tuple[BoardTiming, ...]

    @property
    def labels(self) -> list[int]:
        """Class of each image."""
        return [int(label) for label in np.argmax(self.logits, axis=1)]


@dataclass(slots=True)
class PendingRequest:
    """A request that is not answered yet.  Times are of `time.perf_counter_ns`."""

    request: Request
    started_ns: int
    tasks: Mapping[str, BoardTask]
    standby: set[str] = field(default_factory=set)
    """Boards that were not sent the images, but can be if others fail."""
    outstanding: dict[str, int] = field(default_factory=dict)
    """Boards that were sent the images and may still answer, and when that was done."""
    features: dict[str, Values] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Boards that will not answer, and the first reason."""
    timings: list[BoardTiming] = field(default_factory=list)

    def mark_failed(self, board: str, reason: str) -> None:
        """Note that a board's answer will not come.

        Nor will those of boards that wait for its maps.
        """
        self.outstanding.pop(board, None)
        task = self.tasks[board]
        why = f"{board}, which computes G0: {reason}" if task.receivers else f"{board}: {reason}"
        self.failures.setdefault(board, reason)
        for student in task.students:
            self.reasons.setdefault(student, why)
        for fed in task.receivers:
            if fed.name in self.outstanding:
                del self.outstanding[fed.name]
                self.failures.setdefault(fed.name, reason)
            for student in self.tasks[fed.name].students:
                self.reasons.setdefault(student, why)

    def fault_of(self, reply: Reply, now_ns: int) -> str:
        """Reason why features cannot be what a board computed; nothing where they can."""
        features = reply.features
        if features is None:
            return reply.refusal
        if len(features.values) != len(self.request.images):
            return "answered another number of images"
        flat = features.values.reshape(-1)
        # The sum of squares is quicker; only where it is too large must each value be looked at.
        if not isfinite(flat.dot(flat)) and not np.isfinite(flat).all():
            return "answered a value that is no finite number"
        took_ms = (now_ns - self.started_ns) / 1e6
        claimed_ms = max(features.waited_ns, features.computed_ns) / 1e6 if reply.timed else 0.0
        if not claimed_ms <= took_ms * (1 + _CLOCK_DRIFT) + _CLOCK_STEP_MS:
            return f"says that it took {claimed_ms:g} ms; its answer was there in {took_ms:g} ms"
        return ""

    def add_reply(self, board: str, features: Features, now_ns: int, *, timed: bool) -> None:
        """Take a board's features; the first of replicas count."""
        sent_ns = self.outstanding.pop(board)
        start = 0
        task = self.tasks[board]
        for model in task.models if not task.receivers else ():
            width = len(model.filters)
            self.features.setdefault(model.name, features.values[:, start : start + width])
            start += width
        self.timings.append(
            BoardTiming(
                board,
                (sent_ns - self.started_ns) / 1e6,
                (now_ns - self.started_ns) / 1e6,
                features.waited_ns / 1e6 if timed else None,
                features.computed_ns / 1e6 if timed else None,
            )
        )

    def is_complete(self, needed: int) -> bool:
        """Whether `needed` students answered, or no board can add one that is missing."""
        if len(self.features) >= needed:
            return True
        # Without a failure what is not there is still coming.
        return bool(self.failures or not self.outstanding) and not self._still_expected()

    def fallbacks(self) -> list[str]:
        """Standby boards with a student that no other board will answer."""
        expected = self._still_expected() | set(self.features)
        return [board for board in self.standby if not expected.issuperset(self._students(board))]

    def _still_expected(self) -> set[str]:
        """Return the students that did not answer and still may."""
        outstanding = {student for board in self.outstanding for student in self._students(board)}
        return outstanding - set(self.features)

    def _students(self, board: str) -> tuple[str, ...]:
        return self.tasks[board].students

    def missing(self, students: Sequence[str], otherwise: str) -> dict[str, str]:
        """Missing students, each with a reason; `otherwise` where none is known.

        A board of G0 that has not answered is named: no other board could.
        """
        late = [board for board in self.outstanding if self.tasks[board].receivers]
        otherwise = f"{late[0]}, which computes G0: {otherwise}" if late else otherwise
        return {
            student: self.reasons.get(student, otherwise)
            for student in students
            if student not in self.features
        }
