"""What an assignment is worth by the objective of its question."""

from collections.abc import Sequence

from planner.answer import decision_of, value_of
from planner.assignment import Assignment
from planner.evaluation import budget_rows
from planner.objective import kept
from planner.question import Question
from planner.stage import MORE_IS_BETTER

Values = tuple[float, ...]
"""One value per stage of an objective, in the unit that people read."""


def stage_values(question: Question, assignment: Assignment) -> Values:
    """Return the value of each stage of the question's objective."""
    return tuple(value_of(question, stage.objective, assignment) for stage in question.objective)


def best_of(question: Question, candidates: Sequence[Assignment]) -> Assignment | None:
    """Return the best of the candidates that keep all budgets and requirements; None if none does.

    The first of equal ones.
    Stage by stage, those within the stage's tolerance of its best stay; the last stage decides.
    """
    able = [candidate for candidate in candidates if _keeps_all(question, candidate)]
    if not able:
        return None
    rows = [(stage_values(question, candidate), candidate) for candidate in able]
    for place, stage in enumerate(question.objective):
        sign = -1.0 if stage.objective in MORE_IS_BETTER else 1.0
        rows.sort(key=lambda row: sign * row[0][place])
        best = sign * rows[0][0][place]
        allowed = best + abs(best) * stage.tolerance_pct / 100
        rows = [row for row in rows if sign * row[0][place] <= allowed]
    return rows[0][1]


def _keeps_all(question: Question, candidate: Assignment) -> bool:
    """Say whether an assignment keeps each board's budgets, and what is required of the whole."""
    rows = budget_rows(question, decision_of(question, candidate))
    if any(row.slack is not None and row.slack < 0 for row in rows):
        return False
    return all(
        kept(question, required, value_of(question, required.objective, candidate))
        for required in question.requirements
    )
