"""Evaluation of a plan from its problem alone, without a solver."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from typing import Literal

from nonn_common.units import FLOPS_PER_MAC
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import (
    BYTES_PER_VALUE,
    Precision,
    group0_cost,
    student_cost_line,
)
from nonn_core.partition import Filters, reshuffle_filters
from planner.accuracy.model import AccuracyEstimate
from planner.data.modes import Assignment, Stem
from planner.data.problem_data import host_device
from planner.plan_file.plan_document import (
    BudgetRow,
    Decision,
    LevelResult,
    PlanDocument,
    PlannedGroup0,
    PlannedModel,
    PlannedStudent,
    Prediction,
    SolverRun,
    require_students,
)
from planner.problem.goals import BoardBudget, BudgetName, Objective
from planner.problem.problem import Problem
from planner.reliability.failures import Failures
from planner.reliability.robustness import RobustnessEstimate, RobustnessEvaluator, survives
from profiles.device import DeviceProfile
from profiles.fleet import resolve
from simulator.task_graph import period_ms
from simulator.workloads.closed_form import fan_out_breakdown
from simulator.workloads.fan_out import (
    FanOut,
    SharedGroup,
    StudentWork,
    awaited_first,
    busy_mj,
    busy_ms,
)


@dataclass(frozen=True, slots=True)
class DecidedStudent:
    """Decision on one student, from which all else follows."""

    name: str
    network: str
    precision: Precision
    boards: tuple[str, ...]
    communities: tuple[int, ...]
    round: int


@dataclass(frozen=True, slots=True)
class DecidedStem:
    """Decision on G0 with a board of its own."""

    board: str
    precision: Precision


def evaluate_decision(
    problem: Problem,
    students: Iterable[DecidedStudent],
    dropped: Sequence[int],
    alone: DecidedStem | None,
) -> Decision:
    """The decision with its exact cost; `dropped` are communities, P0."""
    described = tuple(
        _planned_student(problem, one, dropped, own_group0=alone is None) for one in students
    )
    group0 = _planned_group0(problem, described[0].network, alone) if alone else None
    return Decision(described, tuple(dropped), group0)


def _planned_group0(problem: Problem, network: str, alone: DecidedStem) -> PlannedGroup0:
    spec, image = parse_network(network), problem.image_shape
    cost = group0_cost(spec, image)
    return PlannedGroup0(
        board=alone.board,
        precision=alone.precision,
        params=cost.params,
        macs=cost.macs,
        peak_elements=cost.peak_elements,
        memory_bytes=cost.memory_bytes(alone.precision),
        maps_bytes=Stem.of(spec, image).maps_bytes,
    )


def _planned_student(
    problem: Problem, student: DecidedStudent, dropped: Sequence[int], *, own_group0: bool
) -> PlannedStudent:
    filters = student_filters(problem, student.communities, student.round, dropped)
    line = student_cost_line(parse_network(student.network), problem.image_shape, own_group0)
    cost = line.at(len(filters))
    return PlannedStudent(
        name=student.name,
        network=student.network,
        precision=student.precision,
        board=student.boards[0],
        replicas=student.boards[1:],
        communities=tuple(sorted(student.communities)),
        round=student.round,
        filters=filters,
        params=cost.params,
        macs=cost.macs,
        peak_elements=cost.peak_elements,
        memory_bytes=cost.memory_bytes(student.precision),
    )


def student_filters(
    problem: Problem, communities: Sequence[int], number: int, dropped: Sequence[int]
) -> Filters:
    """Filters of a student: its communities', or reshuffled in extra rounds.

    Each round from the second on shuffles the filters of all kept communities with the question's
    seed and cuts them into the communities' sizes.
    """
    known = problem.partition.communities
    if number == 1:
        return tuple(sorted(chain.from_iterable(known[c].filters for c in communities)))
    kept = [one for one in known if one.id not in dropped]
    place = [one.id for one in kept].index(communities[0])
    parts = tuple(one.filters for one in kept)
    return reshuffle_filters(parts, number * len(kept), problem.seed)[
        (number - 1) * len(kept) + place
    ]


def budget_rows(problem: Problem, decision: Decision) -> tuple[BudgetRow, ...]:
    """Return use and slack of each board's budgets."""
    _, boards = resolve(problem.fleet)
    return tuple(
        row
        for board, budget in zip(boards, problem.budgets, strict=True)
        for row in _rows(
            board.device, budget, [one for one in decision.models if budget.board in one.boards]
        )
    )


def _rows(
    device: DeviceProfile, budget: BoardBudget, here: Sequence[PlannedModel]
) -> Iterator[BudgetRow]:
    """Yield a row for memory, for MACs, and for each further limit."""
    macs = [model.macs for model in here]
    memory_bytes = sum(model.memory_bytes for model in here)
    runtime_bytes = budget.runtime_bytes if here else 0
    yield _row(budget.board, "memory_bytes", memory_bytes + runtime_bytes, budget.memory_bytes)
    yield _row(budget.board, "macs", sum(macs), budget.macs)
    if budget.busy_ms is not None:
        yield _row(budget.board, "busy_ms", busy_ms(device, macs), budget.busy_ms)
    if budget.energy_mj is not None:
        yield _row(budget.board, "energy_mj", busy_mj(device, macs), budget.energy_mj)


def _row(board: str, budget: BudgetName, used: float, limit: float | None) -> BudgetRow:
    slack = None if limit is None else limit - used
    return BudgetRow(board=board, budget=budget, used=used, limit=limit, slack=slack)


def best_send_order(
    problem: Problem, decision: Decision, found: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the used boards, those first that need longest after their image has come.

    Where boards share a medium, another order may be quicker: `found`, places in the fleet, is
    returned if it is.
    """
    _, boards = resolve(problem.fleet)
    awaited = {student.board for student in decision.students}
    orders = [awaited_first(boards, _student_work(decision.students), awaited)]
    if found:
        orders.append(tuple(boards[place].name for place in found))
    return min(orders, key=lambda order: predict_cost(problem, decision, order).total_ms)


def decision_workload(problem: Problem, decision: Decision, send_order: Sequence[str]) -> FanOut:
    """Workload of one image; raises SimulationError for a wrong order."""
    _, boards = resolve(problem.fleet)
    alone = decision.group0
    return FanOut(
        host=host_device(problem),
        boards=boards,
        students=_student_work(decision.students),
        send_order=tuple(send_order),
        image_bytes=problem.image_shape.size_bytes,
        g0=SharedGroup(alone.board, alone.macs, alone.maps_bytes) if alone else None,
    )


def predict_cost(problem: Problem, decision: Decision, send_order: Sequence[str]) -> Prediction:
    """Return latency and energy of one image by the simulator's closed form."""
    workload = decision_workload(problem, decision, send_order)
    breakdown = fan_out_breakdown(workload)
    return Prediction(
        total_ms=breakdown.total_ms,
        compute_ms=breakdown.compute_ms,
        communication_ms=breakdown.communication_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
        energy_highest_mj=max(row.energy_mj for row in breakdown.boards),
        energy_fleet_mj=breakdown.energy_total_mj,
        throughput_per_s=1000 / period_ms(workload.graph()),
    )


def estimate_accuracy(problem: Problem, decision: Decision) -> AccuracyEstimate | None:
    """Return the predicted accuracy; None where the question says nothing of it."""
    if problem.accuracy is None:
        return None
    return problem.accuracy_model.estimate(decision.params, decision.macs)


def _student_work(students: Sequence[PlannedStudent]) -> tuple[StudentWork, ...]:
    return tuple(
        StudentWork(student.name, board, student.macs, len(student.filters))
        for student in students
        for board in student.boards
    )


def estimate_robustness(problem: Problem, decision: Decision) -> RobustnessEstimate | None:
    """Robustness of a plan under board failures; None without failures."""
    accuracy = estimate_accuracy(problem, decision)
    if problem.failures is None or accuracy is None or accuracy.value_pct is None:
        return None
    survival = RobustnessEvaluator(problem.failures, _board_names(problem))
    return survival.evaluate(accuracy.value_pct, _replica_sets(problem, decision.students))


def all_up_probability(problem: Problem, boards: Sequence[str]) -> float:
    """Return the chance that all of these boards are up, from 0 to 1."""
    names = _board_names(problem)
    survival = RobustnessEvaluator(problem.failures or Failures(), names)
    return float(
        survival.answer_distribution([frozenset({names.index(board)}) for board in boards])[-1]
    )


def survivable_failures(problem: Problem, decision: Decision) -> int:
    """Failures, whichever they are, that leave each student (and G0) a board."""
    if decision.group0 is not None:
        return 0
    failures, replica_sets = (
        problem.failures or Failures(),
        _replica_sets(problem, decision.students),
    )
    count = 0
    while survives(replica_sets, failures, _board_names(problem), count + 1):
        count += 1
    return count


def _board_names(problem: Problem) -> tuple[str, ...]:
    return tuple(board.name for board in problem.fleet.boards)


def _replica_sets(problem: Problem, students: Sequence[PlannedStudent]) -> list[frozenset[int]]:
    places = {name: place for place, name in enumerate(_board_names(problem))}
    return [frozenset(places[board] for board in student.boards) for student in students]


def measured_delta_val_pct(problem: Problem, dropped: Sequence[int]) -> float | None:
    """Return the measured delta_val of dropping these communities; null if unmeasured.

    Raises ValueError where no drop step removes exactly these.
    """
    for step in problem.partition.drop_steps:
        if set(step.communities) == set(dropped):
            return step.delta_val_pct
    raise ValueError(f"no drop step removes exactly the communities {sorted(dropped)}")


def objective_value(
    objective: Objective, problem: Problem, decision: Decision, predicted: Prediction
) -> float:
    """Return the value of one objective, in the unit that people read."""
    students = decision.students
    sizes = [len(student.filters) for student in students]
    if objective == "dropped":
        removed = sum(len(problem.partition.communities[c].filters) for c in decision.dropped)
        return abs(measured_delta_val_pct(problem, decision.dropped) or 0.0) - removed
    accuracy, worth = estimate_accuracy(problem, decision), estimate_robustness(problem, decision)
    values: dict[Objective, float | None] = {
        "accuracy": accuracy.value_pct if accuracy else None,
        "capacity": decision.params,
        "imbalance": max(sizes) - min(sizes),
        "latency": predicted.total_ms,
        "throughput": predicted.throughput_per_s,
        "energy": predicted.energy_fleet_mj,
        "energy-node": predicted.energy_highest_mj,
        "memory": sum(model.memory_bytes * len(model.boards) for model in decision.models),
        "flops": FLOPS_PER_MAC * sum(model.macs * len(model.boards) for model in decision.models),
        "boards": len(decision.used),
        "students": len(students),
        "precision": sum(BYTES_PER_VALUE[student.precision] for student in students),
        "survival": survivable_failures(problem, decision),
        "robustness": worth.expected_accuracy_pct if worth else None,
        "reliability": worth.reliability_pct if worth else None,
    }
    return float(values[objective] or 0.0)


def build_plan(
    problem: Problem,
    assignment: Assignment,
    *,
    status: Literal["optimal", "feasible"],
    stages: tuple[LevelResult, ...],
    solver: SolverRun,
) -> PlanDocument:
    """Return the plan of an assignment."""
    decision = assignment_decision(problem, assignment)
    send_order = best_send_order(problem, decision, assignment.send_order)
    communities = problem.partition.communities
    return PlanDocument(
        question=problem,
        status=status,
        students=decision.students,
        group0=decision.group0,
        dropped=decision.dropped,
        dropped_filters=sum(len(communities[c].filters) for c in assignment.dropped),
        delta_val_pct=measured_delta_val_pct(problem, assignment.dropped),
        host=host_device(problem).name,
        send_order=send_order,
        budgets=budget_rows(problem, decision),
        predicted=predict_cost(problem, decision, send_order),
        accuracy=estimate_accuracy(problem, decision),
        stages=stages,
        solver=solver,
        conflict=(),
    )


def assignment_decision(problem: Problem, assignment: Assignment) -> Decision:
    """Decision of an assignment; students numbered by round, then by board."""
    boards = problem.fleet.boards
    placed = sorted(assignment.students, key=lambda one: (one.round, one.board, one.communities))
    decided = (
        DecidedStudent(
            f"student-{n}",
            one.network,
            one.precision,
            tuple(boards[place].name for place in one.boards),
            one.communities,
            one.round,
        )
        for n, one in enumerate(placed, start=1)
    )
    own = assignment.stem
    alone = DecidedStem(boards[own.board].name, own.precision) if own else None
    return evaluate_decision(problem, decided, assignment.dropped, alone)


def assignment_value(problem: Problem, objective: Objective, assignment: Assignment) -> float:
    """Return the value of an objective in an assignment, as people read it."""
    decision = assignment_decision(problem, assignment)
    order = best_send_order(problem, decision, assignment.send_order)
    return objective_value(objective, problem, decision, predict_cost(problem, decision, order))


def plan_workload(plan: PlanDocument) -> FanOut:
    """Return the plan's NoNN as a fan-out from its host; raises InputError without students."""
    require_students(plan)
    return decision_workload(plan.question, plan.decision, plan.send_order)


def unproven_plan(problem: Problem, found: Assignment, method: str) -> PlanDocument:
    """Return the plan of an assignment that nothing is known of but its values."""
    values = [assignment_value(problem, level.objective, found) for level in problem.objective]
    return build_plan(
        problem,
        found,
        status="feasible",
        stages=tuple(
            LevelResult(
                objective=level.objective,
                tolerance_pct=level.tolerance_pct,
                value=value,
                best=value,
                bound=None,
                gap_pct=None,
                proven=False,
            )
            for level, value in zip(problem.objective, values, strict=True)
        ),
        solver=SolverRun(
            name=method, version=version("nonn-plan"), seed=problem.seed, deterministic_time=0
        ),
    )
