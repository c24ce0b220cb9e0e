"""Partitions as people see them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nonn_core.partition import Community, Partition
from nonn_plan.output import Output, shown_pct

if TYPE_CHECKING:
    from nonn_core.knowledge.partitioning import GammaRow

_SWEPT = ("gamma", "communities", "largest", "smallest", "modularity", "at gamma 1", "g0", "P0")


def show_partition(output: Output, found: Partition) -> None:
    """Show communities, and what dropping them does to the teacher."""
    output.table(
        f"Communities of {found.filters} filters (modularity {found.modularity:.3f})",
        ("community", "filters", "what"),
        [(str(one.id), str(len(one.filters)), _origin(one)) for one in found.communities],
    )
    p0 = None if found.epsilon_pct is None else found.p0(found.epsilon_pct)
    output.table(
        "What may be dropped as P0",
        ("communities", "filters", "validation accuracy", "delta_val", ""),
        [
            (
                ", ".join(map(str, step.communities)) or "none",
                str(step.filters),
                shown_pct(step.accuracy_pct),
                shown_pct(step.delta_val_pct),
                f"largest below {found.epsilon_pct:g} %"
                if found.epsilon_pct and step == p0
                else "",
            )
            for step in found.drop_steps
        ],
    )


def show_sweep(output: Output, rows: "Sequence[GammaRow]", files: Sequence[str]) -> None:
    """Show what each gamma finds."""
    output.table(
        "Communities by gamma (g0 not counted), and how many filters P0 may hold",
        (*_SWEPT, "file"),
        [
            (
                f"{row.gamma:g}",
                str(row.communities),
                str(row.largest),
                str(row.smallest),
                f"{row.modularity:.4f}",
                f"{row.plain_modularity:.4f}",
                str(row.g0_filters),
                "not measured" if row.p0_filters is None else str(row.p0_filters),
                file,
            )
            for row, file in zip(rows, files, strict=True)
        ],
    )


def _origin(community: Community) -> str:
    if community.unneeded:
        return "single filters that are not missed"
    return "linked" if community.linked else "without a link (g0)"
