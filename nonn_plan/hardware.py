"""`devices`, `fleets` and `calibrate`: what is known about hardware."""

from collections.abc import Sequence
from typing import Annotated

import typer

from nonn_plan import calibrating
from nonn_plan.options import AsJson
from nonn_plan.output import Output
from profiles.device import DEVICES, DeviceProfile
from profiles.figure import Figure
from profiles.fleet import FLEETS, Board, Fleet, parse_fleet, resolve
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
    calibrating.register(app)


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
        ("figure", "value", "standard error", "provenance", "residual", "source"),
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
    _, boards = resolve(fleet)
    output.table(
        f"{fleet.name}: {fleet.title} (host {fleet.host})",
        ("board", "device", "link", "via"),
        [(board.name, board.device, board.link, board.via or "") for board in fleet.boards],
    )
    output.table(
        "Links as the boards see them",
        ("boards", "what", "rate", "latency", "duplex", "loss", "jitter"),
        _link_rows(boards),
    )
    output.result(fleet.model_dump(mode="json"))


def _figures(device: DeviceProfile) -> list[tuple[str, Figure]]:
    found = [(name, value) for name, value in device if isinstance(value, Figure)]
    if device.hosting is not None:
        found += [(f"hosting.{name}", value) for name, value in device.hosting]
    for cost in device.layers.kinds if device.layers else ():
        found += [(f"layers.{cost.kind}.{name}", value) for name, value in cost.terms.items()]
    return found


def _figure_row(name: str, figure: Figure) -> tuple[str, ...]:
    residual = "" if figure.residual_pct is None else f"{figure.residual_pct:.1f} %"
    error = "" if figure.standard_error is None else f"{figure.standard_error:.2g}"
    return name, f"{figure.value:.4g}", error, figure.provenance, residual, figure.source


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
