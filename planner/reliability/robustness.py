"""Robustness: probabilities of board states, expected accuracy, and reliability of a plan.

Causes of failures are independent of each other; each takes its boards at once, and a board is up
where no cause has taken it.  The chances of which boards are up follow exactly, cause by cause,
from all of them up: with probability p a cause with the boards C turns the state U into U
without C::

    P'(U) = (1 - p) P(U) + p * sum of P(V) over all V with V without C = U

A student answers where at least one board with a copy of it is up.  With n of K students answering
in a state s of probability P(s), and A the accuracy of all students::

    expected accuracy = A * sum_s P(s) retained(n(s) / K)
    reliability       = sum of P(s) over the states with A * retained(n(s) / K) >= tau

Only the chances of n = 0..K are needed.  Boards that no student and no cause connects are
independent, so that their numbers of answers add up: their chances are convolved.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from nonn_common.errors import InputError
from planner.accuracy.model import UNITS_PER_INDEX, AccuracyModel
from planner.reliability.failures import Failures, retained_share

MOST_DEPENDENT_BOARDS = 16
"""Boards whose states are enumerated together, 2^16 at most."""


def failure_causes(failures: Failures, boards: Sequence[str]) -> tuple[tuple[int, float], ...]:
    """Return the boards that each cause takes, as bits of their places, and its probability.

    Causes that take none of `boards`, or never come, are left out.
    """
    bits = {board: 1 << place for place, board in enumerate(boards)}
    alone = [(bits.get(each.board, 0), each.probability) for each in failures.boards]
    common = [
        (sum(bits.get(board, 0) for board in each.boards), each.probability)
        for each in failures.outages
    ]
    return tuple((taken, chance) for taken, chance in (*alone, *common) if taken and chance)


def up_probability(failures: Failures, board: str) -> float:
    """Return the chance that one board is up, from 0 to 1."""
    return prod(1 - chance for _, chance in failure_causes(failures, (board,)))


def state_probabilities(taking: Iterable[tuple[int, float]], boards: int) -> NDArray[np.float64]:
    """Probability of each set of boards, by the bits of those up.

    Raises InputError for more than `MOST_TOGETHER` boards.
    """
    if boards > MOST_DEPENDENT_BOARDS:
        raise InputError(
            "the failures of too many boards depend on each other, by common causes or students",
            found=boards,
            allowed=f"up to {MOST_DEPENDENT_BOARDS}",
            fix="name fewer boards in an outage, or keep copies within smaller groups of boards",
        )
    sets = np.arange(1 << boards)
    chance = np.zeros(sets.size)
    chance[-1] = 1.0
    for taken, probability in taking:
        fallen = np.bincount(sets & ~taken, weights=chance, minlength=sets.size)
        chance = (1 - probability) * chance + probability * fallen
    return chance


MOST_ENUMERATED = 12
"""Boards with students up to which all are enumerated together."""

_MOST_REMEMBERED = 200
"""Groups of boards whose states are kept, of at most 512 KiB each."""

_ROUNDING_PCT = 1e-9

Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RobustnessEstimate:
    """Expected accuracy and reliability in percent; None without a target."""

    expected_accuracy_pct: float
    reliability_pct: float | None


class RobustnessEvaluator:
    """Evaluator of plans on `boards`, the names of places 0, 1 ...; it caches."""

    def __init__(self, failures: Failures, boards: Sequence[str]) -> None:
        self._failures = failures
        self._boards = tuple(boards)
        self._causes = failure_causes(failures, boards)
        self._states: dict[tuple[int, ...], Probabilities] = {}
        self._answered: dict[tuple[int, ...], Probabilities] = {}
        self._retained: dict[int, Probabilities] = {}

    def evaluate(
        self, accuracy_pct: float, replica_sets: Sequence[frozenset[int]]
    ) -> RobustnessEstimate:
        """Robustness of a plan whose students have `accuracy_pct` all together.

        `homes` are, for each student, the places of the boards with a copy of it.  Raises
        InputError where more boards depend on each other than can be enumerated.
        """
        answered = self.answer_distribution(replica_sets)
        kept_pct = accuracy_pct * self._kept(len(replica_sets))
        target = self._failures.target_pct
        reached = None if target is None else kept_pct >= target - _ROUNDING_PCT
        return RobustnessEstimate(
            expected_accuracy_pct=min(accuracy_pct, float(answered @ kept_pct)),
            reliability_pct=None
            if reached is None
            else min(100.0, 100 * float(answered @ reached)),
        )

    def answer_distribution(self, replica_sets: Sequence[frozenset[int]]) -> Probabilities:
        """Return the probability that exactly 0, 1 ... of the students answer."""
        students = tuple(sorted(sum(1 << place for place in home) for home in replica_sets))
        if students not in self._answered:
            groups = self._together(students)
            total = np.ones(1)
            for group in groups:
                here = [student for student in students if student & group]
                total = np.convolve(total, self._answered_of(group, here))
            # A student without a board never answers.
            total = np.append(total, np.zeros(len(replica_sets) + 1 - total.size))
            total.flags.writeable = False
            self._answered[students] = total
        return self._answered[students]

    def _kept(self, students: int) -> Probabilities:
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
        if used.bit_count() <= MOST_ENUMERATED:
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

    def _answered_of(self, group: int, students: Sequence[int]) -> Probabilities:
        """Return the chances of 0, 1 ... answers of students on the boards of `group`."""
        places = tuple(place for place in range(len(self._boards)) if group >> place & 1)
        if places not in self._states:
            taking = [
                (_bits_within(places, taken), p) for taken, p in self._causes if taken & group
            ]
            if len(self._states) == _MOST_REMEMBERED:
                self._states.pop(next(iter(self._states)))
            self._states[places] = state_probabilities(taking, len(places))
        chance = self._states[places]
        up = np.arange(chance.size)
        answers = np.zeros(chance.size, dtype=np.int64)
        for student in students:
            answers += (up & _bits_within(places, student)) != 0
        numbers = np.arange(len(students) + 1)
        counted: Probabilities = (answers == numbers[:, None]) @ chance
        return counted


def survives(
    replica_sets: Sequence[frozenset[int]], failures: Failures, boards: Sequence[str], failed: int
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
    return not any(_covered(home, taken, failed) for home in set(replica_sets))


def _covered(home: frozenset[int], outages: Sequence[frozenset[int]], failed: int) -> bool:
    """Say whether `failed` failures can take all boards of `home`.

    One of them takes its first board.
    """
    if not home or not failed:
        return not home
    first = min(home)
    taking = [outage for outage in outages if first in outage] or [frozenset({first})]
    return any(_covered(home - outage, outages, failed - 1) for outage in taking)


def _bits_within(places: Sequence[int], bits: int) -> int:
    """Return `bits` of all places as bits of `places` alone."""
    return sum(1 << i for i, place in enumerate(places) if bits >> place & 1)


UNITS_PER_CERTAINTY = 10**9
"""Units of a chance, and of a share of the accuracy."""
UNITS_PER_ACCURACY_POINT = 10**4
"""Units of an accuracy per percentage point."""

Scenario = tuple[float, frozenset[int]]
"""The chance of a state, and the places of the boards that are up in it."""


@dataclass(frozen=True, slots=True)
class FailureScenarios:
    """Failures of boards, by the boards' names in the fleet's order, and accuracy by size.

    A size is ln(parameters) + ln(MACs) in solver units.
    """

    failures: Failures
    boards: tuple[str, ...]
    accuracy: AccuracyModel

    @property
    def states(self) -> Sequence[Scenario]:
        """All states, the likeliest first; raises InputError where too many boards may fail."""
        return _scenarios(self.failures, self.boards)

    def probability_alone(self, place: int) -> float:
        """Return how often a board is down by itself, from 0 to 1."""
        name = self.boards[place]
        return next((one.probability for one in self.failures.boards if one.board == name), 0.0)

    def retained_shares(self, students: int) -> tuple[float, ...]:
        """Share of the accuracy with 0, 1 ... answering students."""
        return _retained_shares(self.failures, students)

    def accuracy_units(self, size: int) -> int:
        """Return the accuracy of this size by the fit alone, in ten-thousandths of a point."""
        return math.floor(UNITS_PER_ACCURACY_POINT * (self._teacher_pct - self._drop_pct(size)))

    @property
    def floor_units(self) -> int:
        """Return the accuracy that no size falls below, in the same units, rounded up."""
        return math.ceil(UNITS_PER_ACCURACY_POINT * self.accuracy.floor_pct)

    def slope(self, size: int) -> float:
        """Return by how many units `points` grows with each unit of size, at this size."""
        return (
            UNITS_PER_ACCURACY_POINT
            * self.accuracy.slope
            * self._drop_pct(size)
            / 2
            / UNITS_PER_INDEX
        )

    def least_accuracy_units(self, answered: int, students: int) -> int | None:
        """Return the least `points` with which so many answers reach the target; None: no points.

        Rounded down.
        """
        share, target_pct = (
            self.retained_shares(students)[answered],
            self.failures.target_pct or 0.0,
        )
        if share * 100 < target_pct:
            return None
        return math.floor(UNITS_PER_ACCURACY_POINT * target_pct / share)

    def evaluate(self, size: int, replica_sets: Sequence[frozenset[int]]) -> RobustnessEstimate:
        """Robustness of students of this size on these boards."""
        accuracy_pct = max(self.accuracy.floor_pct, self._teacher_pct - self._drop_pct(size))
        return _evaluator(self.failures, self.boards).evaluate(accuracy_pct, replica_sets)

    @property
    def _teacher_pct(self) -> float:
        return self.accuracy.teacher_accuracy_pct or 0.0

    def _drop_pct(self, size: int) -> float:
        return self.accuracy.drop_pct(size / UNITS_PER_INDEX / 2)


@cache
def _scenarios(failures: Failures, boards: tuple[str, ...]) -> tuple[Scenario, ...]:
    """Return all states; boards that nothing takes are up in each of them."""
    taken = 0
    for each, _ in failure_causes(failures, boards):
        taken |= each
    places = [place for place in range(len(boards)) if taken >> place & 1]
    found = state_probabilities(
        failure_causes(failures, [boards[place] for place in places]), len(places)
    )
    always = frozenset(range(len(boards))) - frozenset(places)
    rows = [
        (float(chance), always | {place for i, place in enumerate(places) if up >> i & 1})
        for up, chance in enumerate(found.tolist())
        if chance
    ]
    return tuple(sorted(rows, key=lambda row: (-row[0], sorted(row[1]))))


@cache
def _retained_shares(failures: Failures, students: int) -> tuple[float, ...]:
    return tuple(retained_share(failures, n, students) for n in range(students + 1))


@cache
def _evaluator(failures: Failures, boards: tuple[str, ...]) -> RobustnessEvaluator:
    return RobustnessEvaluator(failures, boards)
