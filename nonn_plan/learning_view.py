"""Partitions, training and evaluation as people see them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nonn_core.partition import Partition
from nonn_plan.output import Output
from profiles.units import format_bytes, format_count, format_flops

if TYPE_CHECKING:
    from boards.fit import BoardFit
    from nonn_core.evaluation import Evaluation
    from nonn_core.learning.loop import EpochMetrics


def show_partition(output: Output, found: Partition) -> None:
    """Show communities, and what dropping them does to the teacher."""
    output.table(
        f"Communities of {found.filters} filters (modularity {found.modularity:.3f})",
        ("community", "filters", "linked"),
        [
            (str(one.id), str(len(one.filters)), "yes" if one.linked else "no (g0)")
            for one in found.communities
        ],
    )
    output.table(
        "What may be dropped as P0",
        ("communities", "filters", "validation accuracy", "delta_val"),
        [
            (
                ", ".join(map(str, step.communities)) or "none",
                str(step.filters),
                _pct(step.accuracy_pct),
                _pct(step.delta_val_pct),
            )
            for step in found.drop_steps
        ],
    )


def show_history(output: Output, history: "list[EpochMetrics]") -> None:
    """Show the last epochs of a run."""
    names = list(history[-1].losses)
    output.table(
        "Last epochs",
        ("epoch", *names, "validation accuracy"),
        [
            (
                str(metrics.epoch),
                *(f"{metrics.losses[name]:.4f}" for name in names),
                _pct(metrics.validation_accuracy_pct),
            )
            for metrics in history[-3:]
        ],
    )


def show_evaluation(output: Output, found: "Evaluation") -> None:
    """Show test accuracy, whole and by subset of students."""
    output.say(f"{found.data}: {found.accuracy_pct:.2f} % of {found.images} test images right")
    if found.subsets:
        output.table(
            "When only some students answer",
            ("students", "test accuracy"),
            [(", ".join(s.students), _pct(s.accuracy_pct)) for s in found.subsets],
        )


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


def _pct(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f} %"
