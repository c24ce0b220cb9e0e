"""`profile`: this machine, measured, becomes the profile of a device."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nonn_plan.options import AsJson
from nonn_plan.output import Output
from profiles.errors import InputError
from profiles.units import parse_hertz

if TYPE_CHECKING:
    from boards.profiling.machine import Machine
    from boards.profiling.report import ProfileReport
    from profiles.layer_cost import LayerModel

NOTHING_WRITTEN = "nothing was written"
_MAKERS = ("onnx", "safetensors", "scipy")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("profile")(profile)


def profile(
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the profile.")] = Path(
        "device.yaml"
    ),
    link_out: Annotated[
        Path | None,
        typer.Option("--link-output", help="Where to write this machine's loopback as a link."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name for fleets; default: this machine's name.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="Name for people.")] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            help="Measure the students that a plan chooses from for this teacher; far more exact "
            "than the default, students of four families. Repeatable.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image",
            metavar="CxHxW",
            help="Shape of the images. Default: 3x32x32 and 1x8x8. Repeatable.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Measure the students of this bundle in place of others."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "int8"], typer.Option("--precision", help="Of the students.")
    ] = "fp32",
    engine: Annotated[
        Literal["onnxruntime", "ncnn"] | None,
        typer.Option("--engine", help="Default: the first that is installed."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of each student.")] = 1,
    clock: Annotated[
        str | None, typer.Option("--clock", help="Its clock, where the system does not say it.")
    ] = None,
    idle_w: Annotated[
        float | None,
        typer.Option("--idle-w", min=0.0, help="Power at rest, in W, from a meter of yours."),
    ] = None,
    busy_w: Annotated[
        float | None,
        typer.Option("--busy-w", min=0.0, help="Power while it computes, in W, likewise."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="In a quarter of the time, and less exact.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine, and write its profile.

    Students of several sizes run through the runtime that a worker uses; a worker process answers
    over loopback.  Students that no fit has seen tell the profile's error.  A fleet file names the
    profile under `devices`.  Let nothing else run meanwhile.
    """
    _require_onnx()
    from boards.profiling.energy import GivenPower
    from boards.profiling.machine import this_machine
    from boards.profiling.measuring import QUICK, Effort, Wanted, measure
    from boards.profiling.member import IMAGES, TEACHERS
    from boards.profiling.profile import own_name, profiled
    from profiles.device import DeviceProfile
    from profiles.link import LinkProfile

    output = Output(as_json)
    if bundle is not None and (teacher or image):
        raise InputError(
            "a bundle has students and images of its own",
            where="--bundle",
            fix="leave out --teacher and --image",
        )
    DeviceProfile.check_target(out)
    if link_out is not None:
        LinkProfile.check_target(link_out)
    machine = this_machine(None if clock is None else parse_hertz(clock, "--clock"))
    wanted = Wanted(
        machine=_named(machine, own_name(name, machine), title),
        precision=precision,
        engine=engine,
        threads=threads,
        teachers=teacher or TEACHERS,
        images=image or IMAGES,
        bundle=bundle,
        power=GivenPower(idle_w, busy_w),
        effort=QUICK if quick else Effort(),
    )
    with output.progress(NOTHING_WRITTEN) as progress:
        report = profiled(wanted, measure(wanted, progress))
    report.device.write(out)
    if link_out is not None:
        report.loopback.write(link_out)
    _show(output, report)
    for warning in report.warnings:
        output.say(f"Beware: {warning}")
    output.say(f"Wrote {out}{f' and {link_out}' if link_out else ''}")
    output.result(report.model_dump(mode="json"))


def _require_onnx() -> None:
    """Make sure that models can be made here; raises InputError."""
    missing = [name for name in _MAKERS if find_spec(name) is None]
    if missing:
        raise InputError(
            f"models to be measured are made with {', '.join(_MAKERS)}",
            found=f"not installed: {', '.join(missing)}",
            fix=f"pip install {' '.join(missing)}, or what docs/requirements/profile.txt lists",
        )


def _named(machine: "Machine", name: str, title: str | None) -> "Machine":
    return replace(machine, name=name, title=title or machine.title)


def _show(output: Output, report: "ProfileReport") -> None:
    device = report.device
    output.table(
        f"{device.title}: {device.cores} cores, {report.engine}, {device.precision}, "
        f"{report.threads} thread{'s' * (report.threads > 1)} per student",
        ("figure", "value", "from", "residual %"),
        [*_figures(report)],
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
    if device.layers is not None:
        output.say(_layers(device.layers, report.layers_held_out_mean_pct))


def _layers(model: "LayerModel", students_pct: float | None) -> str:
    """Say what the profile knows of single layers."""
    error = "" if model.held_out_pct is None else f", {model.held_out_pct:.1f} % off on others"
    used = (
        "students are told better by their MACs, so that simulations go by those"
        if students_pct is None
        else f"summed up, layers are {students_pct:.1f} % off on students held out, less than "
        "their MACs, so that simulations go by layers"
    )
    return f"{model.layers} convolutions measured alone{error}; {used}."


def _figures(report: "ProfileReport") -> list[tuple[str, str, str, str]]:
    """Return a row for each figure that the profile has."""
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
