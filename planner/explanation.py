"""Why a plan is what it is: which budgets bind, or which requirements conflict; in sentences."""

from collections.abc import Iterator

from nonn_core.costs import student_cost
from nonn_core.family import parse_network
from planner.budget import BUDGETS
from planner.plan import BudgetRow, PlanDocument
from planner.stage import Objective

UNITS: dict[Objective, str] = {
    "accuracy": " (%)",
    "capacity": " (parameters)",
    "imbalance": " (filters)",
    "dropped": " (points - filters)",
    "latency": " (ms)",
    "throughput": " (images per second)",
    "energy": " (mJ, fleet)",
    "energy-node": " (mJ, highest board)",
    "memory": " (bytes)",
    "flops": " (FLOPs)",
    "boards": "",
    "students": "",
    "precision": " (bytes per value, added up)",
}


def explanation(plan: PlanDocument) -> tuple[str, ...]:
    """Return sentences for people: proof, objective, budgets; or the conflict."""
    if plan.status == "infeasible":
        head = "infeasible: these requirements cannot hold together; without any one they can"
        return (head, *plan.conflict)
    budgets = (f"{row.board}: {_budget(plan, row)}" for row in plan.budgets)
    return (_status(plan), *_stages(plan), *budgets)


def binds(plan: PlanDocument, row: BudgetRow) -> bool:
    """Say whether a budget is what keeps its board's students from being larger.

    It binds where some network of the question, with the students' G0, is larger in this budget
    than the network of some student there, and none such fits into the slack.
    """
    if row.slack is None or row.budget not in ("memory_bytes", "macs"):
        return False
    steps = list(_growths(plan, row))
    return bool(steps) and min(steps) > row.slack


def _growths(plan: PlanDocument, row: BudgetRow) -> Iterator[int]:
    """Yield by how much each larger network would raise the use of this budget."""
    question = plan.question
    for student in (one for one in plan.students if one.board == row.board):
        group0 = parse_network(student.network).group0
        used = student.macs if row.budget == "macs" else student.memory_bytes
        for spec in question.specs:
            if spec.group0 != group0:
                continue
            cost = student_cost(spec, question.image_shape, len(student.filters))
            need = cost.macs if row.budget == "macs" else cost.memory_bytes(student.precision)
            if need > used:
                yield need - used


def _status(plan: PlanDocument) -> str:
    run = plan.solver
    return (
        f"{plan.status}: {len(plan.students)} students on {len(plan.send_order)} of "
        f"{len(plan.question.fleet.boards)} boards, {plan.dropped_filters} filters dropped; "
        f"{run.name} {run.version}, seed {run.seed}"
    )


def _stages(plan: PlanDocument) -> Iterator[str]:
    for stage in plan.stages:
        proof = "proven" if stage.proven else "not proven"
        bound = "" if stage.bound is None else f", bound {stage.bound:.10g}"
        gap = "" if stage.gap_pct is None else f", gap {stage.gap_pct:.2f} %"
        best = f"best {stage.best:.10g}{bound}{gap}, {proof}"
        yield f"{stage.objective}{UNITS[stage.objective]}: {stage.value:.10g} ({best})"


def _budget(plan: PlanDocument, row: BudgetRow) -> str:
    shown = BUDGETS[row.budget]
    if row.limit is None or row.slack is None:
        return f"{shown.noun} {shown.text(row.used)}, no limit"
    verdict = "; binds: no larger network of the question fits" if binds(plan, row) else ""
    slack = shown.text(row.slack)
    return f"{shown.noun} {shown.text(row.used)} of {shown.text(row.limit)}, slack {slack}{verdict}"
