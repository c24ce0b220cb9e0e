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
from nonn_common.errors import InputError
from nonn_common.progress import Progress, silent
from nonn_core.export.bundle import ModelPrecision, read_bundle


@dataclass(frozen=True, slots=True)
class BenchmarkBudget:
    """Students of each teacher (None: the usual number), and seconds for each part.

    Layers are left out where they have none.
    """

    per_teacher: int | None = None
    students_s: float = 45.0
    threads_s: float = 8.0
    sharing_s: float = 6.0
    messages_s: float = 10.0
    layers_s: float | None = 15.0
    power_s: float = 5.0


QUICK_BUDGET = BenchmarkBudget(
    per_teacher=4,
    students_s=4.0,
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
    effort: BenchmarkBudget = field(default_factory=BenchmarkBudget)


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


def run_benchmarks(wanted: BenchmarkSettings, progress: Progress = silent) -> BenchmarkResult:
    """Measure this machine.

    Raises InputError for what cannot be measured as it is wanted, BoardError where the worker does
    not serve.
    """
    watch, effort = Stopwatch(), wanted.effort
    with _loading(wanted, progress) as (members, load):
        models = load([member.name for member in members], wanted.threads)
        before = machine_condition()
        students = measure_students(members, models, effort.students_s, watch, progress)
        after = machine_condition()
        counts = thread_counts(wanted.machine.cores)
        largest = max(members, key=lambda member: member.macs)
        measured = BenchmarkResult(
            students=students,
            messages=measure_messages(
                effort.messages_s, watch, engine=models[0].engine, progress=progress
            ),
            threads=measure_threads(members, load, counts, effort.threads_s, watch, progress),
            sharing=_sharing(members, models, effort.sharing_s, watch, progress),
            layers=_layers(wanted, models[0].engine, watch, progress),
            power=measure_power(
                find_meter(),
                wanted.power,
                student_tasks([largest], models)[largest.name],
                wanted.threads,
                effort.power_s,
            ),
            engine=models[0].engine,
            before=before,
            after=after,
        )
        # The clock is compared beside the students; heat that comes later counts as well.
        return replace(measured, after=after.until(machine_condition()))


@contextmanager
def _loading(
    wanted: BenchmarkSettings, progress: Progress
) -> Iterator[tuple[tuple[BenchmarkModel, ...], ModelLoader]]:
    """Yield the benchmark models and their loader."""
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder:
        place = wanted.bundle or Path(folder) / "bundle"

        def load(names: Sequence[str], threads: int) -> tuple[LoadedModel, ...]:
            return load_models(
                place, names, precision=wanted.precision, engine=wanted.engine, threads=threads
            )

        yield _members(wanted, place, progress), load


def _members(
    wanted: BenchmarkSettings, place: Path, progress: Progress
) -> tuple[BenchmarkModel, ...]:
    """Benchmark models, which are then in the bundle `place`."""
    if wanted.bundle is not None:
        return bundled_benchmark_models(read_bundle(wanted.bundle), str(wanted.bundle))
    if wanted.engine == "ncnn":
        raise InputError(
            "models for ncnn are not made here",
            where="--engine",
            found="ncnn",
            fix="export a run with --ncnn on another machine, and give that as --bundle",
        )
    members = benchmark_models(wanted.teachers, wanted.images, wanted.effort.per_teacher)
    write_benchmark_bundle(place, members, wanted.precision, progress=progress)
    return members


def _layers(
    wanted: BenchmarkSettings, engine: Engine, watch: Stopwatch, progress: Progress
) -> LayerTimes | None:
    """Measure single layers, which are made as ONNX models."""
    seconds = wanted.effort.layers_s
    if seconds is None or engine != "onnxruntime":
        return None
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder:
        place = Path(folder) / "layers"
        return measure_layers(
            place, benchmark_layers(), wanted.precision, wanted.threads, seconds, watch, progress
        )


def _sharing(
    members: Sequence[BenchmarkModel],
    models: Sequence[LoadedModel],
    seconds: float,
    watch: Stopwatch,
    progress: Progress,
) -> tuple[Sharing, ...]:
    """Measure a few students at once, all of one image shape, as on one board."""
    same = [member for member in members if member.image == members[0].image]
    chosen = same[:: max(1, len(same) // MAX_AT_ONCE)][:MAX_AT_ONCE]
    names = {member.name for member in chosen}
    together = [model for model in models if model.name in names]
    images = random_pixels(1, members[0].image)
    return measure_sharing(together, images, seconds, watch, progress)
