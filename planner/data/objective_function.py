"""Objective functions: how each objective is read from a plan or a model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from nonn_common.units import FLOPS_PER_MAC
from planner.accuracy.model import UNITS_PER_INDEX
from planner.data.board_capacity import delay_spread_bound
from planner.data.modes import (
    LATEST_UNITS,
    UNITS_PER_MJ,
    UNITS_PER_MS,
    UNITS_PER_POINT,
    DropChoice,
    least_within,
    most_within,
    rounding_bound,
)
from planner.problem.budgets import BUDGETS, MILLIONTHS, Resource
from planner.problem.duty import smallest_battery_wh
from planner.problem.goals import MAXIMISED, Objective, Requirement
from planner.problem.least_spread import PCT_UNITS
from planner.problem.problem import Problem
from planner.reliability.robustness import UNITS_PER_ACCURACY_POINT, UNITS_PER_CERTAINTY
from profiles.layer import BYTES_PER_VALUE
from simulator.workloads.closed_form import P95

SENDER = "host"
"""Resource of the host that sends one message at a time."""

StudentQuantity = Literal["params", "macs", "value_bytes"]
"""Own quantities of a student, wherever it runs and however often."""

Amount_co = TypeVar("Amount_co", covariant=True)


class PlanQuantities(Protocol[Amount_co]):
    """Quantities of a plan: numbers, or linear expressions of a model."""

    def total(self, figure: Resource) -> Amount_co:
        """Return a figure, added up over all boards."""

    def knowledge(self, figure: StudentQuantity) -> Amount_co:
        """Return a figure, added up over all students, copies not counted."""

    def survival(self) -> Amount_co:
        """Return how many failures, whichever they are, leave each student an answering board."""

    def boards(self) -> Amount_co:
        """Return how many boards have a student, or G0 alone."""

    def students(self) -> Amount_co:
        """Return how many students there are."""

    def highest(self, figure: Resource) -> Amount_co:
        """Return a figure of the board where it is highest."""

    def latency(self) -> Amount_co:
        """Return the latency of one image, in solver units."""

    def period(self) -> Amount_co:
        """Return the longest time that anything is busy with one image, in solver units."""

    def size(self) -> Amount_co:
        """Return ln(parameters) + ln(MACs) of all students, in solver units."""

    def spread(self) -> Amount_co:
        """Return the filters of the largest student less those of the smallest."""

    def unevenness(self) -> Amount_co:
        """Return how much less alike partitions are than they can be (`planner.data.balance`)."""

    def inversion(self) -> Amount_co:
        """Return most filters that a wider student has fewer than a narrower one."""

    def dropped(self, worth: Callable[[DropChoice], int]) -> Amount_co:
        """Return the worth of the chosen drop."""


_ROUNDED_TWICE = 4
"""More than 1 + the most by which a percentile is above a mean."""

FLOAT_NOISE = 1e-3
"""Part of a solver unit that is taken for noise of binary fractions."""

_BEYOND = 10**18
"""More than any measure counts to, and less than the solver's largest number."""

_AVERAGE = BUDGETS["average_w"]
_FAR = 1000.0
"""An index of accuracy that no students have."""

ModeCriterion = Literal["params", "macs", "memory", "flash", "ram", "precision"]


@dataclass(frozen=True, slots=True)
class UnitScale:
    """Between what a model counts and what people read; `read` and `count` undo each other."""

    read: Callable[[Problem, float], float]
    count: Callable[[Problem, float], float]


def _linear_scale(units: float) -> UnitScale:
    return UnitScale(lambda _, counted: counted / units, lambda _, value: value * units)


@dataclass(frozen=True, slots=True)
class ObjectiveFunction:
    """Reading of an objective from a model or a plan, its direction and scale.

    `read` takes `PlanQuantities`, as a model has them; `value` takes an evaluated plan and gives
    the unit that people read, None where it is unknown.  `rounded` functions are sums of figures
    that were rounded up, `tolerance_units` is what else rounding may hide, in solver units; `timed`
    ones depend on the order in which the host sends; `criteria` say what makes one mode better than
    another; `per_board` ones tell alike boards apart; `nonlinear` ones are tangents in a model.
    A `share` is the part of images that keeps a latency, where boards draw their times.
    """

    read: Callable[[Any], Any]
    value: Callable[[Any], float | None] = lambda _: None
    maximise: bool = False
    scale: UnitScale = field(default_factory=lambda: _linear_scale(1))
    rounded: bool = False
    tolerance_units: int = 0
    timed: bool = False
    criteria: frozenset[ModeCriterion] = frozenset()
    per_board: bool = False
    nonlinear: bool = False
    share: float | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveBound:
    """A bound, in solver units, on a measure: from below where more is better."""

    measure: ObjectiveFunction
    bound: int

    def violation(self, value: int) -> float:
        """Return by which part of the bound `value` misses it; 0 if it does not."""
        over = self.bound - value if self.measure.maximise else value - self.bound
        return max(0, over) / max(1, abs(self.bound))


OBJECTIVE_FUNCTIONS: dict[Objective, ObjectiveFunction] = {
    # Accuracy grows with the size of all students, and with nothing else (`planner.accuracy`).
    "accuracy": ObjectiveFunction(
        lambda view: view.size(),
        value=lambda plan: plan.accuracy.value_pct if plan.accuracy else None,
        maximise=True,
        scale=UnitScale(
            lambda problem, counted: problem.accuracy_model.accuracy_pct(
                counted / UNITS_PER_INDEX / 2
            ),
            lambda problem, value: (
                2 * UNITS_PER_INDEX * min(max(0.0, problem.accuracy_model.index_for(value)), _FAR)
            ),
        ),
        tolerance_units=4,
        criteria=frozenset({"params", "macs"}),
        nonlinear=True,
    ),
    # Accuracy grows with the number and size of students (arXiv:1907.11804, Table 4).
    "capacity": ObjectiveFunction(
        lambda view: view.knowledge("params"),
        value=lambda plan: plan.decision.params,
        maximise=True,
        criteria=frozenset({"params"}),
    ),
    # Largest minus smallest partition (arXiv:1907.11804, Eq. 2).
    "imbalance": ObjectiveFunction(
        lambda view: view.spread(), value=lambda plan: plan.decision.imbalance
    ),
    # |delta_val| - |P0| (arXiv:1907.11804, Eq. 2), percentage points minus filters.
    "dropped": ObjectiveFunction(
        lambda view: view.dropped(lambda drop: drop.delta_units - UNITS_PER_POINT * drop.filters),
        value=lambda plan: abs(plan.delta_val_pct or 0.0) - plan.dropped_filters,
        scale=_linear_scale(UNITS_PER_POINT),
        tolerance_units=1,
    ),
    "latency": ObjectiveFunction(
        lambda view: view.latency(),
        value=lambda plan: plan.predicted.total_ms,
        scale=_linear_scale(UNITS_PER_MS),
        rounded=True,
        timed=True,
    ),
    # Of 95 of 100 images: each of K boards keeps its time in 0.95^(1/K) of them (decision 0053).
    "latency-p95": ObjectiveFunction(
        lambda view: view.latency(),
        value=lambda plan: plan.late_ms,
        scale=_linear_scale(UNITS_PER_MS),
        rounded=True,
        timed=True,
        share=P95,
    ),
    # Images per second: the inverse of the longest time that anything is busy with one.
    "throughput": ObjectiveFunction(
        lambda view: view.period(),
        value=lambda plan: plan.predicted.throughput_per_s,
        scale=UnitScale(
            lambda _, counted: 1000 * UNITS_PER_MS / counted,
            lambda _, value: 1000 * UNITS_PER_MS / value if value > 0 else LATEST_UNITS,
        ),
        rounded=True,
    ),
    # Computing only, over all boards, and of the board that spends most.
    "energy": ObjectiveFunction(
        lambda view: view.total("energy"),
        value=lambda plan: plan.predicted.energy_fleet_mj,
        scale=_linear_scale(UNITS_PER_MJ),
        rounded=True,
    ),
    "energy-node": ObjectiveFunction(
        lambda view: view.highest("energy"),
        value=lambda plan: plan.predicted.energy_highest_mj,
        scale=_linear_scale(UNITS_PER_MJ),
        rounded=True,
    ),
    # Of all boards that work: while all of them compute, and over time at the question's rate.
    "fleet-power": ObjectiveFunction(
        lambda view: view.total("power"),
        value=lambda plan: plan.fleet_power_w,
        scale=_linear_scale(MILLIONTHS),
        rounded=True,
    ),
    "fleet-average-power": ObjectiveFunction(
        lambda view: view.total("cycle"),
        value=lambda plan: plan.duty.average_w if plan.duty else None,
        scale=UnitScale(
            lambda problem, counted: counted / _AVERAGE.units_at(problem.rate_per_s),
            lambda problem, value: value * _AVERAGE.units_at(problem.rate_per_s),
        ),
        rounded=True,
    ),
    # Hours of the battery that is empty first: the inverse of its drain from image to image.
    "battery": ObjectiveFunction(
        lambda view: view.highest("drain"),
        value=lambda plan: plan.duty.battery_h if plan.duty else None,
        scale=UnitScale(
            lambda problem, counted: _battery_mj(problem) * UNITS_PER_MJ / max(1, counted),
            lambda problem, value: (
                _battery_mj(problem) * UNITS_PER_MJ / value if value > 0 else LATEST_UNITS
            ),
        ),
        rounded=True,
    ),
    "memory": ObjectiveFunction(
        lambda view: view.total("memory_bytes"),
        value=lambda plan: plan.decision.memory_bytes,
        criteria=frozenset({"memory"}),
    ),
    "flops": ObjectiveFunction(
        lambda view: view.total("macs"),
        value=lambda plan: FLOPS_PER_MAC * plan.decision.fleet_macs,
        scale=_linear_scale(0.5),
    ),
    "boards": ObjectiveFunction(
        lambda view: view.boards(), value=lambda plan: len(plan.decision.used)
    ),
    "students": ObjectiveFunction(
        lambda view: view.students(), value=lambda plan: len(plan.decision.students), maximise=True
    ),
    "precision": ObjectiveFunction(
        lambda view: view.knowledge("value_bytes"),
        value=lambda plan: sum(BYTES_PER_VALUE[one.precision] for one in plan.decision.students),
        maximise=True,
        criteria=frozenset({"precision"}),
    ),
    # Any so many failures, of a board or a common cause, leave each student an answering board.
    "survival": ObjectiveFunction(
        lambda view: view.survival(),
        value=lambda plan: plan.survivable_failures,
        maximise=True,
        per_board=True,
    ),
    # With failures: expected accuracy, and how often it is as much as asked.
    "robustness": ObjectiveFunction(
        lambda view: view.robustness(),
        value=lambda plan: plan.robustness.expected_accuracy_pct if plan.robustness else None,
        maximise=True,
        scale=_linear_scale(UNITS_PER_ACCURACY_POINT * UNITS_PER_CERTAINTY),
        tolerance_units=10 * UNITS_PER_CERTAINTY,
        criteria=frozenset({"params", "macs"}),
        per_board=True,
        nonlinear=True,
    ),
    "reliability": ObjectiveFunction(
        lambda view: view.reliability(),
        value=lambda plan: plan.robustness.reliability_pct if plan.robustness else None,
        maximise=True,
        # A bound is rounded up, and nothing is surer than certain.
        scale=UnitScale(
            lambda _, counted: min(100.0, counted * 100 / UNITS_PER_CERTAINTY),
            lambda _, value: value * UNITS_PER_CERTAINTY / 100,
        ),
        tolerance_units=UNITS_PER_CERTAINTY // 10**5,
        criteria=frozenset({"params", "macs"}),
        per_board=True,
        nonlinear=True,
    ),
}


INVERSE: frozenset[Objective] = frozenset({"throughput", "battery"})
"""Objectives that models count as what one image takes, of which less is better."""


def _battery_mj(problem: Problem) -> float:
    """Energy, in mJ, that empties the smallest battery in an hour, of each image."""
    return 1000 * (smallest_battery_wh(problem.budgets) or 0.0) / (problem.rate_per_s or 1.0)


DROPPED = OBJECTIVE_FUNCTIONS["dropped"]
UNEVENNESS = ObjectiveFunction(lambda view: view.unevenness(), scale=_linear_scale(PCT_UNITS))
"""How much less alike partitions are than they can be, in percent of the mean; no objective."""
INVERSION = ObjectiveFunction(lambda view: view.inversion())
"""Filters that wider students have fewer than narrower ones, at most; no objective."""


def bound_at(problem: Problem, objective: Objective, value: float) -> ObjectiveBound:
    """Return the limit that keeps an objective at `value`, as people read it, or better."""
    measure = OBJECTIVE_FUNCTIONS[objective]
    counted = min(max(measure.scale.count(problem, value), -_BEYOND), _BEYOND)
    bound = (
        math.ceil(counted - FLOAT_NOISE) if measure.maximise else math.floor(counted + FLOAT_NOISE)
    )
    return ObjectiveBound(measure, bound)


def satisfies(problem: Problem, required: Requirement, value: float) -> bool:
    """Say whether a value keeps a requirement, up to what rounding can hide."""
    limit = bound_at(problem, required.objective, required.bound)
    slack = rounding_units(problem, limit.measure) + FLOAT_NOISE
    worst = limit.measure.scale.read(
        problem, limit.bound + (-slack if limit.measure.maximise else slack)
    )
    return value >= worst if required.objective in MAXIMISED else value <= worst


def relaxed_bound(
    problem: Problem, objective: Objective, best: int, tolerance_pct: float
) -> ObjectiveBound:
    """Return the limit that lets an objective worsen by a tolerance of its best value."""
    measure = OBJECTIVE_FUNCTIONS[objective]
    if objective in INVERSE:
        # Images per second, or hours, fall by the tolerance, not what an image takes.
        share = 1 - tolerance_pct / 100
        return ObjectiveBound(
            measure,
            math.floor(min(best / share + FLOAT_NOISE, LATEST_UNITS)) if share else LATEST_UNITS,
        )
    if measure.nonlinear and tolerance_pct:
        value = measure.scale.read(problem, best) * (1 - tolerance_pct / 100)
        return bound_at(problem, objective, value)
    worst = least_within if measure.maximise else most_within
    return ObjectiveBound(measure, worst(best, tolerance_pct))


def rounding_units(problem: Problem, measure: ObjectiveFunction) -> int:
    """Bound, in solver units, what rounding can hide of a measure.

    Costs are rounded up, a logarithm is known to a few units, and latencies on one shared medium
    are taken alike.
    """
    if not measure.rounded:
        return measure.tolerance_units
    hidden = problem.max_copies * rounding_bound(
        len(problem.boards), problem.most_students, problem.most_filters
    )
    hidden += problem.group0 != "replicated"
    if problem.group0_copies == "per-board":  # each copy of G0 is rounded beside the heads
        hidden += len(problem.boards) * len(problem.precisions)
    if measure.share is not None:  # times are rounded a second time, after they were multiplied
        hidden *= _ROUNDED_TWICE
    return hidden + delay_spread_bound(problem.boards) if measure.timed else hidden


def rounding_tolerance(problem: Problem, objective: Objective, value: float) -> float:
    """Return how much of a value, as people read it, rounding can hide."""
    measure = OBJECTIVE_FUNCTIONS[objective]
    units = rounding_units(problem, measure)
    if not units:
        return 0.0
    counted = measure.scale.count(problem, value)
    worse = counted - units if measure.maximise else counted + units
    return abs(measure.scale.read(problem, worse) - value)
