"""What a plan costs and is worth, recomputed from the question alone; knows nothing of a solver."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from nonn_core.costs import BYTES_PER_VALUE, Precision, student_cost
from nonn_core.family import parse_network
from nonn_core.partition import Filters
from nonn_core.reshuffle import reshuffled
from planner.accuracy.model import AccuracyEstimate
from planner.budget import BoardBudget, BudgetName
from planner.failures import Failures
from planner.instance import host_of
from planner.plan import BudgetRow, PlannedStudent, Prediction
from planner.question import Question
from planner.robustness import Robustness, Survival, survives
from planner.stage import Objective
from profiles.device import DeviceProfile
from profiles.fleet import resolve
from profiles.units import FLOPS_PER_MAC
from simulator.closed_form import fan_out
from simulator.job import period_ms
from simulator.send_order import awaited_first
from simulator.workload import FanOut, StudentWork, busy_mj, busy_ms


@dataclass(frozen=True, slots=True)
class Decided:
    """What is decided of a student; all else follows from the question."""

    name: str
    network: str
    precision: Precision
    boards: tuple[str, ...]
    communities: tuple[int, ...]
    round: int


def planned_student(question: Question, student: Decided, dropped: Sequence[int]) -> PlannedStudent:
    """Describe a student of the question with its exact cost; `dropped` are communities, P0."""
    filters = mimicked(question, student.communities, student.round, dropped)
    cost = student_cost(parse_network(student.network), question.image_shape, len(filters))
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


def mimicked(
    question: Question, communities: Sequence[int], number: int, dropped: Sequence[int]
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
    return reshuffled(parts, number * len(kept), question.seed)[(number - 1) * len(kept) + place]


def budget_rows(question: Question, students: Sequence[PlannedStudent]) -> tuple[BudgetRow, ...]:
    """Return use and slack of each board's budgets."""
    _, boards = resolve(question.fleet)
    return tuple(
        row
        for board, budget in zip(boards, question.budgets, strict=True)
        for row in _rows(
            board.device, budget, [one for one in students if budget.board in one.boards]
        )
    )


def _rows(
    device: DeviceProfile, budget: BoardBudget, here: Sequence[PlannedStudent]
) -> Iterator[BudgetRow]:
    """Yield a row for memory and for MACs, and for each further limit that there is."""
    macs = [student.macs for student in here]
    memory_bytes = sum(student.memory_bytes for student in here)
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
    question: Question, students: Sequence[PlannedStudent], found: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the used boards, those first that need longest after their image has come.

    Where boards share a medium, another order may be quicker: `found`, places in the fleet, is
    returned if it is.
    """
    _, boards = resolve(question.fleet)
    awaited = {student.board for student in students}
    orders = [awaited_first(boards, _works(students), awaited)]
    if found:
        orders.append(tuple(boards[place].name for place in found))
    return min(orders, key=lambda order: predict(question, students, order).total_ms)


def workload_of(
    question: Question, students: Sequence[PlannedStudent], send_order: Sequence[str]
) -> FanOut:
    """Return what one image makes the boards do; raises SimulationError for a wrong order."""
    _, boards = resolve(question.fleet)
    return FanOut(
        host=host_of(question),
        boards=boards,
        students=_works(students),
        send_order=tuple(send_order),
        image_bytes=question.image_shape.size_bytes,
    )


def predict(
    question: Question, students: Sequence[PlannedStudent], send_order: Sequence[str]
) -> Prediction:
    """Return latency and energy of one image by the simulator's closed form."""
    workload = workload_of(question, students, send_order)
    breakdown = fan_out(workload)
    return Prediction(
        total_ms=breakdown.total_ms,
        compute_ms=breakdown.compute_ms,
        communication_ms=breakdown.communication_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
        energy_highest_mj=max(row.energy_mj for row in breakdown.boards),
        energy_fleet_mj=breakdown.energy_total_mj,
        throughput_per_s=1000 / period_ms(workload.job()),
    )


def estimate(question: Question, students: Sequence[PlannedStudent]) -> AccuracyEstimate | None:
    """Return the predicted accuracy; None where the question says nothing of it."""
    if question.accuracy is None:
        return None
    params = sum(student.params for student in students)
    return question.accuracy_model.estimate(params, sum(student.macs for student in students))


def _works(students: Sequence[PlannedStudent]) -> tuple[StudentWork, ...]:
    return tuple(
        StudentWork(student.name, board, student.macs, len(student.filters))
        for student in students
        for board in student.boards
    )


def robustness(question: Question, students: Sequence[PlannedStudent]) -> Robustness | None:
    """Return what a plan is worth when boards fail; None where the question does not say that."""
    accuracy = estimate(question, students)
    if question.failures is None or accuracy is None or accuracy.value_pct is None:
        return None
    survival = Survival(question.failures, _names(question))
    return survival.value(accuracy.value_pct, _homes(question, students))


def chance_of(question: Question, boards: Sequence[str]) -> float:
    """Return the chance that all of these boards are up, from 0 to 1."""
    names = _names(question)
    survival = Survival(question.failures or Failures(), names)
    return float(survival.answered([frozenset({names.index(board)}) for board in boards])[-1])


def survived(question: Question, students: Sequence[PlannedStudent]) -> int:
    """Return how many failures, whichever they are, leave each student a board."""
    failures, homes = question.failures or Failures(), _homes(question, students)
    count = 0
    while survives(homes, failures, _names(question), count + 1):
        count += 1
    return count


def _names(question: Question) -> tuple[str, ...]:
    return tuple(board.name for board in question.fleet.boards)


def _homes(question: Question, students: Sequence[PlannedStudent]) -> list[frozenset[int]]:
    places = {name: place for place, name in enumerate(_names(question))}
    return [frozenset(places[board] for board in student.boards) for student in students]


def delta_val_pct(question: Question, dropped: Sequence[int]) -> float | None:
    """Return the measured delta_val of dropping these communities; null if unmeasured.

    Raises ValueError where no drop step removes exactly these.
    """
    for step in question.partition.drop_steps:
        if set(step.communities) == set(dropped):
            return step.delta_val_pct
    raise ValueError(f"no drop step removes exactly the communities {sorted(dropped)}")


def measured(
    objective: Objective,
    question: Question,
    students: Sequence[PlannedStudent],
    dropped: Sequence[int],
    predicted: Prediction,
) -> float:
    """Return the value of one objective, in the unit that people read."""
    sizes = [len(student.filters) for student in students]
    if objective == "dropped":
        removed = sum(len(question.partition.communities[c].filters) for c in dropped)
        return abs(delta_val_pct(question, dropped) or 0.0) - removed
    accuracy, worth = estimate(question, students), robustness(question, students)
    values: dict[Objective, float | None] = {
        "accuracy": accuracy.value_pct if accuracy else None,
        "capacity": sum(student.params for student in students),
        "imbalance": max(sizes) - min(sizes),
        "latency": predicted.total_ms,
        "throughput": predicted.throughput_per_s,
        "energy": predicted.energy_fleet_mj,
        "energy-node": predicted.energy_highest_mj,
        "memory": sum(student.memory_bytes * len(student.boards) for student in students),
        "flops": FLOPS_PER_MAC * sum(student.macs * len(student.boards) for student in students),
        "boards": len({board for student in students for board in student.boards}),
        "students": len(students),
        "precision": sum(BYTES_PER_VALUE[student.precision] for student in students),
        "survival": survived(question, students),
        "robustness": worth.expected_accuracy_pct if worth else None,
        "reliability": worth.reliability_pct if worth else None,
    }
    return float(values[objective] or 0.0)
