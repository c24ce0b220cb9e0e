"""Hazards: what may happen to an instance's boards, and what the answers that remain are worth.

The figures are those of `planner.robustness`; `planner.answers` puts them into a model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from planner.accuracy.model import AccuracyModel
from planner.failures import Failures, causes, chances, retained_share
from planner.robustness import Robustness, Survival
from planner.scaling import UNITS_PER_INDEX

CERTAIN = 10**9
"""Units of a chance, and of a share of the accuracy."""
PER_POINT = 10**4
"""Units of an accuracy per percentage point."""

State = tuple[float, frozenset[int]]
"""The chance of a state, and the places of the boards that are up in it."""


@dataclass(frozen=True, slots=True)
class Hazards:
    """Failures of boards, by the boards' names in the fleet's order, and accuracy by size.

    A size is ln(parameters) + ln(MACs) in solver units.
    """

    failures: Failures
    boards: tuple[str, ...]
    accuracy: AccuracyModel

    @property
    def states(self) -> Sequence[State]:
        """All states, the likeliest first; raises InputError where too many boards may fail."""
        return _states(self.failures, self.boards)

    def alone(self, place: int) -> float:
        """Return how often a board is down by itself, from 0 to 1."""
        name = self.boards[place]
        return next((one.probability for one in self.failures.boards if one.board == name), 0.0)

    def shares(self, students: int) -> tuple[float, ...]:
        """Return the share of the accuracy that is kept when 0, 1 ... of the students answer."""
        return _shares(self.failures, students)

    def points(self, size: int) -> int:
        """Return the accuracy of this size in units of `PER_POINT`; below 0 it is none."""
        return math.floor(PER_POINT * (self._teacher_pct - self._drop_pct(size)))

    def slope(self, size: int) -> float:
        """Return by how many units `points` grows with each unit of size, at this size."""
        return PER_POINT * self.accuracy.slope * self._drop_pct(size) / 2 / UNITS_PER_INDEX

    def points_for(self, answered: int, students: int) -> int | None:
        """Return the least `points` with which so many answers reach the target; None: no points.

        Rounded down.
        """
        share, target_pct = self.shares(students)[answered], self.failures.target_pct or 0.0
        if share * 100 < target_pct:
            return None
        return math.floor(PER_POINT * target_pct / share)

    def value(self, size: int, homes: Sequence[frozenset[int]]) -> Robustness:
        """Return what students of this size are worth that are held by these boards."""
        accuracy_pct = max(0.0, self._teacher_pct - self._drop_pct(size))
        return _survival(self.failures, self.boards).value(accuracy_pct, homes)

    @property
    def _teacher_pct(self) -> float:
        return self.accuracy.teacher_accuracy_pct or 0.0

    def _drop_pct(self, size: int) -> float:
        return self.accuracy.drop_pct(size / UNITS_PER_INDEX / 2)


@cache
def _states(failures: Failures, boards: tuple[str, ...]) -> tuple[State, ...]:
    """Return all states; boards that nothing takes are up in each of them."""
    taken = 0
    for each, _ in causes(failures, boards):
        taken |= each
    places = [place for place in range(len(boards)) if taken >> place & 1]
    found = chances(causes(failures, [boards[place] for place in places]), len(places))
    always = frozenset(range(len(boards))) - frozenset(places)
    rows = [
        (float(chance), always | {place for i, place in enumerate(places) if up >> i & 1})
        for up, chance in enumerate(found.tolist())
        if chance
    ]
    return tuple(sorted(rows, key=lambda row: (-row[0], sorted(row[1]))))


@cache
def _shares(failures: Failures, students: int) -> tuple[float, ...]:
    return tuple(retained_share(failures, n, students) for n in range(students + 1))


@cache
def _survival(failures: Failures, boards: tuple[str, ...]) -> Survival:
    return Survival(failures, boards)
