"""One search: the best assignment for one measure under limits on others, with its proof."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from ortools.sat.python import cp_model

from planner.answers import Answers, Curve
from planner.assignment import Assignment
from planner.catalogue import catalogue
from planner.counted import CountedModel
from planner.dominance import without_dominated
from planner.draft import appraised
from planner.instance import Instance
from planner.local_search import MOST_DRAFTS, local_search
from planner.logarithm import LOGARITHMS, Logarithm
from planner.objective import Limit, Measure, Want
from planner.packing import packed
from planner.relaxation import Relaxation, relaxes
from planner.slots import SlotModel
from planner.variables import choices
from profiles.errors import PlanningError

FIRST_SHARE = 0.2
"""Part of the time after which an unproven latency is bracketed first."""
PROBES_SHARE = 0.4
"""Part of the time for asking whether less is possible."""
CLOSE = 0.005
"""A bracket narrower than this part of its upper end is left to the solver."""
RELAXED_CLOSE = 0.0001
"""The same, of the relaxation, once it is known to lie below the best plan."""
RELAXED_SHARE = 0.02
"""Part of the time for one question to the relaxation, or one packing."""

Model = CountedModel | SlotModel

Known = tuple[Assignment, int]
"""An assignment and its value, in solver units."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found: best assignment and value, proven bound (solver units), and its cost.

    Assignment, value and bound are None where nothing was found; `infeasible` says that there is,
    provably, nothing to find.
    """

    assignment: Assignment | None
    value: int | None
    bound: int | None
    proven: bool
    infeasible: bool
    deterministic_time: float


def search(
    instance: Instance,
    goal: Measure | None,
    limits: Sequence[Limit] = (),
    *,
    seed: int,
    deterministic_limit: float,
    known: Assignment | None = None,
    most_drafts: int = MOST_DRAFTS,
) -> Outcome:
    """Find the best assignment for `goal`, or any where it is None, and prove it.

    `known` keeps all limits; `most_drafts` bounds the local search that comes first.  One worker, a
    fixed seed and a limit on deterministic time: the same call gives the same outcome on every
    machine.
    """
    measures = [*(limit.measure for limit in limits), *([goal] if goal else [])]
    wants = frozenset[Want]().union(*(measure.wants for measure in measures))
    instance = without_dominated(instance, wants)
    found = None
    if goal is not None:
        found = local_search(
            instance, goal, limits, seed=seed, known=known, most_drafts=most_drafts
        )
    attempt = _Attempt(instance, goal, tuple(limits), seed)
    if goal is None or found is None or not goal.timed or instance.sequenced:
        return attempt.run(found, deterministic_limit)
    relaxed, found, took = attempt.relaxed(goal, found, RELAXED_SHARE * deterministic_limit)
    if relaxed >= found[1]:
        return Outcome(
            *found, bound=relaxed, proven=True, infeasible=False, deterministic_time=took
        )
    first = attempt.run(found, FIRST_SHARE * deterministic_limit, low=relaxed)
    took += first.deterministic_time
    if first.proven or first.assignment is None or first.value is None:
        return replace(first, deterministic_time=took)
    best = (first.assignment, first.value)
    probing = PROBES_SHARE * deterministic_limit
    bound = max(relaxed, first.bound or relaxed)
    low, best, probed = attempt.bracketed(goal, best, bound, probing)
    took += probed
    last = attempt.run(best, deterministic_limit - took, low=low)
    bound = max(low, last.bound or low)
    return replace(last, bound=bound, deterministic_time=last.deterministic_time + took)


@dataclass(frozen=True, slots=True)
class _Attempt:
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
        outcome = _proven(model, self.goal, known, self.seed, deterministic_limit)
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
        if not relaxes(self.instance):
            return low, known, took
        shapes = sorted({option.group0 for option in self.instance.options})
        alike = [[o for o in self.instance.options if o.group0 == shape] for shape in shapes]
        asked = [Relaxation(self.instance, options) for options in alike]
        if any(one.too_many for one in asked):
            return low, known, took
        high = known[1]
        while high > low and (high == known[1] or high - low > RELAXED_CLOSE * high):
            # Is the best plan the best of all? If it is not, bisection finds where it may be.
            middle = high - 1 if high == known[1] else (low + high) // 2
            refuted = True
            for one, options in zip(asked, alike, strict=True):
                solver = _solver(self.seed, deterministic_limit, 2)
                status, choices = one.within(middle, solver)
                took += solver.response_proto.deterministic_time
                if status == cp_model.INFEASIBLE:
                    continue
                refuted = False
                if choices and len(options) == 1:
                    solver = _solver(self.seed, deterministic_limit, 1)
                    plan = packed(self.instance, options[0], choices, solver)
                    took += solver.response_proto.deterministic_time
                    known = self._better(goal, known, plan)
                break
            low, high = (middle + 1, high) if refuted else (low, min(middle, known[1]))
        return low, known, took

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
            found = _proven(model, None, None, self.seed, deterministic_limit / 8)
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


def _proven(
    model: Model, goal: Measure | None, known: Known | None, seed: int, deterministic_limit: float
) -> Outcome:
    """Solve, and again with further tangents as long as a solution lies above its logarithms.

    Where the solver finds nothing within its limit, what was `known` before is the answer.
    """
    took = 0.0
    while True:
        solver = _solver(seed, deterministic_limit - took, model.linearization_level)
        status = _solved(solver, model.model)
        took += solver.response_proto.deterministic_time
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            if not _tightened(model, solver):
                known = model.assignment(solver), round(solver.objective_value)
            elif status == cp_model.OPTIMAL:
                continue
        return _outcome(solver, status, goal, known, took)


def _tightened(model: Model, solver: cp_model.CpSolver) -> bool:
    """Add tangents wherever the solution is too optimistic; say whether it was anywhere."""
    refined: list[Logarithm | Curve | Answers] = [*model.logarithms, *model.refinements]
    return sum(each.tighten(solver) for each in refined) > 0


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


def _solver(seed: int, deterministic_limit: float, linearization_level: int) -> cp_model.CpSolver:
    """Set up the solver; docs/decisions/0007 holds the measurements behind the last three lines."""
    solver = cp_model.CpSolver()
    # The solver's own handler would end a stage early and leave Ctrl-C without one afterwards.
    solver.parameters.catch_sigint_signal = False
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = max(0.0, deterministic_limit)
    solver.parameters.linearization_level = linearization_level
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.cut_level = 0
    return solver


def _solved(solver: cp_model.CpSolver, model: cp_model.CpModel) -> cp_model.CpSolverStatus:
    """Solve in a thread of its own, so that a signal reaches this one and ends the search."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        solving = executor.submit(solver.solve, model)
        try:
            return solving.result()
        except BaseException:
            # Again and again: a search that has not begun yet does not hear it.
            while not solving.done():
                solver.stop_search()
                wait([solving], timeout=0.05)
            raise


def _outcome(
    solver: cp_model.CpSolver,
    status: cp_model.CpSolverStatus,
    goal: Measure | None,
    known: Known | None,
    deterministic_time: float,
) -> Outcome:
    if status == cp_model.INFEASIBLE and known is not None:
        raise PlanningError(
            "the solver rules out a plan that keeps every rule; this is a mistake of the program: "
            "please report it with the question"
        )
    return Outcome(
        assignment=known[0] if known else None,
        value=known[1] if known and goal else None,
        bound=_bound(solver, known, goal),
        proven=status == cp_model.OPTIMAL,
        infeasible=status == cp_model.INFEASIBLE,
        deterministic_time=deterministic_time,
    )


def _bound(solver: cp_model.CpSolver, known: Known | None, goal: Measure | None) -> int | None:
    """Return the proven bound; None where the solver had no time to find any."""
    if known is None or goal is None:
        return None
    bound = _whole(solver.best_objective_bound, goal)
    beyond = bound < known[1] if goal.maximise else bound > known[1]
    return None if beyond else bound


def _whole(bound: float, goal: Measure) -> int:
    """Sharpen a proven bound: the measure is whole, so that it ends at the next whole number."""
    return math.ceil(bound - 1e-6) if not goal.maximise else math.floor(bound + 1e-6)
