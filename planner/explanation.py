"""Why a plan is what it is: proof and thresholds; or the conflict, and what would repair it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from nonn_core.progress import Progress, silent
from planner.conflict import irreducible, sentences
from planner.demand import Demand, demands
from planner.evaluation import measured
from planner.optimum import optimum
from planner.plan import PlanDocument, StageResult
from planner.prover import Meter, Prover
from planner.repair import Repair, repairs
from planner.sensitivity import Sensitivity, sensitivities
from planner.stage import Objective
from profiles.document import Record
from profiles.errors import InputError

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
    "survival": " (failures)",
    "robustness": " (%)",
    "reliability": " (%)",
}


class Explanation(Record):
    """What binds a plan, and what would change it; or why there is none, and what would help."""

    status: Literal["optimal", "feasible", "infeasible"] = Field(
        description="As the plan says; thresholds are of the question's optimum in any case."
    )
    stages: tuple[StageResult, ...] = Field(description="The plan's proof.")
    sensitivities: tuple[Sensitivity, ...] = Field(
        description="Of each budget and requirement; empty if infeasible."
    )
    conflict: tuple[str, ...] = Field(
        description="If infeasible: an irreducible set of demands that cannot hold together."
    )
    repairs: tuple[Repair, ...] = Field(
        description="If infeasible: changes with which there is a plan, found and checked."
    )
    irreducible: bool = Field(
        description="If infeasible: without any one of the conflict the others, proven, can hold."
    )
    proven: bool = Field(description="All of it is proven; else the solver was stopped.")


def explain(
    plan: PlanDocument, deterministic_limit: float, progress: Progress = silent
) -> Explanation:
    """Explain a plan by solving its question again, moved.

    The limit is for all of it together.  Raises UnprovenError where it does not suffice to find
    the question's optimum, and InputError where the plan wrongly says infeasible.
    """
    prover = Prover(plan.question, Meter(deterministic_limit))
    # Many small questions: a local search before each would take most of the time.
    moved = replace(prover, most_drafts=0)
    if plan.status == "infeasible":
        return _infeasible(plan, moved, progress)
    rows = sensitivities(moved, optimum(prover), dict(_uses(plan)), progress)
    return Explanation(
        status=plan.status,
        stages=plan.stages,
        sensitivities=rows,
        conflict=(),
        repairs=(),
        irreducible=False,
        proven=all(row.proven for row in rows),
    )


def _infeasible(plan: PlanDocument, prover: Prover, progress: Progress) -> Explanation:
    if prover.plan().assignment is not None:
        raise InputError("the plan says infeasible and its question has a plan", fix="plan again")
    progress("finding the conflict", 0, 0)
    found = irreducible(prover)
    repaired = repairs(prover, found.demands, progress)
    return Explanation(
        status=plan.status,
        stages=(),
        sensitivities=(),
        conflict=sentences(prover, found),
        repairs=repaired,
        irreducible=found.proven,
        proven=found.proven and all(one.least for one in repaired) and prover.meter.left > 0,
    )


def _uses(plan: PlanDocument) -> Iterator[tuple[Demand, float]]:
    """Yield what the plan has of each demand."""
    used = {(row.board, row.budget): row.used for row in plan.budgets}
    for one in demands(plan.question):
        if one.budget is not None:
            yield one, used[plan.question.budgets[one.board].board, one.budget]
        elif one.objective is not None and plan.predicted is not None:
            yield one, measured(one.objective, plan.question, plan.decision, plan.predicted)
        elif one.kind == "epsilon":
            yield one, abs(plan.delta_val_pct or 0.0)
        else:
            yield one, len(plan.students)


def proof(plan: PlanDocument) -> tuple[str, ...]:
    """Return sentences for people: what the plan is and what was proven of each stage."""
    run = plan.solver
    head = (
        f"{plan.status}: {len(plan.students)} students on {len(plan.decision.used)} of "
        f"{len(plan.question.fleet.boards)} boards, {plan.dropped_filters} filters dropped; "
        f"{run.name} {run.version}, seed {run.seed}"
    )
    return head, *_stages(plan.stages)


def _stages(stages: Sequence[StageResult]) -> Iterator[str]:
    for stage in stages:
        proven = "proven" if stage.proven else "not proven"
        bound = "" if stage.bound is None else f", bound {stage.bound:.10g}"
        gap = "" if stage.gap_pct is None else f", gap {stage.gap_pct:.2f} %"
        best = f"best {stage.best:.10g}{bound}{gap}, {proven}"
        yield f"{stage.objective}{UNITS[stage.objective]}: {stage.value:.10g} ({best})"
