"""`plan`, `config`: what works on plans; none of it loads torch."""

from pathlib import Path
from typing import Annotated

import typer

from nonn_core.partition import Partition
from nonn_core.progress import Progress
from nonn_core.recipe import DistillationRecipe, OptimiserRecipe, TrainingRecipe
from nonn_plan.options import AsJson, BatchSize, Epochs, LearningRate, PlanFile, Seed
from nonn_plan.output import Output
from nonn_plan.plan_view import show_plan
from nonn_plan.question_options import PartitionFile, QuestionOptions, with_question_options
from nonn_plan.without_pandas import without_pandas
from planner.plan import PlanDocument
from planner.question import Question
from planner.training import recipe
from planner.validation import require_valid
from profiles.document import check_place
from profiles.errors import InfeasibleError, InputError, UnprovenError
from profiles.fleet import parse_fleet


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(plan)
    app.command()(config)


@with_question_options
def plan(
    *,
    partition_file: PartitionFile,
    fleet: Annotated[
        str, typer.Option("--fleet", help="Library name, file, or list: rpi-3b*2,odroid-xu4s")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    options: QuestionOptions,
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
    question = options.question(partition, parse_fleet(fleet), where="nonn-plan plan")
    with output.progress("no plan was written") as progress:
        answer = _answer(question, method, progress)
    answer.write(out)
    show_plan(output, answer)
    output.say(f"written to {out}")
    output.result(answer.model_dump(mode="json"))
    require_feasible(answer)
    if answer.status == "feasible" and not method:
        raise UnprovenError(
            f"the limit of {options.limit:g} stopped the proof: {out} holds a plan that keeps "
            "every requirement and may not be the best; raise --limit"
        )


def _answer(question: Question, method: str | None, progress: Progress) -> PlanDocument:
    """Answer a question; of solver and baselines only what is asked for is loaded."""
    if method:
        from planner.baselines.plan import plan_by

        return plan_by(question, method)
    with without_pandas():
        from planner.alternatives import compared
        from planner.model import solve

    return compared(solve(question, progress))


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
        float, typer.Option("--beta", help="Weight of activation transfer, Eq. 6.")
    ] = DistillationRecipe().beta,
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
    output = Output(as_json)
    found = recipe(
        read_plan(plan_file),
        optimiser=OptimiserRecipe.check(
            {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate},
            where="nonn-plan config",
        ),
        distillation=DistillationRecipe.check({"beta": beta}, where="nonn-plan config"),
        data=data,
        teacher=teacher,
        students=students,
        seed=seed,
    )
    write_recipe(found, out)
    output.say(f"written to {out}; next: nonn-plan train {out} -o run")
    output.result(found.model_dump(mode="json"))


def read_plan(path: Path) -> PlanDocument:
    """Read a plan and check it against its own question; raises InputError if it is broken."""
    answer = PlanDocument.read(path)
    require_valid(answer, where=str(path))
    return answer


def write_recipe(found: TrainingRecipe, path: Path) -> None:
    """Write a recipe, unless another one is there, which a person may have edited."""
    if path.exists() and TrainingRecipe.read(path) != found:
        raise InputError(
            "there is another recipe already, and it may have been edited",
            where=str(path),
            fix="choose another output or remove the file",
        )
    found.write(path)


def require_feasible(answer: PlanDocument) -> None:
    """Raise InfeasibleError, with the conflict, where the solver proved that there is no plan."""
    if answer.status == "infeasible":
        raise InfeasibleError(
            "proven infeasible; these cannot hold together:\n  - " + "\n  - ".join(answer.conflict)
        )
