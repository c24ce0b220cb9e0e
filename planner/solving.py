"""Solving one model: the solver's settings, its signals, and what an answer proves."""

import math
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner.answers import Answers, Curve
from planner.assignment import Assignment
from planner.counted import CountedModel
from planner.logarithm import Logarithm
from planner.objective import Measure
from planner.slots import SlotModel
from profiles.errors import PlanningError

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


def solved(
    model: Model,
    goal: Measure | None,
    known: Known | None,
    seed: int,
    deterministic_limit: float,
    *,
    timed: bool,
) -> Outcome:
    """Solve, and again with further tangents as long as a solution lies above its logarithms.

    Sums, unlike latencies, have linear relaxations and cuts that are worth their time.  Where the
    solver finds nothing within its limit, what was `known` before is the answer.
    """
    took = 0.0
    level, cuts = (model.linearization_level, 0) if timed else (2, 1)
    while True:
        solver = new_solver(seed, deterministic_limit - took, level, cuts)
        status = _run(solver, model.model)
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


def new_solver(
    seed: int, deterministic_limit: float, linearization_level: int, cut_level: int = 0
) -> cp_model.CpSolver:
    """Set up the solver; docs/decisions/0007 holds the measurements behind the last three lines."""
    solver = cp_model.CpSolver()
    # The solver's own handler would end a stage early and leave Ctrl-C without one afterwards.
    solver.parameters.catch_sigint_signal = False
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = max(0.0, deterministic_limit)
    solver.parameters.linearization_level = linearization_level
    solver.parameters.cp_model_probing_level = 0
    solver.parameters.cut_level = cut_level
    return solver


def _run(solver: cp_model.CpSolver, model: cp_model.CpModel) -> cp_model.CpSolverStatus:
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
