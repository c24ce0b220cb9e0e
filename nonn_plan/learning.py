"""`train-teacher`, `train`, `evaluate`: what works on networks and images.

torch is loaded inside the commands, so that the others start without it.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_core.family import parse_network
from nonn_core.recipe import ComputeRecipe, OptimiserRecipe, TrainingRecipe
from nonn_plan.learning_view import (
    show_evaluation,
    show_fits,
    show_history,
    show_repeats,
)
from nonn_plan.options import AsJson, BatchSize, Device, Epochs, LearningRate, Precision, Seed
from nonn_plan.output import Output
from nonn_plan.planning import read_plan
from planner.training import require_recipe_of
from profiles.errors import InputError, StoppedError, TrainingError

if TYPE_CHECKING:
    from torch import nn

    from boards.fit import BoardFit
    from nonn_core.evaluation import Evaluation
    from nonn_core.progress import Progress

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="digits; imagefolder:PATH (folder or tar with train/, test/); idx:, cifar10: or "
        "cifar100:PATH of the published files.",
    ),
]
EVALUATION = "evaluation.json"
FAILED = 1
TO_RESUME = "finished epochs are kept; run the same command again to go on"
UNCHANGED = "nothing was written"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command("train-teacher")(train_teacher)
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
    device: Device = "auto",
    precision: Precision = "fp32",
    as_json: AsJson = False,
) -> None:
    """Train a teacher; a killed run goes on when the same command is given again.

    Under `torchrun` several processes train it together, as for `train`.
    """
    from nonn_core.data.dataset import load_dataset
    from nonn_core.learning.teacher_training import train_teacher as train

    here = "nonn-plan train-teacher"
    optimiser = OptimiserRecipe.check(
        {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}, where=here
    )
    compute = ComputeRecipe.check({"device": device, "precision": precision}, where=here)
    with _one_voice():
        output = Output(as_json)
        with output.progress(TO_RESUME) as progress:
            dataset = load_dataset(data, progress)
            spec = parse_network(network)
            teacher = train(spec, dataset, optimiser, seed, out, progress, compute)
        card = teacher.card
        output.say(
            f"{out}: {card.network} on {card.data}, {card.validation_accuracy_pct:.2f} % of the "
            "validation images right"
        )
        output.result(card.model_dump(mode="json"))


def train(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="train.yaml.")],
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")] = Path("run"),
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed, if not the recipe's.")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", min=1, help="Train from so many seeds in a row, each into OUT/seed-S."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train what a recipe says; a killed run goes on when the same command is given again.

    On several GPUs or machines: `torchrun --nproc-per-node N -m nonn_plan train RECIPE`.
    """
    from nonn_core.learning.repeats import train_seeds
    from nonn_core.learning.run import train as train_run

    recipe = TrainingRecipe.read(recipe_file)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    with _one_voice():
        output = Output(as_json)
        with output.progress(TO_RESUME) as progress:
            if seeds is None:
                histories = {recipe.seed: train_run(recipe, out, progress=progress)}
            else:
                histories = train_seeds(recipe, out, seeds, progress=progress)
        for each, history in histories.items():
            show_history(output, history, "" if seeds is None else f" of seed {each}")
        output.say(f"written to {out}; next: nonn-plan evaluate {out}")
        plain = {
            each: [asdict(metrics) for metrics in history] for each, history in histories.items()
        }
        output.result(plain[recipe.seed] if seeds is None else plain)


def evaluate(
    trained: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run, or a teacher as for `partition`.")
    ],
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="Also measure the built students against its budgets."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set of a teacher, if not that of its card.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test accuracy, also for every subset of students that answers; RUN/evaluation.json.

    Of a folder that `train --seeds` made, also the mean and the standard deviation over the seeds.
    """
    from boards.fit import board_fits
    from nonn_core.evaluated import Evaluation
    from nonn_core.learning.repeats import seed_folders
    from nonn_core.learning.run import RECIPE, recipe_of
    from nonn_core.nonn import Nonn

    output, folder = Output(as_json), Path(trained)
    plan = None if plan_file is None else read_plan(plan_file)
    if plan is not None:
        if not folder.is_dir():
            raise InputError("--plan goes with the folder of a run", found=trained)
        require_recipe_of(plan, recipe_of(folder), where=trained)
    several = not (folder / RECIPE).exists() and seed_folders(folder)
    if plan is None and data is None and several:
        _evaluate_seeds(folder, output)
        return
    if folder.is_dir():
        Evaluation.check_target(folder / EVALUATION)
    with output.progress(UNCHANGED) as progress:
        found, network = _evaluated(trained, data, progress)
    if folder.is_dir():
        found.write(folder / EVALUATION)
    show_evaluation(output, found)
    fits: Sequence[BoardFit] = ()
    if plan is not None and isinstance(network, Nonn):
        fits = board_fits(plan, network)
        show_fits(output, fits)
    boards = [fit.model_dump(mode="json") for fit in fits]
    output.result({**found.model_dump(mode="json"), "boards": boards})


def _evaluate_seeds(folder: Path, output: Output) -> None:
    from nonn_core.data.dataset import load_dataset
    from nonn_core.learning.repeats import evaluate_seeds, seed_folders
    from nonn_core.learning.run import recipe_of

    recipe = recipe_of(seed_folders(folder)[0])
    with output.progress(UNCHANGED) as progress:
        found = evaluate_seeds(folder, load_dataset(recipe.data, progress), progress)
    found.write(folder / EVALUATION)
    show_repeats(output, found)
    output.result(found.model_dump(mode="json"))


@contextmanager
def _one_voice() -> Iterator[None]:
    """Join the processes that `torchrun` started; what stops all of them the first one says."""
    from nonn_core.learning import processes

    with processes.joined():
        if processes.rank() == 0:
            yield
            return
        with Path(os.devnull).open("w") as nowhere:
            try:
                with redirect_stdout(nowhere), redirect_stderr(nowhere):
                    yield
            except (StoppedError, TrainingError):
                sys.exit(FAILED)


def _evaluated(
    trained: str, data: str | None, progress: "Progress"
) -> "tuple[Evaluation, nn.Module]":
    """Evaluate what lies there; return also the network."""
    from nonn_core.data.dataset import load_dataset
    from nonn_core.evaluation import evaluate as evaluate_network
    from nonn_core.evaluation import evaluate_teacher
    from nonn_core.learning.run import load_run, recipe_of
    from nonn_core.teacher import REFERENCES, is_teacher, teacher_and_data

    folder = Path(trained)
    if is_teacher(trained):
        teacher, dataset = teacher_and_data(trained, data, progress=progress)
        return evaluate_teacher(teacher, dataset), teacher.network
    if not folder.is_dir():
        raise InputError(
            "run or teacher", found=trained, allowed=f"the folder of a run, or {REFERENCES}"
        )
    recipe = recipe_of(folder)
    if data is not None:
        raise InputError("--data goes with a teacher, not with a run", found=data)
    dataset = load_dataset(recipe.data, progress)
    _, network = load_run(folder, dataset)
    return evaluate_network(network, recipe, dataset, progress), network
