"""One search: the best assignment for one measure under limits on others, with its proof."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from ortools.sat.python import cp_model

from planner import constraints as rules
from planner.assignment import AssignedStudent, Assignment
from planner.dominance import without_dominated
from planner.instance import Instance
from planner.objective import Measure
from planner.sending import send_order
from planner.variables import Variables, make_variables


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound, in solver units, on an earlier measure: from below where more is better."""

    measure: Measure
    bound: int


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
) -> Outcome:
    """Find the best assignment for `goal`, or any where it is None, and prove it.

    One worker, a fixed seed and a limit on deterministic time: the same call gives the same
    outcome on every machine.
    """
    measures = [*(limit.measure for limit in limits), *([goal] if goal else [])]
    instance = without_dominated(
        instance,
        more_params=any(measure.wants_params for measure in measures),
        fewer_elements=any(measure.wants_elements for measure in measures),
    )
    model = cp_model.CpModel()
    variables = make_variables(model, instance)
    _add_rules(model, variables, instance, any(measure.uses_turns for measure in measures))
    for limit in limits:
        _add_limit(model, variables, instance, limit)
    if goal:
        _add_goal(model, variables, instance, goal)
    solver = _solver(seed, deterministic_limit)
    status = _solved(solver, model)
    return _outcome(solver, status, variables, instance, goal)


def _add_rules(
    model: cp_model.CpModel, variables: Variables, instance: Instance, by_turn: bool
) -> None:
    rules.one_drop_step(model, variables)
    rules.communities_stay_whole(model, variables, instance)
    rules.students_have_knowledge(model, variables, instance)
    rules.number_of_students(model, variables, instance)
    rules.one_network_and_board(model, variables, instance)
    rules.filters_follow_students(model, variables, instance)
    rules.students_share_group0(model, variables, instance)
    rules.boards_in_use(model, variables)
    rules.memory_within_budget(model, variables, instance)
    rules.macs_within_budget(model, variables, instance)
    rules.students_in_order(model, variables, instance)
    rules.twin_communities_in_order(model, variables, instance)
    if by_turn:
        rules.alike_boards_by_turn(model, variables, instance)
    else:
        rules.alike_boards_by_first_student(model, variables, instance)


def _add_limit(
    model: cp_model.CpModel, variables: Variables, instance: Instance, limit: Limit
) -> None:
    """Keep an earlier stage's measure: measure >= bound where more is better, else <= bound."""
    value = limit.measure.express(model, variables, instance)
    model.add(value >= limit.bound if limit.measure.maximise else value <= limit.bound)


def _add_goal(
    model: cp_model.CpModel, variables: Variables, instance: Instance, goal: Measure
) -> None:
    value = goal.express(model, variables, instance)
    if goal.maximise:
        model.maximize(value)
    else:
        model.minimize(value)


def _solver(seed: int, deterministic_limit: float) -> cp_model.CpSolver:
    """Set up the solver; docs/decisions/0007 holds the measurements behind the last three lines."""
    solver = cp_model.CpSolver()
    # The solver's own handler would end a stage early and leave Ctrl-C without one afterwards.
    solver.parameters.catch_sigint_signal = False
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = max(0.0, deterministic_limit)
    solver.parameters.linearization_level = 2
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
    variables: Variables,
    instance: Instance,
    goal: Measure | None,
) -> Outcome:
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return Outcome(
        assignment=_assignment(solver, variables, instance) if found else None,
        value=round(solver.objective_value) if found and goal else None,
        bound=_whole(solver.best_objective_bound, goal) if found and goal else None,
        proven=status == cp_model.OPTIMAL,
        infeasible=status == cp_model.INFEASIBLE,
        deterministic_time=solver.response_proto.deterministic_time,
    )


def _whole(bound: float, goal: Measure) -> int:
    """Sharpen a proven bound: the measure is whole, so that it ends at the next whole number."""
    return math.ceil(bound - 1e-6) if not goal.maximise else math.floor(bound + 1e-6)


def _assignment(solver: cp_model.CpSolver, variables: Variables, instance: Instance) -> Assignment:
    students = tuple(
        AssignedStudent(
            communities=tuple(
                c
                for c in range(len(instance.sizes))
                if solver.boolean_value(variables.member[c, s])
            ),
            network=instance.options[o].name,
            board=b,
        )
        for (s, b, o), runs in variables.runs.items()
        if solver.boolean_value(runs)
    )
    (drop,) = (d for d, taken in enumerate(variables.drop) if solver.boolean_value(taken))
    return Assignment(
        students=students,
        dropped=tuple(sorted(instance.drops[drop].communities)),
        send_order=send_order(variables, solver) if instance.media and variables.precedes else (),
    )
