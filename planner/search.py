"""One search: the best assignment for one measure under limits on others, with its proof."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.assignment import Assignment
from planner.catalogue import catalogue
from planner.counted import CountedModel
from planner.dominance import without_dominated
from planner.instance import Instance
from planner.local_search import local_search
from planner.objective import Limit, Measure
from planner.slots import SlotModel
from planner.variables import choices


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
) -> Outcome:
    """Find the best assignment for `goal`, or any where it is None, and prove it.

    `known` keeps all limits.  One worker, a fixed seed and a limit on deterministic time: the same
    call gives the same outcome on every machine.
    """
    measures = [*(limit.measure for limit in limits), *([goal] if goal else [])]
    instance = without_dominated(
        instance, frozenset().union(*(measure.wants for measure in measures))
    )
    found = local_search(instance, goal, limits, seed=seed, known=known) if goal else None
    timed = any(measure.timed for measure in measures)
    bounds = list(limits)
    # Of a shared medium the model and the local search have bounds of their own.
    if goal and found and not (timed and instance.media):
        bounds.append(Limit(goal, found[1]))
        instance = _answered(instance, bounds)
    told_apart = any(measure.of_board for measure in measures)
    model = _model(instance, timed=timed, told_apart=told_apart)
    for bound in bounds:
        _add_limit(model, bound)
    if goal:
        _add_goal(model, goal)
    if found:
        model.hint(found[0])
    return _proven(model, goal, seed, deterministic_limit)


def _proven(
    model: CountedModel | SlotModel, goal: Measure | None, seed: int, deterministic_limit: float
) -> Outcome:
    """Solve, and again with further tangents as long as a solution lies above its logarithms."""
    took = 0.0
    while True:
        solver = _solver(seed, deterministic_limit - took, model.linearization_level)
        status = _solved(solver, model.model)
        took += solver.response_proto.deterministic_time
        found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
        if not found or not _tightened(model, solver):
            return _outcome(solver, status, model, goal, took)


def _tightened(model: CountedModel | SlotModel, solver: cp_model.CpSolver) -> bool:
    """Add tangents wherever the solution is too optimistic; say whether it was anywhere."""
    return sum(each.tighten(solver) for each in model.logarithms) > 0


def _answered(instance: Instance, bounds: Sequence[Limit]) -> Instance:
    """Leave out what alone would break a bound on the latency."""
    latencies = [bound.bound for bound in bounds if bound.measure.timed]
    return instance.answered_by(min(latencies)) if latencies else instance


def _model(instance: Instance, *, timed: bool, told_apart: bool) -> CountedModel | SlotModel:
    """Count where that leaves fewer choices, and where no medium mixes the boards' times."""
    told_apart = told_apart or (timed and bool(instance.media))
    entries = None if told_apart else catalogue(instance, most=len(choices(instance)))
    return SlotModel(instance, timed=timed) if entries is None else CountedModel(instance, entries)


def _add_limit(model: CountedModel | SlotModel, limit: Limit) -> None:
    """Keep a bound: measure >= bound where more is better, else <= bound."""
    value = limit.measure.read(model)
    model.model.add(value >= limit.bound if limit.measure.maximise else value <= limit.bound)


def _add_goal(model: CountedModel | SlotModel, goal: Measure) -> None:
    value = goal.read(model)
    if goal.maximise:
        model.model.maximize(value)
    else:
        model.model.minimize(value)


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
    model: CountedModel | SlotModel,
    goal: Measure | None,
    deterministic_time: float,
) -> Outcome:
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return Outcome(
        assignment=model.assignment(solver) if found else None,
        value=round(solver.objective_value) if found and goal else None,
        bound=_whole(solver.best_objective_bound, goal) if found and goal else None,
        proven=status == cp_model.OPTIMAL,
        infeasible=status == cp_model.INFEASIBLE,
        deterministic_time=deterministic_time,
    )


def _whole(bound: float, goal: Measure) -> int:
    """Sharpen a proven bound: the measure is whole, so that it ends at the next whole number."""
    return math.ceil(bound - 1e-6) if not goal.maximise else math.floor(bound + 1e-6)
