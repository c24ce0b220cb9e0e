"""An assignment as the plan file that a person would read, so that it can be validated."""

from planner.evaluation import (
    best_send_order,
    budget_rows,
    delta_val_pct,
    measured,
    planned_student,
    predict,
)
from planner.plan import PlanDocument


def plan_of(question, assignment):
    names = [board.name for board in question.fleet.boards]
    students = tuple(
        planned_student(question, f"student-{n}", one.network, names[one.board], one.communities)
        for n, one in enumerate(assignment.students, start=1)
    )
    order = best_send_order(question, students)
    predicted = predict(question, students, order)
    communities = question.partition.communities
    return PlanDocument.model_validate(
        {
            "question": question,
            "status": "feasible",
            "students": students,
            "dropped": assignment.dropped,
            "dropped_filters": sum(len(communities[c].filters) for c in assignment.dropped),
            "delta_val_pct": delta_val_pct(question, assignment.dropped),
            "send_order": order,
            "budgets": budget_rows(question, students),
            "predicted": predicted,
            "stages": [
                _stage(question, s, students, assignment, predicted) for s in question.objective
            ],
            "solver": {"name": "baseline", "version": "0", "seed": 0, "deterministic_time": 0},
            "conflict": (),
        }
    )


def _stage(question, stage, students, assignment, predicted):
    value = measured(stage.objective, question, students, assignment.dropped, predicted)
    return {
        "objective": stage.objective,
        "tolerance_pct": stage.tolerance_pct,
        "value": value,
        "best": value,
        "bound": None,
        "gap_pct": None,
        "proven": False,
    }
