"""`train`, `evaluate`, `tune`, `export`, `quantise`: from a recipe to a bundle for the boards.

torch and onnxruntime are loaded inside the commands, so that the others start without them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_common.errors import InputError
from nonn_core.recipe import (
    Axis,
    TrainingRecipe,
    Trial,
    best_trial,
    grid_settings,
    setting_label,
    with_setting,
)
from nonn_plan.api import read_plan, write_recipe
from nonn_plan.cli.output import TO_RESUME, UNCHANGED, Output, output_of_rank_zero
from nonn_plan.cli.parsers.options import AsJson, ConfusionFiles, SettingAxes, Trust
from nonn_plan.cli.views.training_report import (
    show_agreement,
    show_bundle,
    show_bundle_fits,
    show_classes,
    show_evaluation,
    show_fits,
    show_history,
    show_repeats,
)
from planner.plan_file.training_recipe import require_matching_recipe

if TYPE_CHECKING:
    from torch import nn

    from boards.board_fit import BoardFit
    from nonn_common import Progress
    from nonn_core.accuracy_report import Evaluation
    from nonn_core.data.dataset import Dataset
    from nonn_core.export.bundle import Agreement, ModelPrecision
    from planner.plan_file.plan_document import PlanDocument


EVALUATION = "evaluation.json"


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
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe.  A killed run goes on when the same command is given again.

    On several GPUs or machines: `torchrun --nproc-per-node N -m nonn_plan train RECIPE`.
    """
    from nonn_core.distillation.run import train as train_run
    from nonn_core.distillation.run_evaluation import train_seeds

    recipe = TrainingRecipe.read(recipe_file)
    recipe.require_trust(recipe_file, trusted=trust)
    if seed is not None:
        recipe = recipe.model_copy(update={"seed": seed})
    with output_of_rank_zero():
        output = Output(as_json)
        with output.progress(TO_RESUME) as progress:
            dataset = _load(recipe, output, progress)
            if seeds is None:
                histories = {recipe.seed: train_run(recipe, out, dataset, progress)}
            else:
                histories = train_seeds(recipe, out, seeds, dataset, progress)
        for each, history in histories.items():
            show_history(output, history, "" if seeds is None else f" of seed {each}")
        output.say(f"written to {out}; next: nonn-plan evaluate {out}")
        plain = {
            each: [asdict(metrics) for metrics in history] for each, history in histories.items()
        }
        output.result(plain[recipe.seed] if seeds is None else plain)


def _load(recipe: TrainingRecipe, output: Output, progress: "Progress") -> "Dataset":
    """Load a recipe's data set; say what was left out or changed."""
    from nonn_core.data.dataset import load_dataset

    dataset = load_dataset(recipe.data, progress, recipe.reading)
    output.warn(*dataset.warnings)
    return dataset


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
    confusion: ConfusionFiles = None,
    as_json: AsJson = False,
) -> None:
    """Test accuracy, also for every subset of students that answers; RUN/evaluation.json.

    Of a folder that `train --seeds` made, also the mean and the standard deviation over the seeds.
    """
    from boards.board_fit import check_board_fit
    from nonn_core.accuracy_report import Evaluation
    from nonn_core.class_accuracy import check_confusion_file
    from nonn_core.distillation.run import RECIPE, recipe_of
    from nonn_core.distillation.run_evaluation import seed_folders
    from nonn_core.networks.modules import Nonn
    from nonn_core.teacher.foreign import ForeignClassifier

    output, folder, files = Output(as_json), Path(trained), confusion or []
    for file in files:
        check_confusion_file(file)
    plan = None if plan_file is None else read_plan(plan_file)
    if plan is not None:
        if not folder.is_dir():
            raise InputError("--plan goes with the folder of a run", found=trained)
        require_matching_recipe(plan, recipe_of(folder), where=trained)
    several = not (folder / RECIPE).exists() and seed_folders(folder)
    if plan is None and data is None and several:
        _evaluate_seeds(folder, output, files)
        return
    if folder.is_dir():
        Evaluation.check_target(folder / EVALUATION)
    with output.progress(UNCHANGED) as progress:
        found, network = _evaluate(trained, data, output, progress)
    if folder.is_dir():
        found.write(folder / EVALUATION)
    if isinstance(network, ForeignClassifier):
        output.warn(*network.warnings)
    show_evaluation(output, found)
    show_classes(output, found.class_accuracy, "test images", files)
    fits: Sequence[BoardFit] = ()
    if plan is not None and isinstance(network, Nonn):
        fits = check_board_fit(plan, network)
        show_fits(output, fits)
    boards = [fit.model_dump(mode="json") for fit in fits]
    output.result({**found.model_dump(mode="json"), "boards": boards})


def _evaluate_seeds(folder: Path, output: Output, files: Sequence[Path]) -> None:
    from nonn_core.distillation.run import recipe_of
    from nonn_core.distillation.run_evaluation import evaluate_seeds, seed_folders

    recipe = recipe_of(seed_folders(folder)[0])
    with output.progress(UNCHANGED) as progress:
        found = evaluate_seeds(folder, _load(recipe, output, progress), progress)
    found.write(folder / EVALUATION)
    show_repeats(output, found)
    show_classes(output, found.class_accuracy, "test images of all seeds", files)
    output.result(found.model_dump(mode="json"))


def _evaluate(
    trained: str, data: str | None, output: Output, progress: "Progress"
) -> "tuple[Evaluation, nn.Module]":
    """Evaluate what lies there; return also the network."""
    from nonn_core.distillation.run import load_run, recipe_of
    from nonn_core.distillation.run_evaluation import evaluate as evaluate_network
    from nonn_core.distillation.run_evaluation import evaluate_teacher
    from nonn_core.teacher.teacher import REFERENCES, is_teacher, teacher_and_data

    folder = Path(trained)
    if is_teacher(trained):
        teacher, dataset = teacher_and_data(trained, data, progress=progress)
        output.warn(*dataset.warnings)
        return evaluate_teacher(teacher, dataset), teacher.network
    if not folder.is_dir():
        raise InputError(
            "run or teacher", found=trained, allowed=f"the folder of a run, or {REFERENCES}"
        )
    recipe = recipe_of(folder)
    if data is not None:
        raise InputError("--data goes with a teacher, not with a run", found=data)
    dataset = _load(recipe, output, progress)
    _, network = load_run(folder, dataset)
    return evaluate_network(network, recipe, dataset, progress), network


def tune(
    recipe_file: Annotated[Path, typer.Argument(metavar="RECIPE", help="train.yaml.")],
    tried: SettingAxes = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Epochs of each, if not the recipe's.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the runs.")] = Path("tune"),
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe with each setting; OUT/best.yaml is the one that validates best.

    Test images are never looked at.
    """
    from nonn_core.distillation.run_evaluation import tune as try_all

    output = Output(as_json)
    recipe = TrainingRecipe.read(recipe_file)
    recipe.require_trust(recipe_file, trusted=trust)
    axes = tuple(Axis.parse(text) for text in tried or ())
    if len(grid_settings(axes)) < 2:
        raise InputError(
            "nothing to choose from", fix="give values to try: --set distillation.beta=10,100,1000"
        )
    short = recipe if epochs is None else with_setting(recipe, {"optimiser.epochs": epochs})
    with output.progress(f"{out}: {TO_RESUME}") as progress:
        dataset = _load(recipe, output, progress)
        trials = try_all(
            short, axes, lambda setting: out / setting_label(setting), dataset, progress
        )
    chosen = best_trial(trials)
    path = out / "best.yaml"
    write_recipe(with_setting(recipe, chosen.setting), path)
    output.table(
        "Validation accuracy, percent",
        ("setting", "validation", "kept"),
        [
            (setting_label(trial.setting), _trial_accuracy(trial), "yes" if trial is chosen else "")
            for trial in trials
        ],
    )
    trusted = " --trust" if trust else ""
    output.say(
        f"{path}: the recipe with {setting_label(chosen.setting)}; "
        f"next: nonn-plan train {path}{trusted}"
    )
    output.result([asdict(trial) for trial in trials])


def _trial_accuracy(trial: Trial) -> str:
    accuracy_pct = trial.validation_accuracy_pct
    return "diverged" if accuracy_pct is None else f"{accuracy_pct:.2f}"


Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
WANTED_AGREEMENT_PCT = 99.0


def export(
    run: Run,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the bundle.")] = Path(
        "bundle"
    ),
    plan_file: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="Workers take its precisions; sizes are compared with its budgets."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="Of the models: fp32, int8 or both.")
    ] = "both",
    ncnn: Annotated[
        bool,
        typer.Option(
            "--ncnn", help="Also for ncnn, in fp32: for boards without onnxruntime (32-bit Arm)."
        ),
    ] = False,
    qdq: Annotated[
        bool,
        typer.Option(
            "--qdq", help="int8 in QDQ form, weights of 7 bits: for Triton and OpenVINO, too."
        ),
    ] = False,
    c: Annotated[
        bool,
        typer.Option("--c", help="Also a C99 library of each student, int8, for microcontrollers."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run as checked ONNX models, FC weights and a manifest."""
    from boards.board_fit import bundle_fits
    from nonn_core.distillation.run import recipe_of
    from nonn_core.export.run_export import export as export_run

    output = Output(as_json)
    precisions = _precisions(precision)
    if qdq and "int8" not in precisions:
        raise InputError(
            "--qdq is a form of int8 models, and none was asked for",
            where="--precision",
            found=precision,
            allowed="int8 or both",
        )
    recipe = recipe_of(run)
    plan = None if plan_file is None else read_plan(plan_file)
    if plan is not None:
        require_matching_recipe(plan, recipe, where=str(run))
    with output.progress(UNCHANGED) as progress:
        dataset = _load(recipe, output, progress)
        manifest = export_run(
            run,
            out,
            precisions,
            dataset,
            progress,
            planned=_planned_precisions(plan),
            joint={} if plan is None else plan.joint_students,
            ncnn=ncnn,
            qdq=qdq,
            c=c,
        )
    fits = () if plan is None else bundle_fits(plan, manifest)
    show_bundle(output, manifest)
    if fits:
        show_bundle_fits(output, fits)
    output.say(f"written to {out}")
    _advise(output, run, manifest.agreement)
    boards = [fit.model_dump(mode="json") for fit in fits]
    output.result({**manifest.model_dump(mode="json"), "boards": boards})


def quantise(
    run: Run,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Further passes over the training images.")
    ] = 3,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Initial learning rate.")
    ] = 0.01,
    out: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new run.")] = Path(
        "run-int8"
    ),
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a run for int8, with rounded weights and activations; a killed one goes on."""
    from nonn_core.distillation.construction import fine_tuning_recipe
    from nonn_core.distillation.run import RECIPE, recipe_of
    from nonn_core.distillation.run import train as train_run

    output = Output(as_json)
    recipe = fine_tuning_recipe(recipe_of(run), run, epochs, learning_rate)
    recipe.require_trust(run / RECIPE, trusted=trust)
    with output.progress(TO_RESUME) as progress:
        dataset = _load(recipe, output, progress)
        history = train_run(recipe, out, dataset, progress)
        before, after = (_int8_agreement(each, dataset, progress) for each in (run, out))
    show_history(output, history)
    show_agreement(output, {"int8 of the run": before, "int8 after fine-tuning": after})
    output.say(f"written to {out}; next: nonn-plan export {out}")
    output.result(
        {
            "history": [asdict(metrics) for metrics in history],
            "before": before.model_dump(mode="json"),
            "after": after.model_dump(mode="json"),
        }
    )


def _precisions(text: str) -> "Sequence[ModelPrecision]":
    choices: dict[str, Sequence[ModelPrecision]] = {
        "fp32": ("fp32",),
        "int8": ("int8",),
        "both": ("fp32", "int8"),
    }
    if text not in choices:
        raise InputError("--precision", found=text, allowed="fp32, int8 or both")
    return choices[text]


def _planned_precisions(plan: "PlanDocument | None") -> "dict[str, ModelPrecision]":
    """Precision of each model in the plan."""
    models = () if plan is None else plan.decision.models
    return {model.name: model.precision for model in models}


def _int8_agreement(run: Path, dataset: "Dataset", progress: "Progress") -> "Agreement":
    """Export a run in int8, in memory, and compare it with itself in float32."""
    from nonn_core.distillation.run import load_run
    from nonn_core.export.run_export import exported_network

    recipe, network = load_run(run, dataset)
    int8: Sequence[ModelPrecision] = ("int8",)
    (row,) = exported_network(network, recipe, int8, dataset, progress).agreement
    return row


def _advise(output: Output, run: Path, agreement: "Sequence[Agreement]") -> None:
    """Advise fine-tuning if int8 names other classes too often."""
    if any(row.label_agreement_pct < WANTED_AGREEMENT_PCT for row in agreement):
        output.say(f"int8 names another class too often; fine-tune it: nonn-plan quantise {run}")
