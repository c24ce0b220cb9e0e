"""`export` and `quantise`: from a trained run to what boards and host load.

torch and onnxruntime are loaded inside the commands, so that the others start without them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nonn_plan.learning import TO_RESUME, UNCHANGED
from nonn_plan.learning_view import show_history
from nonn_plan.options import AsJson
from nonn_plan.output import Output, shown_pct
from nonn_plan.planning import read_plan
from planner.training import require_recipe_of
from profiles.errors import InputError
from profiles.units import format_bytes

if TYPE_CHECKING:
    from boards.bundle_fit import BundleFit
    from nonn_core.bundle import Agreement, Manifest, ModelPrecision
    from nonn_core.data.dataset import Dataset
    from nonn_core.progress import Progress
    from planner.plan import PlanDocument

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]
WANTED_AGREEMENT_PCT = 99.0


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(export)
    app.command()(quantise)


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
    as_json: AsJson = False,
) -> None:
    """Write a run as ONNX models, FC weights and a manifest; check them on the test images."""
    from boards.bundle_fit import bundle_fits
    from nonn_core.data.dataset import load_dataset
    from nonn_core.export import export as export_run
    from nonn_core.learning.run import recipe_of

    output = Output(as_json)
    precisions = _precisions(precision)
    recipe = recipe_of(run)
    plan = None if plan_file is None else read_plan(plan_file)
    if plan is not None:
        require_recipe_of(plan, recipe, where=str(run))
    with output.progress(UNCHANGED) as progress:
        dataset = load_dataset(recipe.data, progress)
        manifest = export_run(
            run, out, precisions, dataset, progress, planned=_planned(plan), ncnn=ncnn
        )
    fits = () if plan is None else bundle_fits(plan, manifest)
    _show_files(output, manifest)
    _show_agreement(output, {row.precision: row for row in manifest.agreement})
    if fits:
        _show_fits(output, fits)
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
    as_json: AsJson = False,
) -> None:
    """Fine-tune a run for int8, with rounded weights and activations; a killed one goes on."""
    from nonn_core.data.dataset import load_dataset
    from nonn_core.learning.quantised import fine_tuning
    from nonn_core.learning.run import recipe_of
    from nonn_core.learning.run import train as train_run

    output = Output(as_json)
    recipe = fine_tuning(recipe_of(run), run, epochs, learning_rate)
    with output.progress(TO_RESUME) as progress:
        dataset = load_dataset(recipe.data, progress)
        history = train_run(recipe, out, dataset, progress)
        before, after = (_int8_agreement(each, dataset, progress) for each in (run, out))
    show_history(output, history)
    _show_agreement(output, {"int8 of the run": before, "int8 after fine-tuning": after})
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


def _planned(plan: "PlanDocument | None") -> "dict[str, ModelPrecision]":
    """Return the precisions that a plan counts on; fp16, which no bundle has, computes as fp32."""
    models = () if plan is None else plan.decision.models
    return {model.name: "int8" if model.precision == "int8" else "fp32" for model in models}


def _int8_agreement(run: Path, dataset: "Dataset", progress: "Progress") -> "Agreement":
    """Export a run in int8, in memory, and compare it with itself in float32."""
    from nonn_core.export import exported_network
    from nonn_core.learning.run import load_run

    recipe, network = load_run(run, dataset)
    int8: Sequence[ModelPrecision] = ("int8",)
    (row,) = exported_network(network, recipe, int8, dataset, progress).agreement
    return row


def _show_files(output: Output, manifest: "Manifest") -> None:
    rows: list[tuple[str, str, str, str]] = [
        (model.name, one.file, one.precision, format_bytes(one.size_bytes))
        for model in manifest.models
        for one in model.files
    ]
    rows += [
        (model.name, one.file, "fp32, ncnn", format_bytes(one.size_bytes))
        for model in manifest.models
        if model.ncnn is not None
        for one in (model.ncnn.param, model.ncnn.weights)
    ]
    if manifest.fc is not None:
        rows.append(("FC layer", manifest.fc.file, "fp32", format_bytes(manifest.fc.size_bytes)))
    output.table("Files of the bundle", ("model", "file", "precision", "size"), rows)


def _show_agreement(output: Output, rows: "dict[str, Agreement]") -> None:
    output.table(
        "Exported models in onnxruntime, beside the same network in torch",
        (
            "models",
            "test images",
            "same label",
            "accuracy",
            "largest difference",
            "of logits up to",
        ),
        [
            (
                name,
                str(row.images),
                shown_pct(row.label_agreement_pct),
                shown_pct(row.accuracy_pct),
                f"{row.largest_difference:.2g}",
                f"{row.largest_logit:.3g}",
            )
            for name, row in rows.items()
        ],
    )


def _show_fits(output: Output, fits: "Sequence[BundleFit]") -> None:
    output.table(
        "Models of each board, with peak activations, against the plan's memory budget",
        ("board", "students", "precision", "files", "activations", "planned", "allowed", "fits"),
        [
            (
                fit.board,
                ", ".join(fit.students),
                fit.precision,
                format_bytes(fit.file_bytes),
                format_bytes(fit.activation_bytes),
                format_bytes(fit.planned_bytes),
                format_bytes(fit.limit_bytes),
                "yes" if fit.fits else "no",
            )
            for fit in fits
        ],
    )


def _advise(output: Output, run: Path, agreement: "Sequence[Agreement]") -> None:
    """Say what helps where int8 names other classes too often."""
    if any(row.label_agreement_pct < WANTED_AGREEMENT_PCT for row in agreement):
        output.say(f"int8 names another class too often; fine-tune it: nonn-plan quantise {run}")
