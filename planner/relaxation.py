"""A relaxation of the latency: how many students each board runs, and how many filters at most.

Which student knows which communities is left open, so that few choices remain.  Asked whether any
plan is within a latency T, the host's sends are jobs with due dates: what follows a send until the
reply is joined, the tail, must fit behind it.  Jobs on one machine meet their due dates exactly if,
for each due date t, all that is due by t can be sent by t (Jackson 1955):

    sum_{e due by t} send[e] boards[e] <= t      for each t = T - around - tail[e] of a choice e,

which needs no order.  A choice e is a kind of board, a number of students and a range of filters;
it costs what the least of its range costs and is paid for the most, both in the student's favour:
no plan within T is lost, and where nothing is left there is none.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.instance import Instance
from planner.option import Option
from planner.scaling import (
    Affine,
    Units,
    busy_units,
    delay_units,
    energy_units,
    reply_units,
)
from planner.site import Site
from planner.variables import Expr, total

RANGES = 4
"""Ranges of filters that are told apart, for each number of students on a board."""
MOST_CHOICES = 20_000
"""A relaxation with more choices is not asked."""


@dataclass(frozen=True, slots=True)
class Choice:
    """So many students on a board of a kind, with up to so many filters; times in solver units."""

    kind: int
    students: int
    filters: int
    send: int
    tail: int


def relaxes(instance: Instance) -> bool:
    """Say whether it holds: no shared medium, no copies, and no communities handed out twice."""
    return not instance.sequenced and not instance.further


class Relaxation:
    """The choices of an instance whose students share one shape of G0."""

    def __init__(self, instance: Instance, options: Sequence[Option]) -> None:
        self._instance = instance
        self._choices = [
            choice
            for kind, boards in enumerate(instance.kinds)
            for choice in _choices(instance, options, kind, instance.sites[boards[0]])
        ]

    @property
    def too_many(self) -> bool:
        """Say whether there are too many choices to ask."""
        return len(self._choices) > MOST_CHOICES

    def within(
        self, latency: int, solver: cp_model.CpSolver
    ) -> tuple[cp_model.CpSolverStatus, list[Choice]]:
        """Ask whether the relaxation has a plan within a latency, in solver units.

        `INFEASIBLE` proves that the instance has none.  A plan is returned as the choice of each
        board that is used, in the order in which the host sends.
        """
        instance, until = self._instance, latency - self._instance.around
        choices = sorted(
            (one for one in self._choices if one.send + one.tail <= until), key=lambda e: -e.tail
        )
        model = cp_model.CpModel()
        boards = [
            model.new_int_var(0, len(instance.kinds[e.kind]), f"boards{e.kind},{e.students}")
            for e in choices
        ]

        def added(weight: Callable[[Choice], int]) -> Expr:
            return cp_model.LinearExpr.weighted_sum(boards, [weight(e) for e in choices])

        for kind, alike in enumerate(instance.kinds):
            here = [count for e, count in zip(choices, boards, strict=True) if e.kind == kind]
            model.add(total(here) <= len(alike))
        students = added(lambda e: e.students)
        model.add(students >= instance.min_students)
        model.add(students <= instance.max_students)
        model.add(
            added(lambda e: e.filters) + max(drop.filters for drop in instance.drops)
            >= instance.filters
        )
        sent: Expr | int = 0
        for e, count in zip(choices, boards, strict=True):
            done = model.new_int_var(0, until - e.tail, "")
            model.add(done == sent + e.send * count)
            sent = done
        status = solver.solve(model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return status, []
        runs = zip(choices, boards, strict=True)
        return status, [e for e, count in runs for _ in range(solver.value(count))]


def _choices(
    instance: Instance, options: Sequence[Option], kind: int, site: Site
) -> Iterator[Choice]:
    """Yield what a board may run: its budgets hold for the least that such students cost.

    k students have at least the k smallest communities; where all have one each, at most the k
    largest.
    """
    sizes = sorted(instance.sizes)
    send = instance.send(instance.kinds[kind][0])
    for students in range(1, instance.slots + 1):
        least = sum(sizes[:students])
        most = instance.filters if instance.spare else sum(sizes[-students:])
        cost = _Cost(options, site, students)
        if not cost.fits(least):
            if students > 1:
                return
            continue
        low, high = least, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if cost.fits(middle) else (low, middle - 1)
        width = -(-(low - least + 1) // RANGES)
        for first in range(least, low + 1, width):
            filters = min(first + width - 1, low)
            yield Choice(kind, students, filters, send, cost.tail(first))


class _Cost:
    """What k students with F filters cost on a board at least.

    Costs are affine in a student's filters, constant + slope n; so k students cost at least k times
    the least constant plus F times the least slope, and of a peak that is the largest of several
    lines, at least what each line gives.
    """

    def __init__(self, options: Sequence[Option], site: Site, students: int) -> None:
        self._students, self._site = students, site
        lines = [option.line for option in options]
        device = site.board.device

        def shared(units: Units) -> Affine:
            return _least(units(device, line, students > 1) for line in lines)

        self._busy, self._energy = shared(busy_units), shared(energy_units)
        self._macs = _least(Affine(line.macs, line.macs_per_filter) for line in lines)
        self._bytes = [
            _least(_bytes(option, place) for option in options)
            for place in range(min(len(line.peaks) for line in lines))
        ]

    def tail(self, filters: int) -> int:
        """Return what follows the send until the reply is there, in solver units."""
        reply = reply_units(self._site.board) * filters
        return self._of(self._busy, filters) + reply + delay_units(self._site.board)

    def fits(self, filters: int) -> bool:
        """Say whether the budgets allow it."""
        site = self._site
        needs = (
            (self._macs, site.macs),
            (self._busy, site.busy),
            (self._energy, site.energy),
            *((line, site.memory_bytes) for line in self._bytes),
        )
        return all(limit is None or self._of(cost, filters) <= limit for cost, limit in needs)

    def _of(self, cost: Affine, filters: int) -> int:
        return self._students * cost.constant + cost.per_filter * filters


def _least(costs: Iterator[Affine]) -> Affine:
    constants, slopes = zip(*((one.constant, one.per_filter) for one in costs), strict=True)
    return Affine(min(constants), min(slopes))


def _bytes(option: Option, place: int) -> Affine:
    """Return parameters and one line of the peak, in bytes."""
    line, (fixed, slope) = option.line, option.line.peaks[place]
    size = option.value_bytes
    return Affine(size * (line.params + fixed), size * (line.params_per_filter + slope))
