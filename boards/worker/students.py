"""The students of one board: each computes one request at a time, several of them at once.

As many requests as the queue holds are in the worker at once, those that are computed counted; one
more is refused, so that a board that is too slow says so instead of falling behind without end.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np

from boards.protocol.frames import Features, Values
from boards.protocol.refusal import Reason, RequestRefused
from boards.runtime.model import LoadedModel
from boards.worker.counts import Counts, Uncounted
from profiles.errors import InputError

log = logging.getLogger(__name__)

MOST_IMAGES = 1024
"""Images in one request."""


class Students:
    """The loaded models of a worker, of which any may be asked from any thread.

    `at_least_ms` holds a student's answers until so long after its computation began: a slower
    board's.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        queue: int = 64,
        at_least_ms: Mapping[str, float] | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._turns = {model.name: threading.Lock() for model in models}
        self._at_least_ns = {name: int(ms * 1e6) for name, ms in (at_least_ms or {}).items()}
        self._counts = counts or Uncounted()
        self._queue = queue
        self._inside = 0
        self._draining = False
        self._lock = threading.Lock()
        self._emptier = threading.Condition(self._lock)
        self._others = ThreadPoolExecutor(len(models), thread_name_prefix="student")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the students, in the order in which they were asked for."""
        return tuple(self._models)

    @property
    def inside(self) -> int:
        """Requests that wait or are computed now."""
        return self._inside

    @property
    def ready(self) -> bool:
        """Whether requests are taken; not any more once the worker drains."""
        return not self._draining

    def model(self, name: str) -> LoadedModel:
        """Return one student; raises RequestRefused where the board does not have it."""
        if name not in self._models:
            known = ", ".join(self._models)
            raise RequestRefused(Reason.NOT_FOUND, f"no model {name!r} here; here are: {known}")
        return self._models[name]

    def answer(self, names: Sequence[str], images: Values) -> Features:
        """Return what these students answer to `(n, ...)` images, side by side: `(n, values)`.

        Raises RequestRefused: for images of another shape or not finite, for an unknown student, a
        full queue, or a worker that drains.
        """
        models = [self.model(name) for name in names]
        batch = _checked(images, models)
        self._admit()
        try:
            return self._run(models[0], batch) if len(models) == 1 else self._joined(models, batch)
        finally:
            self._leave()

    def drain(self, seconds: float) -> bool:
        """Take no more requests, and wait until those inside are answered; whether they were."""
        with self._lock:
            self._draining = True
            return self._emptier.wait_for(lambda: not self._inside, seconds)

    def _admit(self) -> None:
        """Count a request in; raises RequestRefused."""
        with self._lock:
            if self._draining:
                raise RequestRefused(Reason.UNAVAILABLE, "the worker is about to end")
            if self._inside >= self._queue:
                raise RequestRefused(
                    Reason.RESOURCE_EXHAUSTED, f"{self._queue} requests wait already"
                )
            self._inside += 1

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._draining:
                self._emptier.notify_all()

    def _joined(self, models: Sequence[LoadedModel], images: Values) -> Features:
        """Compute several students' answers at once."""
        began_ns = time.perf_counter_ns()
        first, *others = models
        running = [self._others.submit(self._run, model, images) for model in others]
        answers = [self._run(first, images), *(each.result() for each in running)]
        spent_ns = time.perf_counter_ns() - began_ns
        waited_ns = max(answer.waited_ns for answer in answers)
        values = np.concatenate([answer.values for answer in answers], axis=1)
        return Features(values, waited_ns, spent_ns - waited_ns)

    def _run(self, model: LoadedModel, images: Values) -> Features:
        """Compute one student's answer when its turn comes."""
        asked_ns = time.perf_counter_ns()
        with self._turns[model.name]:
            began_ns = time.perf_counter_ns()
            values = _answer(model, images)
            if hold_ns := self._at_least_ns.get(model.name):
                left_ns = began_ns + hold_ns * len(images) - time.perf_counter_ns()
                time.sleep(max(0, left_ns) / 1e9)
            computed_ns = time.perf_counter_ns() - began_ns
        self._counts.observe(model.name, began_ns - asked_ns, computed_ns)
        return Features(values.reshape(len(images), -1), began_ns - asked_ns, computed_ns)


def _answer(model: LoadedModel, images: Values) -> Values:
    try:
        return model.answer(images.reshape(len(images), *model.reads.shape))
    except InputError as error:
        raise RequestRefused(Reason.INVALID_ARGUMENT, str(error)) from None
    except Exception as error:  # engines' errors share no other base
        log.exception("%s could not compute", model.name)
        raise RequestRefused(Reason.INTERNAL, f"{model.name} could not compute: {error}") from None


def _checked(images: Values, models: Sequence[LoadedModel]) -> Values:
    """Return the images as `(n, values)`; raises RequestRefused."""
    shape = models[0].reads.shape
    if any(model.reads.shape != shape for model in models):
        shapes = sorted({model.reads.shape for model in models})
        raise RequestRefused(
            Reason.INVALID_ARGUMENT, f"these students read images of different shapes: {shapes}"
        )
    if not 1 <= len(images) <= MOST_IMAGES:
        raise RequestRefused(
            Reason.INVALID_ARGUMENT, f"{len(images)} images; allowed: 1 to {MOST_IMAGES}"
        )
    if images.shape[1:] not in (shape, (prod(shape),)):
        raise RequestRefused(
            Reason.INVALID_ARGUMENT, f"images of shape {images.shape[1:]}; allowed: {shape}"
        )
    return images.reshape(len(images), -1)
