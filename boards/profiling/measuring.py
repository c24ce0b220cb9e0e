"""Measuring this machine: everything that its profile will say, from the real runtime and worker.

In the order in which it is measured: students one by one, messages, students on more threads,
several at once, layers, power.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from boards.profiling.condition import Condition, condition
from boards.profiling.energy import GivenPower, PowerFigures, measure_power
from boards.profiling.layers import LayerTimes, measure_layers, shapes
from boards.profiling.machine import Machine
from boards.profiling.made_bundle import random_pixels, write_members
from boards.profiling.member import IMAGES, TEACHERS, Member, bundled_members, made_members
from boards.profiling.messages import MessageTime, measure_messages
from boards.profiling.power import find_meter
from boards.profiling.sharing import MOST_AT_ONCE, Sharing, measure_sharing
from boards.profiling.stopwatch import Stopwatch
from boards.profiling.students import StudentTimes, answering, measure_students
from boards.profiling.threads import Load, ThreadTime, measure_threads, thread_counts
from boards.runtime.loading import load_models
from boards.runtime.model import Engine, LoadedModel
from nonn_core.bundle import ModelPrecision, read_bundle
from nonn_core.progress import Progress, silent
from profiles.errors import InputError


@dataclass(frozen=True, slots=True)
class Effort:
    """How many students of each teacher (None: the usual number), and seconds for each part.

    Layers are left out where they have none.
    """

    per_teacher: int | None = None
    students_s: float = 45.0
    threads_s: float = 8.0
    sharing_s: float = 6.0
    messages_s: float = 10.0
    layers_s: float | None = 15.0
    power_s: float = 5.0


QUICK = Effort(
    per_teacher=4,
    students_s=4.0,
    threads_s=1.0,
    sharing_s=1.0,
    messages_s=2.0,
    layers_s=None,
    power_s=1.0,
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be profiled, and how.

    `bundle` names students to be measured in place of those of `teachers` for `images`.
    """

    machine: Machine
    precision: ModelPrecision = "fp32"
    engine: Engine | None = None
    threads: int = 1
    teachers: Sequence[str] = TEACHERS
    images: Sequence[str] = IMAGES
    bundle: Path | None = None
    power: GivenPower = field(default_factory=GivenPower)
    effort: Effort = field(default_factory=Effort)


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was measured."""

    students: StudentTimes
    threads: tuple[ThreadTime, ...]
    sharing: tuple[Sharing, ...]
    messages: tuple[MessageTime, ...]
    layers: LayerTimes | None
    power: PowerFigures
    engine: Engine
    before: Condition
    after: Condition


def measure(wanted: Wanted, progress: Progress = silent) -> Measured:
    """Measure this machine.

    Raises InputError for what cannot be measured as it is wanted, BoardError where the worker does
    not serve.
    """
    watch, effort = Stopwatch(), wanted.effort
    with _loading(wanted, progress) as (members, load):
        models = load([member.name for member in members], wanted.threads)
        before = condition()
        students = measure_students(members, models, effort.students_s, watch, progress)
        after = condition()
        counts = thread_counts(wanted.machine.cores)
        largest = max(members, key=lambda member: member.macs)
        measured = Measured(
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
                answering([largest], models)[largest.name],
                wanted.threads,
                effort.power_s,
            ),
            engine=models[0].engine,
            before=before,
            after=after,
        )
        # The clock is compared beside the students; heat that comes later counts as well.
        return replace(measured, after=after.until(condition()))


@contextmanager
def _loading(wanted: Wanted, progress: Progress) -> Iterator[tuple[tuple[Member, ...], Load]]:
    """Yield what is measured, and what loads it from its bundle."""
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder:
        place = wanted.bundle or Path(folder) / "bundle"

        def load(names: Sequence[str], threads: int) -> tuple[LoadedModel, ...]:
            return load_models(
                place, names, precision=wanted.precision, engine=wanted.engine, threads=threads
            )

        yield _members(wanted, place, progress), load


def _members(wanted: Wanted, place: Path, progress: Progress) -> tuple[Member, ...]:
    """Return what is measured; it is then in the bundle `place`."""
    if wanted.bundle is not None:
        return bundled_members(read_bundle(wanted.bundle), str(wanted.bundle))
    if wanted.engine == "ncnn":
        raise InputError(
            "models for ncnn are not made here",
            where="--engine",
            found="ncnn",
            fix="export a run with --ncnn on another machine, and give that as --bundle",
        )
    members = made_members(wanted.teachers, wanted.images, wanted.effort.per_teacher)
    write_members(place, members, wanted.precision, progress=progress)
    return members


def _layers(
    wanted: Wanted, engine: Engine, watch: Stopwatch, progress: Progress
) -> LayerTimes | None:
    """Measure single layers, which are made as ONNX models."""
    seconds = wanted.effort.layers_s
    if seconds is None or engine != "onnxruntime":
        return None
    with tempfile.TemporaryDirectory(prefix="nonn-plan-profile-") as folder:
        place = Path(folder) / "layers"
        return measure_layers(
            place, shapes(), wanted.precision, wanted.threads, seconds, watch, progress
        )


def _sharing(
    members: Sequence[Member],
    models: Sequence[LoadedModel],
    seconds: float,
    watch: Stopwatch,
    progress: Progress,
) -> tuple[Sharing, ...]:
    """Measure a few students at once; such as read the same images, as those of one board do."""
    same = [member for member in members if member.image == members[0].image]
    chosen = same[:: max(1, len(same) // MOST_AT_ONCE)][:MOST_AT_ONCE]
    names = {member.name for member in chosen}
    together = [model for model in models if model.name in names]
    images = random_pixels(1, members[0].image)
    return measure_sharing(together, images, seconds, watch, progress)
