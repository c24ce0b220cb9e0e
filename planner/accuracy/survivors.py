"""Accuracy when some students do not answer: measured, or by what was published (A, Fig. 8).

The publication gives bounds for eight students on CIFAR-10: a mean over all sets of four and of
three boards that answer, from below, and the best single student, above which no mean over single
ones lies.  Through the three of them, taken as if they were the means, goes::

    drop in points = exp(c) * (share of the students that is missing) ** p

and the result is held within the bounds.  That the share counts, not the number, is assumed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import exp, log
from statistics import mean
from typing import Self

import numpy as np
from pydantic import Field

from nonn_core.tables.published import published_accuracy
from profiles.document import Record
from profiles.errors import InputError

Table = Mapping[frozenset[str], float]
"""Accuracy in percent by the students that answer."""


class MissingDrop(Record):
    """What missing students cost, in points of accuracy, with the bounds that facts set."""

    drop_pct: float = Field(ge=0, description="Expected drop below all students, in points.")
    low_pct: float = Field(ge=0, description="No less than this, in points.")
    high_pct: float | None = Field(description="No more than this, in points; null: not published.")
    basis: str = Field(description="What it rests on.")


@dataclass(frozen=True, slots=True)
class _Facts:
    """Points below all students, by share of the students that answers."""

    all_pct: float
    at_most: Mapping[float, float]
    at_least: Mapping[float, float]
    source: str

    @property
    def points(self) -> dict[float, float]:
        """Bounds taken as means."""
        return {**self.at_most, **self.at_least}


def missing_drop_pct(students: int, answered: int) -> MissingDrop:
    """Predict the mean drop, in points, when only `answered` of the students answer.

    From the publication; raises InputError where `answered` is not 1 to `students`.
    """
    _check(students, answered)
    facts, share = _published(), answered / students
    low = max((drop for at, drop in facts.at_least.items() if share <= at), default=0.0)
    high = min((drop for at, drop in facts.at_most.items() if share >= at), default=None)
    if answered == students:
        drop = low = high = 0.0
    else:
        exponent, constant = _curve()
        drop = max(low, exp(constant + exponent * log(1 - share)))
        drop = drop if high is None else min(high, drop)
    return MissingDrop(
        drop_pct=drop,
        low_pct=low,
        high_pct=high,
        basis=f"{facts.source}: three bounds for 8 students on CIFAR-10, taken as means and by the "
        "share that answers; how students were trained to do without each other is not published: "
        "measure your own with `nonn-plan evaluate`",
    )


@dataclass(frozen=True, slots=True)
class SurvivorAccuracy:
    """Accuracy by what answers; `by_set` is None where only numbers of students are told.

    `by_number` is the mean accuracy in percent when 0, 1, 2 ... of the students answer.
    """

    by_number: tuple[float, ...]
    by_set: Table | None
    basis: str

    @classmethod
    def of_table(cls, table: Table, basis: str = "measured for every subset of students") -> Self:
        """Take a measured table, as of evaluation.json; raises InputError where sets are missing.

        No answer is no right answer.
        """
        names = sorted(frozenset().union(*table))
        sizes: dict[int, list[float]] = {}
        for answering, accuracy in table.items():
            sizes.setdefault(len(answering), []).append(accuracy)
        sizes.pop(0, None)
        if not names or sum(map(len, sizes.values())) != 2 ** len(names) - 1:
            raise InputError(
                "the accuracy of some sets of students is missing",
                found=sum(map(len, sizes.values())),
                allowed=f"{2 ** len(names) - 1} sets of {len(names)} students",
                fix="run `nonn-plan evaluate` on a run of a NoNN of up to 12 students",
            )
        means = (mean(sizes[number]) for number in range(1, len(names) + 1))
        return cls((0.0, *means), dict(table), basis)

    @classmethod
    def published(cls, accuracy_pct: float, students: int) -> Self:
        """Lower `accuracy_pct`, that of all students, as published; the share of it counts."""
        whole = _published().all_pct
        drops = [missing_drop_pct(students, number) for number in range(1, students + 1)]
        kept = (max(0.0, accuracy_pct * (1 - drop.drop_pct / whole)) for drop in drops)
        return cls((0.0, *kept), None, drops[0].basis)

    @property
    def students(self) -> int:
        """Students that there are."""
        return len(self.by_number) - 1

    def expected_pct(self, answered: int, students: int) -> float:
        """Return the mean accuracy over all sets of `answered` of `students`, in percent.

        By the share that answers, linear in between, where the table is of another number of
        students.  Raises InputError where `answered` is not 0 to `students`.
        """
        if answered:
            _check(students, answered)
        place = answered * self.students / students
        return float(np.interp(place, range(self.students + 1), self.by_number))

    def of(self, answering: Iterable[str]) -> float:
        """Return the accuracy when exactly these answer, in percent: the set's, if it is told."""
        names = frozenset(answering)
        if not names or self.by_set is None:
            return self.expected_pct(len(names), self.students)
        if names not in self.by_set:
            raise InputError(
                "no accuracy is known for these students",
                found=", ".join(sorted(names)),
                allowed=", ".join(sorted(frozenset().union(*self.by_set))),
            )
        return self.by_set[names]


def _check(students: int, answered: int) -> None:
    if not 1 <= answered <= students:
        raise InputError("students that answer", found=answered, allowed=f"1 to {students}")


@cache
def _published() -> _Facts:
    part = published_accuracy().part("fig8")
    row, facts = part.of("nonn-8s"), part.robustness
    if facts is None:
        raise ValueError("figure 8 has no facts of missing boards")
    boards = 8
    return _Facts(
        all_pct=row.accuracy_pct,
        at_most={
            number / boards: row.accuracy_pct - above
            for number, above in facts.mean_accuracy_above_pct.items()
        },
        at_least={1 / boards: row.accuracy_pct - facts.best_single_student_pct},
        source=part.source,
    )


@cache
def _curve() -> tuple[float, float]:
    """Return exponent and constant of the drop, least squares over logarithms."""
    points = _published().points
    missing = [log(1 - share) for share in points]
    exponent, constant = np.polyfit(missing, [log(drop) for drop in points.values()], 1)
    return float(exponent), float(constant)
