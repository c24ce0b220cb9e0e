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
    """What is decided of a student; all else follows from the question."""

    name: str
    network: str
    precision: Precision
    boards: tuple[str, ...]
    communities: tuple[int, ...]
    round: int


@dataclass(frozen=True, slots=True)
class DecidedStem:
    """What is decided of G0 where it has a board of its own."""

    board: str
    precision: Precision


def evaluate_decision(
    question: Problem,
    students: Iterable[DecidedStudent],
    dropped: Sequence[int],
    alone: DecidedStem | None,
) -> Decision:
    """Return what is decided with its exact cost; `dropped` are communities, P0."""
    described = tuple(
        _planned_student(question, one, dropped, own_group0=alone is None) for one in students
    )
    group0 = _planned_group0(question, described[0].network, alone) if alone else None
    return Decision(described, tuple(dropped), group0)


def _planned_group0(question: Problem, network: str, alone: DecidedStem) -> PlannedGroup0:
    spec, image = parse_network(network), question.image_shape
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
    question: Problem, student: DecidedStudent, dropped: Sequence[int], *, own_group0: bool
) -> PlannedStudent:
    filters = student_filters(question, student.communities, student.round, dropped)
    line = student_cost_line(parse_network(student.network), question.image_shape, own_group0)
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
    question: Problem, communities: Sequence[int], number: int, dropped: Sequence[int]
) -> Filters:
    """Return the filters of a student: of its communities or, in later rounds, of all reshuffled.

    Each round from the second on shuffles the filters of all kept communities with the question's
    seed and cuts them into the communities' sizes.
    """
    known = question.partition.communities
    if number == 1:
        return tuple(sorted(chain.from_iterable(known[c].filters for c in communities)))
    kept = [one for one in known if one.id not in dropped]
    place = [one.id for one in kept].index(communities[0])
    parts = tuple(one.filters for one in kept)
    return reshuffle_filters(parts, number * len(kept), question.seed)[
        (number - 1) * len(kept) + place
    ]


def budget_rows(question: Problem, made: Decision) -> tuple[BudgetRow, ...]:
    """Return use and slack of each board's budgets."""
    _, boards = resolve(question.fleet)
    return tuple(
        row
        for board, budget in zip(boards, question.budgets, strict=True)
        for row in _rows(
            board.device, budget, [one for one in made.models if budget.board in one.boards]
        )
    )


def _rows(
    device: DeviceProfile, budget: BoardBudget, here: Sequence[PlannedModel]
) -> Iterator[BudgetRow]:
    """Yield a row for memory and for MACs, and for each further limit that there is."""
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
    question: Problem, made: Decision, found: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the used boards, those first that need longest after their image has come.

    Where boards share a medium, another order may be quicker: `found`, places in the fleet, is
    returned if it is.
    """
    _, boards = resolve(question.fleet)
    awaited = {student.board for student in made.students}
    orders = [awaited_first(boards, _student_work(made.students), awaited)]
    if found:
        orders.append(tuple(boards[place].name for place in found))
    return min(orders, key=lambda order: predict_cost(question, made, order).total_ms)


def decision_workload(question: Problem, made: Decision, send_order: Sequence[str]) -> FanOut:
    """Return what one image makes the boards do; raises SimulationError for a wrong order."""
    _, boards = resolve(question.fleet)
    alone = made.group0
    return FanOut(
        host=host_device(question),
        boards=boards,
        students=_student_work(made.students),
        send_order=tuple(send_order),
        image_bytes=question.image_shape.size_bytes,
        g0=SharedGroup(alone.board, alone.macs, alone.maps_bytes) if alone else None,
    )


def predict_cost(question: Problem, made: Decision, send_order: Sequence[str]) -> Prediction:
    """Return latency and energy of one image by the simulator's closed form."""
    workload = decision_workload(question, made, send_order)
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


def estimate_accuracy(question: Problem, made: Decision) -> AccuracyEstimate | None:
    """Return the predicted accuracy; None where the question says nothing of it."""
    if question.accuracy is None:
        return None
    return question.accuracy_model.estimate(made.params, made.macs)


def _student_work(students: Sequence[PlannedStudent]) -> tuple[StudentWork, ...]:
    return tuple(
        StudentWork(student.name, board, student.macs, len(student.filters))
        for student in students
        for board in student.boards
    )


def estimate_robustness(question: Problem, made: Decision) -> RobustnessEstimate | None:
    """Return what a plan is worth when boards fail; None where the question does not say that."""
    accuracy = estimate_accuracy(question, made)
    if question.failures is None or accuracy is None or accuracy.value_pct is None:
        return None
    survival = RobustnessEvaluator(question.failures, _board_names(question))
    return survival.value(accuracy.value_pct, _replica_sets(question, made.students))


def all_up_probability(question: Problem, boards: Sequence[str]) -> float:
    """Return the chance that all of these boards are up, from 0 to 1."""
    names = _board_names(question)
    survival = RobustnessEvaluator(question.failures or Failures(), names)
    return float(survival.answered([frozenset({names.index(board)}) for board in boards])[-1])


def survivable_failures(question: Problem, made: Decision) -> int:
    """Return how many failures, whichever they are, leave each student a board, and G0 if alone."""
    if made.group0 is not None:
        return 0
    failures, homes = question.failures or Failures(), _replica_sets(question, made.students)
    count = 0
    while survives(homes, failures, _board_names(question), count + 1):
        count += 1
    return count


def _board_names(question: Problem) -> tuple[str, ...]:
    return tuple(board.name for board in question.fleet.boards)


def _replica_sets(question: Problem, students: Sequence[PlannedStudent]) -> list[frozenset[int]]:
    places = {name: place for place, name in enumerate(_board_names(question))}
    return [frozenset(places[board] for board in student.boards) for student in students]


def measured_delta_val_pct(question: Problem, dropped: Sequence[int]) -> float | None:
    """Return the measured delta_val of dropping these communities; null if unmeasured.

    Raises ValueError where no drop step removes exactly these.
    """
    for step in question.partition.drop_steps:
        if set(step.communities) == set(dropped):
            return step.delta_val_pct
    raise ValueError(f"no drop step removes exactly the communities {sorted(dropped)}")


def objective_value(
    objective: Objective, question: Problem, made: Decision, predicted: Prediction
) -> float:
    """Return the value of one objective, in the unit that people read."""
    students = made.students
    sizes = [len(student.filters) for student in students]
    if objective == "dropped":
        removed = sum(len(question.partition.communities[c].filters) for c in made.dropped)
        return abs(measured_delta_val_pct(question, made.dropped) or 0.0) - removed
    accuracy, worth = estimate_accuracy(question, made), estimate_robustness(question, made)
    values: dict[Objective, float | None] = {
        "accuracy": accuracy.value_pct if accuracy else None,
        "capacity": made.params,
        "imbalance": max(sizes) - min(sizes),
        "latency": predicted.total_ms,
        "throughput": predicted.throughput_per_s,
        "energy": predicted.energy_fleet_mj,
        "energy-node": predicted.energy_highest_mj,
        "memory": sum(model.memory_bytes * len(model.boards) for model in made.models),
        "flops": FLOPS_PER_MAC * sum(model.macs * len(model.boards) for model in made.models),
        "boards": len(made.used),
        "students": len(students),
        "precision": sum(BYTES_PER_VALUE[student.precision] for student in students),
        "survival": survivable_failures(question, made),
        "robustness": worth.expected_accuracy_pct if worth else None,
        "reliability": worth.reliability_pct if worth else None,
    }
    return float(values[objective] or 0.0)


def build_plan(
    question: Problem,
    assignment: Assignment,
    *,
    status: Literal["optimal", "feasible"],
    stages: tuple[LevelResult, ...],
    solver: SolverRun,
) -> PlanDocument:
    """Return the plan of an assignment."""
    made = assignment_decision(question, assignment)
    send_order = best_send_order(question, made, assignment.send_order)
    communities = question.partition.communities
    return PlanDocument(
        question=question,
        status=status,
        students=made.students,
        group0=made.group0,
        dropped=made.dropped,
        dropped_filters=sum(len(communities[c].filters) for c in assignment.dropped),
        delta_val_pct=measured_delta_val_pct(question, assignment.dropped),
        host=host_device(question).name,
        send_order=send_order,
        budgets=budget_rows(question, made),
        predicted=predict_cost(question, made, send_order),
        accuracy=estimate_accuracy(question, made),
        stages=stages,
        solver=solver,
        conflict=(),
    )


def assignment_decision(question: Problem, assignment: Assignment) -> Decision:
    """Return what is assigned; students are numbered by round, then in their boards' order."""
    boards = question.fleet.boards
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
    own = assignment.own
    alone = DecidedStem(boards[own.board].name, own.precision) if own else None
    return evaluate_decision(question, decided, assignment.dropped, alone)


def assignment_value(question: Problem, objective: Objective, assignment: Assignment) -> float:
    """Return the value of an objective in an assignment, as people read it."""
    made = assignment_decision(question, assignment)
    order = best_send_order(question, made, assignment.send_order)
    return objective_value(objective, question, made, predict_cost(question, made, order))


def plan_workload(plan: PlanDocument) -> FanOut:
    """Return the plan's NoNN as a fan-out from its host; raises InputError without students."""
    require_students(plan)
    return decision_workload(plan.question, plan.decision, plan.send_order)


def unproven_plan(question: Problem, found: Assignment, method: str) -> PlanDocument:
    """Return the plan of an assignment that nothing is known of but its values."""
    values = [assignment_value(question, stage.objective, found) for stage in question.objective]
    return build_plan(
        question,
        found,
        status="feasible",
        stages=tuple(
            LevelResult(
                objective=stage.objective,
                tolerance_pct=stage.tolerance_pct,
                value=value,
                best=value,
                bound=None,
                gap_pct=None,
                proven=False,
            )
            for stage, value in zip(question.objective, values, strict=True)
        ),
        solver=SolverRun(
            name=method, version=version("nonn-plan"), seed=question.seed, deterministic_time=0
        ),
    )
