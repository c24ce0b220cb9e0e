"""A run of all benchmarks on this machine, with the real runtime and worker.

In the order in which it is measured: students one by one, messages, students on more threads,
several at once, layers, power.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from boards.profiling.benchmark_model import (
    IMAGES,
    TEACHERS,
    BenchmarkModel,
    benchmark_models,
    bundled_benchmark_models,
    random_pixels,
    write_benchmark_bundle,
)
from boards.profiling.layer_benchmark import LayerTimes, benchmark_layers, measure_layers
from boards.profiling.machine import MachineCondition, MachineInfo, machine_condition
from boards.profiling.message_benchmark import MessageTime, measure_messages
from boards.profiling.power_meter import GivenPower, PowerFigures, find_meter, measure_power
from boards.profiling.stopwatch import Stopwatch
from boards.profiling.student_benchmark import (
    MAX_AT_ONCE,
    ModelLoader,
    Sharing,
    StudentTimes,
    ThreadTime,
    measure_sharing,
    measure_students,
    measure_threads,
    student_tasks,
    thread_counts,
)
from boards.worker.model_runtime import Engine, LoadedModel, load_models
from nonn_common import Progress, silent
from nonn_common.errors import InputError
from nonn_core.export.bundle import ModelPrecision, read_bundle


@dataclass(frozen=True, slots=True)
class BenchmarkBudget:
    """Students in all (None: the usual number of each teacher), and seconds for each part.

    Layers are left out where they have none; the predictor of many boards then tells them.
    """

    students: int | None = None
    students_s: float = 45.0
    threads_s: float = 8.0
    sharing_s: float = 6.0
    messages_s: float = 10.0
    layers_s: float | None = 15.0
    power_s: float = 5.0


QUICK_BUDGET = BenchmarkBudget(
    students=3,
    students_s=6.0,
    threads_s=1.0,
    sharing_s=1.0,
    messages_s=2.0,
    layers_s=None,
    power_s=1.0,
)


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """Settings of a run: machine, models, and budget.

    `bundle` names students to be measured in place of those of `teachers` for `images`.
    """

    machine: MachineInfo
    precision: ModelPrecision = "fp32"
    engine: Engine | None = None
    threads: int = 1
    teachers: Sequence[str] = TEACHERS
    images: Sequence[str] = IMAGES
    bundle: Path | None = None
    power: GivenPower = field(default_factory=GivenPower)
    budget: BenchmarkBudget = field(default_factory=BenchmarkBudget)


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """Results of all benchmarks."""

    students: StudentTimes
    threads: tuple[ThreadTime, ...]
    sharing: tuple[Sharing, ...]
    messages: tuple[MessageTime, ...]
    layers: LayerTimes | None
    power: PowerFigures
    engine: Engine
    before: MachineCondition
    after: MachineCondition


def run_benchmarks(settings: BenchmarkSettings, progress: Progress = silent) -> BenchmarkResult:
    """Measure this machine.

    Raises InputError for what cannot be measured as it is wanted, BoardError where the worker does
    not serve.
    """
    watch, budget = Stopwatch(), settings.budget
    with _loading(settings, progress) as (students, load):
        models = load([student.name for student in students], settings.threads)
        before = machine_condition()
        times = measure_students(students, models, budget.students_s, watch, progress)
        after = machine_condition()
        counts = thread_counts(settings.machine.cores)
        largest = max(students, key=lambda student: student.macs)
        result = BenchmarkResult(
            students=times,
            messages=measure_messages(
                budget.messages_s, watch, engine=models[0].engine, progress=progress
            ),
            threads=measure_threads(students, load, counts, budget.threads_s, watch, progress),
            sharing=_sharing(students, models, budget.sharing_s, watch, progress),
            layers=_layers(settings, models[0].engine, watch, progress),
            power=measure_power(
                find_meter(),
                settings.power,
                student_tasks([largest], models)[largest.name],
                settings.threads,
                budget.power_s,
            ),
            engine=models[0].engine,
            before=before,
            after=after,
        )
        # The clock is compared beside the students; heat that comes later counts as well.
        return replace(result, after=after.until(machine_condition()))


@contextmanager
def _loading(
    settings: BenchmarkSettings, progress: Progress
) -> Iterator[tuple[tuple[BenchmarkModel, ...], ModelLoader]]:
    """Yield the benchmark models and their loader."""
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder:
        bundle = settings.bundle or Path(folder) / "bundle"

        def load(names: Sequence[str], threads: int) -> tuple[LoadedModel, ...]:
            return load_models(
                bundle, names, precision=settings.precision, engine=settings.engine, threads=threads
            )

        yield _benchmark_models(settings, bundle, progress), load


def _benchmark_models(
    settings: BenchmarkSettings, bundle: Path, progress: Progress
) -> tuple[BenchmarkModel, ...]:
    """Benchmark models, which are then in the bundle `place`."""
    if settings.bundle is not None:
        return bundled_benchmark_models(read_bundle(settings.bundle), str(settings.bundle))
    if settings.engine == "ncnn":
        raise InputError(
            "models for ncnn are not made here",
            where="--engine",
            found="ncnn",
            fix="export a run with --ncnn on another machine, and give that as --bundle",
        )
    students = benchmark_models(settings.teachers, settings.images, most=settings.budget.students)
    write_benchmark_bundle(bundle, students, settings.precision, progress=progress)
    return students


def _layers(
    settings: BenchmarkSettings, engine: Engine, watch: Stopwatch, progress: Progress
) -> LayerTimes | None:
    """Measure single layers, which are made as ONNX models."""
    seconds = settings.budget.layers_s
    if seconds is None or engine != "onnxruntime":
        return None
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder:
        bundle = Path(folder) / "layers"
        return measure_layers(
            bundle,
            benchmark_layers(),
            settings.precision,
            settings.threads,
            seconds,
            watch,
            progress,
        )


def _sharing(
    students: Sequence[BenchmarkModel],
    models: Sequence[LoadedModel],
    seconds: float,
    watch: Stopwatch,
    progress: Progress,
) -> tuple[Sharing, ...]:
    """Measure a few students at once, all of one image shape, as on one board."""
    same = [student for student in students if student.image == students[0].image]
    chosen = same[:: max(1, len(same) // MAX_AT_ONCE)][:MAX_AT_ONCE]
    names = {student.name for student in chosen}
    together = [model for model in models if model.name in names]
    images = random_pixels(1, students[0].image)
    return measure_sharing(together, images, seconds, watch, progress)
