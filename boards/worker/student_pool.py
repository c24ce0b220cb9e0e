"""The students of one board: each computes one request at a time, several at once.

As many requests as the queue holds are in the worker at once, those that are computed counted; one
more is refused, so that a board that is too slow says so instead of falling behind without end.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Protocol

import numpy as np

from boards.protocol.frames import Features, RefusalReason, RequestRefused, Values
from boards.worker.model_runtime import LoadedModel
from nonn_common.errors import InputError

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


class StudentPool:
    """The loaded models of a worker, of which any may be asked from any thread.

    `at_least_ms` holds a student's answers until so long after its computation began: a slower
    board's.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        queue: int = 64,
        at_least_ms: Mapping[str, float] | None = None,
        observer: RequestObserver | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._model_locks = {model.name: threading.Lock() for model in models}
        self._at_least_ns = {name: int(ms * 1e6) for name, ms in (at_least_ms or {}).items()}
        self._observer = observer or NullObserver()
        self._queue = queue
        self._admitted = 0
        self._draining = False
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._executor = ThreadPoolExecutor(len(models), thread_name_prefix="student")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the students, in the order in which they were asked for."""
        return tuple(self._models)

    @property
    def inside(self) -> int:
        """Requests that wait or are computed now."""
        return self._admitted

    @property
    def ready(self) -> bool:
        """Whether requests are taken; not any more once the worker drains."""
        return not self._draining

    def model(self, name: str) -> LoadedModel:
        """Return one student; raises RequestRefused where the board does not have it."""
        if name not in self._models:
            known = ", ".join(self._models)
            raise RequestRefused(
                RefusalReason.NOT_FOUND, f"no model {name!r} here; here are: {known}"
            )
        return self._models[name]

    def answer(self, names: Sequence[str], images: Values) -> Features:
        """Features of these students for `(n, ...)` images, side by side: `(n, values)`.

        Raises RequestRefused: for images of another shape or not finite, for an unknown student, a
        full queue, or a worker that drains.
        """
        models = [self.model(name) for name in names]
        batch = _flattened(images, models)
        self._admit()
        try:
            return self._run(models[0], batch) if len(models) == 1 else self._run_all(models, batch)
        finally:
            self._leave()

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

    def _run_all(self, models: Sequence[LoadedModel], images: Values) -> Features:
        """Compute several students' answers at once."""
        began_ns = time.perf_counter_ns()
        first, *others = models
        running = [self._executor.submit(self._run, model, images) for model in others]
        answers = [self._run(first, images), *(each.result() for each in running)]
        spent_ns = time.perf_counter_ns() - began_ns
        waited_ns = max(answer.waited_ns for answer in answers)
        values = np.concatenate([answer.values for answer in answers], axis=1)
        return Features(values, waited_ns, spent_ns - waited_ns)

    def _run(self, model: LoadedModel, images: Values) -> Features:
        """Compute one student's answer when its turn comes."""
        asked_ns = time.perf_counter_ns()
        with self._model_locks[model.name]:
            began_ns = time.perf_counter_ns()
            values = _compute(model, images)
            if hold_ns := self._at_least_ns.get(model.name):
                left_ns = began_ns + hold_ns * len(images) - time.perf_counter_ns()
                time.sleep(max(0, left_ns) / 1e9)
            computed_ns = time.perf_counter_ns() - began_ns
        self._observer.observe(model.name, began_ns - asked_ns, computed_ns)
        return Features(values.reshape(len(images), -1), began_ns - asked_ns, computed_ns)


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
