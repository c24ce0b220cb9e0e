"""By how much each budget and requirement must move before the optimal plan changes; by solving.

The plan is said to change where the best value of some stage does, under the stages before it.

Tightened: a stage keeps its best value as long as some plan that has it uses no more than the
budget, so that the least that such a plan uses is where it changes.  Of stages without tolerance
the last one's plan has all their values.

Loosened: the least use of a plan that is better in some stage, and in no earlier one worse than
its tolerance allows, is where the optimum improves.  For any smaller budget every stage, one after
the other, keeps its value.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from nonn_core.progress import Progress, silent
from planner.demand import (
    Demand,
    DemandKind,
    alike,
    amount,
    demands,
    grows,
    label,
    limit_now,
    without,
)
from planner.instance import instance_of
from planner.objective import Limit
from planner.optimum import Optimum
from planner.prover import Prover
from planner.question import Question
from planner.stage import Objective
from profiles.document import Record


class Sensitivity(Record):
    """How far one budget or requirement may move before the optimal plan changes."""

    kind: DemandKind = Field(description="Which budget, bound or requirement; also its unit.")
    board: str | None = Field(description="Name of the board, of its budgets.")
    objective: Objective | None = Field(description="What a requirement bounds.")
    limit: int | float = Field(description="What the question asks.")
    used: int | float = Field(description="What the plan has of it, the runtime's memory included.")
    slack: int | float = Field(description="How far the plan is within the limit.")
    tighten_to: int | float | None = Field(
        description="The tightest limit with which the best value of every stage stays; the next "
        "tighter one changes it. Of epsilon: what must be allowed. Null if not found."
    )
    loosen_to: int | float | None = Field(
        description="The first limit, going looser, with which the best value of some stage is "
        "better, the earlier ones staying; null: no limit improves any."
    )
    improves: Objective | None = Field(description="The stage that improves there.")
    binds: bool = Field(description="A looser limit would improve the optimal plan.")
    proven: bool = Field(description="Both are proven; else the solver was stopped.")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """In solver units: how tight a demand keeps the optimum, and where looser improves it."""

    tight: int | None
    loose: int | None
    improves: Objective | None
    proven: bool


def sensitivities(
    prover: Prover,
    best: Optimum,
    used: Mapping[Demand, float],
    progress: Progress = silent,
) -> tuple[Sensitivity, ...]:
    """Return a row for each demand that the plan has something of; alike boards are solved once.

    `used` is what the plan has of each demand, as people read it.
    """
    question = prover.question
    asked = list(demands(question))[::-1]
    asked.sort(key=lambda one: (one.board < 0, one.board))
    found: dict[Demand, Thresholds] = {}
    for number, one in enumerate(asked):
        progress(f"moving {label(question, one)}", number, len(asked))
        if one not in found:
            found |= dict.fromkeys(alike(question, one), thresholds(prover, best, one))
    return tuple(_row(question, one, used[one], found[one]) for one in asked)


def thresholds(prover: Prover, best: Optimum, demand: Demand) -> Thresholds:
    """Find both thresholds of a demand."""
    tight, tight_proven = _tight(prover, best, demand)
    if without(prover.question, {demand}) == instance_of(prover.question) and not demand.objective:
        return Thresholds(tight, None, None, best.proven and tight_proven)
    loose, improves, loose_proven = _loose(prover, best, demand)
    if demand.kind == "max_students" and loose is None:
        stages = (stage.objective for stage in prover.question.objective)
        loose_proven = loose_proven and not grows(prover.question, stages)
    return Thresholds(tight, loose, improves, best.proven and tight_proven and loose_proven)


def _tight(prover: Prover, best: Optimum, demand: Demand) -> tuple[int | None, bool]:
    """Return the tightest limit that each stage's best value allows; None if one is unknown."""
    known = {id(best.stages[-1]): best.assignment}
    outcomes = [prover.tightest(demand, one.as_good, known=known.get(id(one))) for one in best.kept]
    values = [outcome.value for outcome in outcomes if outcome.value is not None]
    proven = all(outcome.proven for outcome in outcomes)
    if len(values) < len(outcomes):
        return None, False
    return (min if demand.relaxation.maximise else max)(values), proven


def _loose(
    prover: Prover, best: Optimum, demand: Demand
) -> tuple[int | None, Objective | None, bool]:
    """Return the first limit, going looser, at which a stage improves, and that stage."""
    measure = demand.relaxation
    step = 1 if measure.maximise else -1
    sooner: list[Limit] = []
    value, improves, proven = None, None, True
    for one in best.stages:
        outcome = prover.tightest(demand, [*one.better, *sooner])
        proven = proven and (outcome.proven or outcome.infeasible)
        if outcome.value is not None:
            value, improves = outcome.value, one.stage.objective
            # Of a later stage only a limit that is reached sooner matters.
            sooner = [Limit(measure, value + step)]
    return value, improves, proven


def _row(question: Question, demand: Demand, used: float, found: Thresholds) -> Sensitivity:
    limit = limit_now(question, demand)
    return Sensitivity(
        kind=demand.kind,
        board=question.budgets[demand.board].board if demand.board >= 0 else None,
        objective=demand.objective,
        limit=limit,
        used=used,
        slack=used - limit if demand.from_below else limit - used,
        tighten_to=None if found.tight is None else amount(question, demand, found.tight),
        loosen_to=None if found.loose is None else amount(question, demand, found.loose),
        improves=found.improves,
        binds=found.loose is not None,
        proven=found.proven,
    )
