"""The students of one board: each computes one request at a time, several at once.

As many requests as the queue holds are in the worker at once, those that are computed counted; one
more is refused, so that a board that is too slow says so instead of falling behind without end.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite, prod
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


@dataclass(frozen=True, slots=True)
class AskedStudents:
    """Students that are asked together, looked up once for all images of a connection."""

    students: tuple[ServedModel, ...]
    places: tuple["_ModelPlace", ...]
    """Their models, each once."""
    shapes: tuple[tuple[int, ...], ...]
    """Forms of an image: as the models read it, and flat."""
    whole: bool
    """Whether the one model's answer is the answer, as it is."""

    @property
    def width(self) -> int:
        """Values of the answer to an image."""
        return sum(prod(one.answers.shape) for one in self.students)


@dataclass(frozen=True, slots=True)
class _ModelPlace:
    """A loaded model, which computes one request at a time."""

    model: LoadedModel
    names: tuple[str, ...]
    """Its students."""
    hold_ns: int
    lock: threading.Lock


class StudentPool:
    """The loaded models of a worker, of which any may be asked from any thread.

    `at_least_ms` holds a student's answers until so long after their computation began: a slower
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
        at_least_ns = {name: int(ms * 1e6) for name, ms in (at_least_ms or {}).items()}
        self._places = {}
        for model in models:
            names = _students(model)
            hold_ns = max(at_least_ns.get(name, 0) for name in names)
            self._places[model.name] = _ModelPlace(model, names, hold_ns, threading.Lock())
        self._observer = None if isinstance(observer, NullObserver) else observer
        self._queue = queue
        self._admitted = 0
        self._draining = False
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._executor = ThreadPoolExecutor(len(models), thread_name_prefix="student")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the students, those of one model side by side."""
        return tuple(name for place in self._places.values() for name in place.names)

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

    def asked(self, names: Sequence[str]) -> AskedStudents:
        """Look these students up.

        Raises RequestRefused for an unknown one, and where they read images of different shapes.
        """
        students = tuple(self.model(name) for name in names)
        places = {one.model.name: self._places[one.model.name] for one in students}
        shapes = sorted({place.model.reads.shape for place in places.values()})
        if len(shapes) > 1:
            raise RequestRefused(
                RefusalReason.INVALID_ARGUMENT,
                f"these students read images of different shapes: {shapes}",
            )
        whole = len(students) == 1 and students[0].columns == slice(None)
        return AskedStudents(
            students, tuple(places.values()), (shapes[0], (prod(shapes[0]),)), whole
        )

    def answer(self, names: Sequence[str] | AskedStudents, images: Values) -> Features:
        """Features of these students for `(n, ...)` images, side by side: `(n, values)`.

        A joint model runs once, however many of its students are asked for.

        Raises RequestRefused: for images of another shape or not finite, for an unknown student, a
        full queue, or a worker that drains.
        """
        asked = names if isinstance(names, AskedStudents) else self.asked(names)
        count, shape = len(images), images.shape[1:]
        if not 1 <= count <= MAX_IMAGES or shape not in asked.shapes:
            raise _unreadable(images, asked)
        images = images.reshape(count, *asked.shapes[0])
        with self._lock:
            if self._draining or self._admitted >= self._queue:
                raise self._full()
            self._admitted += 1
        try:
            if asked.whole:
                return self._run(asked.places[0], images)
            first, *others = asked.places
            running = [self._executor.submit(self._run, place, images) for place in others]
            answers = [self._run(first, images), *(each.result() for each in running)]
            return _side_by_side(asked, answers)
        finally:
            self._leave()

    def bound(
        self, asked: AskedStudents, image: Values, features: Values
    ) -> Callable[[], tuple[int, int]] | None:
        """Computation of one image's `features`, in arrays that stay: ns waited, and computed.

        It is `answer` without what that makes for each request, and refuses as that does.  None
        where there is no such way: several models, an engine without it, figures, or a hold.
        """
        place = asked.places[0]
        if not asked.whole or place.hold_ns or self._observer is not None:
            return None
        compute = place.model.bind and place.model.bind(image, features)
        if compute is None:
            return None
        flat, clock = image.reshape(-1), time.perf_counter_ns

        def answered() -> tuple[int, int]:
            if not isfinite(flat.dot(flat)):
                found = self.answer(asked, image)
                features[:] = found.values
                return found.waited_ns, found.computed_ns
            asked_ns = clock()
            with self._lock:
                if self._draining or self._admitted >= self._queue:
                    raise self._full()
                self._admitted += 1
            try:
                with place.lock:
                    began_ns = clock()
                    compute()
                    return began_ns - asked_ns, clock() - began_ns
            except Exception as error:  # engines' errors share no other base
                raise _refusal(place.model.name, error) from None
            finally:
                self._leave()

        return answered

    def drain(self, seconds: float) -> bool:
        """Take no more requests, and wait until those inside are answered; whether they were."""
        with self._lock:
            self._draining = True
            return self._emptied.wait_for(lambda: not self._admitted, seconds)

    def _leave(self) -> None:
        with self._lock:
            self._admitted -= 1
            if self._draining:
                self._emptied.notify_all()

    def _full(self) -> RequestRefused:
        """Refusal of a request, whatever it is."""
        if self._draining:
            return RequestRefused(RefusalReason.UNAVAILABLE, "the worker is about to end")
        return RequestRefused(
            RefusalReason.RESOURCE_EXHAUSTED, f"{self._queue} requests wait already"
        )

    def _run(self, place: _ModelPlace, images: Values) -> Features:
        """Compute one model's answer when its turn comes."""
        asked_ns = time.perf_counter_ns()
        with place.lock:
            began_ns = time.perf_counter_ns()
            try:
                values = place.model.answer(images)
            except Exception as error:  # engines' errors share no other base
                raise _refusal(place.model.name, error) from None
            if place.hold_ns:
                left_ns = began_ns + place.hold_ns * len(images) - time.perf_counter_ns()
                time.sleep(max(0, left_ns) / 1e9)
            computed_ns = time.perf_counter_ns() - began_ns
        waited_ns = began_ns - asked_ns
        if self._observer is not None:
            for student in place.names:
                self._observer.observe(student, waited_ns, computed_ns)
        if values.ndim != 2:
            values = values.reshape(len(images), -1)
        return Features(values, waited_ns, computed_ns)


def _unreadable(images: Values, asked: AskedStudents) -> RequestRefused:
    """Refusal of images of another number or shape."""
    allowed = asked.shapes[0]
    if 1 <= len(images) <= MAX_IMAGES:
        text = f"images of shape {images.shape[1:]}; allowed: {allowed}"
    else:
        text = f"{len(images)} images; allowed: 1 to {MAX_IMAGES}"
    return RequestRefused(RefusalReason.INVALID_ARGUMENT, text)


def _refusal(model: str, error: Exception) -> RequestRefused:
    """Refusal for what a model's engine could not read, or compute."""
    if isinstance(error, InputError):
        return RequestRefused(RefusalReason.INVALID_ARGUMENT, str(error))
    log.error("%s could not compute", model, exc_info=error)
    return RequestRefused(RefusalReason.INTERNAL, f"{model} could not compute: {error}")


def _side_by_side(asked: AskedStudents, answers: Sequence[Features]) -> Features:
    """Join models' answers: the students' columns, and times from the first to the last."""
    found = {place.model.name: each for place, each in zip(asked.places, answers, strict=True)}
    parts = [found[one.model.name].values[:, one.columns] for one in asked.students]
    waited_ns = max(each.waited_ns for each in answers)
    done_ns = max(each.waited_ns + each.computed_ns for each in answers)
    return Features(np.concatenate(parts, axis=1), waited_ns, done_ns - waited_ns)


def _students(model: LoadedModel) -> tuple[str, ...]:
    """Names of a joint model's students; of any other, its own."""
    return tuple(student.name for student in model.students) or (model.name,)
