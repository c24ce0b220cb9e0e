"""`reproduce`: every published deployment figure beside the simulated one, with the error."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.options import AsJson
from nonn_plan.output import Output
from profiles.document import check_own_place, write_atomic

if TYPE_CHECKING:
    from nonn_plan.reproduction import Reproduced

TITLE = "# Reproduction of published deployment figures"
COLUMNS = ("row", "quantity", "published", "simulated", "error %", "fitted", "left out %")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(reproduce)


def reproduce(
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", "--markdown", help="Write the page as Markdown, page.md."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every published deployment figure beside the simulated one, with the error.

    `fitted` says whether the profiles were fitted to the figure, `left out` how far off they are
    when they are fitted without its row: none, where no other row tells a figure that it needs.
    Withheld figures have a prediction alone.
    """
    from nonn_plan.reproduction import reproduced

    output = Output(as_json)
    if out is not None:
        check_own_place(out, TITLE.encode())
    rows = reproduced()
    for table in dict.fromkeys(row.table for row in rows):
        output.table(table, COLUMNS, [_cells(row) for row in rows if row.table == table])
    output.say(summary(rows))
    if out is not None:
        write_atomic(out, markdown(rows).encode())
        output.say(f"written to {out}")
    output.result([row.model_dump(mode="json") for row in rows])


def summary(rows: "Sequence[Reproduced]") -> str:
    """Say how far off the fitted figures are at most, table by table."""
    parts = []
    for table in dict.fromkeys(row.table for row in rows):
        errors = [
            abs(row.error_pct)
            for row in rows
            if row.table == table and row.used_for_fit and row.error_pct is not None
        ]
        if errors:
            parts.append(f"{table}: {max(errors):.1f} % ({len(errors)} figures)")
    return f"Largest error of figures used to fit: {'; '.join(parts)}."


def markdown(rows: "Sequence[Reproduced]") -> str:
    """Return the page of the documentation."""
    parts = [
        TITLE,
        "Written by `nonn-plan reproduce -o docs/reproduction.md`; not edited by hand.",
        "Each published measurement is run as a workload in the simulator, on the profiles of the "
        "library. These were fitted (`profiles.calibrate`) to the figures marked so under "
        "*fitted*; *left out* is the error on a figure when its row takes no part in the fit. "
        "A figure without a published value is withheld: a blind test, predicted from the others. "
        "Published figures and their sources: `profiles/data/published.yaml`.",
        "In Figure 7 students move one by one from slow boards of their own to one fast board; "
        "`nonn-plan sweep --from rpi-3b --to odroid-xu4s --student wrn16:32,64,88` draws it. "
        "Communication there is the total latency less the busy time of the board that computes "
        "longest; energy is that of computing, of all boards together.",
        summary(rows),
    ]
    for table in dict.fromkeys(row.table for row in rows):
        lines = [(*COLUMNS, "note"), ("---",) * (len(COLUMNS) + 1)]
        lines += [(*_cells(row), row.loo_reason or "") for row in rows if row.table == table]
        parts += [f"## {table}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def _cells(row: "Reproduced") -> tuple[str, ...]:
    return (
        row.row,
        row.quantity,
        "withheld" if row.published is None else f"{row.published:.10g}",
        f"{row.simulated:.4g}" if row.simulated < 1000 else f"{row.simulated:.0f}",
        _signed(row.error_pct),
        "yes" if row.used_for_fit else "no",
        _signed(row.loo_error_pct) or ("none" if row.used_for_fit else ""),
    )


def _signed(error_pct: float | None) -> str:
    return "" if error_pct is None else f"{round(error_pct, 1) + 0.0:+.1f}"
