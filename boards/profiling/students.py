"""Whole students: how long each takes alone, and what that says of all others.

The model is that of `profiles.device`, compute_ms = fixed + per_mmac * macs / 1e6, fitted over
relative errors: digits students take a hundredth of the time of those for CIFAR, and count alike.
Students that were held out tell how far it is off, family by family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from boards.profiling.made_bundle import random_pixels
from boards.profiling.member import Member
from boards.profiling.stopwatch import Answering, Stopwatch, Timing, drift_pct
from boards.runtime.model import Batch, LoadedModel
from boards.worker.students import Students
from nonn_core.image import Image
from nonn_core.progress import Progress, silent
from profiles.figure import Figure
from profiles.fitting import Fit, relative_fit

_DRIFT_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class StudentTime:
    """A student and how long it took."""

    member: Member
    timing: Timing


@dataclass(frozen=True, slots=True)
class StudentTimes:
    """All students, and by how much the first one took longer at the end than at the beginning."""

    rows: tuple[StudentTime, ...]
    drift_pct: float


@dataclass(frozen=True, slots=True)
class ComputeModel:
    """The two figures of time of a device."""

    fixed_ms: Figure
    ms_per_mmac: Figure

    def ms(self, macs: int) -> float:
        """Return the time of one student, in ms."""
        return self.fixed_ms.value + self.ms_per_mmac.value * macs / 1e6

    def error_pct(self, row: StudentTime) -> float:
        """Return by how much the time of a student is over-estimated."""
        return 100 * (self.ms(row.member.macs) / row.timing.ms - 1)


@dataclass(frozen=True, slots=True)
class KindError:
    """Errors, in absolute value, on students of one family and image size."""

    kind: str
    held_out: bool
    students: int
    mean_pct: float
    largest_pct: float


def measure_students(
    members: Sequence[Member],
    models: Sequence[LoadedModel],
    seconds: float,
    watch: Stopwatch,
    progress: Progress = silent,
) -> StudentTimes:
    """Time each of `members`, which are loaded as `models`, alone, as the worker runs them."""
    things = answering(members, models)
    first = {members[0].name: things[members[0].name]}
    for thing in things.values():
        thing()  # The first answer of a model takes its memory.
    before = watch.timed("students", first, _DRIFT_SHARE * seconds)
    timed = watch.timed("students", things, seconds, progress)
    after = watch.timed("students", first, _DRIFT_SHARE * seconds)
    name = members[0].name
    return StudentTimes(
        rows=tuple(StudentTime(member, timed[member.name]) for member in members),
        drift_pct=drift_pct(before[name], after[name]),
    )


def answering(members: Sequence[Member], models: Sequence[LoadedModel]) -> Mapping[str, Answering]:
    """Return, for each student, what computes one image and says how long that took, in ms."""
    students = Students(models)
    pixels = {member.image: random_pixels(1, member.image) for member in members}
    return {member.name: _answering(students, member, pixels) for member in members}


def compute_model(rows: Sequence[StudentTime]) -> ComputeModel:
    """Fit the figures to the students that are not held out."""
    fitted = [row for row in rows if not row.member.held_out]
    fit = relative_fit(
        {"fixed": [1.0] * len(fitted), "mmac": [row.member.macs / 1e6 for row in fitted]},
        [row.timing.ms for row in fitted],
    )
    note = f"{len(fitted)} students of {', '.join(dict.fromkeys(r.member.kind for r in fitted))}"
    return ComputeModel(_measured(fit, "fixed", note), _measured(fit, "mmac", note))


def kind_errors(rows: Sequence[StudentTime], model: ComputeModel) -> tuple[KindError, ...]:
    """Return errors on students that were fitted and on those held out, family by family."""
    groups: dict[tuple[str, bool], list[float]] = {}
    for row in rows:
        key = row.member.kind, row.member.held_out
        groups.setdefault(key, []).append(abs(model.error_pct(row)))
    return tuple(
        KindError(kind, held_out, len(errors), sum(errors) / len(errors), max(errors))
        for (kind, held_out), errors in groups.items()
    )


def held_out_errors_pct(rows: Sequence[StudentTime], model: ComputeModel) -> tuple[float, ...]:
    """Return the error on each student that was held out, in absolute value."""
    return tuple(abs(model.error_pct(row)) for row in rows if row.member.held_out)


def _measured(fit: Fit, name: str, source: str) -> Figure:
    return fit.figure(name, source).model_copy(update={"provenance": "measured"})


def _answering(students: Students, member: Member, pixels: Mapping[Image, Batch]) -> Answering:
    images = pixels[member.image]
    return lambda: students.answer([member.name], images).computed_ns / 1e6
