"""`plan`, `config`: what works on plans; none of it loads torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar, cast, get_args

import typer

from nonn_core.candidates import student_candidates
from nonn_core.family import parse_network
from nonn_core.partition import Partition
from nonn_core.recipe import DistillationRecipe, OptimiserRecipe, TrainingRecipe
from nonn_plan.options import AsJson, BatchSize, Epochs, LearningRate, PlanFile, Seed
from nonn_plan.output import Output
from nonn_plan.plan_view import show_plan
from nonn_plan.typed_question import (
    typed_accuracy,
    typed_budgets,
    typed_objective,
    typed_range,
    typed_requirements,
)
from planner.plan import PlanDocument
from planner.question import DEFAULT_OBJECTIVE, Question
from planner.stage import Objective
from planner.training import recipe
from planner.validation import require_valid
from profiles.document import check_place
from profiles.errors import InfeasibleError, InputError, UnprovenError
from profiles.fleet import parse_fleet

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(plan)
    app.command()(config)


def plan(
    partition_file: Annotated[
        Path, typer.Argument(metavar="PARTITION", help="partition.json, as `partition` writes it.")
    ],
    fleet: Annotated[
        str, typer.Option("--fleet", help="Library name, file, or list: rpi-3b*2,odroid-xu4s")
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")] = Path(
        "plan.json"
    ),
    memory: Annotated[
        list[str] | None,
        typer.Option(
            "--memory", help="Memory budget, 500KB; of one board: BOARD=500KB. Repeatable."
        ),
    ] = None,
    flops: Annotated[
        list[str] | None,
        typer.Option("--flops", help="FLOP budget per image, 200M; of one board: BOARD=200M."),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help="What the runtime takes of the memory, 40KB; BOARD=40KB."),
    ] = None,
    time: Annotated[
        list[str] | None,
        typer.Option("--time", help="How long a board may compute per image, 100ms; BOARD=100ms."),
    ] = None,
    energy: Annotated[
        list[str] | None,
        typer.Option("--energy", help="Energy of a board per image, 250mJ; BOARD=250mJ."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="Weights and activations, of fp32, fp16, int8: int8 or fp32,int8."
        ),
    ] = "fp32",
    students: Annotated[
        str | None, typer.Option("--students", help="Number, 4, or range, 2:8; default 1:BOARDS.")
    ] = None,
    student: Annotated[
        list[str] | None,
        typer.Option("--student", help="A network students may be, wrn16:32,64,88. Repeatable."),
    ] = None,
    teacher_network: Annotated[
        str | None,
        typer.Option(
            "--teacher-network",
            help="Whose students to choose from, e.g. wrn40-4, where PARTITION does not say it.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="e.g. 3x32x32, where PARTITION names no teacher.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", help="Where PARTITION names no teacher.")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            "--epsilon",
            help="Points of validation accuracy P0 may cost; 0 drops nothing; default: what "
            "PARTITION was made with.",
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help=f"Stages, most important first, of {', '.join(get_args(Objective))}; NAME:5% lets "
            "later ones give up 5 %.",
        ),
    ] = ",".join(map(str, DEFAULT_OBJECTIVE)),
    minimise: Annotated[
        list[str] | None,
        typer.Option("--minimise", help="In place of --objective: latency. Repeatable."),
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", help="Require: accuracy=94.5, throughput=20/s. Repeatable."),
    ] = None,
    at_most: Annotated[
        list[str] | None,
        typer.Option("--at-most", help="Require: latency=50ms, energy=900mJ. Repeatable."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A device that may be the host; default: the fleet's."),
    ] = None,
    teacher_accuracy: Annotated[
        float | None,
        typer.Option("--teacher-accuracy", help="The teacher's test accuracy in percent."),
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option("--rows", help="A finished run or a table, to predict accuracy from."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="A baseline in place of the solver, without proof: greedy, lpt, "
            "rocoin-style, ram or random.",
        ),
    ] = None,
    limit: Annotated[
        float, typer.Option("--limit", help="Deterministic time limit, about seconds of one core.")
    ] = 120.0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Choose students, networks, merge and placement under each board's budgets; prove it."""
    from planner.alternatives import compared
    from planner.baselines.plan import plan_by
    from planner.model import solve

    output = Output(as_json)
    partition = Partition.read(partition_file)
    check_place(out)
    boards = parse_fleet(fleet)
    fewest, most = typed_range(students)
    teacher = partition.teacher
    precisions = tuple(part.strip() for part in precision.split(","))
    shape = str(_given("--image", image, teacher and teacher.image))
    count = _given("--classes", classes, teacher.classes if teacher else None)
    question = Question.check(
        {
            "fleet": boards,
            "budgets": typed_budgets(
                boards, memory or [], flops or [], runtime or [], time or [], energy or []
            ),
            "precisions": precisions,
            "hosts": host or (),
            "image": shape,
            "classes": count,
            "networks": _networks(student or [], partition, teacher_network),
            "reuse": True,
            "min_students": fewest,
            "max_students": most,
            "epsilon_pct": partition.bound_pct if epsilon is None else epsilon,
            "partition": partition.without_curve,
            "teacher": teacher and teacher.path,
            "data": teacher and teacher.data,
            "accuracy": typed_accuracy(
                partition, teacher_network, shape, count, teacher_accuracy, rows or []
            ),
            "objective": typed_objective(objective, minimise or [], precisions),
            "requirements": typed_requirements(at_least or [], at_most or []),
            "deterministic_limit": limit,
            "seed": seed,
        },
        where="nonn-plan plan",
    )
    with output.progress("no plan was written") as progress:
        answer = plan_by(question, method) if method else compared(solve(question, progress))
    answer.write(out)
    show_plan(output, answer)
    output.say(f"written to {out}")
    output.result(answer.model_dump(mode="json"))
    require_feasible(answer)
    if answer.status == "feasible" and not method:
        raise UnprovenError(
            f"the limit of {limit:g} stopped the proof: {out} holds a plan that keeps every "
            "requirement and may not be the best; raise --limit"
        )


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


def _networks(
    named: Sequence[str], partition: Partition, teacher_network: str | None
) -> tuple[str, ...]:
    """Return the networks to choose from: those named, or the candidates for the teacher."""
    if named:
        return tuple(str(parse_network(name)) for name in named)
    typed = parse_network(teacher_network) if teacher_network is not None else None
    network = partition.teacher.network if partition.teacher is not None else None
    known = parse_network(network) if network is not None else None
    teacher = _given("--teacher-network (or --student)", typed, known)
    return tuple(map(str, student_candidates(teacher)))


def _given(option: str, typed: T | None, known: T | None) -> T:
    """Return what the partition's teacher says, or else the option.

    Raises InputError where neither says it, or both do and differ.
    """
    if known is None and typed is None:
        raise InputError(
            f"{option} is needed: the partition does not say it, as its teacher was not given or "
            "is of no family known here"
        )
    if known is None or typed is None:
        return cast(T, typed if known is None else known)
    if typed != known:
        raise InputError(
            f"{option} is not what the partition's teacher says",
            found=typed,
            allowed=f"{known}, or nothing",
        )
    return known
