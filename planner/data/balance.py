"""Balance: how alike the partitions of a plan are, and whether wider students know more.

NoNN's Eq. 2 (arXiv:1907.11804) divides the filters so that |P1| ~ |P2| ~ ... ~ |Pk|.  Communities
stay whole, so that partitions cannot be as alike as one wishes.  What counts is how far a plan is
from the best division into as many partitions of what it keeps:

    unevenness = (largest - smallest - least) / mean,

`least` being the least that largest - smallest can be, and mean the filters that are kept by the
number of students.  Students of further rounds repeat sizes of the first round, where each student
has one community: their unevenness is 0.

The least is number partitioning, which is hard: bins are filled one by one, the largest number
that is left always being in the next one, within windows that are narrower than the best
division known.  The last two bins are a subset sum.  The search visits a bounded number of
states; where that does not prove the least, the best that was found counts for it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import TYPE_CHECKING

from pydantic import Field

from nonn_common.document import Record

if TYPE_CHECKING:
    from planner.data.modes import Mode
    from planner.data.problem_data import ProblemData

PCT_UNITS = 10**6
"""Solver units of one percent of the mean partition."""

MOST_STATES = 400_000
"""States of one search, divided by how many numbers it divides; one takes microseconds."""


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
class LeastSpread:
    """Least that largest minus smallest partition can be, in filters; proven or found."""

    filters: int
    proven: bool


@lru_cache(maxsize=4096)
def least_spread(sizes: tuple[int, ...], students: int) -> LeastSpread:
    """Least spread of whole communities of these sizes over so many students.

    Each student has a community at least; there are as many communities as students, or more.
    """
    if students == len(sizes) or students == 1:
        return LeastSpread(max(sizes) - min(sizes) if students > 1 else 0, proven=True)
    falling = tuple(sorted(sizes, reverse=True))
    return _SpreadSearch(falling, students).least()


def _good_spread(falling: Sequence[int], students: int) -> int:
    """Spread of a good division: larger numbers first, each to the smallest bin; then moves."""
    bins: list[list[int]] = [[] for _ in range(students)]
    sums = [0] * students
    for size in falling:
        place = sums.index(min(sums))
        bins[place].append(size)
        sums[place] += size
    while _improve(bins, sums):
        pass
    return max(sums) - min(sums)


def _improve(bins: list[list[int]], sums: list[int]) -> bool:
    """Move or exchange numbers of two bins so that their sums are nearer, if any."""
    for high in sorted(range(len(bins)), key=lambda b: -sums[b]):
        for low in sorted(range(len(bins)), key=lambda b: sums[b]):
            apart = sums[high] - sums[low]
            if apart < 2:
                break
            moves = [(one, other) for one in bins[high] for other in (0, *bins[low])]
            good = [
                (abs(apart - 2 * (one - other)), one, other)
                for one, other in moves
                if 0 < one - other < apart and (other or len(bins[high]) > 1)
            ]
            if good:
                _, one, other = min(good)
                bins[high].remove(one)
                bins[low].append(one)
                if other:
                    bins[low].remove(other)
                    bins[high].append(other)
                sums[high] -= one - other
                sums[low] += one - other
                return True
    return False


def _spread_bound(falling: Sequence[int], students: int) -> int:
    """Lower bound of the spread.

    The largest partition is no smaller than the mean, the largest number, and two of the k + 1
    largest together, of which one has two.  The smallest is no larger than the mean of those that
    have none of the j largest numbers.
    """
    total = sum(falling)
    largest = max(falling[0], -(-total // students), falling[students - 1] + falling[students])
    smallest = min((total - sum(falling[:j])) // (students - j) for j in range(students))
    return max(0, largest - smallest)


Sums = tuple[int, int]
"""Smallest and largest partition of a division."""


class _SpreadSearch:
    """Search for the division of least spread, with a bound on its states."""

    def __init__(self, falling: tuple[int, ...], students: int) -> None:
        self._numbers, self._students = falling, students
        self._left = MOST_STATES // len(falling)
        self._failed: set[tuple[int, tuple[int, ...]]] = set()

    def least(self) -> LeastSpread:
        """Lower the spread of a good division until it is proven to be the least.

        A division of less spread has its smallest partition at one of a few sizes, and all others
        within that much of it.
        """
        numbers, k, total = self._numbers, self._students, sum(self._numbers)
        found, bound = _good_spread(numbers, k), _spread_bound(numbers, k)
        low = total // k
        while found > bound and low + found > max(numbers[0], -(-total // k)) and low > 0:
            self._failed = set()
            better = self._fill(numbers, k, low, low + found - 1)
            if self._left < 0:
                return LeastSpread(found, proven=False)
            if better is None:
                low -= 1
            else:
                found = better[1] - better[0]
        return LeastSpread(found, proven=True)

    def _fill(self, numbers: tuple[int, ...], bins: int, low: int, high: int) -> Sums | None:
        """Fill as many bins, from `low` to `high` each, with all of the numbers."""
        total = sum(numbers)
        self._left -= 1
        if not bins * low <= total <= bins * high or self._left < 0:
            return None
        if bins == 1:
            return total, total
        if bins == 2:
            half = _largest_sum(numbers, total // 2)
            return (half, total - half) if half >= max(low, total - high) else None
        if (bins, numbers) in self._failed:
            return None
        found = self._complete(numbers[0], numbers[1:], 0, bins, low, high)
        if found is None:
            self._failed.add((bins, numbers))
        return found

    def _complete(
        self, held: int, numbers: tuple[int, ...], start: int, bins: int, low: int, high: int
    ) -> Sums | None:
        """Complete the next bin, which holds so much, from `start` on; then fill the others."""
        if held > high or self._left < 0:
            return None
        self._left -= 1
        if held >= low and len(numbers) >= bins - 1:
            others = self._fill(numbers, bins - 1, low, high)
            if others is not None:
                return min(held, others[0]), max(held, others[1])
        for place in range(start, len(numbers)):
            if place > start and numbers[place] == numbers[place - 1]:
                continue
            rest = numbers[:place] + numbers[place + 1 :]
            found = self._complete(held + numbers[place], rest, place, bins, low, high)
            if found is not None:
                return found
        return None


def _largest_sum(numbers: Sequence[int], most: int) -> int:
    """Largest sum of some of the numbers that is not above `most`."""
    sums = 1
    for number in numbers:
        sums |= sums << number
    return (sums & ((1 << (most + 1)) - 1)).bit_length() - 1


def uneven_units(spread: int, kept: tuple[int, ...], students: int) -> int:
    """Unevenness of a division in solver units, rounded up.

    `kept` are the sizes of the communities that are not dropped, `students` those of the first
    round.  A division that is better than what is known to be the least counts as that.
    """
    over = max(0, spread - least_spread(kept, students).filters)
    return -(-over * students * 100 * PCT_UNITS // sum(kept))


def most_spread(units: int, kept: tuple[int, ...], students: int) -> int:
    """Largest spread, in filters, whose unevenness is no more than so many solver units."""
    extra = units * sum(kept) // (students * 100 * PCT_UNITS)
    return least_spread(kept, students).filters + extra


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
        after = {
            mode: rank[mode]
            if mode in kept
            else min(
                (abs(rank[other] - rank[mode]), rank[other])
                for other in kept
                if dominates(other, mode)
            )[1]
            for mode in data.modes
        }
        wrong = [
            one
            for one, other in permutations(data.modes, 2)
            if one not in kept and one.group0 == other.group0
            if (rank[one] <= rank[other] and after[one] > after[other])
            or (rank[one] >= rank[other] and after[one] < after[other])
        ]
        if not wrong:
            return
        kept += dict.fromkeys(wrong)


def most_inversion(students: Iterable[tuple[int, int]]) -> int:
    """Most filters that a wider student has fewer than a narrower one; 0 for none.

    `students` are width, or its rank, and filters of each.
    """
    inversion = 0
    widest: dict[int, int] = {}
    least: dict[int, int] = {}
    for width, filters in students:
        widest[width] = max(filters, widest.get(width, 0))
        least[width] = min(filters, least.get(width, filters))
    most = 0
    for width in sorted(widest):
        inversion = max(inversion, most - least[width])
        most = max(most, widest[width])
    return inversion
