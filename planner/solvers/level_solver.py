"""Runs of the solver at one instance: settings, signals, bounds, bisection, and proofs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nonn_common.errors import PlanningError
from planner import solvers as cp_model
from planner.data.modes import AssignedStudent, Assignment, Mode
from planner.data.objective_function import (
    UNEVENNESS,
    ObjectiveBound,
    ObjectiveFunction,
)
from planner.data.problem_data import ProblemData, community_classes
from planner.heuristics.board_load import PatternCatalogue, cached_loads
from planner.heuristics.solution import evaluate_assignment
from planner.solvers import SolverRuns, SolverTask
from planner.solvers.assignment_model import AssignmentModel
from planner.solvers.latency import BoardChoice, LatencyRelaxation, relaxes
from planner.solvers.pattern_model import PatternLists, PatternModel
from planner.solvers.reliability_model import LOGARITHMS, tighten_logarithms
from planner.solvers.variables import choice_count, sum_of

PlanModel = PatternModel | AssignmentModel

Incumbent = tuple[Assignment, int]
"""An assignment and its value, in solver units."""


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """Outcome of a search: assignment, value and bound (solver units), time.

    Assignment, value and bound are None where nothing was found; `infeasible` says that there is,
    provably, nothing to find.
    """

    assignment: Assignment | None
    value: int | None
    bound: int | None
    proven: bool
    infeasible: bool
    deterministic_time: float


def solve_model(
    model: PlanModel,
    goal: ObjectiveFunction | None,
    incumbent: Incumbent | None,
    seed: int,
    deterministic_limit: float,
    *,
    timed: bool,
) -> SolverRuns[SearchOutcome]:
    """Solve, and again with further tangents as long as a solution lies above its logarithms.

    Sums, unlike latencies, have linear relaxations and cuts that are worth their time.  Where the
    solver finds nothing within its limit, the `incumbent` is the answer.
    """
    took = 0.0
    level, cuts = (model.linearization_level, 0) if timed else (2, 1)
    while True:
        solver = cp_model.new_solver(seed, deterministic_limit - took, level, cuts)
        status = yield SolverTask(model.model, solver)
        took += solver.deterministic_time
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            if not tighten_logarithms(model, solver):
                incumbent = model.assignment(solver), round(solver.objective_value)
            elif status == cp_model.OPTIMAL:
                continue
        return _outcome(solver, status, goal, incumbent, took)


def _outcome(
    solver: cp_model.CpSolver,
    status: cp_model.CpSolverStatus,
    goal: ObjectiveFunction | None,
    incumbent: Incumbent | None,
    deterministic_time: float,
) -> SearchOutcome:
    if status == cp_model.INFEASIBLE and incumbent is not None:
        raise PlanningError(
            "the solver rules out a plan that keeps every rule; this is a mistake of the program: "
            "please report it with the question"
        )
    return SearchOutcome(
        assignment=incumbent[0] if incumbent else None,
        value=incumbent[1] if incumbent and goal else None,
        bound=_bound(solver, incumbent, goal),
        proven=status == cp_model.OPTIMAL,
        infeasible=status == cp_model.INFEASIBLE,
        deterministic_time=deterministic_time,
    )


def _bound(
    solver: cp_model.CpSolver, incumbent: Incumbent | None, goal: ObjectiveFunction | None
) -> int | None:
    """Return the proven bound; None where the solver had no time to find any."""
    if incumbent is None or goal is None:
        return None
    bound = _round_bound(solver.best_objective_bound, goal)
    beyond = bound < incumbent[1] if goal.maximise else bound > incumbent[1]
    return None if beyond else bound


def _round_bound(bound: float, goal: ObjectiveFunction) -> int:
    """Sharpen a proven bound to the next whole number."""
    return math.ceil(bound - 1e-6) if not goal.maximise else math.floor(bound + 1e-6)


def pack_communities(
    data: ProblemData, mode: Mode, choices: Sequence[BoardChoice], solver: cp_model.CpSolver
) -> SolverRuns[Assignment | None]:
    """Plan of low latency with these choices, sent in their order, if one fits.

    All students are of one network.  What it returns may break a budget whose peak depends on who
    runs which community, so that it has to be evaluated.
    """
    free = [list(boards) for boards in data.board_classes]
    boards = [free[choice.kind].pop(0) for choice in choices]
    model = cp_model.CpModel()
    member = [[model.new_bool_var("") for _ in boards] for _ in data.sizes]
    drop = [model.new_bool_var("") for _ in data.drop_choices]
    model.add_exactly_one(drop)
    for c, places in enumerate(member):
        steps = [d for d, one in zip(drop, data.drop_choices, strict=True) if c in one.communities]
        model.add_exactly_one([*places, *steps])
    latency = model.new_int_var(0, 2**50, "latency")
    load, place, sent = cached_loads(data), data.modes.index(mode), 0
    for p, (board, choice) in enumerate(zip(boards, choices, strict=True)):
        sent += choice.send
        here = [places[p] for places in member]
        model.add(sum_of(here) >= choice.students)
        filters = sum_of(n * one for n, one in zip(data.sizes, here, strict=True))
        model.add(filters <= choice.filters)
        # A loading's times are affine in its filters.
        none, one = (
            load(board, ((place, 0),) * (choice.students - 1) + ((place, n),)).tail for n in (0, 1)
        )
        model.add(latency >= sent + none + (one - none) * filters)
    model.minimize(latency)
    status = yield SolverTask(model, solver, brief=True)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    students: list[AssignedStudent] = []
    for p, (board, choice) in enumerate(zip(boards, choices, strict=True)):
        own = [c for c, places in enumerate(member) if solver.boolean_value(places[p])]
        last = choice.students - 1
        groups = [*([c] for c in own[:last]), own[last:]]
        students += [mode.student(group, [board]) for group in groups]
    (taken,) = (
        one for d, one in zip(drop, data.drop_choices, strict=True) if solver.boolean_value(d)
    )
    return Assignment(tuple(students), tuple(sorted(taken.communities)))


BISECTION_GAP = 0.005
"""A bracket narrower than this part of its upper end is left to the solver."""
FEW_CLASSES = 3
"""Of so few classes of communities there are seldom too many loadings to count."""
MANY_CHOICES = 5_000
"""A model of more choices is made once, from the best plan."""
LISTING_SHARE, LISTING_LEAST = 0.1, 1.0
"""Part of the time for listing what boards can run, and the least that it has."""
RELAXATION_GAP = 0.0001
"""The same, of the relaxation, once it is known to lie below the best plan."""


@dataclass(frozen=True, slots=True)
class LevelSolver:
    """Solver of one objective level under fixed limits."""

    data: ProblemData
    goal: ObjectiveFunction | None
    limits: tuple[ObjectiveBound, ...]
    seed: int
    lists: PatternLists = field(default_factory=PatternLists)

    def run(
        self, incumbent: Incumbent | None, deterministic_limit: float, low: int | None = None
    ) -> SolverRuns[SearchOutcome]:
        """Optimise, no worse than what is known and no better than a proven bound."""
        if incumbent and deterministic_limit <= 0:
            return SearchOutcome(*incumbent, None, False, False, 0.0)
        bounds = list(self.limits)
        # Of a shared medium, or copies, the model and the local search have bounds of their own.
        if self.goal and incumbent and not (self._timed and self.data.order_matters):
            bounds.append(ObjectiveBound(self.goal, incumbent[1]))
        model, made = self._model(bounds, deterministic_limit)
        if model is None:
            plan, value = incumbent or (None, None)
            return SearchOutcome(plan, value, None, False, False, made)
        if self.goal:
            value = _add_goal(model, self.goal)
            if low is not None:
                model.model.add(value >= low)
        if incumbent:
            model.hint(incumbent[0])
            view = evaluate_assignment(self.data, incumbent[0])
            for each, figure in zip(model.logarithms, LOGARITHMS, strict=False):
                each.hint(view.knowledge(figure))
        left = deterministic_limit - (made if self.large else 0.0)
        timed = self._timed
        outcome = yield from solve_model(model, self.goal, incumbent, self.seed, left, timed=timed)
        outcome = replace(outcome, deterministic_time=outcome.deterministic_time + made)
        if self.goal is None or not self.goal.nonlinear or outcome.assignment is None:
            return outcome
        # The solver's value lies a few units above, and no other model may reach it again.
        value = self.goal.read(evaluate_assignment(self.data, outcome.assignment))
        near = abs((outcome.value or 0) - value) <= self.goal.tolerance_units
        return replace(outcome, value=value, proven=outcome.proven and near)

    def bound_by_relaxation(
        self, goal: ObjectiveFunction, incumbent: Incumbent, deterministic_limit: float
    ) -> SolverRuns[tuple[int, Incumbent, float]]:
        """Bound the latency by its relaxation; what that finds may be a better plan, too.

        Returns the bound (0: none), the best plan known, and the time it took.
        """
        low, took = 0, 0.0
        asked = self._relaxations()
        high = incumbent[1] if asked else low
        while high > low and (high == incumbent[1] or high - low > RELAXATION_GAP * high):
            # Is the best plan the best of all? If it is not, bisection finds where it may be.
            middle = high - 1 if high == incumbent[1] else (low + high) // 2
            refuted = True
            for modes, one in asked:
                solver = cp_model.new_solver(self.seed, deterministic_limit, 2)
                relaxed = one.within(middle)
                status = yield SolverTask(relaxed.model, solver, brief=True)
                took += solver.deterministic_time
                if status == cp_model.INFEASIBLE:
                    continue
                refuted = False
                if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) and len(modes) == 1:
                    choices = relaxed.plan(solver)
                    solver = cp_model.new_solver(self.seed, deterministic_limit, 1)
                    plan = yield from pack_communities(self.data, modes[0], choices, solver)
                    took += solver.deterministic_time
                    incumbent = self.better(goal, incumbent, plan)
                break
            low, high = (middle + 1, high) if refuted else (low, min(middle, incumbent[1]))
        return low, incumbent, took

    def refuted(self, deterministic_limit: float) -> SolverRuns[tuple[bool, float]]:
        """Say whether the relaxation refutes the latency limit, and the time it took."""
        latencies = [limit.bound for limit in self.limits if limit.measure.timed]
        took = 0.0
        asked = self._relaxations() if latencies else []
        for _, one in asked:
            solver = cp_model.new_solver(self.seed, deterministic_limit, 2)
            status = yield SolverTask(one.within(min(latencies)).model, solver, brief=True)
            took += solver.deterministic_time
            if status != cp_model.INFEASIBLE:
                return False, took
        return bool(asked), took

    def _relaxations(self) -> list[tuple[list[Mode], LatencyRelaxation]]:
        """Return a relaxation for each shape of G0.

        None where it does not hold or is too large, and where all board loads can be counted, which
        proves more.
        """
        if not relaxes(self.data) or len(community_classes(self.data)) <= FEW_CLASSES:
            return []
        shapes = sorted({mode.group0 for mode in self.data.modes})
        alike = [[o for o in self.data.modes if o.group0 == shape] for shape in shapes]
        asked = [(modes, LatencyRelaxation(self.data, modes)) for modes in alike]
        return [] if any(one.too_many for _, one in asked) else asked

    def better(
        self, goal: ObjectiveFunction, incumbent: Incumbent, plan: Assignment | None
    ) -> Incumbent:
        """The plan, where it is feasible and better than the incumbent, else this."""
        if plan is None:
            return incumbent
        view = evaluate_assignment(self.data, plan)
        if view.violation() or any(one.violation(one.measure.read(view)) for one in self.limits):
            return incumbent
        value = goal.read(view)
        return (plan, value) if value < incumbent[1] else incumbent

    def bisect(
        self,
        goal: ObjectiveFunction,
        incumbent: Incumbent,
        bound: int | None,
        deterministic_limit: float,
    ) -> SolverRuns[tuple[int, Incumbent, float]]:
        """Raise the bound of a bottleneck by asking whether less is possible at all.

        The less is asked for, the fewer choices are left, and the sooner that is refuted.  Returns
        the bound, the best plan known, and the time it took.
        """
        low, stuck, took = bound or 0, incumbent[1], 0.0
        while stuck - low > BISECTION_GAP * incumbent[1] and took < deterministic_limit:
            middle = (low + stuck) // 2
            bounds = [*self.limits, ObjectiveBound(goal, middle)]
            model, made = self._model(bounds, deterministic_limit - took)
            took += made
            if model is None:
                break
            found = yield from solve_model(
                model, None, None, self.seed, deterministic_limit / 8, timed=self._timed
            )
            took += found.deterministic_time
            if found.infeasible:
                low = middle + 1
            elif found.assignment is not None:
                value = goal.read(evaluate_assignment(self.data, found.assignment))
                incumbent, stuck = (found.assignment, value), min(stuck, value)
            else:
                stuck = middle
        return low, incumbent, took

    @property
    def large(self) -> bool:
        """Whether a model of all plans takes long to make."""
        return choice_count(self.data) > MANY_CHOICES

    @property
    def _timed(self) -> bool:
        return any(one.timed for one in self._measures)

    @property
    def _measures(self) -> tuple[ObjectiveFunction, ...]:
        return (*(limit.measure for limit in self.limits), *([self.goal] if self.goal else []))

    def _model(
        self, bounds: Sequence[ObjectiveBound], deterministic_limit: float
    ) -> tuple[PlanModel | None, float]:
        """Model of all plans within the bounds, and the time that making it took.

        None where it would be too large, or not made within the limit.
        """
        data, timed = self.data, self._timed
        if not (timed and data.order_matters):
            data = _within_latency(data, bounds)
        data = within_balance(data, bounds)
        told_apart = any(measure.per_board for measure in self._measures) or data.has_copies
        told_apart = told_apart or (timed and bool(data.shared_media))
        choices, made = choice_count(data), -self.lists.spent
        most, share = min(choices, cp_model.MOST_PATTERNS), self.listing_limit(deterministic_limit)
        patterns = None if told_apart else self.lists.of(data, most, share)
        made += self.lists.spent
        terms = cp_model.TERMS_PER_PATTERN * len(patterns.entries if patterns else ())
        terms = terms or cp_model.term_count(data, choices, timed=timed)
        if not cp_model.is_modelled(terms, deterministic_limit - made):
            return None, made
        model = _model(data, patterns=patterns, timed=timed)
        for bound in bounds:
            add_limit(model, bound)
        return model, made + terms * cp_model.UNITS_PER_TERM

    @staticmethod
    def listing_limit(deterministic_limit: float) -> float:
        """Part of a limit that listing patterns may take, a unit at least."""
        return max(LISTING_LEAST, LISTING_SHARE * deterministic_limit)


def _model(data: ProblemData, *, patterns: PatternCatalogue | None, timed: bool) -> PlanModel:
    """Model that counts patterns where they are listed."""
    return PatternModel(data, patterns) if patterns else AssignmentModel(data, timed=timed)


def _within_latency(data: ProblemData, bounds: Sequence[ObjectiveBound]) -> ProblemData:
    """Leave out what alone would break a bound on the latency."""
    latencies = [bound.bound for bound in bounds if bound.measure.timed]
    return data.within_latency(min(latencies)) if latencies else data


def within_balance(data: ProblemData, bounds: Sequence[ObjectiveBound]) -> ProblemData:
    """Leave out partitions that alone would break a bound on unevenness."""
    known = [bound.bound for bound in bounds if bound.measure is UNEVENNESS]
    return replace(data, most_uneven=min(known)) if known else data


def add_limit(model: PlanModel, limit: ObjectiveBound) -> None:
    """Keep a bound: measure >= bound where more is better, else <= bound."""
    value = limit.measure.read(model)
    model.model.add(value >= limit.bound if limit.measure.maximise else value <= limit.bound)


def _add_goal(model: PlanModel, goal: ObjectiveFunction) -> Any:
    """Set the objective, and return it."""
    value = goal.read(model)
    if goal.maximise:
        model.model.maximize(value)
    else:
        model.model.minimize(value)
    return value
