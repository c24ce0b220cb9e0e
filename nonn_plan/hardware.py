"""`devices` and `fleets`: what the library knows about hardware."""

from typing import Annotated

import typer

from nonn_plan.options import AsJson
from nonn_plan.output import Output
from profiles.device import DEVICES, DeviceProfile
from profiles.figure import Figure
from profiles.fleet import FLEETS, Fleet, parse_fleet
from profiles.units import format_bytes

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name in the library.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for name, listing, show, text in (
        ("devices", list_devices, show_device, "Boards and hosts that the library knows."),
        ("fleets", list_fleets, show_fleet, "Fleets that the library knows."),
    ):
        group = typer.Typer(help=text, invoke_without_command=True, rich_markup_mode=None)
        group.callback()(listing)
        group.command("show")(show)
        app.add_typer(group, name=name)


def list_devices(context: typer.Context, as_json: AsJson = False) -> None:
    """Boards and hosts that the library knows; `devices show NAME` for one."""
    context.obj = as_json
    if context.invoked_subcommand is not None:
        return
    output = Output(as_json)
    devices = [DEVICES.get(name) for name in DEVICES.names()]
    output.table(
        "Devices",
        ("name", "what", "clock", "cores", "usable memory", "runtime"),
        [
            (
                device.name,
                device.title,
                f"{device.clock_hz / 1e6:g} MHz",
                str(device.cores),
                format_bytes(device.usable_bytes),
                f"{device.runtime} {device.precision}",
            )
            for device in devices
        ],
    )
    output.result([device.model_dump(mode="json") for device in devices])


def show_device(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Every figure of one device, and where it comes from."""
    output = Output(as_json or bool(context.obj))
    device = DEVICES.get(name)
    output.table(
        f"{device.name}: {device.title}",
        ("figure", "value", "provenance", "residual", "source"),
        [_figure_row(name, figure) for name, figure in _figures(device)],
    )
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
        typer.Argument(metavar="FLEET", help="Library name, file, or list: rpi-3b*2,odroid-xu4s"),
    ],
    as_json: AsJson = False,
) -> None:
    """Host and boards of one fleet."""
    output = Output(as_json or bool(context.obj))
    fleet: Fleet = parse_fleet(name)
    output.table(
        f"{fleet.name}: {fleet.title} (host {fleet.host})",
        ("board", "device", "link"),
        [(board.name, board.device, board.link) for board in fleet.boards],
    )
    output.result(fleet.model_dump(mode="json"))


def _figures(device: DeviceProfile) -> list[tuple[str, Figure]]:
    found = [(name, value) for name, value in device if isinstance(value, Figure)]
    if device.hosting is not None:
        found += [(f"hosting.{name}", value) for name, value in device.hosting]
    return found


def _figure_row(name: str, figure: Figure) -> tuple[str, ...]:
    residual = "" if figure.residual_pct is None else f"{figure.residual_pct:.1f} %"
    return name, f"{figure.value:.4g}", figure.provenance, residual, figure.source
