"""The students of one board: each computes one request at a time, several at once.

As many requests as the queue holds are in the worker at once, those that are computed counted; one
more is refused, so that a board that is too slow says so instead of falling behind without end.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np

from boards.protocol.frames import Features, RefusalReason, RequestRefused, Values
from boards.worker.model_runtime import Engine, LoadedModel
from nonn_common.errors import InputError
from nonn_core.export.bundle import Port

MAX_IMAGES = 1024
"""Images in one request."""


class RequestObserver(Protocol):
    """Observer of requests, called from any thread."""

    def count(self, protocol: str, outcome: str) -> None:
        """Note a request: over which protocol, and how it ended."""

    def observe(self, student: str, waited_ns: int, computed_ns: int) -> None:
        """Note how long one student's answer waited for its turn and was computed."""


class NullObserver:
    """An observer that keeps nothing."""

    def count(self, protocol: str, outcome: str) -> None:
        """Note nothing."""

    def observe(self, student: str, waited_ns: int, computed_ns: int) -> None:
        """Note nothing."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A name that may be asked for: a model's answer, or a student's part."""

    name: str
    answers: Port
    model: LoadedModel
    columns: slice

    @property
    def reads(self) -> Port:
        """Input port, without the batch."""
        return self.model.reads

    @property
    def engine(self) -> Engine:
        """Engine that computes it."""
        return self.model.engine

    @classmethod
    def of(cls, model: LoadedModel) -> "Iterator[ServedModel]":
        """Yield a model by its own name and, of a joint one, each student."""
        yield cls(model.name, model.answers, model, slice(None))
        start = 0
        for student in model.students:
            end = start + prod(student.answers.shape)
            yield cls(student.name, student.answers, model, slice(start, end))
            start = end


class StudentPool:
    """The loaded models of a worker, of which any may be asked from any thread.

    `at_least_ms` holds a student's answers until so long after its computation began: a slower
    board's; those of a joint model until the last one's time.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        queue: int = 64,
        at_least_ms: Mapping[str, float] | None = None,
        observer: RequestObserver | None = None,
    ) -> None:
        self._served = {one.name: one for model in models for one in ServedModel.of(model)}
        self._names = tuple(student for model in models for student in _students(model))
        self._model_locks = {model.name: threading.Lock() for model in models}
        at_least_ns = {name: int(ms * 1e6) for name, ms in (at_least_ms or {}).items()}
        self._hold_ns = {
            model.name: max(at_least_ns.get(name, 0) for name in _students(model))
            for model in models
        }
        self._observer = observer or NullObserver()
        self._queue = queue
        self._admitted = 0
        self._draining = False
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._executor = ThreadPoolExecutor(len(models), thread_name_prefix="student")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the students, those of one model side by side."""
        return self._names

    @property
    def inside(self) -> int:
        """Requests that wait or are computed now."""
        return self._admitted

    @property
    def ready(self) -> bool:
        """Whether requests are taken; not any more once the worker drains."""
        return not self._draining

    def has(self, name: str) -> bool:
        """Whether a student, or a joint model, of this name may be asked."""
        return name in self._served

    def model(self, name: str) -> ServedModel:
        """Return one student; raises RequestRefused where the board does not have it."""
        if name not in self._served:
            known = ", ".join(self._served)
            raise RequestRefused(
                RefusalReason.NOT_FOUND, f"no model {name!r} here; here are: {known}"
            )
        return self._served[name]

    def answer(self, names: Sequence[str], images: Values) -> Features:
        """Features of these students for `(n, ...)` images, side by side: `(n, values)`.

        A joint model runs once, however many of its students are asked for.

        Raises RequestRefused: for images of another shape or not finite, for an unknown student, a
        full queue, or a worker that drains.
        """
        asked = [self.model(name) for name in names]
        models = {one.model.name: one.model for one in asked}
        batch = _flattened(images, list(models.values()))
        self._admit()
        try:
            answers = self._run_all(models, batch)
        finally:
            self._leave()
        parts = [answers[one.model.name].values[:, one.columns] for one in asked]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        waited_ns = max(answer.waited_ns for answer in answers.values())
        done_ns = max(answer.waited_ns + answer.computed_ns for answer in answers.values())
        return Features(values, waited_ns, done_ns - waited_ns)

    def drain(self, seconds: float) -> bool:
        """Take no more requests, and wait until those inside are answered; whether they were."""
        with self._lock:
            self._draining = True
            return self._emptied.wait_for(lambda: not self._admitted, seconds)

    def _admit(self) -> None:
        """Count a request in; raises RequestRefused."""
        with self._lock:
            if self._draining:
                raise RequestRefused(RefusalReason.UNAVAILABLE, "the worker is about to end")
            if self._admitted >= self._queue:
                raise RequestRefused(
                    RefusalReason.RESOURCE_EXHAUSTED, f"{self._queue} requests wait already"
                )
            self._admitted += 1

    def _leave(self) -> None:
        with self._lock:
            self._admitted -= 1
            if self._draining:
                self._emptied.notify_all()

    def _run_all(self, models: Mapping[str, LoadedModel], images: Values) -> dict[str, Features]:
        """Compute the answers of all models at once, by their names."""
        first, *others = models
        running = {name: self._executor.submit(self._run, models[name], images) for name in others}
        answers = {first: self._run(models[first], images)}
        return answers | {name: each.result() for name, each in running.items()}

    def _run(self, model: LoadedModel, images: Values) -> Features:
        """Compute one model's answer when its turn comes."""
        asked_ns = time.perf_counter_ns()
        with self._model_locks[model.name]:
            began_ns = time.perf_counter_ns()
            values = _compute(model, images)
            if hold_ns := self._hold_ns[model.name]:
                left_ns = began_ns + hold_ns * len(images) - time.perf_counter_ns()
                time.sleep(max(0, left_ns) / 1e9)
            computed_ns = time.perf_counter_ns() - began_ns
        for student in _students(model):
            self._observer.observe(student, began_ns - asked_ns, computed_ns)
        return Features(values.reshape(len(images), -1), began_ns - asked_ns, computed_ns)


def _students(model: LoadedModel) -> tuple[str, ...]:
    """Names of a joint model's students; of any other, its own."""
    return tuple(student.name for student in model.students) or (model.name,)


def _compute(model: LoadedModel, images: Values) -> Values:
    try:
        return model.answer(images.reshape(len(images), *model.reads.shape))
    except InputError as error:
        raise RequestRefused(RefusalReason.INVALID_ARGUMENT, str(error)) from None
    except Exception as error:  # engines' errors share no other base
        log.exception("%s could not compute", model.name)
        raise RequestRefused(
            RefusalReason.INTERNAL, f"{model.name} could not compute: {error}"
        ) from None


def _flattened(images: Values, models: Sequence[LoadedModel]) -> Values:
    """Return the images as `(n, values)`; raises RequestRefused."""
    shape = models[0].reads.shape
    if any(model.reads.shape != shape for model in models):
        shapes = sorted({model.reads.shape for model in models})
        raise RequestRefused(
            RefusalReason.INVALID_ARGUMENT,
            f"these students read images of different shapes: {shapes}",
        )
    if not 1 <= len(images) <= MAX_IMAGES:
        raise RequestRefused(
            RefusalReason.INVALID_ARGUMENT, f"{len(images)} images; allowed: 1 to {MAX_IMAGES}"
        )
    if images.shape[1:] not in (shape, (prod(shape),)):
        raise RequestRefused(
            RefusalReason.INVALID_ARGUMENT, f"images of shape {images.shape[1:]}; allowed: {shape}"
        )
    return images.reshape(len(images), -1)
