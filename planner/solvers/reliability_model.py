"""Accuracy and its reliability in a model: logarithms by tangents, answers over board states.

Symbols: w a state of the boards, of chance p[w], in which some are up; a[s,w] student s answers in
it; y[w,k] at least k students do; count[K] there are K students; share[k,K] what k answers of K
are worth.  A model begins with the likeliest states and takes the others for harmless; where that
is too optimistic, further states are added and it solves again.

A concave function, as the logarithm, lies below all its tangents, so that a solver that maximises
it is never too pessimistic; where it is too optimistic, a tangent at that very amount is added
and it solves again.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Literal, Protocol

from planner import solvers as cp_model
from planner.accuracy.model import UNITS_PER_INDEX
from planner.data.modes import log_units
from planner.data.objective_function import PlanQuantities
from planner.data.problem_data import ProblemData
from planner.reliability.robustness import (
    UNITS_PER_ACCURACY_POINT,
    UNITS_PER_CERTAINTY,
    FailureScenarios,
    Scenario,
)
from planner.solvers.variables import Expr, Variables, sum_of

LOGARITHMS: tuple[Literal["params", "macs"], ...] = ("params", "macs")
"""The amounts whose logarithms accuracy grows with."""

_LOGARITHM_TANGENTS = 16
"""Tangents to begin with."""


class Logarithm:
    """ln(amount) in solver units, never too small: value <= each tangent."""

    def __init__(
        self, model: cp_model.CpModel, amount: Expr, least: int, most: int, name: str
    ) -> None:
        self._model = model
        self._amount = model.new_int_var(least, most, name)
        self.value = model.new_int_var(log_units(least), log_units(most) + 1, f"ln {name}")
        model.add(self._amount == amount)
        ratio = (most / least) ** (1 / _LOGARITHM_TANGENTS)
        for point in sorted(
            {round(least * ratio**step) for step in range(_LOGARITHM_TANGENTS + 1)}
        ):
            self._touch(point)

    def hint(self, amount: int) -> None:
        """Tell the solver what a plan has."""
        self._model.add_hint(self._amount, amount)
        self._model.add_hint(self.value, log_units(amount))

    def tighten(self, solver: cp_model.CpSolver) -> bool:
        """Add a tangent where a solution is too optimistic, and say whether that was so."""
        amount = solver.value(self._amount)
        if solver.value(self.value) <= log_units(amount) + 1:
            return False
        self._touch(amount)
        return True

    def _touch(self, point: int) -> None:
        """Value <= ln(point) + (amount - point) / point."""
        above = point * (self.value - log_units(point) - 1)
        self._model.add(above <= UNITS_PER_INDEX * (self._amount - point))


def size_logarithms(
    model: cp_model.CpModel, view: PlanQuantities[Expr], data: ProblemData
) -> list[Logarithm]:
    """Return the logarithms of all that accuracy grows with, of all plans in a model."""
    return [
        Logarithm(model, view.knowledge(figure), *data.usage_range(figure), figure)
        for figure in LOGARITHMS
    ]


_BATCH = 24
"""States to begin with, and to add where these are too optimistic."""
_MOST_POINTS = 100 * UNITS_PER_ACCURACY_POINT
_CURVE_TANGENTS = 12
"""Tangents to begin with."""
_SHARE_UNITS = 10**9
"""Units of a tangent's slope, per unit of size."""


class ReliabilityModel:
    """All states of the boards; `accuracy` is that of the whole, in units of `PER_POINT`."""

    def __init__(
        self,
        model: cp_model.CpModel,
        v: Variables,
        data: ProblemData,
        scenarios: FailureScenarios,
        accuracy: cp_model.IntVar,
    ) -> None:
        self._model, self._v, self._data, self._hazards = model, v, data, scenarios
        self._accuracy = accuracy
        self._numbers = self._count_students()
        self._answered: dict[tuple[int, frozenset[int]], cp_model.IntVar] = {}
        self._at_least: dict[frozenset[int], list[cp_model.IntVar]] = {}
        self._enough: dict[int, cp_model.IntVar] | None = None
        self._open: list[tuple[str, cp_model.IntVar, int]] = []
        """Of each chance in the model: its kind, what of it is not modelled yet, states so far."""

    @cached_property
    def robustness(self) -> cp_model.IntVar:
        """Return the expected accuracy: accuracy of the whole times the expected share of it."""
        product = self._model.new_int_var(0, _MOST_POINTS * UNITS_PER_CERTAINTY, "robustness")
        self._model.prefer_high(product)
        self._model.add_multiplication_equality(product, [self._accuracy, self._chance("share")])
        return product

    @cached_property
    def reliability(self) -> cp_model.IntVar:
        """Return the chance that enough students answer for the target accuracy."""
        if self._enough is None:
            self._enough = self._suffices()
        return self._chance("enough")

    def tighten(self, solver: cp_model.CpSolver) -> bool:
        """Add states where a solution counts on more than they leave; say whether it did."""
        return sum(self._tightened(solver, place) for place in range(len(self._open))) > 0

    def _tightened(self, solver: cp_model.CpSolver, place: int) -> bool:
        kind, rest, done = self._open[place]
        later = self._hazards.states[done:]
        if solver.value(rest) <= self._worth(solver, kind, later) + len(later):
            return False
        self._open[place] = (kind, self._cover(kind, rest, done), done + _BATCH)
        return True

    def _worth(self, solver: cp_model.CpSolver, kind: str, states: Sequence[Scenario]) -> float:
        """Contribution of these states to a chance in a solution."""
        v = self._v
        replica_sets = [
            {b for (s, b, _), runs in v.runs.items() if s == student and solver.value(runs)}
            for student, active in enumerate(v.active)
            if solver.value(active)
        ]
        shares = self._hazards.retained_shares(len(replica_sets))
        least = 0
        if kind == "enough" and self._enough is not None:
            chosen = [n for n, one in self._enough.items() if solver.value(one)]
            least = chosen[0] if chosen else len(replica_sets) + 1
        worth = 0.0
        for chance, up in states:
            answered = sum(not up.isdisjoint(home) for home in replica_sets)
            worth += chance * (shares[answered] if kind == "share" else answered >= least)
        return UNITS_PER_CERTAINTY * worth

    def _chance(self, kind: str) -> cp_model.IntVar:
        """Return a variable that is at most a chance, in units of `CERTAIN`."""
        chance = self._model.new_int_var(0, UNITS_PER_CERTAINTY, kind)
        # Else a solver finds one plan a million times, each time a unit better.
        self._model.prefer_high(chance)
        self._open.append((kind, self._cover(kind, chance, 0), _BATCH))
        return chance

    def _cover(self, kind: str, chance: cp_model.IntVar, done: int) -> cp_model.IntVar:
        """Bound a chance by the next states and the rest, which is returned.

        chance <= sum_w worth[w] + rest, over the next states; rest <= sum of p[w] of later ones.
        """
        states, later = self._hazards.states[done : done + _BATCH], self._hazards.states[done:]
        left = (
            math.ceil(UNITS_PER_CERTAINTY * sum(p for p, _ in later[_BATCH:]))
            if later[_BATCH:]
            else 0
        )
        rest = self._model.new_int_var(0, left, f"{kind} beyond {done}")
        if kind == "enough":
            weights = [
                (math.ceil(UNITS_PER_CERTAINTY * p), self._enough_in(up)) for p, up in states
            ]
            self._model.add(chance <= sum_of(w * one for w, one in weights) + rest)
            return rest
        for number, there in self._numbers.items():
            steps = (
                self._step(p, number, k) * self._chain(up)[k - 1]
                for p, up in states
                for k in range(1, number + 1)
            )
            self._model.add(chance <= sum_of([*steps, rest])).only_enforce_if(there)
        return rest

    def _step(self, chance: float, students: int, answered: int) -> int:
        """Gain of one more answer in a state, rounded up in total."""
        before, after = self._hazards.retained_shares(students)[answered - 1 : answered + 1]
        return math.ceil(UNITS_PER_CERTAINTY * chance * after) - math.ceil(
            UNITS_PER_CERTAINTY * chance * before
        )

    def _count_students(self) -> dict[int, cp_model.IntVar]:
        """count[K]: sum_K count[K] = 1 and sum_K K count[K] = sum_s active[s]."""
        numbers = range(max(1, self._data.min_students), len(self._v.active) + 1)
        count = {number: self._model.new_bool_var(f"count{number}") for number in numbers}
        self._model.add_exactly_one(count.values())
        self._model.add(
            sum_of(number * one for number, one in count.items()) == sum_of(self._v.active)
        )
        return count

    def _chain(self, up: frozenset[int]) -> list[cp_model.IntVar]:
        """y[w,k+1] <= y[w,k] and sum_k y[w,k] <= sum_s a[s,w]."""
        if up not in self._at_least:
            students = range(len(self._v.active))
            chain = [self._model.new_bool_var(f"{k} of {sorted(up)}") for k in students]
            for fewer, more in pairwise(chain):
                self._model.add_implication(more, fewer)
            self._model.add(sum_of(chain) <= sum_of(self._answers(s, up) for s in students))
            self._at_least[up] = chain
        return self._at_least[up]

    def _answers(self, student: int, up: frozenset[int]) -> cp_model.IntVar:
        """a[s,w] <= sum_{b up in w} at[s,b]."""
        if (student, up) not in self._answered:
            out = set(self._data.boards) - up
            answers = self._model.new_bool_var(f"{student} in {sorted(up)}")
            self._model.add_bool_or([*self._v.replica_sets(student, out), ~answers])
            self._answered[student, up] = answers
        return self._answered[student, up]

    def _enough_in(self, up: frozenset[int]) -> cp_model.IntVar:
        """enough[w] <= y[w,n] where n answers suffice, and 0 where no number does."""
        enough = self._model.new_bool_var(f"enough in {sorted(up)}")
        assert self._enough is not None  # noqa: S101  (made before any chance of it)
        self._model.add_bool_or([*self._enough.values(), ~enough])
        for number, chosen in self._enough.items():
            self._model.add_bool_or([~enough, ~chosen, self._chain(up)[number - 1]])
        return enough

    def _suffices(self) -> dict[int, cp_model.IntVar]:
        """Choose at most one n: of K students, accuracy * share[n,K] reaches the target."""
        students = range(1, len(self._v.active) + 1)
        chosen = {n: self._model.new_bool_var(f"{n} suffice") for n in students}
        self._model.add_at_most_one(chosen.values())
        for n, one in chosen.items():
            for number, there in self._numbers.items():
                least = self._hazards.least_accuracy_units(n, number) if n <= number else None
                if least is None:
                    self._model.add_bool_or([~one, ~there])
                else:
                    self._model.add(self._accuracy >= least).only_enforce_if([one, there])
        return chosen


class AccuracyCurve:
    """Accuracy of the whole by its size, never too small: below all its tangents.

    A = T - exp(c - slope * size) is concave in ln(parameters) + ln(MACs); below chance it counts as
    chance.
    """

    def __init__(
        self,
        model: cp_model.CpModel,
        scenarios: FailureScenarios,
        size: Expr,
        least: int,
        most: int,
    ) -> None:
        self._model, self._hazards = model, scenarios
        self._size = model.new_int_var(least, most, "size")
        model.add(self._size == size)
        floor = scenarios.floor_units
        lowest = min(floor, scenarios.accuracy_units(least))
        self._points = model.new_int_var(lowest, _MOST_POINTS, "accuracy, or below chance")
        self.value = model.new_int_var(floor, _MOST_POINTS, "accuracy")
        model.add_max_equality(self.value, [self._points, floor])
        for place in range(_CURVE_TANGENTS + 1):
            self._touch(least + (most - least) * place // _CURVE_TANGENTS)

    def tighten(self, solver: cp_model.CpSolver) -> bool:
        """Add a tangent where a solution lies above the curve; say whether that was so."""
        size = solver.value(self._size)
        if solver.value(self._points) <= self._hazards.accuracy_units(size) + 2:
            return False
        self._touch(size)
        return True

    def _touch(self, size: int) -> None:
        """Points <= points(size) + slope * (size' - size), rounded up."""
        slope = round(_SHARE_UNITS * self._hazards.slope(size))
        above = _SHARE_UNITS * (self._points - self._hazards.accuracy_units(size) - 2)
        self._model.add(above <= slope * (self._size - size))


class RefinedModel(Protocol):
    """A model some of whose figures are too optimistic at first."""

    @property
    def logarithms(self) -> Sequence[Logarithm]:
        """Logarithms of amounts."""
        ...

    @property
    def refinements(self) -> Sequence[Logarithm | AccuracyCurve | ReliabilityModel]:
        """Curves and chances that are refined."""
        ...


def tighten_logarithms(model: RefinedModel, solver: cp_model.CpSolver) -> bool:
    """Add tangents wherever the solution is too optimistic; say whether it was anywhere."""
    refined = [*model.logarithms, *model.refinements]
    return sum(each.tighten(solver) for each in refined) > 0
