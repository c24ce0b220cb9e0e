"""`calibrate`: a table of measurements becomes the profile of a device."""

from pathlib import Path
from typing import Annotated

import typer

from nonn_plan.options import AsJson
from nonn_plan.output import Output


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("calibrate")(calibrate)


def calibrate(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help="Measurements of one device: CSV, YAML or JSON with row, device, macs, boards, "
            "compute_ms, ...",
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
        typer.Option("--layers", help="CSV of measured layers: the layer's shape, and ms."),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Device that joined the replies.")] = (
        "x86-host"
    ),
    as_json: AsJson = False,
) -> None:
    """Fit a device's profile to a table of measurements.

    A fleet file names the profile under `devices`.
    """
    from profiles.calibrate import calibrated
    from profiles.device import DEVICES
    from profiles.layer_fit import fit_layers, read_measured_layers
    from profiles.leave_one_out import fitted_rows
    from profiles.measurements import read_measurements
    from profiles.own_device import own_facts

    output = Output(as_json)
    profile = DEVICES.get(like, "--like")
    facts, library = own_facts(read_measurements(table), profile, DEVICES.get(host, "--host"))
    rows = fitted_rows(facts, library)
    calibration = calibrated(facts, library)
    device = calibration.devices[facts.devices[0].name]
    if layers is not None:
        model = fit_layers(read_measured_layers(layers), device.precision, str(layers))
        device = device.model_copy(update={"layers": model})
    link = calibration.links.get(None)
    device.write(out)
    if link is not None and link_out is not None:
        link.write(link_out)
    output.table(
        f"{device.name}: fitted to {len(facts.measurements)} rows",
        ("row", "quantity", "measured", "fitted", "error %", "left out %"),
        [
            (
                row.row,
                row.quantity,
                f"{row.published:.4g}" if row.published is not None else "",
                f"{row.fitted:.4g}",
                f"{row.error_pct:.1f}" if row.error_pct is not None else "",
                f"{row.loo_error_pct:.1f}" if row.loo_error_pct is not None else "",
            )
            for row in rows
        ],
    )
    output.say(f"Wrote {out}")
    if link is not None:
        rate = f"{link.bits_per_s.value / 1e6:.4g} Mbit/s"
        output.say(f"The link carries {rate}; {_kept(link_out)}")
    output.result(
        {
            "device": device.model_dump(mode="json"),
            "link": None if link is None else link.model_dump(mode="json"),
            "rows": [row.model_dump(mode="json") for row in rows],
        }
    )


def _kept(link_out: Path | None) -> str:
    return f"wrote {link_out}" if link_out else "--link-output writes its profile"
