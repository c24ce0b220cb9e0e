"""The Pareto front of a question: every plan that no other plan dominates, found by solving.

A region holds the plans that are within a bound on each objective.  The lexicographic optimum of a
region is on the front: what dominates it lies in the same region.  Whatever is not yet covered is
then better than it in one objective at least, which splits each region that it lies in (Klamroth,
Lacour and Vanderpooten 2015).  The front is complete when every region is proven empty.

Objectives count in solver units, less being better; what rounding may hide of one counts as equal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nonn_core.progress import Progress, silent
from planner.answer import value_of
from planner.assignment import Assignment
from planner.demand import required
from planner.instance import Instance, instance_of
from planner.objective import MEASURES, Limit, Measure, hidden_units
from planner.prover import Prover
from planner.question import Question
from planner.solving import Outcome
from planner.stage import MORE_IS_BETTER

SAME = 1e-9
"""Values as people read them that differ by no more than this part are the same."""

Region = tuple[float, ...]
"""The most that each objective may be, in solver units, less being better; infinite for any."""


class Search(Protocol):
    """A search for the best assignment for one measure under limits on others."""

    def __call__(
        self,
        instance: Instance,
        goal: Measure | None,
        limits: Sequence[Limit],
        known: Assignment | None = None,
    ) -> Outcome:
        """Search."""


@dataclass(frozen=True, slots=True)
class Found:
    """A plan of the front and its objectives in solver units, less being better."""

    costs: tuple[int, ...]
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Front:
    """Plans none of which dominates another; `complete` where it is proven that none is missing."""

    found: tuple[Found, ...]
    complete: bool


def front(prover: Prover, progress: Progress = silent) -> Front:
    """Return the front over the question's objectives, best in the first one first.

    Tolerances of the objectives do not matter.
    """
    question = prover.question
    goals = [MEASURES[stage.objective] for stage in question.objective]
    hidden = [hidden_units(question, goal) for goal in goals]
    always = required(question)
    found = front_of(
        instance_of(question),
        goals,
        hidden,
        lambda instance, goal, limits, known=None: prover.search(
            instance, goal, [*always, *limits], known
        ),
        lambda number: progress("Pareto front", number, 0),
    )
    return Front(_undominated(question, found.found), found.complete)


def front_of(
    instance: Instance,
    goals: Sequence[Measure],
    hidden: Sequence[int],
    search: Search,
    tell: Callable[[int], None] = lambda _: None,
) -> Front:
    """Return the front of an instance; `hidden` is what rounding may hide of each goal."""
    return _Regions(instance, goals, hidden, search).explored(tell)


class _Regions:
    """The regions that may still hold a plan of the front, and those proven empty."""

    def __init__(
        self,
        instance: Instance,
        goals: Sequence[Measure],
        hidden: Sequence[int],
        search: Search,
    ) -> None:
        self._instance, self._goals, self._search = instance, goals, search
        self._hidden = hidden
        self._signs = [-1 if goal.maximise else 1 for goal in goals]
        self._open: list[Region] = [(math.inf,) * len(goals)]
        self._empty: list[Region] = []

    def explored(self, tell: Callable[[int], None]) -> Front:
        """Search region after region until none is left."""
        found: list[Found] = []
        complete = True
        while self._open:
            tell(len(found))
            region = self._open.pop()
            best, sure = self._best_in(region)
            complete = complete and sure
            if best is None:
                self._empty.append(region)
                continue
            found.append(best)
            # Nothing in the region is better in what was optimised first.
            self._empty.append(self._better(region, 0, best.costs))
            self._split([region, *self._open], best.costs)
        return Front(tuple(sorted(found, key=lambda one: one.costs)), complete)

    def _best_in(self, region: Region) -> tuple[Found | None, bool]:
        """Return the lexicographic optimum of a region, if any, and whether that is proven."""
        bounds = list(region)
        costs: list[int] = []
        assignment: Assignment | None = None
        sure = True
        for place, goal in enumerate(self._goals):
            outcome = self._search(self._instance, goal, self._limits(bounds), assignment)
            if outcome.value is None or outcome.assignment is None:
                return None, outcome.infeasible
            assignment, sure = outcome.assignment, sure and outcome.proven
            costs.append(self._signs[place] * outcome.value)
            bounds[place] = min(bounds[place], costs[-1] + self._hidden[place])
        return (Found(tuple(costs), assignment) if assignment else None), sure

    def _limits(self, bounds: Sequence[float]) -> list[Limit]:
        return [
            Limit(goal, sign * int(bound))
            for goal, sign, bound in zip(self._goals, self._signs, bounds, strict=True)
            if bound < math.inf
        ]

    def _better(self, region: Region, place: int, costs: Sequence[int]) -> Region:
        """Return the part of a region that is better in one objective, beyond all rounding."""
        most = costs[place] - self._hidden[place] - 1
        return (*region[:place], min(region[place], most), *region[place + 1 :])

    def _split(self, regions: Sequence[Region], costs: tuple[int, ...]) -> None:
        """Leave open what a new plan of the front does not cover."""
        parts: set[Region] = set()
        for region in regions:
            if _within(costs, region):
                parts.update(self._better(region, i, costs) for i in range(len(costs)))
            else:
                parts.add(region)
        self._open = sorted(
            part
            for part in parts
            if not any(_within(part, empty) for empty in self._empty)
            and not any(_within(part, other) for other in parts - {part})
        )


def _within(one: Sequence[float], region: Region) -> bool:
    return all(a <= b for a, b in zip(one, region, strict=True))


def _undominated(question: Question, found: Sequence[Found]) -> tuple[Found, ...]:
    """Leave out what another plan dominates in the values that people read, and repetitions."""
    values = [
        tuple(
            (-1 if stage.objective in MORE_IS_BETTER else 1)
            * value_of(question, stage.objective, one.assignment)
            for stage in question.objective
        )
        for one in found
    ]
    kept: list[int] = []
    for place in sorted(range(len(found)), key=values.__getitem__):
        if not any(_as_good(values[other], values[place]) for other in kept):
            kept.append(place)
    return tuple(found[place] for place in kept)


def _as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b + SAME * abs(b) for a, b in zip(one, other, strict=True))
