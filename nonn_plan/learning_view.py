"""Training and evaluation as people see them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nonn_plan.output import Output, shown_pct
from profiles.units import format_bytes, format_count, format_flops

if TYPE_CHECKING:
    from boards.fit import BoardFit
    from nonn_core.evaluation import Evaluation, SubsetAccuracy
    from nonn_core.learning.checkpoint import EpochMetrics
    from nonn_core.learning.repeats import RepeatedEvaluation


def show_history(output: Output, history: "list[EpochMetrics]", of: str = "") -> None:
    """Show the last epochs of a run; `of` says of which one."""
    names = list(history[-1].losses)
    output.table(
        f"Last epochs{of}",
        ("epoch", *names, "validation accuracy"),
        [
            (
                str(metrics.epoch),
                *(f"{metrics.losses[name]:.4f}" for name in names),
                shown_pct(metrics.validation_accuracy_pct),
            )
            for metrics in history[-3:]
        ],
    )


def show_evaluation(output: Output, found: "Evaluation") -> None:
    """Show test accuracy, whole and by subset of students."""
    output.say(f"{found.data}: {found.accuracy_pct:.2f} % of {found.images} test images right")
    _show_subsets(output, found.subsets)


def show_repeats(output: Output, found: "RepeatedEvaluation") -> None:
    """Show test accuracy over seeds, whole and by subset of students."""
    deviation = "" if found.deviation_pct is None else f" +- {found.deviation_pct:.2f}"
    output.table(
        f"{found.data}: {found.accuracy_pct:.2f}{deviation} % of {found.images} test images right",
        ("seed", "test accuracy"),
        [(str(one.seed), shown_pct(one.accuracy_pct)) for one in found.seeds],
    )
    _show_subsets(output, found.subsets)


def show_fits(output: Output, fits: "Sequence[BoardFit]") -> None:
    """Show what the built students of each board need, and what they may use."""
    output.table(
        "Built students, measured, against their boards' budgets",
        ("board", "students", "parameters", "memory", "allowed", "FLOPs", "allowed"),
        [
            (
                fit.board,
                ", ".join(fit.students),
                format_count(fit.params),
                format_bytes(fit.memory_bytes),
                format_bytes(fit.memory_limit_bytes),
                format_flops(fit.macs),
                "no limit" if fit.macs_limit is None else format_flops(fit.macs_limit),
            )
            for fit in fits
        ],
    )


def _show_subsets(output: Output, subsets: "Sequence[SubsetAccuracy]") -> None:
    if subsets:
        output.table(
            "When only some students answer",
            ("students", "test accuracy"),
            [(", ".join(s.students), shown_pct(s.accuracy_pct)) for s in subsets],
        )
