"""What an assignment is worth by the objective of its question."""

from collections.abc import Sequence

from planner.assignment import Assignment
from planner.evaluation import best_send_order, measured, planned_student, predict
from planner.question import Question
from planner.validation import MORE_IS_BETTER

Values = tuple[float, ...]
"""One value per stage of an objective, in the unit that people read."""


def stage_values(question: Question, assignment: Assignment) -> Values:
    """Return the value of each stage of the question's objective."""
    boards = question.fleet.boards
    students = tuple(
        planned_student(
            question, f"student-{n}", one.network, boards[one.board].name, one.communities
        )
        for n, one in enumerate(assignment.students, start=1)
    )
    predicted = predict(question, students, best_send_order(question, students))
    return tuple(
        measured(stage.objective, question, students, assignment.dropped, predicted)
        for stage in question.objective
    )


def best_of(question: Question, candidates: Sequence[Assignment]) -> Assignment:
    """Return the best of at least one candidate, the first of equal ones.

    Stage by stage, those within the stage's tolerance of its best stay; the last stage decides.
    """
    rows = [(stage_values(question, candidate), candidate) for candidate in candidates]
    for place, stage in enumerate(question.objective):
        sign = -1.0 if stage.objective in MORE_IS_BETTER else 1.0
        rows.sort(key=lambda row: sign * row[0][place])
        best = sign * rows[0][0][place]
        allowed = best + abs(best) * stage.tolerance_pct / 100
        rows = [row for row in rows if sign * row[0][place] <= allowed]
    return rows[0][1]
