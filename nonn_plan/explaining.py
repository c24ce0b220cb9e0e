"""`explain`: what binds a plan and what would change it; or why there is none, and what helps."""

from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.options import AsJson, PlanFile
from nonn_plan.output import Output
from nonn_plan.planning import read_plan
from profiles.errors import UnprovenError

if TYPE_CHECKING:
    from planner.explanation import Explanation
    from planner.plan import PlanDocument
    from planner.sensitivity import Sensitivity


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(explain)


def explain(
    plan_file: PlanFile,
    limit: Annotated[
        float,
        typer.Option("--limit", min=0, help="Deterministic time for all of it, about seconds."),
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Which budgets bind, how far each may move; or which demands conflict, and what repairs it."""
    from planner.explanation import explain as explained

    output = Output(as_json)
    answer = read_plan(plan_file)
    with output.progress("nothing was written") as progress:
        found = explained(answer, limit, progress)
    if answer.status == "infeasible":
        _show_conflict(output, found)
    else:
        _show_thresholds(output, answer, found)
    output.result(found.model_dump(mode="json"))
    if not found.proven:
        raise UnprovenError(
            f"the limit of {limit:g} stopped a proof: what is shown holds, and there may be more "
            "to say; raise --limit"
        )


def _show_conflict(output: Output, found: "Explanation") -> None:
    proven = "without any one they can" if found.irreducible else "not all are proven necessary"
    output.say(f"infeasible: these cannot hold together; {proven}")
    for sentence in found.conflict:
        output.say(f"  - {sentence}")
    if not found.repairs:
        output.say("no repair was found")
        return
    output.say("repairs; with each of them alone there is a plan:")
    for repair in found.repairs:
        least = "" if repair.least else " (not proven the least)"
        output.say(f"  - {repair.text}{least}")


def _show_thresholds(output: Output, answer: "PlanDocument", found: "Explanation") -> None:
    from planner.explanation import proof

    for sentence in proof(answer):
        output.say(sentence)
    output.table(
        "How far each may move before the optimal plan changes",
        ("demand", "used", "limit", "slack", "binds", "tighten to", "loosen to", "improves"),
        [_row(answer, row) for row in found.sensitivities],
    )


def _row(answer: "PlanDocument", row: "Sensitivity") -> tuple[str, ...]:
    from planner.amounts import plain, shown
    from planner.demand import Demand, label

    question = answer.question
    boards = [board.name for board in question.fleet.boards]
    place = boards.index(row.board) if row.board is not None else -1
    demand = Demand(row.kind, place, row.objective)
    return (
        label(question, demand),
        *(plain(demand, value) for value in (row.used, row.limit, row.slack)),
        "yes" if row.binds else "no" if row.proven else "not known",
        "not known" if row.tighten_to is None else shown(demand, row.tighten_to),
        "-" if row.loosen_to is None else shown(demand, row.loosen_to),
        row.improves or "-",
    )
