"""What a plan is measured by: each objective of a question, read from a view."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.hazards import CERTAIN, PER_POINT
from planner.question import Question
from planner.scaling import (
    LATEST,
    UNITS_PER_INDEX,
    UNITS_PER_MJ,
    UNITS_PER_MS,
    UNITS_PER_POINT,
    at_least,
    at_most,
    rounding,
    unlike_delays,
)
from planner.stage import MORE_IS_BETTER, Objective, Requirement
from profiles.fleet import resolve

NOISE = 1e-3
"""Part of a solver unit that is taken for noise of binary fractions."""

_BEYOND = 10**18
"""More than any measure counts to, and less than the solver's largest number."""

_FAR = 1000.0
"""An index of accuracy that no students have."""

Want = Literal["params", "macs", "memory", "precision"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Between what a model counts and what people read; `read` and `count` undo each other."""

    read: Callable[[Question, float], float]
    count: Callable[[Question, float], float]


def _linear(units: float) -> Scale:
    return Scale(lambda _, counted: counted / units, lambda _, value: value * units)


@dataclass(frozen=True, slots=True)
class Measure:
    """How to read an objective, which way is better, and its scale.

    `rounded` measures are sums of figures that were rounded up, `noise` is what else rounding may
    hide, in solver units; `timed` ones depend on the order
    in which the host sends; `wants` says what makes one network better than another; those
    `of_board` tell alike boards apart; of `curved` ones a model knows tangents only.
    """

    read: Callable[[Any], Any]
    maximise: bool = False
    scale: Scale = field(default_factory=lambda: _linear(1))
    rounded: bool = False
    noise: int = 0
    timed: bool = False
    wants: frozenset[Want] = frozenset()
    of_board: bool = False
    curved: bool = False


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound, in solver units, on a measure: from below where more is better."""

    measure: Measure
    bound: int

    def excess(self, value: int) -> float:
        """Return by which part of the bound `value` misses it; 0 if it does not."""
        over = self.bound - value if self.measure.maximise else value - self.bound
        return max(0, over) / max(1, abs(self.bound))


MEASURES: dict[Objective, Measure] = {
    # Accuracy grows with the size of all students, and with nothing else (`planner.accuracy`).
    "accuracy": Measure(
        lambda view: view.size(),
        maximise=True,
        scale=Scale(
            lambda question, counted: question.accuracy_model.accuracy_pct(
                counted / UNITS_PER_INDEX / 2
            ),
            lambda question, value: (
                2 * UNITS_PER_INDEX * min(max(0.0, question.accuracy_model.index_for(value)), _FAR)
            ),
        ),
        noise=4,
        wants=frozenset({"params", "macs"}),
        curved=True,
    ),
    # Accuracy grows with the number and size of students (A, Table 4).
    "capacity": Measure(
        lambda view: view.knowledge("params"), maximise=True, wants=frozenset({"params"})
    ),
    # Largest minus smallest partition (A, Eq. 2).
    "imbalance": Measure(lambda view: view.spread()),
    # |delta_val| - |P0| (A, Eq. 2), percentage points minus filters.
    "dropped": Measure(
        lambda view: view.dropped(1, -UNITS_PER_POINT), scale=_linear(UNITS_PER_POINT), noise=1
    ),
    "latency": Measure(
        lambda view: view.latency(), scale=_linear(UNITS_PER_MS), rounded=True, timed=True
    ),
    # Images per second: the inverse of the longest time that anything is busy with one.
    "throughput": Measure(
        lambda view: view.period(),
        scale=Scale(
            lambda _, counted: 1000 * UNITS_PER_MS / counted,
            lambda _, value: 1000 * UNITS_PER_MS / value if value > 0 else LATEST,
        ),
        rounded=True,
    ),
    # Computing only, over all boards, and of the board that spends most.
    "energy": Measure(lambda view: view.total("energy"), scale=_linear(UNITS_PER_MJ), rounded=True),
    "energy-node": Measure(
        lambda view: view.highest("energy"), scale=_linear(UNITS_PER_MJ), rounded=True
    ),
    "memory": Measure(lambda view: view.total("memory_bytes"), wants=frozenset({"memory"})),
    "flops": Measure(lambda view: view.total("macs"), scale=_linear(0.5)),
    "boards": Measure(lambda view: view.boards()),
    "students": Measure(lambda view: view.students(), maximise=True),
    "precision": Measure(
        lambda view: view.knowledge("value_bytes"), maximise=True, wants=frozenset({"precision"})
    ),
    # Any so many failures, of a board or a common cause, leave each student an answering board.
    "survival": Measure(lambda view: view.survival(), maximise=True, of_board=True),
    # With failures: expected accuracy, and how often it is as much as asked.
    "robustness": Measure(
        lambda view: view.robustness(),
        maximise=True,
        scale=_linear(PER_POINT * CERTAIN),
        noise=10 * CERTAIN,
        wants=frozenset({"params", "macs"}),
        of_board=True,
        curved=True,
    ),
    "reliability": Measure(
        lambda view: view.reliability(),
        maximise=True,
        # A bound is rounded up, and nothing is surer than certain.
        scale=Scale(
            lambda _, counted: min(100.0, counted * 100 / CERTAIN),
            lambda _, value: value * CERTAIN / 100,
        ),
        noise=CERTAIN // 10**5,
        wants=frozenset({"params", "macs"}),
        of_board=True,
        curved=True,
    ),
}


def limit_of(question: Question, objective: Objective, value: float) -> Limit:
    """Return the limit that keeps an objective at `value`, as people read it, or better."""
    measure = MEASURES[objective]
    counted = min(max(measure.scale.count(question, value), -_BEYOND), _BEYOND)
    bound = math.ceil(counted - NOISE) if measure.maximise else math.floor(counted + NOISE)
    return Limit(measure, bound)


def kept(question: Question, required: Requirement, value: float) -> bool:
    """Say whether a value keeps a requirement, up to what rounding can hide."""
    limit = limit_of(question, required.objective, required.bound)
    slack = hidden_units(question, limit.measure) + NOISE
    worst = limit.measure.scale.read(
        question, limit.bound + (-slack if limit.measure.maximise else slack)
    )
    return value >= worst if required.objective in MORE_IS_BETTER else value <= worst


def relaxed(question: Question, objective: Objective, best: int, tolerance_pct: float) -> Limit:
    """Return the limit that lets an objective worsen by a tolerance of its best value."""
    measure = MEASURES[objective]
    if objective == "throughput":
        # Images per second fall by the tolerance, not time per image.
        share = 1 - tolerance_pct / 100
        return Limit(measure, math.floor(min(best / share + NOISE, LATEST)) if share else LATEST)
    if measure.curved and tolerance_pct:
        value = measure.scale.read(question, best) * (1 - tolerance_pct / 100)
        return limit_of(question, objective, value)
    worst = at_least if measure.maximise else at_most
    return Limit(measure, worst(best, tolerance_pct))


def hidden_units(question: Question, measure: Measure) -> int:
    """Bound, in solver units, what rounding can hide of a measure.

    Costs are rounded up, a logarithm is known to a few units, and latencies on one shared medium
    are taken alike.
    """
    if not measure.rounded:
        return measure.noise
    _, boards = resolve(question.fleet)
    hidden = question.max_copies * rounding(
        len(boards), question.most_students, question.most_filters
    )
    hidden += question.group0 != "replicated"
    return hidden + unlike_delays(boards) if measure.timed else hidden


def hidden(question: Question, objective: Objective, value: float) -> float:
    """Return how much of a value, as people read it, rounding can hide."""
    measure = MEASURES[objective]
    units = hidden_units(question, measure)
    if not units:
        return 0.0
    counted = measure.scale.count(question, value)
    worse = counted - units if measure.maximise else counted + units
    return abs(measure.scale.read(question, worse) - value)
