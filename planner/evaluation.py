"""What a plan costs and is worth, recomputed from the question alone; knows nothing of a solver."""

from collections.abc import Sequence
from itertools import chain

from nonn_core.costs import student_cost
from nonn_core.family import parse_network
from planner.plan import BudgetRow, PlannedStudent, Prediction
from planner.question import Objective, Question
from profiles.fleet import resolve
from simulator.closed_form import fan_out
from simulator.send_order import longest_first
from simulator.workload import FanOut, StudentWork


def planned_student(
    question: Question, name: str, network: str, board: str, communities: Sequence[int]
) -> PlannedStudent:
    """Describe a student of the question with its exact cost."""
    known = question.partition.communities
    filters = tuple(sorted(chain.from_iterable(known[c].filters for c in communities)))
    cost = student_cost(parse_network(network), question.image_shape, len(filters))
    return PlannedStudent(
        name=name,
        network=network,
        board=board,
        communities=tuple(sorted(communities)),
        filters=filters,
        params=cost.params,
        macs=cost.macs,
        peak_elements=cost.peak_elements,
        memory_bytes=cost.memory_bytes(question.precision),
    )


def budget_rows(question: Question, students: Sequence[PlannedStudent]) -> tuple[BudgetRow, ...]:
    """Return use and slack of each board's memory and MAC budget."""
    rows = []
    for budget in question.budgets:
        here = [student for student in students if student.board == budget.board]
        memory_bytes = sum(student.memory_bytes for student in here)
        macs = sum(student.macs for student in here)
        rows.append(
            BudgetRow(
                board=budget.board,
                budget="memory_bytes",
                used=memory_bytes,
                limit=budget.memory_bytes,
                slack=budget.memory_bytes - memory_bytes,
            )
        )
        rows.append(
            BudgetRow(
                board=budget.board,
                budget="macs",
                used=macs,
                limit=budget.macs,
                slack=None if budget.macs is None else budget.macs - macs,
            )
        )
    return tuple(rows)


def best_send_order(
    question: Question, students: Sequence[PlannedStudent], found: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the used boards, those first that need longest after their image has come.

    Where boards share a medium, another order may be quicker: `found`, places in the fleet, is
    returned if it is.
    """
    _, boards = resolve(question.fleet)
    orders = [longest_first(boards, _works(students))]
    if found:
        orders.append(tuple(boards[place].name for place in found))
    return min(orders, key=lambda order: predict(question, students, order).total_ms)


def workload_of(
    question: Question, students: Sequence[PlannedStudent], send_order: Sequence[str]
) -> FanOut:
    """Return what one image makes the boards do; raises SimulationError for a wrong order."""
    host, boards = resolve(question.fleet)
    return FanOut(
        host=host,
        boards=boards,
        students=_works(students),
        send_order=tuple(send_order),
        image_bytes=question.image_shape.size_bytes,
    )


def predict(
    question: Question, students: Sequence[PlannedStudent], send_order: Sequence[str]
) -> Prediction:
    """Return latency and energy of one image by the simulator's closed form."""
    breakdown = fan_out(workload_of(question, students, send_order))
    return Prediction(
        total_ms=breakdown.total_ms,
        compute_ms=breakdown.compute_ms,
        communication_ms=breakdown.communication_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
        energy_highest_mj=max(row.energy_mj for row in breakdown.boards),
        energy_fleet_mj=breakdown.energy_total_mj,
    )


def _works(students: Sequence[PlannedStudent]) -> tuple[StudentWork, ...]:
    return tuple(
        StudentWork(student.name, student.board, student.macs, len(student.filters))
        for student in students
    )


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
    values: dict[Objective, float] = {
        "capacity": sum(student.params for student in students),
        "imbalance": max(sizes) - min(sizes),
        "latency": predicted.total_ms,
        "energy": predicted.energy_fleet_mj,
        "boards": len({student.board for student in students}),
        "students": len(students),
    }
    return float(values[objective])
