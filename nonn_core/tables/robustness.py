"""A NoNN with boards missing: every subset of students, by how many answer (A, Fig. 8)."""

from collections.abc import Mapping, Sequence
from statistics import mean

from pydantic import Field

from nonn_core.tables.published import PublishedRobustness
from profiles.document import Record

Subsets = Mapping[str, float]
"""Test accuracy in percent by the students that answer, `s1 s3`."""


class Answering(Record):
    """All subsets of one size."""

    boards: int = Field(ge=1, description="Boards that answer.")
    subsets: int = Field(ge=1, description="Subsets of this size.")
    mean_pct: float = Field(description="Mean accuracy over subsets and seeds, percent.")
    lowest_pct: float = Field(description="Of the worst subset, mean over seeds, percent.")
    highest_pct: float = Field(description="Of the best subset, mean over seeds, percent.")
    published_above_pct: float | None = Field(
        description="What the published mean lies above, percent; null where nothing is published."
    )


class Robustness(Record):
    """Accuracy by number of boards that answer."""

    answering: tuple[Answering, ...] = Field(description="From one board to all of them.")
    best_single_student_pct: float = Field(
        description="The best student alone, mean over seeds, percent."
    )
    published_best_single_student_pct: float = Field(description="The same, as published.")


def robustness(runs: Sequence[Subsets], published: PublishedRobustness) -> Robustness:
    """Aggregate the accuracies of every subset; `runs` holds one mapping for each seed."""
    by_size: dict[int, list[float]] = {}
    for subset in runs[0]:
        by_size.setdefault(len(subset.split()), []).append(mean(run[subset] for run in runs))
    return Robustness(
        answering=tuple(
            Answering(
                boards=size,
                subsets=len(found),
                mean_pct=mean(found),
                lowest_pct=min(found),
                highest_pct=max(found),
                published_above_pct=published.mean_accuracy_above_pct.get(size),
            )
            for size, found in sorted(by_size.items())
        ),
        best_single_student_pct=max(by_size[1]),
        published_best_single_student_pct=published.best_single_student_pct,
    )
