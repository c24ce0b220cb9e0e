"""`plan`, `replan`, `ui`, `config`, `explain`, `draw`: proven plans, why, pictures; no torch."""

from pathlib import Path
from typing import Annotated

import typer

import nonn_plan
from nonn_common.document import check_picture, check_place, read_plain
from nonn_common.errors import InputError, PlanningError, UnprovenError
from nonn_core.evidence import partition_warnings
from nonn_core.partition import Partition
from nonn_plan.api import read_plan, require_feasible, write_recipe
from nonn_plan.cli.output import UNCHANGED, Output
from nonn_plan.cli.parsers.options import AsJson, BatchSize, Epochs, LearningRate, PlanFile, Seed
from nonn_plan.cli.parsers.problem_options import (
    PROPOSED,
    PartitionFile,
    ProblemOptions,
    with_problem_options,
)
from nonn_plan.cli.views.explanation_report import (
    homeless_warnings,
    show_conflict,
    show_moves,
    show_thresholds,
)
from nonn_plan.cli.views.plan_report import show_plan
from planner.plan_file.plan_document import PlanDocument
from planner.problem.budgets import memory_notes, one_memory_notes
from profiles.fleet import parse_fleet

STANDINGS = {
    "certified": "certified: prices, checked in whole numbers without a solver",
    "seconded": "second opinion, not a proof: HiGHS, on a model of its own",
    "claimed": "claimed: OR-Tools CP-SAT alone",
}
"""Standings of a claim, for people."""


@with_problem_options
def plan(
    *,
    partition_file: PartitionFile,
    fleet: Annotated[
        str, typer.Option("--fleet", help="Library name, file, or list: rpi-3b*2,rpi-4b@wifi")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    options: ProblemOptions,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="A baseline in place of the solver, without proof: greedy, lpt, "
            "rocoin-style, ram or random.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose students, networks, merge and placement under each board's budgets; prove it."""
    output = Output(as_json)
    partition = Partition.read(partition_file)
    check_place(out)
    problem = options.problem(partition, parse_fleet(fleet), where="nonn-plan plan")
    if options.proposes_students(partition):
        output.say(f"{PROPOSED}: {problem.networks[0]} to {problem.networks[-1]}")
    with output.progress("no plan was written") as progress:
        if method:
            plan = nonn_plan.solve_by_baseline(problem, method)
        else:
            plan = nonn_plan.with_certificates(nonn_plan.solve(problem, progress))
            plan = nonn_plan.with_alternatives(plan)
    plan.write(out)
    output.warn(*partition_warnings(partition, problem.epsilon_pct), *memory_notes(problem.budgets))
    output.warn(*(one_memory_notes(problem.budgets) if options.limits_flash else ()))
    show_plan(output, plan)
    # Where something went wrong, the reason comes first, and behind it where the plan is.
    if plan.status == "optimal" or (method and plan.status == "feasible"):
        output.say(f"written to {out}")
    output.result(plan.model_dump(mode="json"))
    require_feasible(plan, f"written to {out}; next: nonn-plan explain {out}")
    if plan.status == "feasible" and not method:
        stopped = plan.solver.deterministic_time >= options.limit
        cause = f"the limit of {options.limit:g} stopped the proof" if stopped else _TOO_LARGE
        raise UnprovenError(
            f"{cause}: {out} holds a plan that keeps every requirement and may not be the best"
            + ("; raise --limit" if stopped else "")
        )


_TOO_LARGE = (
    "there is no proof: students, boards and networks are too many for a model, perhaps "
    "only for one within --limit, or a requirement is nearer than rounding tells"
)


def replan(
    plan_file: PlanFile,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="BOARD", help="Board that is gone. Repeatable."),
    ] = None,
    coming: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="DEVICES", help="Boards that come, as rpi-4b@wifi."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="What `host --json` printed: boards that it was not connected to are gone.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")] = Path(
        "replanned.json"
    ),
    as_json: AsJson = False,
) -> None:
    """Place trained students on the boards that are left, or that come, and prove it.

    Most students stay, then the plan's objectives count, then fewest moves. Nothing is trained.
    """
    output = Output(as_json)
    plan = read_plan(plan_file)
    check_place(out)
    gone = [*(without or []), *(() if report is None else _lost_boards(report, plan))]
    if not gone and not coming:
        raise InputError(
            "no board goes, and none comes",
            where="nonn-plan replan",
            allowed="--without BOARD, --with DEVICES, or a --report with boards that are gone",
        )
    with output.progress("no plan was written") as progress:
        found = nonn_plan.replan(plan, gone, coming or [], progress)
    found.plan.write(out)
    output.warn(*found.notes, *homeless_warnings(found))
    show_plan(output, found.plan)
    show_moves(output, plan, found)
    output.say(f"written to {out}")
    output.result(found.model_dump(mode="json"))
    if not found.proven:
        raise UnprovenError(
            f"{out} holds a placement that keeps every budget and may not be the best: the plan's "
            f"limit of {plan.question.deterministic_limit:g} stopped a proof"
        )


def _lost_boards(report: Path, plan: PlanDocument) -> tuple[str, ...]:
    """Boards of the plan that a host had lost, by its report; raises InputError."""
    from boards.host.host_report import HostReport

    plain = read_plain(report)
    if isinstance(plain, dict):
        plain.pop("warnings", None)
    found = HostReport.check(plain, where=str(report))
    known = {row.name for row in plan.question.fleet.boards}
    return tuple(one.board for one in found.boards if one.board in known and not one.wire)


def verify(plan_file: PlanFile, as_json: AsJson = False) -> None:
    """Check a plan's figures, and its proofs without a solver where it has certificates."""
    output = Output(as_json)
    plan = PlanDocument.read(plan_file)
    with output.progress(UNCHANGED):
        found = nonn_plan.verify(plan)
    output.table(
        "What each stage stands on",
        ("stage", "stands on"),
        [
            (one.objective, "; ".join(filter(None, (STANDINGS[one.standing], one.reason))))
            for one in found.stages
        ],
    )
    for sentence in found.untrue:
        output.say(f"untrue: {sentence}")
    output.result(found.model_dump(mode="json"))
    if found.untrue:
        raise PlanningError(f"{plan_file} says what is untrue: {found.untrue[0]}")
    output.say("all that is written there holds")


def ui(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN | PARTITION]", help="plan.json or partition.json."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask what if on a local page, which solves each change of boards, budgets, options."""
    from nonn_plan.ui.server import PageServer, serve

    output = Output(as_json)
    server = PageServer.with_file(None if file is None else read_plain(file), str(file))

    def announce(address: str) -> None:
        output.say(f"{address}\nopen it in a browser of this machine; Ctrl-C ends it")
        output.result({"address": address})

    serve(server, announce)


def config(
    plan_file: PlanFile,
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the recipe.")] = Path(
        "train.yaml"
    ),
    data: Annotated[str | None, typer.Option("--data", help="Data set, if not the plan's.")] = None,
    teacher: Annotated[
        str | None, typer.Option("--teacher", help="Teacher, if not the plan's.")
    ] = None,
    epochs: Epochs = 100,
    batch_size: BatchSize = 128,
    learning_rate: LearningRate = 0.1,
    beta: Annotated[
        float | None,
        typer.Option("--beta", help="Weight of activation transfer, Eq. 6, if not the usual one."),
    ] = None,
    students: Annotated[
        int | None,
        typer.Option(
            "--students", help="More than the plan has: further ones get its filters reshuffled."
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write the training recipe of a plan."""
    from nonn_core.recipe import DistillationRecipe, OptimiserRecipe, is_code

    output = Output(as_json)
    recipe = nonn_plan.training_recipe(
        read_plan(plan_file),
        optimiser=OptimiserRecipe.check(
            {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate},
            where="nonn-plan config",
        ),
        distillation=DistillationRecipe.check(
            {} if beta is None else {"beta": beta}, where="nonn-plan config"
        ),
        data=data,
        teacher=teacher,
        students=students,
        seed=seed,
    )
    write_recipe(recipe, out)
    trust = " --trust" if is_code(recipe.teacher) else ""
    output.say(f"written to {out}; next: nonn-plan train {out} -o run{trust}")
    output.result(recipe.model_dump(mode="json"))


def explain(
    plan_file: PlanFile,
    limit: Annotated[
        float,
        typer.Option("--limit", min=0, help="Deterministic time for all of it, about seconds."),
    ] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Which budgets bind and how far each may move; of no plan, conflict and repairs."""
    output = Output(as_json)
    plan = read_plan(plan_file)
    with output.progress("nothing was written") as progress:
        explanation = nonn_plan.explain(plan, limit, progress)
    if plan.status == "infeasible":
        show_conflict(output, explanation)
    else:
        show_thresholds(output, plan, explanation)
    output.result(explanation.model_dump(mode="json"))
    if not explanation.proven:
        cause = f"the limit of {limit:g} stopped a proof" if explanation.stopped else _UNSETTLED
        then = "; raise --limit" if explanation.stopped else ""
        raise UnprovenError(f"{cause}: what is shown holds, and there may be more to say{then}")


_UNSETTLED = "not all is settled, and no limit is the cause"


def draw(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="partition.json, the folder of a run or its metrics.jsonl, evaluation.json, or "
            "validation.json.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="picture.png, if not FILE's name, here."),
    ] = None,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="Of an evaluation: by boards that work, not by students."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw filters and delta_val, a training, missing boards, or measured times, as PNG.

    Which of them, the file says. Other pictures: simulate --gantt, sweep --plot, evaluate
    --confusion, and the pages of explore and ui.
    """
    from nonn_plan.figure import figure_of

    output = Output(as_json)
    target = out or Path(f"{file.absolute().stem}.png")
    check_picture(target)
    found = figure_of(file, None if plan_file is None else read_plan(plan_file))
    output.warn(*found.untold)
    found.write(target)
    output.say(f"{found.shows}: written to {target}")
    output.result({"shows": found.shows, "picture": str(target)})
