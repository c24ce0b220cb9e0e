"""The logarithm of an amount in a model, by tangents from above.

A concave function lies below all its tangents, so that a solver that maximises it is never too
pessimistic; where it is too optimistic, a tangent at that very amount is added and it solves again.
"""

import math
from typing import Literal

from ortools.sat.python import cp_model

from planner.instance import Instance
from planner.scaling import UNITS_PER_INDEX
from planner.variables import Expr
from planner.view import View

LOGARITHMS: tuple[Literal["params", "macs"], ...] = ("params", "macs")
"""The amounts whose logarithms accuracy grows with."""

_TANGENTS = 16
"""Tangents to begin with."""


class Logarithm:
    """ln(amount) in solver units, never too small: value <= each tangent."""

    def __init__(
        self, model: cp_model.CpModel, amount: Expr, least: int, most: int, name: str
    ) -> None:
        self._model = model
        self._amount = model.new_int_var(least, most, name)
        self.value = model.new_int_var(units(least), units(most) + 1, f"ln {name}")
        model.add(self._amount == amount)
        ratio = (most / least) ** (1 / _TANGENTS)
        for point in sorted({round(least * ratio**step) for step in range(_TANGENTS + 1)}):
            self._touch(point)

    def hint(self, amount: int) -> None:
        """Tell the solver what a plan has."""
        self._model.add_hint(self._amount, amount)
        self._model.add_hint(self.value, units(amount))

    def tighten(self, solver: cp_model.CpSolver) -> bool:
        """Add a tangent where a solution is too optimistic, and say whether that was so."""
        amount = solver.value(self._amount)
        if solver.value(self.value) <= units(amount) + 1:
            return False
        self._touch(amount)
        return True

    def _touch(self, point: int) -> None:
        """Value <= ln(point) + (amount - point) / point."""
        above = point * (self.value - units(point) - 1)
        self._model.add(above <= UNITS_PER_INDEX * (self._amount - point))


def logarithms(model: cp_model.CpModel, view: View[Expr], instance: Instance) -> list[Logarithm]:
    """Return the logarithms of all that accuracy grows with, of all plans in a model."""
    return [
        Logarithm(model, view.knowledge(figure), *instance.extent(figure), figure)
        for figure in LOGARITHMS
    ]


def units(amount: int) -> int:
    """Return ln(amount) in whole solver units, rounded down."""
    return math.floor(UNITS_PER_INDEX * math.log(amount))
