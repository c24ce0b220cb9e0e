"""What a plan is measured by: each objective of a question, read from a view."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from planner.question import Objective
from planner.scaling import UNITS_PER_MJ, UNITS_PER_MS, UNITS_PER_POINT


@dataclass(frozen=True, slots=True)
class Measure:
    """How to read an objective, which way is better, and its solver units per unit of people.

    `rounded` measures are sums of figures that were rounded up; `timed` ones depend on the order
    in which the host sends; two say what makes one network better than another; those `of_board`
    tell alike boards apart.
    """

    read: Callable[[Any], Any]
    maximise: bool = False
    units: int = 1
    rounded: bool = False
    timed: bool = False
    wants_params: bool = False
    wants_elements: bool = False
    of_board: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound, in solver units, on an earlier measure: from below where more is better."""

    measure: Measure
    bound: int

    def excess(self, value: int) -> float:
        """Return by which part of the bound `value` misses it; 0 if it does not."""
        over = self.bound - value if self.measure.maximise else value - self.bound
        return max(0, over) / max(1, abs(self.bound))


MEASURES: dict[Objective, Measure] = {
    # Accuracy grows with the number and size of students (A, Table 4).
    "capacity": Measure(lambda view: view.total("params"), maximise=True, wants_params=True),
    # Largest minus smallest partition (A, Eq. 2).
    "imbalance": Measure(lambda view: view.spread()),
    # |delta_val| - |P0| (A, Eq. 2), percentage points minus filters.
    "dropped": Measure(lambda view: view.dropped(1, -UNITS_PER_POINT), units=UNITS_PER_POINT),
    "latency": Measure(lambda view: view.latency(), units=UNITS_PER_MS, rounded=True, timed=True),
    # Computing only, over all boards.
    "energy": Measure(lambda view: view.total("energy"), units=UNITS_PER_MJ, rounded=True),
    "boards": Measure(lambda view: view.boards()),
    "students": Measure(lambda view: view.students(), maximise=True),
}
