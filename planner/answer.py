"""From an assignment to the plan that people read: students, budgets, prediction, values."""

from typing import Literal

from planner.assignment import Assignment
from planner.evaluation import (
    Alone,
    Decided,
    best_send_order,
    budget_rows,
    decision,
    delta_val_pct,
    estimate,
    measured,
    predict,
)
from planner.instance import host_of
from planner.plan import Decision, PlanDocument, SolverRun, StageResult
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
    made = decision_of(question, assignment)
    send_order = best_send_order(question, made, assignment.send_order)
    communities = question.partition.communities
    return PlanDocument(
        question=question,
        status=status,
        students=made.students,
        group0=made.group0,
        dropped=made.dropped,
        dropped_filters=sum(len(communities[c].filters) for c in assignment.dropped),
        delta_val_pct=delta_val_pct(question, assignment.dropped),
        host=host_of(question).name,
        send_order=send_order,
        budgets=budget_rows(question, made),
        predicted=predict(question, made, send_order),
        accuracy=estimate(question, made),
        stages=stages,
        solver=solver,
        conflict=(),
    )


def decision_of(question: Question, assignment: Assignment) -> Decision:
    """Return what is assigned; students are numbered by round, then in their boards' order."""
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
    own = assignment.own
    alone = Alone(boards[own.board].name, own.precision) if own else None
    return decision(question, decided, assignment.dropped, alone)


def value_of(question: Question, objective: Objective, assignment: Assignment) -> float:
    """Return the value of an objective in an assignment, as people read it."""
    made = decision_of(question, assignment)
    order = best_send_order(question, made, assignment.send_order)
    return measured(objective, question, made, predict(question, made, order))
