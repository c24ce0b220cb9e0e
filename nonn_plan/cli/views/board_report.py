"""Boards as people see them: emulated, measured, profiled; and their certificates."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nonn_common.units import format_bytes
from nonn_plan.cli.output import Output, format_estimate, format_pct
from profiles import Quantity

if TYPE_CHECKING:
    from boards.board_validation import AccuracyComparison, Comparison, Validation
    from boards.deployment import BoardOutcome
    from boards.emulation.emulated_fleet import EmulatedFleet
    from boards.host.host_report import BoardReport, HostReport, Percentiles
    from boards.profiling.profile_report import ProfileReport
    from boards.tls.credential import CertificateInfo
    from planner.plan_file.plan_document import PlanDocument
    from planner.problem.duty import BoardDuty
    from profiles.device import DeviceProfile
    from profiles.layer import LayerModel, LayerRates


def searched_text(device: "DeviceProfile") -> str:
    """Text that `--search` looks in, in lower case."""
    words = (device.name, device.title, device.core, device.runtime, device.precision)
    return " ".join(filter(None, words)).lower()


def show_devices(output: Output, devices: "Sequence[DeviceProfile]") -> None:
    """Show devices, one line each."""
    output.table(
        "Devices",
        ("name", "core", "cores, clock", "memory", "what"),
        [
            (
                device.name,
                device.core or "",
                f"{device.cores} x {_clock_text(device.clock_hz)}",
                _memory_text(device),
                device.title,
            )
            for device in devices
        ],
    )


def _memory_text(device: "DeviceProfile") -> str:
    """Memory of a plan: one size, or those of flash and of RAM."""
    if device.flash_bytes is not None and device.ram_bytes is not None:
        return f"{format_bytes(device.flash_bytes)} + {format_bytes(device.ram_bytes)}"
    return "untold" if device.usable_bytes is None else format_bytes(device.usable_bytes)


def _clock_text(clock_hz: int | None) -> str:
    return "untold" if clock_hz is None else f"{clock_hz / 1e9:g} GHz"


def show_figures(output: Output, device: "DeviceProfile") -> None:
    """Show every figure of a device, and where it comes from."""
    output.table(
        f"{device.name}: {device.title}",
        ("figure", "value", "standard error", "provenance", "residual", "source"),
        [_figure_row(name, figure) for name, figure in _device_figures(device)],
    )
    if device.flash_bytes is not None:
        output.say(
            f"Flash and RAM are apart: {_memory_text(device)}. Weights are in flash, in RAM the "
            f"activations of one model at a time. From {device.source}."
        )
    if device.layer_rates is not None:
        output.say(_rates_sentence(device.layer_rates))


def _rates_sentence(rates: "LayerRates") -> str:
    """Sentence on the profile's rates of layers, and their interval."""
    return (
        f"Layer by layer: rates of {len(rates.ms_per_unit)} kinds of work. Nine of ten networks "
        f"take {rates.low:.2f} to {rates.high:.2f} of the predicted time. From {rates.source}."
    )


def _device_figures(device: "DeviceProfile") -> list[tuple[str, Quantity]]:
    found = [(name, value) for name, value in device if isinstance(value, Quantity)]
    if device.hosting is not None:
        found += [(f"hosting.{name}", value) for name, value in device.hosting]
    for cost in device.layers.kinds if device.layers else ():
        found += [(f"layers.{cost.kind}.{name}", value) for name, value in cost.terms.items()]
    return found


def _figure_row(name: str, figure: Quantity) -> tuple[str, ...]:
    residual = "" if figure.residual_pct is None else f"{figure.residual_pct:.1f} %"
    error = "" if figure.standard_error is None else f"{figure.standard_error:.2g}"
    return name, f"{figure.value:.4g}", error, figure.provenance, residual, figure.source


def show_duty(output: Output, plan: "PlanDocument | None") -> None:
    """Show power and battery life at the plan's rate of images; nothing without one."""
    if plan is None or (duty := plan.duty) is None:
        return
    batteries = {row.board: row.battery_wh for row in plan.question.budgets}
    output.table(
        f"At {duty.rate_per_s:.4g} images per second: computing and idle, the radio not counted",
        ("board", "in use", "average power", "battery", "lasts"),
        [
            (
                row.board,
                f"{row.busy_pct:.1f} %",
                _told(row.average_w, "W"),
                "-" if batteries[row.board] is None else f"{batteries[row.board]:g} Wh",
                _told(row.battery_h, "h") if batteries[row.board] else "-",
            )
            for row in duty.boards
        ],
    )
    lasts = "" if duty.battery_h is None else f"; first empty battery after {duty.battery_h:.4g} h"
    output.say(f"average power of these boards together {_told(duty.average_w, 'W')}{lasts}")
    devices = {one.name: one.device for one in plan.question.fleet.boards}
    counted = (row.board for row in duty.boards if row.average_w is not None and not row.idle_known)
    if untold := dict.fromkeys(devices[board] for board in counted):
        output.warn(
            f"no idle power is known of {', '.join(untold)} (idle_w): average power counts their "
            "computing alone, and they draw more"
        )


def duty_text(duty: "BoardDuty") -> str:
    """Sentence on a board's part of the time, average power and battery."""
    lasts = "" if duty.battery_h is None else f", its battery lasts {_told(duty.battery_h, 'h')}"
    drawn = _told(duty.average_w, "W")
    return f"computes {duty.busy_pct:.1f} % of the time; on average {drawn}{lasts}"


def _told(value: float | None, unit: str) -> str:
    return "not known" if value is None else f"{value:.4g} {unit}"


def show_certificates(output: Output, certificates: "Sequence[CertificateInfo]") -> None:
    """Show names, purposes and dates of certificates."""
    output.table(
        "Certificates",
        ("name", "what for", "valid until", "addresses", "SHA-256"),
        [
            (
                each.name,
                ", ".join(each.purposes) or "nothing here",
                _valid_until(each),
                ", ".join(each.addresses),
                each.fingerprint,
            )
            for each in certificates
        ],
    )


def _valid_until(certificate: "CertificateInfo") -> str:
    late = "" if datetime.now(UTC) <= certificate.valid_until else " (expired)"
    return f"{certificate.valid_until:%Y-%m-%d}{late}"


def show_host_report(output: Output, report: "HostReport") -> None:
    """Show what came of the images, and the times of each board."""
    output.table(
        "Images",
        ("images", "all students", "some", "none", "accuracy", "p50", "p95", "p99", "per second"),
        [
            (
                str(report.images),
                str(report.images - report.incomplete - report.unanswered),
                str(report.incomplete),
                str(report.unanswered),
                "not known" if report.accuracy_pct is None else format_pct(report.accuracy_pct),
                *_percentile_cells(report.total_ms),
                f"{report.throughput_per_s:.1f}",
            )
        ],
    )
    output.table(
        "Boards, ms from taking an image up: median and 95th percentile",
        ("board", "protocol", "answered", "sent", "computed", "replied", "p95"),
        [_host_board_row(board) for board in report.boards],
    )
    for student, count in report.missing.items():
        output.say(f"{student} was missing at {count} images: {report.reasons[student]}")


def _host_board_row(board: "BoardReport") -> tuple[str, ...]:
    sent, computed, replied = board.sent_ms, board.computed_ms, board.replied_ms
    return (
        board.board,
        board.wire or "not connected",
        str(board.answered),
        f"{sent.p50_ms:.2f}" if sent else "",
        f"{computed.p50_ms:.2f}" if computed else "",
        f"{replied.p50_ms:.2f}" if replied else "",
        f"{replied.p95_ms:.2f}" if replied else "",
    )


def _percentile_cells(times: "Percentiles | None") -> tuple[str, str, str]:
    if times is None:
        return "", "", ""
    return f"{times.p50_ms:.2f} ms", f"{times.p95_ms:.2f} ms", f"{times.p99_ms:.2f} ms"


def show_validation(output: Output, validation: "Validation") -> None:
    """Show predicted beside measured figures."""
    output.table(
        f"Latency over {validation.images} images, medians in ms: total = compute + communication",
        ("figure", "predicted", "measured", "error"),
        [
            _comparison_row("total", validation.total_ms),
            _comparison_row("compute, longest board", validation.compute_ms),
            _comparison_row("communication, the rest", validation.communication_ms),
            _comparison_row("95th percentile", validation.p95_ms),
        ],
    )
    output.table(
        "Boards, medians in ms; energy of computing in mJ, measured as time at the predicted power",
        ("board", "device", "protocol", "figure", "predicted", "measured", "error"),
        [
            (board.board, board.device, board.wire, *_comparison_row(name, figure))
            for board in validation.boards
            for name, figure in (
                ("computed", board.computed_ms),
                ("replied", board.replied_ms),
                ("energy", board.energy_mj),
            )
        ],
    )
    output.say(
        "error: predicted less measured, in per cent of measured; + where the boards need less "
        "than predicted"
    )
    output.say(_accuracy_sentence(validation.accuracy))
    if validation.incomplete:
        images = validation.images + validation.incomplete
        output.warn(
            f"{validation.incomplete} of {images} images are left out: not every student answered"
        )
    for line in validation.advice:
        output.say(line)


def _comparison_row(name: str, figure: "Comparison") -> tuple[str, str, str, str]:
    error = "" if figure.error_pct is None else f"{figure.error_pct:+.1f} %"
    return name, _decimal(figure.predicted), _decimal(figure.measured), error


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _accuracy_sentence(accuracy: "AccuracyComparison") -> str:
    def format_accuracy(value: float | None) -> str:
        return "not known" if value is None else f"{value:.2f} %"

    predicted = (accuracy.predicted_pct, accuracy.low_pct, accuracy.high_pct)
    told = [figure for figure in predicted if figure is not None]
    expected = "{} % ({})".format(*format_estimate(*told)) if len(told) == 3 else "not known"
    return (
        f"accuracy: predicted {expected}, exported models "
        f"{format_accuracy(accuracy.exported_pct)}, "
        f"on the boards {format_accuracy(accuracy.measured_pct)}"
    )


def show_emulated_fleet(output: Output, fleet: "EmulatedFleet", expected_ms: float) -> None:
    """Show where the boards are, and what is emulated."""
    rows = [
        (board.name, board.address, ", ".join(fleet.worker(board.name).students))
        for board in fleet.addresses.boards
    ]
    output.table("Boards that serve", ("board", "address", "students"), rows)
    for title, lines in (("emulated", fleet.methods), ("not emulated", fleet.limitations)):
        output.say(f"{title}:")
        for line in lines:
            output.say(f"  - {line}")
    output.say(
        f"expected: {expected_ms:.1f} ms from an image to the last reply, without jitter and loss, "
        "by the closed form"
    )


def show_device_profile(output: Output, report: "ProfileReport") -> None:
    """Show a measured profile, and its error on students."""
    device = report.device
    output.table(
        f"{device.title}: {device.cores} cores, {report.engine}, {device.precision}, "
        f"{report.threads} thread{'s' * (report.threads > 1)} per student",
        ("figure", "value", "from", "residual %"),
        [*_profile_rows(report)],
    )
    output.table(
        "Error of the profile on students",
        ("students", "number", "seen by the fit", "mean %", "largest %"),
        [
            (
                row.kind,
                str(row.students),
                "no" if row.held_out else "yes",
                f"{row.mean_pct:.1f}",
                f"{row.largest_pct:.1f}",
            )
            for row in sorted(report.errors, key=lambda row: (row.kind, row.held_out))
        ],
    )
    if report.held_out_mean_pct is not None:
        output.say(
            f"On students held out it is {report.held_out_mean_pct:.1f} % off in the mean, "
            f"{report.held_out_largest_pct:.1f} % at most."
        )
    for row in report.thread_times[1:]:
        output.say(f"On {row.threads} threads a student takes {row.ratio:.2f} of the time on one.")
    for each in report.sharing:
        output.say(
            f"{each.students} students at once take {each.factor:.2f} of the sum of each alone."
        )
    if device.flash_bytes is not None:
        output.say(
            f"Flash and RAM are apart: {_memory_text(device)}. Weights are in flash, in RAM the "
            f"activations of one model at a time. From {device.source}."
        )
    if device.layer_rates is not None:
        output.say(_rates_sentence(device.layer_rates))
    if device.layers is not None:
        output.say(_layers_sentence(device.layers, report.layers_held_out_mean_pct))


def _layers_sentence(model: "LayerModel", students_pct: float | None) -> str:
    """Sentence on the profile's figures of single layers."""
    error = "" if model.held_out_pct is None else f", {model.held_out_pct:.1f} % off on others"
    used = (
        "students are told better by their MACs, so that simulations go by those"
        if students_pct is None
        else f"summed up, layers are {students_pct:.1f} % off on students held out, less than "
        "their MACs, so that simulations go by layers"
    )
    return f"{model.layers} convolutions measured alone{error}; {used}."


def _profile_rows(report: "ProfileReport") -> list[tuple[str, str, str, str]]:
    """Rows of the profile's figures."""
    device, rows = report.device, []
    for name in (
        "compute_fixed_ms",
        "compute_ms_per_mmac",
        "message_ms",
        "sharing_slowdown",
        "idle_w",
        "power_busy_w",
    ):
        figure = getattr(device, name)
        if figure is not None:
            rows.append((name, figure))
    if device.hosting is not None:
        rows.append(("hosting.join_fixed_ms", device.hosting.join_fixed_ms))
        rows.append(("hosting.fc_ms", device.hosting.fc_ms))
    return [
        (
            name,
            f"{figure.value:.4g}",
            figure.provenance,
            "" if figure.residual_pct is None else f"{figure.residual_pct:.1f}",
        )
        for name, figure in rows
    ]


def show_deployment(output: Output, each_one: "Sequence[BoardOutcome]", left: list[str]) -> None:
    """Show what became of each board; those `left` alone are not in the plan."""
    output.table(
        "Boards",
        ("board", "result", "release", "before", "students", "moved"),
        [
            (
                each.board,
                each.state,
                each.release or "-",
                each.previous or "-",
                ", ".join(each.students) or "-",
                f"{len(each.moved)} files, {format_bytes(each.moved_bytes)}" if each.moved else "-",
            )
            for each in each_one
        ],
    )
    for each in each_one:
        for reason in each.reasons:
            output.say(f"{each.board}: {reason}")
        output.warn(*(f"{each.board}: {note}" for note in each.notes))
    if left:
        output.warn(f"{', '.join(left)}: not in the plan; what runs there was left as it is")
