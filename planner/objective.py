"""What a plan is measured by: each objective of a question as an expression of the model."""

from collections.abc import Callable
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.instance import Instance
from planner.loads import params_on, slowed_on
from planner.question import Objective
from planner.scaling import UNITS_PER_MJ, UNITS_PER_MS, UNITS_PER_POINT, energy_units, up
from planner.sending import latency
from planner.variables import Expr, Variables, total


@dataclass(frozen=True, slots=True)
class Measure:
    """How to express an objective, which way is better, and its solver units per unit of people.

    `rounded` measures are sums of figures that were rounded up; `uses_turns` ones depend on the
    order in which the host sends; the last two say what makes one network better than another.
    """

    express: Callable[[cp_model.CpModel, Variables, Instance], Expr]
    maximise: bool = False
    units: int = 1
    rounded: bool = False
    uses_turns: bool = False
    wants_params: bool = False
    wants_elements: bool = False


def capacity(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """Parameters of all students: accuracy grows with their number and size (A, Table 4)."""
    del model
    return total(params_on(v, instance, b) for b in instance.boards)


def imbalance(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """Largest minus smallest partition (A, Eq. 2): high >= |P_s| >= low for each student s."""
    high = model.new_int_var(0, instance.filters, "high")
    low = model.new_int_var(0, instance.filters, "low")
    for s, active in enumerate(v.active):
        size = v.size(instance, s)
        model.add(high >= size)
        model.add(low <= size + instance.filters * (1 - active))
    model.add(high >= low)
    return high - low


def dropped(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """|delta_val| - |P0| (A, Eq. 2), percentage points minus filters."""
    del model
    return total(
        (up(drop.delta_val_pct, UNITS_PER_POINT) - drop.filters * UNITS_PER_POINT) * taken
        for drop, taken in zip(instance.drops, v.drop, strict=True)
    )


def energy(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """Energy of one image, computing only, over all boards."""
    return total(slowed_on(model, v, instance, b, energy_units) for b in instance.boards)


def boards(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """Boards that have a student."""
    del model, instance
    return total(v.used.values())


def students(model: cp_model.CpModel, v: Variables, instance: Instance) -> Expr:
    """Students."""
    del model, instance
    return total(v.active)


MEASURES: dict[Objective, Measure] = {
    "capacity": Measure(capacity, maximise=True, wants_params=True),
    "imbalance": Measure(imbalance),
    "dropped": Measure(dropped, units=UNITS_PER_POINT),
    "latency": Measure(latency, units=UNITS_PER_MS, rounded=True, uses_turns=True),
    "energy": Measure(energy, units=UNITS_PER_MJ, rounded=True),
    "boards": Measure(boards),
    "students": Measure(students, maximise=True),
}
