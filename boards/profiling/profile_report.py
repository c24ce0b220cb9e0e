"""The device profile that benchmarks make, and the report of all that it rests on."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version

from pydantic import Field

from boards.profiling.benchmark_model import BenchmarkModel
from boards.profiling.benchmark_run import BenchmarkResult, BenchmarkSettings
from boards.profiling.layer_benchmark import held_out_error_pct, layer_model
from boards.profiling.machine import MachineCondition, MachineInfo, condition_warnings
from boards.profiling.message_benchmark import MessageFigures, message_figures
from boards.profiling.student_benchmark import (
    ComputeModel,
    compute_model,
    family_errors,
    held_out_errors_pct,
    sharing_figure,
)
from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import student_table
from profiles import Quantity
from profiles.device import DEVICES, DeviceProfile, Hosting
from profiles.layer import LayerRates
from profiles.link import LinkProfile
from profiles.measured_latency import BoardSetting, RuntimeNetwork, student_network

MAX_DRIFT_PCT, MAX_SPREAD_PCT, MAX_ERROR_PCT = 10.0, 25.0, 15.0
"""Drift, spread and error above which a report warns; the last is a plan's goal on boards, too."""


class StudentRow(Record):
    """A student that was measured."""

    network: str = Field(description="Its network.")
    image: str = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    filters: int = Field(description="Length of its vector.")
    macs: int = Field(description="MACs per image.")
    held_out: bool = Field(description="Whether no fit has seen it.")
    measured_ms: float = Field(description="Time of one image, in ms.")
    spread_pct: float = Field(description="Interquartile range of its blocks, in percent of that.")
    fitted_ms: float = Field(description="Time by the profile, in ms.")
    error_pct: float = Field(description="By how much that is too long, in percent.")


class FamilyErrorRow(Record):
    """Errors on students of one family and image size."""

    kind: str = Field(description="Family and image size.")
    held_out: bool = Field(description="Whether no fit has seen them.")
    students: int = Field(description="Number of students.")
    mean_pct: float = Field(description="Mean error in absolute value, in percent.")
    largest_pct: float = Field(description="Largest error in absolute value, in percent.")


class ThreadRow(Record):
    """Students on so many threads."""

    threads: int = Field(description="Threads of each student.")
    ratio: float = Field(description="Time of a student beside that on one thread.")


class SharingRow(Record):
    """Several students at once."""

    students: int = Field(description="Number of students.")
    factor: float = Field(description="Time of all, beside the sum of each alone.")


class MessageTimeRow(Record):
    """A message of one size."""

    size_bytes: int = Field(description="Size of the image, in bytes.")
    send_ms: float = Field(description="Time of the sender, in ms.")
    rest_ms: float = Field(description="Rest of the round trip, computing left out, in ms.")


class ConditionRow(Record):
    """The machine at one moment; null is what the system does not say."""

    temperature_c: float | None = Field(description="Of its hottest sensor, in degrees Celsius.")
    clock_hz: int | None = Field(description="Of its fastest core, in Hz.")
    governor: str | None = Field(description="What sets the clock.")


class ProfileReport(Record):
    """A measurement of one machine."""

    device: DeviceProfile = Field(description="The profile.")
    loopback: LinkProfile = Field(description="What a link within this machine carries.")
    engine: str = Field(description="What computes the students.")
    threads: int = Field(description="Threads of each student.")
    students: tuple[StudentRow, ...] = Field(description="Every student.")
    errors: tuple[FamilyErrorRow, ...] = Field(description="Errors by family and image size.")
    held_out_mean_pct: float | None = Field(
        description="Mean error on students held out, in percent; null where there are none."
    )
    held_out_largest_pct: float | None = Field(description="Largest of these errors.")
    layers_held_out_mean_pct: float | None = Field(
        description="Mean error of the sum over single layers on students held out; null where "
        "the profile does not know all of their layers."
    )
    drift_pct: float = Field(
        description="By how much the first student took longer at the end, in percent."
    )
    thread_times: tuple[ThreadRow, ...] = Field(description="Students on more threads.")
    sharing: tuple[SharingRow, ...] = Field(description="Several students at once.")
    messages: tuple[MessageTimeRow, ...] = Field(description="Messages by size.")
    before: ConditionRow = Field(description="The machine before.")
    after: ConditionRow = Field(description="The machine after.")
    warnings: tuple[str, ...] = Field(description="What makes the measurement doubtful.")


def profile_name(asked: str | None, machine: MachineInfo) -> str:
    """Return the name of the profile, which no device of the library has; raises InputError."""
    if asked is None:
        taken = DEVICES.has(machine.name)
        return f"{machine.name}-measured" if taken else machine.name
    if DEVICES.has(asked):
        raise InputError(
            "a device of the library has this name, and a fleet could not tell them apart",
            where="--name",
            found=asked,
            fix=f"--name {asked}-measured",
        )
    return asked


def build_report(settings: BenchmarkSettings, result: BenchmarkResult) -> ProfileReport:
    """Build the profile from measurements, with all that it rests on."""
    rows = result.students.rows
    model = compute_model(rows)
    errors = held_out_errors_pct(rows, model)
    machine, messages = settings.machine, message_figures(result.messages)
    device = _device(settings, result, model, messages)
    return ProfileReport(
        device=device,
        loopback=LinkProfile(
            name=f"{machine.name}-loopback",
            title=f"Loopback of {machine.title}",
            bits_per_s=_rate(messages.ms_per_byte),
        ),
        engine=result.engine,
        threads=settings.threads,
        students=tuple(
            StudentRow(
                network=row.student.network,
                image=str(row.student.image),
                filters=row.student.filters,
                macs=row.student.macs,
                held_out=row.student.held_out,
                measured_ms=row.timing.ms,
                spread_pct=row.timing.spread_pct,
                fitted_ms=model.ms(row.student.macs),
                error_pct=model.error_pct(row),
            )
            for row in rows
        ),
        errors=tuple(FamilyErrorRow(**asdict(each)) for each in family_errors(rows, model)),
        held_out_mean_pct=_mean(errors),
        held_out_largest_pct=max(errors, default=None),
        layers_held_out_mean_pct=device.layers
        and held_out_error_pct(device.layers, settings.precision, rows),
        drift_pct=result.students.drift_pct,
        thread_times=tuple(ThreadRow(**asdict(each)) for each in result.threads),
        sharing=tuple(
            SharingRow(students=each.students, factor=each.factor) for each in result.sharing
        ),
        messages=tuple(
            MessageTimeRow(size_bytes=row.size_bytes, send_ms=row.send_ms, rest_ms=row.rest_ms)
            for row in result.messages
        ),
        before=_condition_row(result.before),
        after=_condition_row(result.after),
        warnings=_warnings(result, model, errors),
    )


def _device(
    settings: BenchmarkSettings,
    result: BenchmarkResult,
    model: ComputeModel,
    messages: MessageFigures,
) -> DeviceProfile:
    machine, power, rows = settings.machine, result.power, result.students.rows
    errors = held_out_errors_pct(rows, model)
    return DeviceProfile(
        name=machine.name,
        title=machine.title,
        board=machine.board,
        clock_hz=machine.clock_hz,
        cores=machine.cores,
        ram_bytes=machine.ram_bytes,
        runtime=result.engine,
        precision=settings.precision,
        source=_source(settings, result, errors),
        compute_fixed_ms=model.fixed_ms,
        compute_ms_per_mmac=model.ms_per_mmac,
        power_fixed_w=power.busy_w,
        power_busy_w=power.busy_w,
        message_ms=messages.message_ms,
        sharing_slowdown=sharing_figure(result.sharing),
        idle_w=power.idle_w,
        layers=None
        if result.layers is None
        else layer_model(result.layers, settings.precision, rows, _mean(errors)),
        layer_rates=_predicted_rates(settings, result),
        hosting=Hosting(join_fixed_ms=messages.join_fixed_ms, fc_ms=messages.fc_ms),
    )


def _predicted_rates(settings: BenchmarkSettings, result: BenchmarkResult) -> LayerRates | None:
    """Rates of layers by the predictor of many boards, where a few students were measured."""
    if settings.budget.students is None:
        return None
    from profiles.new_board import new_board_rates  # loads the public rows

    int8 = settings.precision == "int8"
    students = [row for row in result.students.rows if not row.student.held_out]
    return new_board_rates(
        BoardSetting(settings.machine.title, settings.threads, 0),
        [(student_layers(row.student, int8), row.timing.ms) for row in students],
        int8,
        f"{len(students)} students measured with {result.engine}",
    )


def student_layers(student: BenchmarkModel, int8: bool) -> RuntimeNetwork:
    """Layers of a student as the runtime sees them."""
    table = student_table(parse_network(student.network), student.image, student.filters)
    return student_network(table, int8)


def _source(settings: BenchmarkSettings, result: BenchmarkResult, errors: Sequence[float]) -> str:
    tested = (
        f"{len(errors)} students held out: error {sum(errors) / len(errors):.1f} % in the mean, "
        f"{max(errors):.1f} % at most"
        if errors
        else "no student was held out"
    )
    threads = f"{settings.threads} thread{'s' * (settings.threads > 1)} per student"
    governor = result.after.governor or "not told"
    return (
        f"measured with nonn-plan {version('nonn-plan')}, {result.engine} "
        f"{import_module(result.engine).__version__}, {threads}; governor {governor}; {tested}"
    )


def _mean(errors: Sequence[float]) -> float | None:
    return sum(errors) / len(errors) if errors else None


def _rate(ms_per_byte: Quantity) -> Quantity:
    """Rate of a link in bit/s; very high where bytes cost no time."""
    slowest = max(ms_per_byte.value, 1e-9)
    return ms_per_byte.model_copy(update={"value": float(f"{8000 / slowest:.6g}")})


def _condition_row(result: MachineCondition) -> ConditionRow:
    return ConditionRow(
        temperature_c=result.temperature_c, clock_hz=result.clock_hz, governor=result.governor
    )


def _warnings(
    result: BenchmarkResult, model: ComputeModel, errors: Sequence[float]
) -> tuple[str, ...]:
    """Reasons to doubt the measurement or the profile."""
    said = list(condition_warnings(result.before, result.after))
    first = result.students.rows[0].timing
    if abs(result.students.drift_pct) > max(MAX_DRIFT_PCT, first.spread_pct):
        said.append(
            f"the time of the first student changed by {result.students.drift_pct:+.0f} % from the "
            "beginning to the end; let nothing else run, and measure again"
        )
    spreads = sorted(row.timing.spread_pct for row in result.students.rows)
    middle = spreads[len(spreads) // 2]
    if middle > MAX_SPREAD_PCT:
        said.append(
            f"times of the same student differ by {middle:.0f} % (interquartile range, median of "
            "all students); let nothing else run, and measure again"
        )
    if errors and sum(errors) / len(errors) > MAX_ERROR_PCT:
        said.append(
            "students of different families and images take different times for the same MACs; "
            "profile with --teacher and --image of what you plan"
        )
    if not model.ms_per_mmac.value:
        said.append(
            "these students take the same time whatever their MACs, which larger ones will not; "
            "measure students of more different sizes"
        )
    if result.power.busy_w.provenance == "assumed":
        said.append(
            f"no power can be measured here: {result.power.busy_w.value:g} W while computing is "
            "assumed, and energies of plans rest on it; give --busy-w and --idle-w"
        )
    return tuple(said)
