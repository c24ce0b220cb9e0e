"""`predict`, and `reproduce --latencies`: latencies on boards that others measured.

The predictor is loaded inside the commands, so that the others start without it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.csv_table import CsvTable
from nonn_common.document import check_picture, check_place, check_suffix, write_atomic
from nonn_common.errors import InputError
from nonn_plan.cli.output import Output
from nonn_plan.cli.parsers.options import AsJson

if TYPE_CHECKING:
    from nonn_plan.latency_reproduction import LatencyErrors
    from profiles.device import DeviceProfile
    from profiles.measured_latency import PlacedLine, RuntimeNetwork

COLUMNS = ("predicted_ms", "low_ms", "high_ms", "rests_on")
_ROW_COLUMNS = ("board", "threads", "network")
_DIGITS = 5

ERROR_COLUMNS = ("rows of", "model", "rows", "median %", "90th %", "Spearman", "in interval %")


def predict(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="Rows of board, threads, powersave, network; or of operations (NAS-Bench-201).",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Predictions, OUT.csv.")],
    known: Annotated[
        Path | None,
        typer.Option("--known", help="Measured rows to learn from, too: such columns, and min_ms."),
    ] = None,
    layers: Annotated[
        Path | None,
        typer.Option("--layers", help="Layers of further networks, as in ncnn-layers.csv."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict the latency of networks on boards that were measured with other networks.

    It learns from public measurements that ship with the project, and from --known: a new board
    needs a few rows there. Each prediction has an interval for nine of ten cases. A latency that
    FILE.csv has is not read.
    """
    output = Output(as_json)
    check_suffix(out, ".csv")
    check_place(out)
    asked = CsvTable.read(table)
    if "operations" in asked.columns:
        given = [("--known", known), ("--layers", layers)]
        for option, path in given:
            if path is not None:
                raise InputError("not for NAS-Bench-201", where=option, found=str(path))
        lines, predictions = _cells(output, asked)
    else:
        lines, predictions = _rows(output, asked, known, layers)
    columns = [name for name in asked.columns if name and name not in COLUMNS]
    write_atomic(out, _csv_text(columns, lines, predictions).encode())
    output.say(f"{len(predictions)} predictions, written to {out}")
    output.result({"predictions": len(predictions), "written": str(out)})


def _rows(
    output: Output, asked: CsvTable, known: Path | None, layers: Path | None
) -> tuple[Sequence["PlacedLine"], list[tuple[str, ...]]]:
    """Predict rows of boards."""
    from profiles.latency_predictor import LatencyPredictor, check_networks
    from profiles.measured_latency import latency_rows, measured_rows, placed_lines

    lines = placed_lines(asked, *_ROW_COLUMNS)
    if "min_ms" in asked.columns:
        output.warn(f"min_ms of {asked.path} is not read; known rows are given with --known")
    rows = latency_rows([(where, _without(cells, "min_ms")) for where, cells in lines])
    networks = _networks(layers)
    learnt = list(measured_rows())
    if known is not None:
        learnt += latency_rows(placed_lines(CsvTable.read(known), *_ROW_COLUMNS, "min_ms"))
    check_networks([row.network for row in rows], networks)
    settings = list(dict.fromkeys(row.setting for row in rows))
    if not settings:
        return lines, []
    predictor = LatencyPredictor.fit(learnt, networks, settings)
    names: dict[str, RuntimeNetwork] = {row.network: networks[row.network] for row in rows}
    found = dict(zip(settings, predictor.predict(settings, names), strict=True))
    unmeasured = [
        setting for setting in settings if not predictor.rows[predictor.settings[setting]]
    ]
    if unmeasured:
        output.warn(
            f"{len(unmeasured)} of {len(settings)} settings have no known row: guesses by the "
            "board's other numbers of threads, or by its kind of core, such as "
            f"{unmeasured[0].board}, {unmeasured[0].threads} threads"
        )
    predictions = []
    for row in rows:
        one = found[row.setting][row.network]
        network = "network measured elsewhere" if one.measured_elsewhere else "its layers"
        predictions.append(
            (
                *(f"{ms:.{_DIGITS}g}" for ms in (one.ms, one.low_ms, one.high_ms)),
                f"{network}, {one.board_rows} rows of the board",
            )
        )
    return lines, predictions


def _networks(layers: Path | None) -> "dict[str, RuntimeNetwork]":
    """Public networks, and those that a file of `layers` describes."""
    from profiles.measured_latency import measured_networks, placed_lines, runtime_networks

    networks = dict(measured_networks())
    if layers is not None:
        described = placed_lines(CsvTable.read(layers), "network", "kind", "inputs")
        networks |= runtime_networks(described)
    return networks


def calibrate_networks(
    output: Output, sheet: CsvTable, like: "DeviceProfile", layers: Path | None, out: Path
) -> None:
    """Write the profile of a board on which a few networks were measured."""
    from nonn_plan.cli.views.board_report import show_figures
    from profiles.measured_latency import latency_rows, placed_lines
    from profiles.new_board import calibrated_board, unmet_rows

    rows, networks = latency_rows(placed_lines(sheet, *_ROW_COLUMNS, "min_ms")), _networks(layers)
    device = calibrated_board(rows, networks, like, out.stem, str(sheet.path))
    device.write(out)
    show_figures(output, device)
    if device.layer_rates is not None:
        for row, ms in unmet_rows(device.layer_rates, rows, networks):
            output.warn(
                f"{row.network}: {row.ms:g} ms were measured, {ms:.3g} ms fit all rows of "
                f"{sheet.path} together; measure it again, or leave it out"
            )
    output.say(f"Read {sheet.place}")
    output.say(f"Wrote {out}")
    output.result({"device": device.model_dump(mode="json")})


def _without(cells: Mapping[str, str], name: str) -> Mapping[str, str]:
    return {column: cell for column, cell in cells.items() if column != name}


def _cells(output: Output, asked: CsvTable) -> tuple[Sequence["PlacedLine"], list[tuple[str, ...]]]:
    """Predict NAS-Bench-201 networks on the Raspberry Pi 4 of HW-NAS-Bench."""
    from profiles.cell_latency import fit_cells, is_degenerate
    from profiles.measured_latency import measured_cells, placed_lines

    lines = placed_lines(asked, "operations")
    measured = measured_cells()
    constant = median(ms for cell, ms in measured.items() if is_degenerate(cell))
    names = [cells["operations"] for _, cells in lines]
    model = fit_cells(measured)
    low, high = model.interval
    predictions: list[tuple[str, ...]] = []
    degenerate = 0
    for name, ms in zip(names, model.predict(names), strict=True):
        if is_degenerate(name):
            degenerate += 1
            predictions.append((f"{constant:.{_DIGITS}g}", "", "", "degenerate networks"))
        else:
            ends = (ms, ms * low, ms * high)
            predictions.append((*(f"{end:.{_DIGITS}g}" for end in ends), "operations computed"))
    if degenerate:
        output.warn(
            f"{degenerate} networks are degenerate: their output does not depend on the input; "
            "they get the median of the measured ones, without an interval"
        )
    return lines, predictions


def _csv_text(
    columns: Sequence[str],
    lines: Sequence["PlacedLine"],
    predictions: Sequence[Sequence[str]],
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*columns, *COLUMNS))
    for (_, cells), prediction in zip(lines, predictions, strict=True):
        writer.writerow((*(cells.get(name, "") for name in columns), *prediction))
    return text.getvalue()


def show_latency_errors(output: Output, plot: Path | None) -> None:
    """Show the errors of predicted latencies on rows left out; draw them as `plot`."""
    from nonn_plan.latency_reproduction import draw, latency_reproduction

    if plot is not None:
        check_picture(plot)
    found = latency_reproduction()
    for question in dict.fromkeys(error.question for error in found.errors):
        rows = [_error_cells(error) for error in found.errors if error.question == question]
        output.table(question, ERROR_COLUMNS, rows)
    noise = found.noise
    output.say(
        f"NAS-Bench-201, noise: {noise.pairs} pairs of the same network with its inner nodes "
        f"swapped differ by {noise.median_pct:.1f} % (median), {noise.p90_pct:.1f} % (90th "
        f"percentile). The second mode: {noise.slow_pct:.0f} % of networks without a 3x3 "
        f"convolution take over 1.2 times their typical time, {noise.slow_others_pct:.0f} % of "
        f"the others. In {noise.split_pct:.0f} % of the pairs without one, one of the two alone "
        "does: no function of the network tells it. "
        f"{noise.degenerate} degenerate networks, whose output does not depend on the input, are "
        "neither fitted nor scored."
    )
    output.say(
        "Errors are relative, of the fastest loop, with 1 and 4 threads. The ridges of the "
        "predictor and its intervals were chosen by these very errors: only the withheld rows are "
        "blind."
    )
    if plot is not None:
        draw(found.rows, plot)
        output.say(f"written to {plot}")
    output.result(found.model_dump(mode="json"))


def _error_cells(error: "LatencyErrors") -> tuple[str, ...]:
    return (
        error.rows_of,
        error.model,
        str(error.rows),
        f"{error.median_pct:.1f}",
        f"{error.p90_pct:.1f}",
        f"{error.spearman:.3f}",
        "" if error.covered_pct is None else f"{error.covered_pct:.1f}",
    )
