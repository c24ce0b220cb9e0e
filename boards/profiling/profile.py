"""A profile of this machine: the figures of a device, and how far off they are."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version

from boards.profiling import report
from boards.profiling.condition import Condition, warnings
from boards.profiling.layers import held_out_error_pct, layer_model
from boards.profiling.machine import Machine
from boards.profiling.measuring import Measured, Wanted
from boards.profiling.messages import MessageFigures, message_figures
from boards.profiling.report import ProfileReport
from boards.profiling.sharing import sharing_figure
from boards.profiling.students import (
    ComputeModel,
    compute_model,
    held_out_errors_pct,
    kind_errors,
)
from profiles.device import DEVICES, DeviceProfile, Hosting
from profiles.errors import InputError
from profiles.figure import Figure
from profiles.link import LinkProfile

MOST_DRIFT_PCT, MOST_SPREAD_PCT, MOST_ERROR_PCT = 10.0, 25.0, 15.0
"""What is worth a word; a plan is to be within the last one of what its boards then take."""


def own_name(asked: str | None, machine: Machine) -> str:
    """Return the name of the profile, which no device of the library has; raises InputError."""
    if asked is None:
        taken = machine.name in DEVICES.names()
        return f"{machine.name}-measured" if taken else machine.name
    if asked in DEVICES.names():
        raise InputError(
            "a device of the library has this name, and a fleet could not tell them apart",
            where="--name",
            found=asked,
            fix=f"--name {asked}-measured",
        )
    return asked


def profiled(wanted: Wanted, found: Measured) -> ProfileReport:
    """Return the profile that these measurements make, and all that it rests on."""
    rows = found.students.rows
    model = compute_model(rows)
    errors = held_out_errors_pct(rows, model)
    machine, messages = wanted.machine, message_figures(found.messages)
    device = _device(wanted, found, model, messages)
    return ProfileReport(
        device=device,
        loopback=LinkProfile(
            name=f"{machine.name}-loopback",
            title=f"Loopback of {machine.title}",
            bits_per_s=_rate(messages.ms_per_byte),
        ),
        engine=found.engine,
        threads=wanted.threads,
        students=tuple(
            report.StudentRow(
                network=row.member.network,
                image=str(row.member.image),
                filters=row.member.filters,
                macs=row.member.macs,
                held_out=row.member.held_out,
                measured_ms=row.timing.ms,
                spread_pct=row.timing.spread_pct,
                fitted_ms=model.ms(row.member.macs),
                error_pct=model.error_pct(row),
            )
            for row in rows
        ),
        errors=tuple(report.KindRow(**asdict(each)) for each in kind_errors(rows, model)),
        held_out_mean_pct=_mean(errors),
        held_out_largest_pct=max(errors, default=None),
        layers_held_out_mean_pct=device.layers
        and held_out_error_pct(device.layers, wanted.precision, rows),
        drift_pct=found.students.drift_pct,
        thread_times=tuple(report.ThreadRow(**asdict(each)) for each in found.threads),
        sharing=tuple(
            report.SharingRow(students=each.students, factor=each.factor) for each in found.sharing
        ),
        messages=tuple(
            report.MessageRow(size_bytes=row.size_bytes, send_ms=row.send_ms, rest_ms=row.rest_ms)
            for row in found.messages
        ),
        before=_condition_row(found.before),
        after=_condition_row(found.after),
        warnings=_warnings(found, model, errors),
    )


def _device(
    wanted: Wanted, found: Measured, model: ComputeModel, messages: MessageFigures
) -> DeviceProfile:
    machine, power, rows = wanted.machine, found.power, found.students.rows
    errors = held_out_errors_pct(rows, model)
    return DeviceProfile(
        name=machine.name,
        title=machine.title,
        board=machine.board,
        clock_hz=machine.clock_hz,
        cores=machine.cores,
        ram_bytes=machine.ram_bytes,
        runtime=found.engine,
        precision=wanted.precision,
        source=_source(wanted, found, errors),
        compute_fixed_ms=model.fixed_ms,
        compute_ms_per_mmac=model.ms_per_mmac,
        power_fixed_w=power.busy_w,
        power_busy_w=power.busy_w,
        message_ms=messages.message_ms,
        sharing_slowdown=sharing_figure(found.sharing),
        idle_w=power.idle_w,
        layers=None
        if found.layers is None
        else layer_model(found.layers, wanted.precision, rows, _mean(errors)),
        hosting=Hosting(join_fixed_ms=messages.join_fixed_ms, fc_ms=messages.fc_ms),
    )


def _source(wanted: Wanted, found: Measured, errors: Sequence[float]) -> str:
    tested = (
        f"{len(errors)} students held out: error {sum(errors) / len(errors):.1f} % in the mean, "
        f"{max(errors):.1f} % at most"
        if errors
        else "no student was held out"
    )
    threads = f"{wanted.threads} thread{'s' * (wanted.threads > 1)} per student"
    governor = found.after.governor or "not told"
    return (
        f"measured with nonn-plan {version('nonn-plan')}, {found.engine} "
        f"{import_module(found.engine).__version__}, {threads}; governor {governor}; {tested}"
    )


def _mean(errors: Sequence[float]) -> float | None:
    return sum(errors) / len(errors) if errors else None


def _rate(ms_per_byte: Figure) -> Figure:
    """Return the rate of a link in bit/s, of one that costs nothing per byte a very high one."""
    slowest = max(ms_per_byte.value, 1e-9)
    return ms_per_byte.model_copy(update={"value": float(f"{8000 / slowest:.6g}")})


def _condition_row(found: Condition) -> report.ConditionRow:
    return report.ConditionRow(
        temperature_c=found.temperature_c, clock_hz=found.clock_hz, governor=found.governor
    )


def _warnings(found: Measured, model: ComputeModel, errors: Sequence[float]) -> tuple[str, ...]:
    """Say what makes the measurement doubtful, or the profile."""
    said = list(warnings(found.before, found.after))
    first = found.students.rows[0].timing
    if abs(found.students.drift_pct) > max(MOST_DRIFT_PCT, first.spread_pct):
        said.append(
            f"the time of the first student changed by {found.students.drift_pct:+.0f} % from the "
            "beginning to the end; let nothing else run, and measure again"
        )
    spreads = sorted(row.timing.spread_pct for row in found.students.rows)
    middle = spreads[len(spreads) // 2]
    if middle > MOST_SPREAD_PCT:
        said.append(
            f"times of the same student differ by {middle:.0f} % (interquartile range, median of "
            "all students); let nothing else run, and measure again"
        )
    if errors and sum(errors) / len(errors) > MOST_ERROR_PCT:
        said.append(
            "students of different families and images take different times for the same MACs; "
            "profile with --teacher and --image of what you plan"
        )
    if not model.ms_per_mmac.value:
        said.append(
            "these students take the same time whatever their MACs, which larger ones will not; "
            "measure students of more different sizes"
        )
    if found.power.busy_w.provenance == "assumed":
        said.append(
            f"no power can be measured here: {found.power.busy_w.value:g} W while computing is "
            "assumed, and energies of plans rest on it; give --busy-w and --idle-w"
        )
    return tuple(said)
