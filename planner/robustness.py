"""Robustness: what a plan is worth when boards fail, and which failures it survives.

A student answers where at least one board with a copy of it is up.  With n of K students answering
in a state s of probability P(s), and A the accuracy of all students::

    expected accuracy = A * sum_s P(s) retained(n(s) / K)
    reliability       = sum of P(s) over the states with A * retained(n(s) / K) >= tau

Only the chances of n = 0..K are needed.  Boards that no student and no cause connects are
independent, so that their numbers of answers add up: their chances are convolved.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.failures import Failures, causes, chances, retained_share
from profiles.errors import InputError

AT_ONCE = 12
"""Boards with students up to which all are enumerated together."""

_REMEMBERED = 200
"""Groups of boards whose states are kept, of at most 512 KiB each."""

_ROUNDING_PCT = 1e-9

Chances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Robustness:
    """Accuracy to expect, and how often it is at least tau, in percent; None without tau."""

    expected_accuracy_pct: float
    reliability_pct: float | None


class Survival:
    """Values plans on `boards`, the names of places 0, 1 ...; remembers those it has seen."""

    def __init__(self, failures: Failures, boards: Sequence[str]) -> None:
        self._failures = failures
        self._boards = tuple(boards)
        self._causes = causes(failures, boards)
        self._states: dict[tuple[int, ...], Chances] = {}
        self._answered: dict[tuple[int, ...], Chances] = {}
        self._retained: dict[int, Chances] = {}

    def value(self, accuracy_pct: float, homes: Sequence[frozenset[int]]) -> Robustness:
        """Return what a plan is worth whose students answer with `accuracy_pct` all together.

        `homes` are, for each student, the places of the boards with a copy of it.  Raises
        InputError where more boards depend on each other than can be enumerated.
        """
        answered = self.answered(homes)
        kept_pct = accuracy_pct * self._kept(len(homes))
        target = self._failures.target_pct
        reached = None if target is None else kept_pct >= target - _ROUNDING_PCT
        return Robustness(
            expected_accuracy_pct=min(accuracy_pct, float(answered @ kept_pct)),
            reliability_pct=None
            if reached is None
            else min(100.0, 100 * float(answered @ reached)),
        )

    def answered(self, homes: Sequence[frozenset[int]]) -> Chances:
        """Return the probability that exactly 0, 1 ... of the students answer."""
        students = tuple(sorted(sum(1 << place for place in home) for home in homes))
        if students not in self._answered:
            groups = self._together(students)
            total = np.ones(1)
            for group in groups:
                here = [student for student in students if student & group]
                total = np.convolve(total, self._answered_of(group, here))
            # A student without a board never answers.
            total = np.append(total, np.zeros(len(homes) + 1 - total.size))
            total.flags.writeable = False
            self._answered[students] = total
        return self._answered[students]

    def _kept(self, students: int) -> Chances:
        if students not in self._retained:
            numbers = range(students + 1)
            shares = [retained_share(self._failures, each, students) for each in numbers]
            self._retained[students] = np.array(shares)
        return self._retained[students]

    def _together(self, students: Iterable[int]) -> list[int]:
        """Return groups of boards with students, as bits of their places, that are independent."""
        groups = [student for student in students if student]
        used = 0
        for group in groups:
            used |= group
        if used.bit_count() <= AT_ONCE:
            return [used] if used else []
        apart: list[int] = []
        for group in (*groups, *(taken & used for taken, _ in self._causes)):
            joined = group
            for other in [each for each in apart if each & group]:
                apart.remove(other)
                joined |= other
            if joined:
                apart.append(joined)
        return apart

    def _answered_of(self, group: int, students: Sequence[int]) -> Chances:
        """Return the chances of 0, 1 ... answers of students on the boards of `group`."""
        places = tuple(place for place in range(len(self._boards)) if group >> place & 1)
        if places not in self._states:
            taking = [(_of(places, taken), p) for taken, p in self._causes if taken & group]
            if len(self._states) == _REMEMBERED:
                self._states.pop(next(iter(self._states)))
            self._states[places] = chances(taking, len(places))
        chance = self._states[places]
        up = np.arange(chance.size)
        answers = np.zeros(chance.size, dtype=np.int64)
        for student in students:
            answers += (up & _of(places, student)) != 0
        numbers = np.arange(len(students) + 1)
        counted: Chances = (answers == numbers[:, None]) @ chance
        return counted


def survives(
    homes: Sequence[frozenset[int]], failures: Failures, boards: Sequence[str], failed: int
) -> bool:
    """Say whether every student answers after any `failed` failures.

    A failure is one board, also one that is not named, or one outage, however unlikely.  A student
    is lost where so many of them cover its boards, each of which is one of `boards` by its place.
    Raises InputError for fewer than no failures.
    """
    if failed < 0:
        raise InputError("failures to survive", found=failed, allowed="0 or more")
    places = {board: place for place, board in enumerate(boards)}
    taken = [frozenset(places[b] for b in each.boards if b in places) for each in failures.outages]
    return not any(_covered(home, taken, failed) for home in set(homes))


def _covered(home: frozenset[int], outages: Sequence[frozenset[int]], failed: int) -> bool:
    """Say whether `failed` failures can take all of `home`; one of them takes its first board."""
    if not home or not failed:
        return not home
    first = min(home)
    taking = [outage for outage in outages if first in outage] or [frozenset({first})]
    return any(_covered(home - outage, outages, failed - 1) for outage in taking)


def _of(places: Sequence[int], bits: int) -> int:
    """Return `bits` of all places as bits of `places` alone."""
    return sum(1 << i for i, place in enumerate(places) if bits >> place & 1)
