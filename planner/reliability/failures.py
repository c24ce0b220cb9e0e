"""Failures of boards, and the accuracy that the students that answer still have.

Accuracy with missing students is measured, or by what was published
(arXiv:1907.11804, Fig. 8).  The publication
gives bounds for eight students on CIFAR-10: a mean over all sets of four and of three boards that
answer, from below, and the best single student, above which no mean over single ones lies.
Through the three of them, taken as if they were the means, goes::

    drop in points = exp(c) * (share of the students that is missing) ** p

and the result is held within the bounds.  That the share counts, not the number, is assumed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from math import exp, log
from pathlib import Path
from statistics import mean
from typing import Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation, published_accuracy
from planner.accuracy import AccuracyEstimate
from profiles.fleet import Fleet

AccuracyBySet = Mapping[frozenset[str], float]
"""Accuracy in percent by the students that answer."""


class MissingStudentsDrop(Record):
    """Drop of accuracy with missing students, in points, with its bounds."""

    drop_pct: float = Field(ge=0, description="Expected drop below all students, in points.")
    low_pct: float = Field(ge=0, description="No less than this, in points.")
    high_pct: float | None = Field(description="No more than this, in points; null: not published.")
    basis: str = Field(description="What it rests on.")


@dataclass(frozen=True, slots=True)
class _PublishedBounds:
    """Points below all students, by share of the students that answers."""

    all_pct: float
    at_most: Mapping[float, float]
    at_least: Mapping[float, float]
    source: str

    @property
    def points(self) -> dict[float, float]:
        """Bounds taken as means."""
        return {**self.at_most, **self.at_least}


def missing_drop_pct(students: int, answered: int) -> MissingStudentsDrop:
    """Predict the mean drop, in points, when only `answered` of the students answer.

    From the publication; raises InputError where `answered` is not 1 to `students`.
    """
    _check_answered(students, answered)
    facts, share = _published_bounds(), answered / students
    low = max((drop for at, drop in facts.at_least.items() if share <= at), default=0.0)
    high = min((drop for at, drop in facts.at_most.items() if share >= at), default=None)
    if answered == students:
        drop = low = high = 0.0
    else:
        exponent, constant = _fitted_curve()
        drop = max(low, exp(constant + exponent * log(1 - share)))
        drop = drop if high is None else min(high, drop)
    return MissingStudentsDrop(
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
    by_set: AccuracyBySet | None
    basis: str

    @classmethod
    def of_table(
        cls, table: AccuracyBySet, basis: str = "measured for every subset of students"
    ) -> Self:
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
        whole = _published_bounds().all_pct
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
            _check_answered(students, answered)
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


def _check_answered(students: int, answered: int) -> None:
    if not 1 <= answered <= students:
        raise InputError("students that answer", found=answered, allowed=f"1 to {students}")


@cache
def _published_bounds() -> _PublishedBounds:
    part = published_accuracy().part("fig8")
    row, facts = part.of("nonn-8s"), part.robustness
    if facts is None:
        raise ValueError("figure 8 has no facts of missing boards")
    boards = 8
    return _PublishedBounds(
        all_pct=row.accuracy_pct,
        at_most={
            number / boards: row.accuracy_pct - above
            for number, above in facts.mean_accuracy_above_pct.items()
        },
        at_least={1 / boards: row.accuracy_pct - facts.best_single_student_pct},
        source=part.source,
    )


@cache
def _fitted_curve() -> tuple[float, float]:
    """Return exponent and constant of the drop, least squares over logarithms."""
    points = _published_bounds().points
    missing = [log(1 - share) for share in points]
    exponent, constant = np.polyfit(missing, [log(drop) for drop in points.values()], 1)
    return float(exponent), float(constant)


_WHEN = "when an image comes, from 0 to 1."


class BoardFailure(Record):
    """One board that fails alone."""

    board: str = Field(min_length=1, description="Name of the board in the fleet.")
    probability: float = Field(ge=0, le=1, description=f"Chance that it is down {_WHEN}")


class CommonCause(Record):
    """A common cause of failures, as a switch, that takes several boards at once."""

    name: str = Field(min_length=1, description="Name of the cause, unique in its question.")
    boards: tuple[str, ...] = Field(min_length=1, description="Names of the boards that it takes.")
    probability: float = Field(ge=0, le=1, description=f"Chance that it is there {_WHEN}")

    @field_validator("boards")
    @classmethod
    def _takes_each_board_once(cls, boards: tuple[str, ...]) -> tuple[str, ...]:
        if twice := _duplicates(boards):
            raise ValueError(f"an outage takes each board once; repeated: {twice}")
        return boards


class Failures(Record):
    """Independent failures, and the value of answers of fewer students."""

    boards: tuple[BoardFailure, ...] = Field(
        default=(), description="Boards that may fail alone; one that is not named never does."
    )
    outages: tuple[CommonCause, ...] = Field(default=(), description="Common causes.")
    target_pct: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="Accuracy in percent that an answer should have, tau; null for none.",
    )
    retained: tuple[float, ...] = Field(
        default=(),
        description="Share of the whole accuracy that is kept when 0, 1 ... K of K students "
        "answer, as measured, from 0 to 1; empty for the published figures.",
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        if twice := _duplicates(each.board for each in self.boards):
            raise ValueError(f"each board is named once; repeated: {twice}")
        if twice := _duplicates(each.name for each in self.outages):
            raise ValueError(f"each outage is named once; repeated: {twice}")
        return self

    @field_validator("retained")
    @classmethod
    def _rises_from_0_to_1(cls, retained: tuple[float, ...]) -> tuple[float, ...]:
        if not retained:
            return retained
        falls = any(later < earlier for earlier, later in pairwise(retained))
        if len(retained) < 2 or retained[0] != 0 or retained[-1] != 1 or falls:
            shown = ", ".join(f"{each:g}" for each in retained)
            raise ValueError(
                f"retained shares rise from 0, none answered, to 1, all; found {shown}"
            )
        return retained


def with_added_board(failures: Failures, like: str, name: str) -> Failures:
    """Return the failures where one board more, `name`, is taken down by what takes `like`."""
    alone = [one.model_copy(update={"board": name}) for one in failures.boards if one.board == like]
    outages = [
        one.model_copy(update={"boards": (*one.boards, name)}) if like in one.boards else one
        for one in failures.outages
    ]
    update = {"boards": (*failures.boards, *alone), "outages": tuple(outages)}
    return failures.model_copy(update=update)


def check_boards(failures: Failures, fleet: Fleet) -> None:
    """Make sure that `fleet` has all boards that `failures` names; raises InputError."""
    known = [board.name for board in fleet.boards]
    named = [(each.board, "field failures.boards") for each in failures.boards]
    named += [(b, f"outage {each.name}") for each in failures.outages for b in each.boards]
    for board, where in named:
        if board not in known:
            raise InputError(
                "no such board in the fleet", where=where, found=board, allowed=", ".join(known)
            )


def retained_share(failures: Failures, answered: int, students: int) -> float:
    """Share of the whole accuracy, 0 to 1, with `answered` of the students.

    As measured, by the share of the students that answers and linear in between; else as published.
    Raises InputError where `answered` is not 0 to `students`.
    """
    if not failures.retained:
        return _published_accuracy(students).expected_pct(answered, students) / 100
    measured = SurvivorAccuracy(failures.retained, None, "measured")
    return measured.expected_pct(answered, students)


def answered_estimate(
    whole: AccuracyEstimate, failures: Failures | None, answered: int, students: int
) -> AccuracyEstimate:
    """Accuracy of all students, lowered to that of `answered` of them.

    The median by `retained_share`.  Published shares have bounds, which widen the interval; of a
    share that was measured only the mean is known.  Where no accuracy is known, the drop below the
    teacher is not either, and stays that of all.
    """
    known = failures or Failures()
    share = retained_share(known, answered, students)
    missing = missing_drop_pct(students, answered)
    least = most = share
    if not known.retained:
        all_pct = _published_bounds().all_pct
        most = 1 - missing.low_pct / all_pct
        least = 0.0 if missing.high_pct is None else 1 - missing.high_pct / all_pct
    basis = "measured" if known.retained else missing.basis
    told = f"{whole.basis}; {answered} of {students} trained students answer ({basis})"
    if whole.value_pct is None or whole.low_pct is None or whole.high_pct is None:
        return whole.model_copy(update={"basis": told})
    teacher_pct = whole.value_pct + whole.drop_pct
    value_pct, low_pct = share * whole.value_pct, least * whole.low_pct
    high_pct = most * whole.high_pct
    return whole.model_copy(
        update={
            "value_pct": value_pct,
            "low_pct": low_pct,
            "high_pct": high_pct,
            "drop_pct": max(0.0, teacher_pct - value_pct),
            "drop_low_pct": max(0.0, teacher_pct - high_pct),
            "drop_high_pct": max(0.0, teacher_pct - low_pct),
            "basis": told,
        }
    )


def read_retained_shares(path: Path) -> tuple[float, ...]:
    """Return the shares that an evaluation of every subset of students tells.

    Means over all sets of as many students, none below that of fewer.  Raises InputError where the
    file holds no such evaluation.
    """
    evaluation = Evaluation.read(path)
    table = {frozenset(one.students): one.accuracy_pct for one in evaluation.subsets}
    means = SurvivorAccuracy.of_table(table).by_number if table else ()
    if not means or means[-1] <= 0:
        raise InputError(
            "holds no accuracy of subsets of students",
            where=str(path),
            fix="run `nonn-plan evaluate` on a run of a NoNN of up to 12 students",
        )
    return tuple(min(1.0, each / means[-1]) for each in accumulate(means, max))


@cache
def _published_accuracy(students: int) -> SurvivorAccuracy:
    return SurvivorAccuracy.published(100.0, students)


def _duplicates(names: Iterable[str]) -> str:
    return ", ".join(name for name, count in Counter(names).items() if count > 1)
