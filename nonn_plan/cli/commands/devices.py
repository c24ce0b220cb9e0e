"""`devices`, `fleets`, `calibrate`, `profile`: hardware, as known and as measured.

On a board with few packages installed, `profile` runs too: heavy modules are loaded inside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nonn_common.csv_table import CsvTable, is_csv
from nonn_common.errors import InputError
from nonn_common.units import parse_hertz
from nonn_plan.cli.output import UNCHANGED, Output
from nonn_plan.cli.parsers.options import AsJson
from nonn_plan.cli.views.board_report import (
    searched_text,
    show_device_profile,
    show_devices,
    show_figures,
)
from profiles.device import DEVICES, DeviceProfile
from profiles.fleet import FLEETS, Board, Fleet, parse_fleet, resolve

if TYPE_CHECKING:
    from boards.profiling.machine import MachineInfo


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name in the library.")]


def _group(text: str, listing: Callable[..., None], show: Callable[..., None]) -> typer.Typer:
    """Group `NAME`, which lists, and `NAME show`."""
    group = typer.Typer(help=text, invoke_without_command=True, rich_markup_mode=None)
    group.callback()(listing)
    group.command("show")(show)
    return group


def list_devices(
    context: typer.Context,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="TEXT",
            help="Those whose name, description, core or precision has these words: "
            '"a53 int8", rk3588.',
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Boards and hosts of the library, by core and clock; `devices show NAME` for one.

    A board that was measured on several numbers of threads, or in int8 too, is several devices:
    one is listed, `--search` finds all.
    """
    context.obj = as_json
    if context.invoked_subcommand is not None:
        return
    output = Output(as_json)
    every = [DEVICES.get(name) for name in (*DEVICES.names(), *DEVICES.further_names())]
    boards = {device.board for device in every}
    words = (search or "").lower().split()
    found = [
        device
        for device in every
        if (all(word in searched_text(device) for word in words) if words else _is_listed(device))
    ]
    if not found:
        raise InputError(
            "no device has these words",
            where="--search",
            found=search,
            fix="`nonn-plan devices` lists one device of each board",
        )
    found.sort(key=lambda device: (device.core or "", device.clock_hz or 0, device.name))
    show_devices(output, found)
    if not words:
        output.say(
            f"{len(found)} of {len(every)} devices, of {len(boards)} boards. The others are their "
            "further numbers of threads, and int8: devices --search NAME."
        )
    output.result([device.model_dump(mode="json") for device in found])


def _is_listed(device: DeviceProfile) -> bool:
    """Whether a device is the one of its board that is listed."""
    return device.name in DEVICES.names() or device.name == device.board


def show_device(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Every figure of one device, and where it comes from."""
    output = Output(as_json or bool(context.obj))
    device = DEVICES.get(name)
    show_figures(output, device)
    output.result(device.model_dump(mode="json"))


def list_fleets(context: typer.Context, as_json: AsJson = False) -> None:
    """Fleets that the library knows; `fleets show NAME` for one."""
    context.obj = as_json
    if context.invoked_subcommand is not None:
        return
    output = Output(as_json)
    fleets = [FLEETS.get(name) for name in FLEETS.names()]
    output.table(
        "Fleets",
        ("name", "what", "boards"),
        [(fleet.name, fleet.title, str(len(fleet.boards))) for fleet in fleets],
    )
    output.result([fleet.model_dump(mode="json") for fleet in fleets])


def show_fleet(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="FLEET", help="Library name, file, or list: rpi-3b*2,rpi-4b@wifi"),
    ],
    as_json: AsJson = False,
) -> None:
    """Host and boards of one fleet."""
    output = Output(as_json or bool(context.obj))
    fleet: Fleet = parse_fleet(name)
    _, boards = resolve(fleet)
    output.table(
        f"{fleet.name}: {fleet.title} (host {fleet.host})",
        ("board", "device", "link", "via"),
        [(one.name, one.device, one.link or "", one.via or "") for one in fleet.boards],
    )
    output.table(
        "Links as the boards see them",
        ("boards", "what", "rate", "latency", "duplex", "loss", "jitter"),
        _link_rows(boards),
    )
    output.result(fleet.model_dump(mode="json"))


def _link_rows(boards: Sequence[Board]) -> list[tuple[str, ...]]:
    names: dict[str, list[str]] = {}
    links = {board.link.title: board.link for board in boards}
    for board in boards:
        names.setdefault(board.link.title, []).append(board.name)
    return [
        (
            ", ".join(names[title]),
            title,
            f"{link.bits_per_s.value / 1e6:.4g} Mbit/s",
            f"{link.latency_ms.value:g} ms",
            f"{link.duplex}{', shared' if link.shared else ''}",
            f"{link.loss_pct.value:g} %",
            f"{link.jitter_ms.value:g} ms",
        )
        for title, link in links.items()
    ]


device_commands = _group("Boards and hosts that the library knows.", list_devices, show_device)
fleet_commands = _group("Fleets that the library knows.", list_fleets, show_fleet)


def calibrate(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="Measurements of one device: CSV, YAML or JSON with row, device, macs, boards, "
            "compute_ms, ...; or CSV with board, threads, network, min_ms, as for `predict`.",
        ),
    ],
    like: Annotated[
        str,
        typer.Option("--like", help="Device of the library: clock, memory, what no row tells."),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the profile.")] = Path(
        "device.yaml"
    ),
    link_out: Annotated[
        Path | None,
        typer.Option("--link-output", help="Where to write the link, if its rate is fitted."),
    ] = None,
    layers: Annotated[
        Path | None,
        typer.Option(
            "--layers",
            help="CSV of measured layers: shape, ms; or of layers of networks, as for `predict`.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Device that joined the replies.")] = (
        "x86-host"
    ),
    as_json: AsJson = False,
) -> None:
    """Fit a device's profile to a table of measurements, or to a few measured networks.

    Cells of CSV stand between commas, semicolons or tabs, numbers have a point.  Networks of three
    sizes show an error, too; one size scales what --like takes.  A fleet file names the profile
    under `devices`.
    """
    from profiles.calibration import calibrate
    from profiles.calibration_data import measured_rows, own_facts, read_measurements
    from profiles.device import DEVICES
    from profiles.fitting import fit_layers, measured_layers
    from profiles.leave_one_out import doubts, fitted_rows

    output = Output(as_json)
    profile = DEVICES.get(like, "--like")
    sheet = CsvTable.read(table) if is_csv(table) else None
    if sheet is not None and {"network", "min_ms"} <= {*sheet.columns}:
        from nonn_plan.cli.commands.latencies import calibrate_networks

        calibrate_networks(output, sheet, profile, layers, out)
        return
    measured = read_measurements(table) if sheet is None else measured_rows(sheet)
    facts, library = own_facts(measured, profile, DEVICES.get(host, "--host"))
    rows = fitted_rows(facts, library)
    calibration = calibrate(facts, library)
    device = calibration.devices[facts.devices[0].name]
    sheets = [] if sheet is None else [sheet]
    if layers is not None:
        sheets.append(CsvTable.read(layers))
        model = fit_layers(measured_layers(sheets[-1]), device.precision, str(layers))
        device = device.model_copy(update={"layers": model})
    link = calibration.links.get(None)
    device.write(out)
    if link is not None and link_out is not None:
        link.write(link_out)
    count = len(facts.measurements)
    output.table(
        f"{device.name}: fitted to {count} row{'s' * (count > 1)}; "
        "errors are fitted less measured, in % of measured",
        ("row", "quantity", "measured", "fitted", "error %", "left out %"),
        [
            (
                row.row,
                row.quantity,
                f"{row.published:.4g}" if row.published is not None else "",
                f"{row.fitted:.4g}",
                f"{row.error_pct:+.1f}" if row.error_pct is not None else "",
                f"{row.loo_error_pct:+.1f}" if row.loo_error_pct is not None else "",
            )
            for row in rows
        ],
    )
    output.warn(*doubts(device, rows, like))
    if sheets:
        output.say(f"Read {' and '.join(each.place for each in sheets)}")
    output.say(f"Wrote {out}")
    if link is not None:
        rate = f"{link.bits_per_s.value / 1e6:.4g} Mbit/s"
        output.say(f"The link carries {rate}; {_link_written(link_out)}")
    output.result(
        {
            "device": device.model_dump(mode="json"),
            "link": None if link is None else link.model_dump(mode="json"),
            "rows": [row.model_dump(mode="json") for row in rows],
            "delimiters": {str(each.path): each.delimiter for each in sheets},
        }
    )


def _link_written(link_out: Path | None) -> str:
    return f"wrote {link_out}" if link_out else "--link-output writes its profile"


_MODEL_PACKAGES = ("onnx", "safetensors", "scipy")


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
        bool,
        typer.Option(
            "--quick/--full",
            help="Three students, in under a minute: public measurements of other boards tell the "
            "rest. Default: --full.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure this machine, and write its profile.

    Students of several sizes run through the runtime that a worker uses; a worker process answers
    over loopback.  Students that no fit has seen tell the profile's error.  A fleet file names the
    profile under `devices`.  Let nothing else run meanwhile.
    """
    _require_onnx()
    from boards.profiling.benchmark_model import IMAGES, TEACHERS
    from boards.profiling.benchmark_run import (
        QUICK_BUDGET,
        BenchmarkBudget,
        BenchmarkSettings,
        run_benchmarks,
    )
    from boards.profiling.machine import this_machine
    from boards.profiling.power_meter import GivenPower
    from boards.profiling.profile_report import build_report, profile_name
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
    wanted = BenchmarkSettings(
        machine=_named(machine, profile_name(name, machine), title),
        precision=precision,
        engine=engine,
        threads=threads,
        teachers=teacher or TEACHERS,
        images=image or IMAGES,
        bundle=bundle,
        power=GivenPower(idle_w, busy_w),
        budget=QUICK_BUDGET if quick else BenchmarkBudget(),
    )
    with output.progress(UNCHANGED) as progress:
        report = build_report(wanted, run_benchmarks(wanted, progress))
    report.device.write(out)
    if link_out is not None:
        report.loopback.write(link_out)
    show_device_profile(output, report)
    for warning in report.warnings:
        output.say(f"Warning: {warning}")
    output.say(f"Wrote {out}{f' and {link_out}' if link_out else ''}")
    output.result(report.model_dump(mode="json"))


def _require_onnx() -> None:
    """Make sure that models can be made here; raises InputError."""
    missing = [name for name in _MODEL_PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"models to be measured are made with {', '.join(_MODEL_PACKAGES)}",
            found=f"not installed: {', '.join(missing)}",
            fix=f"pip install {' '.join(missing)}, or what docs/requirements/profile.txt lists",
        )


def _named(machine: "MachineInfo", name: str, title: str | None) -> "MachineInfo":
    return replace(machine, name=name, title=title or machine.title)
