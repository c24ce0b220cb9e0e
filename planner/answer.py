"""From an assignment to the plan that people read: students, budgets, prediction, values."""

from typing import Literal

from planner.assignment import Assignment
from planner.evaluation import (
    Decided,
    best_send_order,
    budget_rows,
    delta_val_pct,
    estimate,
    measured,
    planned_student,
    predict,
)
from planner.instance import host_of
from planner.plan import PlanDocument, PlannedStudent, SolverRun, StageResult
from planner.question import Question
from planner.stage import Objective


def answered(
    question: Question,
    assignment: Assignment,
    *,
    status: Literal["optimal", "feasible"],
    stages: tuple[StageResult, ...],
    solver: SolverRun,
) -> PlanDocument:
    """Return the plan of an assignment."""
    students = students_of(question, assignment)
    send_order = best_send_order(question, students, assignment.send_order)
    communities = question.partition.communities
    return PlanDocument(
        question=question,
        status=status,
        students=students,
        dropped=assignment.dropped,
        dropped_filters=sum(len(communities[c].filters) for c in assignment.dropped),
        delta_val_pct=delta_val_pct(question, assignment.dropped),
        host=host_of(question).name,
        send_order=send_order,
        budgets=budget_rows(question, students),
        predicted=predict(question, students, send_order),
        accuracy=estimate(question, students),
        stages=stages,
        solver=solver,
        conflict=(),
    )


def students_of(question: Question, assignment: Assignment) -> tuple[PlannedStudent, ...]:
    """Describe the students of an assignment, numbered by round, then in their boards' order."""
    boards = question.fleet.boards
    placed = sorted(assignment.students, key=lambda one: (one.round, one.board, one.communities))
    decided = (
        Decided(
            f"student-{n}",
            one.network,
            one.precision,
            tuple(boards[place].name for place in one.boards),
            one.communities,
            one.round,
        )
        for n, one in enumerate(placed, start=1)
    )
    return tuple(planned_student(question, one, assignment.dropped) for one in decided)


def value_of(question: Question, objective: Objective, assignment: Assignment) -> float:
    """Return the value of an objective in an assignment, as people read it."""
    students = students_of(question, assignment)
    order = best_send_order(question, students, assignment.send_order)
    predicted = predict(question, students, order)
    return measured(objective, question, students, assignment.dropped, predicted)
