"""One attempt after the other at one instance: bounds from a relaxation, brackets, and proofs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ortools.sat.python import cp_model

from planner.assignment import Assignment
from planner.catalogue import catalogue, classes_of
from planner.counted import CountedModel
from planner.draft import appraised
from planner.instance import Instance
from planner.logarithm import LOGARITHMS
from planner.objective import Limit, Measure
from planner.option import Option
from planner.packing import packed
from planner.relaxation import Relaxation, relaxes
from planner.slots import SlotModel
from planner.solving import Known, Model, Outcome, new_solver, solved
from planner.variables import choices

CLOSE = 0.005
"""A bracket narrower than this part of its upper end is left to the solver."""
FEW_CLASSES = 3
"""Of so few classes of communities there are seldom too many loadings to count."""
RELAXED_CLOSE = 0.0001
"""The same, of the relaxation, once it is known to lie below the best plan."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What does not change from one run of the solver to the next."""

    instance: Instance
    goal: Measure | None
    limits: tuple[Limit, ...]
    seed: int

    def run(
        self, known: Known | None, deterministic_limit: float, low: int | None = None
    ) -> Outcome:
        """Optimise, no worse than what is known and no better than a proven bound."""
        bounds = list(self.limits)
        # Of a shared medium, or copies, the model and the local search have bounds of their own.
        if self.goal and known and not (self._timed and self.instance.sequenced):
            bounds.append(Limit(self.goal, known[1]))
        model = self._model(bounds)
        if self.goal:
            value = _add_goal(model, self.goal)
            if low is not None:
                model.model.add(value >= low)
        if known:
            model.hint(known[0])
            view = appraised(self.instance, known[0])
            for each, figure in zip(model.logarithms, LOGARITHMS, strict=False):
                each.hint(view.knowledge(figure))
        outcome = solved(model, self.goal, known, self.seed, deterministic_limit, timed=self._timed)
        if self.goal is None or not self.goal.curved or outcome.assignment is None:
            return outcome
        # The solver's value lies a few units above, and no other model may reach it again.
        value = self.goal.read(appraised(self.instance, outcome.assignment))
        near = abs((outcome.value or 0) - value) <= self.goal.noise
        return replace(outcome, value=value, proven=outcome.proven and near)

    def relaxed(
        self, goal: Measure, known: Known, deterministic_limit: float
    ) -> tuple[int, Known, float]:
        """Bound the latency by its relaxation; what that finds may be a better plan, too.

        Returns the bound (0: none), the best plan known, and the time it took.
        """
        low, took = 0, 0.0
        asked = self._relaxations()
        high = known[1] if asked else low
        while high > low and (high == known[1] or high - low > RELAXED_CLOSE * high):
            # Is the best plan the best of all? If it is not, bisection finds where it may be.
            middle = high - 1 if high == known[1] else (low + high) // 2
            refuted = True
            for options, one in asked:
                solver = new_solver(self.seed, deterministic_limit, 2)
                status, choices = one.within(middle, solver)
                took += solver.response_proto.deterministic_time
                if status == cp_model.INFEASIBLE:
                    continue
                refuted = False
                if choices and len(options) == 1:
                    solver = new_solver(self.seed, deterministic_limit, 1)
                    plan = packed(self.instance, options[0], choices, solver)
                    took += solver.response_proto.deterministic_time
                    known = self._better(goal, known, plan)
                break
            low, high = (middle + 1, high) if refuted else (low, min(middle, known[1]))
        return low, known, took

    def refuted(self, deterministic_limit: float) -> tuple[bool, float]:
        """Say whether the relaxation has no plan within the limit on the latency, and how long."""
        latencies = [limit.bound for limit in self.limits if limit.measure.timed]
        took = 0.0
        asked = self._relaxations() if latencies else []
        for _, one in asked:
            solver = new_solver(self.seed, deterministic_limit, 2)
            status, _ = one.within(min(latencies), solver)
            took += solver.response_proto.deterministic_time
            if status != cp_model.INFEASIBLE:
                return False, took
        return bool(asked), took

    def _relaxations(self) -> list[tuple[list[Option], Relaxation]]:
        """Return a relaxation for each shape of G0.

        None where it does not hold or is too large, and where all loadings can be counted, which
        proves more.
        """
        if not relaxes(self.instance) or len(classes_of(self.instance)) <= FEW_CLASSES:
            return []
        shapes = sorted({option.group0 for option in self.instance.options})
        alike = [[o for o in self.instance.options if o.group0 == shape] for shape in shapes]
        asked = [(options, Relaxation(self.instance, options)) for options in alike]
        return [] if any(one.too_many for _, one in asked) else asked

    def _better(self, goal: Measure, known: Known, plan: Assignment | None) -> Known:
        """Return the plan where it keeps all rules and limits and is better than the known one."""
        if plan is None:
            return known
        view = appraised(self.instance, plan)
        if view.excess() or any(one.excess(one.measure.read(view)) for one in self.limits):
            return known
        value = goal.read(view)
        return (plan, value) if value < known[1] else known

    def bracketed(
        self, goal: Measure, known: Known, bound: int | None, deterministic_limit: float
    ) -> tuple[int, Known, float]:
        """Raise the bound of a bottleneck by asking whether less is possible at all.

        The less is asked for, the fewer choices are left, and the sooner that is refuted.  Returns
        the bound, the best plan known, and the time it took.
        """
        low, took = bound or 0, 0.0
        stuck = known[1]
        while stuck - low > CLOSE * known[1] and took < deterministic_limit:
            middle = (low + stuck) // 2
            model = self._model([*self.limits, Limit(goal, middle)])
            found = solved(model, None, None, self.seed, deterministic_limit / 8, timed=self._timed)
            took += found.deterministic_time
            if found.infeasible:
                low = middle + 1
            elif found.assignment is not None:
                value = goal.read(appraised(self.instance, found.assignment))
                known, stuck = (found.assignment, value), min(stuck, value)
            else:
                stuck = middle
        return low, known, took

    @property
    def _timed(self) -> bool:
        return any(one.timed for one in self._measures)

    @property
    def _measures(self) -> tuple[Measure, ...]:
        return (*(limit.measure for limit in self.limits), *([self.goal] if self.goal else []))

    def _model(self, bounds: Sequence[Limit]) -> Model:
        """Model all plans within the bounds."""
        told_apart = any(measure.of_board for measure in self._measures)
        instance = self.instance
        if not (self._timed and instance.sequenced):
            instance = _answered(instance, bounds)
        model = _model(instance, timed=self._timed, told_apart=told_apart)
        for bound in bounds:
            _add_limit(model, bound)
        return model


def _answered(instance: Instance, bounds: Sequence[Limit]) -> Instance:
    """Leave out what alone would break a bound on the latency."""
    latencies = [bound.bound for bound in bounds if bound.measure.timed]
    return instance.answered_by(min(latencies)) if latencies else instance


def _model(instance: Instance, *, timed: bool, told_apart: bool) -> Model:
    """Count where that leaves fewer choices, and where no medium mixes the boards' times."""
    told_apart = told_apart or instance.replicated or (timed and bool(instance.media))
    entries = None if told_apart else catalogue(instance, most=len(choices(instance)))
    return SlotModel(instance, timed=timed) if entries is None else CountedModel(instance, entries)


def _add_limit(model: Model, limit: Limit) -> None:
    """Keep a bound: measure >= bound where more is better, else <= bound."""
    value = limit.measure.read(model)
    model.model.add(value >= limit.bound if limit.measure.maximise else value <= limit.bound)


def _add_goal(model: Model, goal: Measure) -> Any:
    """Set the objective, and return it."""
    value = goal.read(model)
    if goal.maximise:
        model.model.maximize(value)
    else:
        model.model.minimize(value)
    return value
