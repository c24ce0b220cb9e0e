"""The plan of a baseline: an answer like the solver's, without a proof."""

from importlib.metadata import version

from planner.answer import answered, value_of
from planner.assignment import Assignment
from planner.baselines.registry import baseline
from planner.plan import PlanDocument, SolverRun, StageResult
from planner.question import Question
from planner.validation import require_valid
from profiles.errors import InputError, UnprovenError


def plan_by(question: Question, method: str) -> PlanDocument:
    """Answer a question by a baseline.

    Raises InputError for an unknown method and for a G0 that is to be alone, UnprovenError where it
    finds nothing within the budgets and requirements, which proves nothing.
    """
    rule = baseline(method)
    if question.group0 == "own-board":
        raise InputError(
            "baselines put a copy of G0 on each board with a student",
            where=f"--method {method}",
            found="--group0 own-board",
            allowed="--group0 replicated or either",
        )
    found = rule(question)
    if found is None:
        raise UnprovenError(
            f"{method} found no plan within the budgets; that does not prove that there is none: "
            "plan without --method"
        )
    plan = unproven(question, found, method)
    require_valid(plan, where=f"--method {method}")
    return plan


def unproven(question: Question, found: Assignment, method: str) -> PlanDocument:
    """Return the plan of an assignment that nothing is known of but its values."""
    values = [value_of(question, stage.objective, found) for stage in question.objective]
    return answered(
        question,
        found,
        status="feasible",
        stages=tuple(
            StageResult(
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
