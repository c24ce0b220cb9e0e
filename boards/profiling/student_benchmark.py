"""The benchmark of whole students: alone, on several threads, and several at once.

The model is that of a device profile, compute_ms = fixed + per_mmac * macs / 1e6, fitted over
relative errors: digits students take a hundredth of the time of those for CIFAR, and count alike.
Students that were held out show how far it is off, family by family.  Several students at once cost
a factor on the sum of what each takes alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from boards.profiling.benchmark_model import BenchmarkModel, random_pixels
from boards.profiling.stopwatch import Stopwatch, TimedTask, Timing, drift_pct
from boards.worker.model_runtime import Batch, LoadedModel
from boards.worker.student_pool import StudentPool
from nonn_common import Progress, silent
from nonn_core.networks.blueprint import ImageShape
from profiles import Quantity
from profiles.fitting import Fit, relative_fit

_DRIFT_SHARE = 0.1

MODELS_PER_THREAD_COUNT = 4
"""Students that are timed on each number of threads."""
MAX_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class StudentTime:
    """A student and how long it took."""

    student: BenchmarkModel
    timing: Timing


@dataclass(frozen=True, slots=True)
class StudentTimes:
    """Times of all students, and the drift of the first from begin to end."""

    rows: tuple[StudentTime, ...]
    drift_pct: float


@dataclass(frozen=True, slots=True)
class ComputeModel:
    """The two figures of time of a device."""

    fixed_ms: Quantity
    ms_per_mmac: Quantity

    def ms(self, macs: int) -> float:
        """Return the time of one student, in ms."""
        return self.fixed_ms.value + self.ms_per_mmac.value * macs / 1e6

    def error_pct(self, row: StudentTime) -> float:
        """Relative error of a student's fitted time, in percent."""
        return 100 * (self.ms(row.student.macs) / row.timing.ms - 1)


@dataclass(frozen=True, slots=True)
class FamilyError:
    """Errors, in absolute value, on students of one family and image size."""

    kind: str
    held_out: bool
    students: int
    mean_pct: float
    largest_pct: float


def measure_students(
    students: Sequence[BenchmarkModel],
    models: Sequence[LoadedModel],
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> StudentTimes:
    """Time each student alone, as the worker runs it."""
    tasks = student_tasks(students, models)
    first = {students[0].name: tasks[students[0].name]}
    for task in tasks.values():
        task()  # The first answer of a model takes its memory.
    before = watch.timed("students", first, _DRIFT_SHARE * seconds)
    timed = watch.timed("students", tasks, seconds, progress)
    after = watch.timed("students", first, _DRIFT_SHARE * seconds)
    name = students[0].name
    return StudentTimes(
        rows=tuple(StudentTime(student, timed[student.name]) for student in students),
        drift_pct=drift_pct(before[name], after[name]),
    )


def student_tasks(
    students: Sequence[BenchmarkModel], models: Sequence[LoadedModel]
) -> Mapping[str, TimedTask]:
    """Make a timed task of each student, which computes one image."""
    pool = StudentPool(models)
    pixels = {student.image: random_pixels(1, student.image) for student in students}
    return {student.name: _student_task(pool, student, pixels) for student in students}


def compute_model(rows: Sequence[StudentTime]) -> ComputeModel:
    """Fit the figures to the students that are not held out."""
    fitted = [row for row in rows if not row.student.held_out]
    fit = relative_fit(
        {"fixed": [1.0] * len(fitted), "mmac": [row.student.macs / 1e6 for row in fitted]},
        [row.timing.ms for row in fitted],
    )
    note = f"{len(fitted)} students of {', '.join(dict.fromkeys(r.student.kind for r in fitted))}"
    return ComputeModel(_measured(fit, "fixed", note), _measured(fit, "mmac", note))


def family_errors(rows: Sequence[StudentTime], model: ComputeModel) -> tuple[FamilyError, ...]:
    """Return errors on students that were fitted and on those held out, family by family."""
    groups: dict[tuple[str, bool], list[float]] = {}
    for row in rows:
        key = row.student.kind, row.student.held_out
        groups.setdefault(key, []).append(abs(model.error_pct(row)))
    return tuple(
        FamilyError(kind, held_out, len(errors), sum(errors) / len(errors), max(errors))
        for (kind, held_out), errors in groups.items()
    )


def held_out_errors_pct(rows: Sequence[StudentTime], model: ComputeModel) -> tuple[float, ...]:
    """Return the error on each student that was held out, in absolute value."""
    return tuple(abs(model.error_pct(row)) for row in rows if row.student.held_out)


def _measured(fit: Fit, name: str, source: str) -> Quantity:
    return fit.quantity(name, source).model_copy(update={"provenance": "measured"})


def _student_task(
    pool: StudentPool, student: BenchmarkModel, pixels: Mapping[ImageShape, Batch]
) -> TimedTask:
    images = pixels[student.image]
    return lambda: pool.answer([student.name], images).computed_ns / 1e6


ModelLoader = Callable[[Sequence[str], int], Sequence[LoadedModel]]
"""Loads models by name, on so many threads."""


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """Students on so many threads: their time beside that on one thread, geometric mean."""

    threads: int
    ratio: float


def measure_threads(
    students: Sequence[BenchmarkModel],
    load: ModelLoader,
    counts: Sequence[int],
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> tuple[ThreadTime, ...]:
    """Time some students on each number of threads, of which the first is one."""
    chosen = students[:: max(1, len(students) // MODELS_PER_THREAD_COUNT)][:MODELS_PER_THREAD_COUNT]
    names = [student.name for student in chosen]
    tasks = {
        (count, name): task
        for count in counts
        for name, task in student_tasks(chosen, load(names, count)).items()
    }
    labelled = {f"{count} {name}": task for (count, name), task in tasks.items()}
    timed = watch.timed("threads", labelled, seconds, progress)
    return tuple(
        ThreadTime(
            count,
            float(
                np.exp(
                    np.mean(
                        [
                            np.log(timed[f"{count} {name}"].ms / timed[f"{counts[0]} {name}"].ms)
                            for name in names
                        ]
                    )
                )
            ),
        )
        for count in counts
    )


def thread_counts(cores: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... and the number of cores."""
    doubled = [1 << power for power in range(cores.bit_length()) if 1 << power <= cores]
    return tuple(dict.fromkeys((*doubled, cores)))


@dataclass(frozen=True, slots=True)
class Sharing:
    """Students at once: their time together, and the sum of their times alone."""

    students: int
    together_ms: float
    summed_ms: float

    @property
    def factor(self) -> float:
        """Below 1 where there are processors to spare."""
        return self.together_ms / self.summed_ms


def measure_sharing(
    models: Sequence[LoadedModel],
    images: Batch,
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> tuple[Sharing, ...]:
    """Time 2, 3, ... models at once as the worker runs them, and each alone."""
    pool = StudentPool(models)
    groups = [tuple(pool.names[:count]) for count in range(2, len(models) + 1)]
    alone = {name: (name,) for name in pool.names}
    tasks = {
        " ".join(names): _asking(pool, names, images, watch) for names in (*alone.values(), *groups)
    }
    timed = watch.timed("several at once", tasks, seconds, progress)
    return tuple(
        Sharing(len(names), timed[" ".join(names)].ms, sum(timed[name].ms for name in names))
        for names in groups
    )


def sharing_figure(rows: Sequence[Sharing]) -> Quantity:
    """Return the one factor that is nearest to all rows, each counting alike."""
    fit = relative_fit(
        {"factor": [row.summed_ms for row in rows]}, [row.together_ms for row in rows]
    )
    counts = ", ".join(str(row.students) for row in rows)
    return fit.quantity("factor", f"{counts} students at once in one worker").model_copy(
        update={"provenance": "measured"}
    )


def _asking(pool: StudentPool, names: Sequence[str], images: Batch, watch: Stopwatch) -> TimedTask:
    return lambda: watch.once(lambda: pool.answer(names, images))
