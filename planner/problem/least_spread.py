"""Least spread: how alike whole communities let partitions be, in filters.

What a balance of so many percent means follows from it, and from nothing of the planner's: the
planner keeps it, and certificates count on it.

The least is number partitioning, which is hard: bins are filled one by one, the largest number
that is left always being in the next one, within windows that are narrower than the best
division known.  The last two bins are a subset sum.  The search visits a bounded number of
states; where that does not prove the least, the best that was found counts for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

PCT_UNITS = 10**6
"""Solver units of one percent of the mean partition."""

MOST_STATES = 400_000
"""States of one search, divided by how many numbers it divides; one takes microseconds."""


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
