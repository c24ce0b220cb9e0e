"""Failures: how likely boards are down when an image comes, alone or by a common cause.

Causes are independent of each other; each takes its boards at once, and a board is up where no
cause has taken it.  The chances of which boards are up follow exactly, cause by cause, from all of
them up: with probability p a cause with the boards C turns the state U into U without C::

    P'(U) = (1 - p) P(U) + p * sum of P(V) over all V with V without C = U
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from nonn_core.evaluated import Evaluation
from planner.accuracy.survivors import SurvivorAccuracy
from profiles.document import Record
from profiles.errors import InputError
from profiles.fleet import Fleet

MOST_TOGETHER = 16
"""Boards whose states are enumerated together, 2^16 at most."""

_PROBABILITY = "when an image comes, from 0 to 1."


class BoardFailure(Record):
    """One board that fails alone."""

    board: str = Field(min_length=1, description="Name of the board in the fleet.")
    probability: float = Field(ge=0, le=1, description=f"Chance that it is down {_PROBABILITY}")


class Outage(Record):
    """A common cause, as a switch or a supply, that takes all of its boards at once."""

    name: str = Field(min_length=1, description="Name of the cause, unique in its question.")
    boards: tuple[str, ...] = Field(min_length=1, description="Names of the boards that it takes.")
    probability: float = Field(ge=0, le=1, description=f"Chance that it is there {_PROBABILITY}")

    @field_validator("boards")
    @classmethod
    def _takes_each_board_once(cls, boards: tuple[str, ...]) -> tuple[str, ...]:
        if twice := _repeated(boards):
            raise ValueError(f"an outage takes each board once; repeated: {twice}")
        return boards


class Failures(Record):
    """What may fail, independently of all else, and what answers of fewer students are worth."""

    boards: tuple[BoardFailure, ...] = Field(
        default=(), description="Boards that may fail alone; one that is not named never does."
    )
    outages: tuple[Outage, ...] = Field(default=(), description="Common causes.")
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
        if twice := _repeated(each.board for each in self.boards):
            raise ValueError(f"each board is named once; repeated: {twice}")
        if twice := _repeated(each.name for each in self.outages):
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


def with_one_more(failures: Failures, like: str, name: str) -> Failures:
    """Return the failures where one board more, `name`, is taken down by what takes `like`."""
    alone = [one.model_copy(update={"board": name}) for one in failures.boards if one.board == like]
    outages = [
        one.model_copy(update={"boards": (*one.boards, name)}) if like in one.boards else one
        for one in failures.outages
    ]
    update = {"boards": (*failures.boards, *alone), "outages": tuple(outages)}
    return failures.model_copy(update=update)


@dataclass(frozen=True, slots=True)
class State:
    """Which boards are up, and how likely exactly these are, from 0 to 1."""

    up: frozenset[str]
    probability: float


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


def causes(failures: Failures, boards: Sequence[str]) -> tuple[tuple[int, float], ...]:
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


def chance_up(failures: Failures, board: str) -> float:
    """Return the chance that one board is up, from 0 to 1."""
    return prod(1 - chance for _, chance in causes(failures, (board,)))


def chances(taking: Iterable[tuple[int, float]], boards: int) -> NDArray[np.float64]:
    """Return the probability of each set of boards, by the bits of those that are up.

    Raises InputError for more than `MOST_TOGETHER` boards.
    """
    if boards > MOST_TOGETHER:
        raise InputError(
            "the failures of too many boards depend on each other, by common causes or students",
            found=boards,
            allowed=f"up to {MOST_TOGETHER}",
            fix="name fewer boards in an outage, or keep copies within smaller groups of boards",
        )
    sets = np.arange(1 << boards)
    chance = np.zeros(sets.size)
    chance[-1] = 1.0
    for taken, probability in taking:
        fallen = np.bincount(sets & ~taken, weights=chance, minlength=sets.size)
        chance = (1 - probability) * chance + probability * fallen
    return chance


def states(failures: Failures, boards: Sequence[str]) -> tuple[State, ...]:
    """Return which of `boards` may be up, most likely first; no state twice, none impossible.

    Of equally likely states the one comes first in which later boards are up.
    """
    found = chances(causes(failures, boards), len(boards))
    likely_first = sorted(np.flatnonzero(found).tolist(), key=lambda up: (-found[up], -up))
    return tuple(
        State(frozenset(b for place, b in enumerate(boards) if up >> place & 1), float(found[up]))
        for up in likely_first
    )


def retained_share(failures: Failures, answered: int, students: int) -> float:
    """Return the share of the whole accuracy, 0 to 1, when `answered` of the students answer.

    As measured, by the share of the students that answers and linear in between; else as published.
    Raises InputError where `answered` is not 0 to `students`.
    """
    if not failures.retained:
        return _published(students).expected_pct(answered, students) / 100
    measured = SurvivorAccuracy(failures.retained, None, "measured")
    return measured.expected_pct(answered, students)


def retained_of(path: Path) -> tuple[float, ...]:
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
def _published(students: int) -> SurvivorAccuracy:
    return SurvivorAccuracy.published(100.0, students)


def _repeated(names: Iterable[str]) -> str:
    return ", ".join(name for name, count in Counter(names).items() if count > 1)
