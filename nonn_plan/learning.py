"""`train-teacher`, `partition`, `train`, `evaluate`: what works on networks and images.

torch is loaded inside the commands, so that the others start without it.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.family import parse_network
from nonn_core.partition import Partition, Rule
from nonn_core.recipe import OptimiserRecipe, TrainingRecipe
from nonn_plan.learning_view import (
    show_evaluation,
    show_fits,
    show_history,
    show_partition,
)
from nonn_plan.options import AsJson, BatchSize, Epochs, LearningRate, Seed
from nonn_plan.output import Output
from nonn_plan.planning import read_plan
from planner.training import require_recipe_of
from profiles.document import check_place
from profiles.errors import InputError

if TYPE_CHECKING:
    from boards.fit import BoardFit
    from nonn_core.evaluation import Evaluation
    from nonn_core.knowledge.filter_network import LinkOptions
    from nonn_core.modules import Classifier
    from nonn_core.nonn import Nonn
    from nonn_core.progress import Progress

Data = Annotated[
    str,
    typer.Option("--data", help="digits, or imagefolder:PATH (folder or tar with train/, test/)."),
]
EVALUATION = "evaluation.json"
TO_RESUME = "finished epochs are kept; run the same command again to go on"
UNCHANGED = "nothing was written"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("train-teacher")(train_teacher)
    app.command()(partition)
    app.command()(train)
    app.command()(evaluate)


def train_teacher(
    network: Annotated[str, typer.Option("--network", help="e.g. wrn16-2 or wrn16:32,64,128.")],
    data: Data = "digits",
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Weights; the card is the .json beside it.")
    ] = Path("teacher.safetensors"),
    epochs: Epochs = 20,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.1,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train a teacher; a killed run goes on when the same command is given again."""
    from nonn_core.data.dataset import load_dataset
    from nonn_core.learning.teacher_training import train_teacher as train

    output = Output(as_json)
    optimiser = OptimiserRecipe.check(
        {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate},
        where="nonn-plan train-teacher",
    )
    with output.progress(TO_RESUME) as progress:
        dataset = load_dataset(data, progress)
        teacher = train(parse_network(network), dataset, optimiser, seed, out, progress)
    card = teacher.card
    output.say(
        f"{out}: {card.network} on {card.data}, {card.validation_accuracy_pct:.2f} % of the "
        "validation images right"
    )
    output.result(card.model_dump(mode="json"))


def partition(
    source: Annotated[
        Path,
        typer.Argument(metavar="TEACHER", help="teacher.safetensors, or a saved network (.npz)."),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--output", help="Where to write the partition.")
    ] = Path("partition.json"),
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="AH (activation hubs) or CA (co-activation); default AH."),
    ] = None,
    gamma: Annotated[
        float, typer.Option("--gamma", help="Larger: fewer and larger communities (Eq. 5).")
    ] = 1.0,
    fconv: Annotated[
        str | None, typer.Option("--fconv", help="Module whose output is fconv, if not the card's.")
    ] = None,
    top_filters: Annotated[
        int,
        typer.Option(
            "--top-filters", min=0, help="Most active filters kept per image; 0 keeps all."
        ),
    ] = 50,
    link_percentile: Annotated[
        float, typer.Option("--link-percentile", help="Links kept lie above this percentile.")
    ] = 99.0,
    per_image_scale: Annotated[
        bool, typer.Option(help="Scale each image's activities by its largest.")
    ] = True,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set, if not the one of the teacher's card.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Split a teacher's fconv filters into communities, and measure what may be dropped."""
    from nonn_core.knowledge.filter_network import LinkOptions, read_filter_network
    from nonn_core.knowledge.partitioning import partition_saved_network

    output = Output(as_json)
    options = LinkOptions(per_image_scale, top_filters or None, link_percentile)
    check_place(out)
    if source.suffix == ".npz":
        _refuse_teacher_options(rule=rule, fconv=fconv, data=data)
        weights = read_filter_network(source)
        found = partition_saved_network(weights, gamma, seed, link_percentile)
    else:
        with output.progress(UNCHANGED) as progress:
            found = _partition(
                source, fconv, data, _rule(rule or "AH"), gamma, seed, options, progress
            )
    found.write(out)
    show_partition(output, found)
    output.say(f"written to {out}")
    output.result(found.model_dump(mode="json"))


def train(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="train.yaml.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")] = Path("run"),
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed, if not the recipe's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train what a recipe says; a killed run goes on when the same command is given again."""
    from nonn_core.learning.run import train as train_run

    output = Output(as_json)
    recipe = TrainingRecipe.read(recipe_file)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    with output.progress(TO_RESUME) as progress:
        history = train_run(recipe, out, progress=progress)
    show_history(output, history)
    output.say(f"written to {out}; next: nonn-plan evaluate {out}")
    output.result([asdict(metrics) for metrics in history])


def evaluate(
    trained: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, or a teacher.safetensors.")
    ],
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="Also measure the built students against its budgets."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test accuracy, also for every subset of students that answers; RUN/evaluation.json."""
    from boards.fit import board_fits
    from nonn_core.learning.run import RECIPE
    from nonn_core.nonn import Nonn

    output = Output(as_json)
    plan = None if plan_file is None else read_plan(plan_file)
    if plan is not None:
        if not trained.is_dir():
            raise InputError("--plan goes with the folder of a run", found=str(trained))
        require_recipe_of(plan, TrainingRecipe.read(trained / RECIPE), where=str(trained))
    with output.progress(UNCHANGED) as progress:
        found, network = _evaluated(trained, progress)
    if trained.is_dir():
        found.write(trained / EVALUATION)
    show_evaluation(output, found)
    fits: Sequence[BoardFit] = ()
    if plan is not None and isinstance(network, Nonn):
        fits = board_fits(plan, network)
        show_fits(output, fits)
    boards = [fit.model_dump(mode="json") for fit in fits]
    output.result({**found.model_dump(mode="json"), "boards": boards})


def _partition(
    source: Path,
    fconv: str | None,
    data: str | None,
    rule: Rule,
    gamma: float,
    seed: int,
    options: "LinkOptions",
    progress: "Progress",
) -> Partition:
    from nonn_core.data.dataset import load_dataset
    from nonn_core.knowledge.partitioning import partition_teacher
    from nonn_core.teacher import Teacher

    teacher = Teacher.load(source, fconv)
    dataset = load_dataset(data or teacher.card.data, progress)
    return partition_teacher(teacher, dataset, rule, gamma, seed, options, progress)


def _evaluated(trained: Path, progress: "Progress") -> "tuple[Evaluation, Nonn | Classifier]":
    """Evaluate what lies there; return also the network."""
    from nonn_core.data.dataset import load_dataset
    from nonn_core.evaluation import evaluate as evaluate_network
    from nonn_core.evaluation import evaluate_teacher
    from nonn_core.learning.run import RECIPE, load_run
    from nonn_core.teacher import Teacher

    if trained.suffix == ".safetensors":
        teacher = Teacher.load(trained)
        dataset = load_dataset(teacher.card.data, progress)
        return evaluate_teacher(teacher, dataset), teacher.network
    recipe = TrainingRecipe.read(trained / RECIPE)
    dataset = load_dataset(recipe.data, progress)
    _, network = load_run(trained, dataset)
    return evaluate_network(network, recipe, dataset, progress), network


def _refuse_teacher_options(**options: str | None) -> None:
    """Raise InputError for an option that a saved network has no use for."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"--{name} goes with a teacher, not with a saved filter network", found=value
            )


def _rule(text: str) -> Rule:
    for rule in ("AH", "CA"):
        if text.upper() == rule:
            return rule
    raise InputError("rule", found=text, allowed="AH or CA")
