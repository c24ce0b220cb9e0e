"""Accuracy tables as people see them: published beside obtained, on a screen or in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nonn_common.units import format_count, format_flops
from nonn_core.experiments.table_results import RobustnessResult, RowResult, TableResults
from nonn_core.experiments.table_rows import RowCost, TableDesign
from nonn_core.recipe import setting_label
from nonn_plan.cli.output import Output


class Sheet(NamedTuple):
    """A table of text."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def sheets(results: TableResults) -> list[Sheet]:
    """Sheets of a table's results: accuracy, trials, missing boards."""
    shown = [_accuracy_sheet(results)]
    if any(row.trials for row in results.rows):
        shown.append(_trials_sheet(results.rows))
    if results.robustness is not None:
        shown.append(_robustness_sheet(results.robustness))
    return shown


def costs_sheet(design: TableDesign, costs: Mapping[str, RowCost]) -> Sheet:
    """Sheet of each row's cost here, and in brackets as published."""
    rows = []
    for row in design.rows:
        published, cost = design.published.of(row.name), costs[row.name]
        macs = published.flops and published.flops / design.published.flops_per_mac
        rows.append(
            (
                f"{row.name} ({published.model})",
                _network(row.network, row.students),
                _beside(format_count, cost.student_params, published.params),
                _beside(format_count, cost.total_params, published.total_params),
                _beside(format_flops, cost.board_macs, macs),
            )
        )
    return Sheet(
        f"{design.published.source}: what the rows need (params: largest student; FLOPs: busiest "
        "board; in brackets: as published)",
        ("row", "network", "params", "whole", "FLOPs"),
        rows,
    )


def show_sheets(output: Output, shown: Sequence[Sheet]) -> None:
    """Show sheets to a person."""
    for sheet in shown:
        output.table(*sheet)


def table_markdown(results: TableResults) -> str:
    """Write results as Markdown."""
    experiment, machine = results.experiment, results.machine
    optimiser = experiment.optimiser
    forms = dict.fromkeys(row.form for row in results.rows if row.form is not None)
    facts = [
        f"Published: {results.source}.",
        f"Data: {experiment.data}, {results.training_images} training images, "
        f"{results.test_images} test images.",
        f"Teacher: {experiment.teacher_network}, {experiment.teacher_optimiser.epochs} epochs. "
        f"Rows: {optimiser.epochs} epochs, batches of {optimiser.batch_size}; "
        f"{experiment.compute.precision}, cached views {experiment.compute.cached_views}, "
        f"first seed {experiment.seed}."
        + (f" Form of the losses: {', '.join(forms)}." if forms else ""),
        f"Machine: {machine.accelerator or machine.processor}, {machine.threads} threads, "
        f"{machine.system}; "
        + ", ".join(f"{name} {version}" for name, version in results.versions.items())
        + ".",
    ]
    parts = [f"# {_title(results)}", *facts, *map(_markdown_table, sheets(results))]
    return "\n\n".join(parts) + "\n"


def _accuracy_sheet(results: TableResults) -> Sheet:
    columns = (
        "row",
        "network",
        "params",
        "FLOPs",
        "published",
        "obtained",
        "published - teacher",
        "obtained - teacher",
        "seeds",
    )
    return Sheet(
        f"{_title(results)}, here on {results.experiment.data} (params: largest student; FLOPs: "
        "busiest board; accuracy: test images, percent, mean ± standard deviation)",
        columns,
        [
            (
                f"{row.row} ({row.published.model})",
                _network(row.network, len(row.filters)),
                format_count(row.student_params),
                format_flops(row.board_macs),
                _spread(row.published.accuracy_pct, row.published.std_pct),
                _spread(row.accuracy_pct, row.std_pct),
                f"{row.published_minus_teacher_pct:+.2f}",
                f"{row.minus_teacher_pct:+.2f}",
                str(len(row.runs)),
            )
            for row in results.rows
        ],
    )


def _trials_sheet(rows: Sequence[RowResult]) -> Sheet:
    return Sheet(
        "What was tried with the first seed (validation accuracy, percent; the best is kept)",
        ("row", "setting", "validation", "kept"),
        [
            (
                row.row,
                setting_label(trial.setting),
                "diverged"
                if trial.validation_accuracy_pct is None
                else f"{trial.validation_accuracy_pct:.2f}",
                "yes" if trial.setting == row.setting else "",
            )
            for row in rows
            for trial in row.trials
        ],
    )


def _robustness_sheet(found: RobustnessResult) -> Sheet:
    told = all(one.imputed_mean_pct is not None for one in found.answering)
    return Sheet(
        "When only some boards answer: every subset (test accuracy, percent); best single student "
        f"{found.best_single_student_pct:.2f}, published "
        f"{found.published_best_single_student_pct:.2f}",
        ("boards", "subsets", "published mean", "mean", "lowest", "highest", "imputed mean")[
            : 6 + told
        ],
        [
            (
                str(one.boards),
                str(one.subsets),
                "" if one.published_above_pct is None else f"> {one.published_above_pct:g}",
                f"{one.mean_pct:.2f}",
                f"{one.lowest_pct:.2f}",
                f"{one.highest_pct:.2f}",
                *([f"{one.imputed_mean_pct:.2f}"] if one.imputed_mean_pct is not None else []),
            )
            for one in found.answering
        ],
    )


def _markdown_table(sheet: Sheet) -> str:
    lines = [sheet.columns, ("---",) * len(sheet.columns), *sheet.rows]
    return f"{sheet.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _title(results: TableResults) -> str:
    figure = "Figure 8" if results.table == "fig8" else f"Table {results.table}"
    return f"{figure}, {results.dataset}"


def _spread(mean_pct: float, std_pct: float | None) -> str:
    return f"{mean_pct:.2f}" + ("" if std_pct is None else f" ± {std_pct:.2f}")


def _network(network: str, students: int) -> str:
    return network if students < 2 else f"{students} x {network}"


def _beside(form: Callable[[float], str], here: float, published: float | None) -> str:
    return form(here) if published is None else f"{form(here)} ({form(published)})"
