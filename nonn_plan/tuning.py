"""`tune`: try settings of a recipe and keep the one with the best validation accuracy.

torch is loaded inside the command, so that the others start without it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nonn_core.grid import Axis, Trial, best, label, settings, with_setting
from nonn_core.recipe import TrainingRecipe
from nonn_plan.options import AsJson, Tried
from nonn_plan.output import Output
from nonn_plan.planning import write_recipe
from profiles.errors import InputError

TO_RESUME = "finished epochs are kept; run the same command again to go on"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(tune)


def tune(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="train.yaml.")],
    tried: Tried = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of each, if not the recipe's.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the runs.")] = Path("tune"),
    as_json: AsJson = False,
) -> None:
    """Train a recipe with each setting; OUT/best.yaml is the one that validates best.

    Test images are never looked at.
    """
    from nonn_core.data.dataset import load_dataset
    from nonn_core.learning.tuning import tune as try_all

    output = Output(as_json)
    recipe = TrainingRecipe.read(recipe_file)
    axes = tuple(Axis.parse(text) for text in tried or ())
    if len(settings(axes)) < 2:
        raise InputError(
            "nothing to choose from", fix="give values to try: --set distillation.beta=10,100,1000"
        )
    short = recipe if epochs is None else with_setting(recipe, {"optimiser.epochs": epochs})
    with output.progress(f"{out}: {TO_RESUME}") as progress:
        dataset = load_dataset(recipe.data, progress)
        trials = try_all(short, axes, lambda setting: out / label(setting), dataset, progress)
    chosen = best(trials)
    path = out / "best.yaml"
    write_recipe(with_setting(recipe, chosen.setting), path)
    output.table(
        "Validation accuracy, percent",
        ("setting", "validation", "kept"),
        [
            (label(trial.setting), _accuracy(trial), "yes" if trial is chosen else "")
            for trial in trials
        ],
    )
    output.say(f"{path}: the recipe with {label(chosen.setting)}; next: nonn-plan train {path}")
    output.result([asdict(trial) for trial in trials])


def _accuracy(trial: Trial) -> str:
    accuracy_pct = trial.validation_accuracy_pct
    return "diverged" if accuracy_pct is None else f"{accuracy_pct:.2f}"
