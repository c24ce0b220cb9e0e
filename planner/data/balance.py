"""Balance: how alike the partitions of a plan are, and whether wider students know more.

NoNN's Eq. 2 (arXiv:1907.11804) divides the filters so that |P1| ~ |P2| ~ ... ~ |Pk|.  Communities
stay whole, so that partitions cannot be as alike as one wishes.  What counts is how far a plan is
from the best division into as many partitions of what it keeps:

    unevenness = (largest - smallest - least) / mean,

`least` being the least that largest - smallest can be, and mean the filters that are kept by the
number of students (`planner.problem.least_spread`).  Students of further rounds repeat sizes of the
first round, where each student has one community: their unevenness is 0.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from nonn_common.document import Record
from planner.problem.least_spread import most_spread

if TYPE_CHECKING:
    from planner.data.modes import Mode
    from planner.data.problem_data import ProblemData


class PartitionBalance(Record):
    """How alike the partitions are, in filters, and whether wider students know more."""

    smallest: int = Field(ge=1, description="Filters of the smallest partition.")
    largest: int = Field(ge=1, description="Filters of the largest partition.")
    least_spread: int = Field(
        ge=0, description="Least of largest less smallest, of whole communities and so many."
    )
    least_proven: bool = Field(description="That is proven; else a bounded search found it.")
    most_spread: int | None = Field(ge=0, description="The most by balance_pct; null: any.")
    unevenness_pct: float = Field(
        ge=0, description="How far above the least it is, in percent of the mean partition."
    )
    inversion: int = Field(
        ge=0, description="Most filters that a wider student has fewer than a narrower one."
    )


@dataclass(frozen=True, slots=True)
class Division:
    """Number of a drop step, number of students, and sizes of the kept communities."""

    drop: int
    students: int
    kept: tuple[int, ...]


def kept_sizes(data: "ProblemData", drop: int) -> tuple[int, ...]:
    """Sizes of the communities that a drop step keeps, in the order of their ids."""
    dropped = data.drop_choices[drop].communities
    return tuple(size for c, size in enumerate(data.sizes) if c not in dropped)


def divisions(data: "ProblemData") -> tuple[Division, ...]:
    """Every drop step with every number of students that may share what it keeps."""
    every = [kept_sizes(data, drop) for drop in range(len(data.drop_choices))]
    return tuple(
        Division(drop, students, kept)
        for drop, kept in enumerate(every)
        for students in range(max(1, data.fewest_students), data.slots + 1)
        if students <= len(kept)
    )


def balanced_range(
    every: Iterable[Division], most_uneven: int | None, filters: int
) -> tuple[int, int]:
    """Fewest and most filters of a partition of any of these divisions."""
    if most_uneven is None:
        return 1, filters
    ranges = [partition_range(most_uneven, one.kept, one.students) for one in every]
    fewest, most = zip(*ranges, strict=True) if ranges else ((1,), (filters,))
    return min(fewest), max(most)


def partition_range(units: int, kept: tuple[int, ...], students: int) -> tuple[int, int]:
    """Fewest and most filters of a partition where plans are at most so uneven."""
    spread, total = most_spread(units, kept, students), sum(kept)
    others = (students - 1) * spread
    least = max(min(kept), -(-(total - others) // students))
    return least, min(total, (total + others) // students)


def width_ranks(data: "ProblemData") -> tuple[int, ...]:
    """Rank of each mode by its width, from 0, modes of one width alike.

    The width of a student's network are the parameters of all but its last layer, which has as many
    outputs as the student has filters.
    """
    widths = sorted({mode.line.params for mode in data.modes})
    return tuple(widths.index(mode.line.params) for mode in data.modes)


def keep_order_of_widths(
    data: "ProblemData", kept: "list[Mode]", dominates: "Callable[[Mode, Mode], bool]"
) -> None:
    """Keep further modes, until replacing the others makes none wider that was not so.

    Each is replaced by the mode of nearest width that dominates it.
    """
    rank = dict(zip(data.modes, data.width_ranks, strict=True))
    while True:
        stay = set(kept)
        after = {
            mode: rank[mode]
            if mode in stay
            else min(
                (abs(rank[other] - rank[mode]), rank[other])
                for other in kept
                if dominates(other, mode)
            )[1]
            for mode in data.modes
        }
        rows = [(mode.group0, rank[mode], after[mode]) for mode in data.modes]
        wrong = [
            mode
            for mode, (group0, before, then) in zip(data.modes, rows, strict=True)
            if mode not in stay
            if any(
                group0 == shape
                and ((before <= other and then > later) or (before >= other and then < later))
                for shape, other, later in rows
            )
        ]
        if not wrong:
            return
        kept += wrong
