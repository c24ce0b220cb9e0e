"""Training, evaluation and exported models as people see them."""

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from nonn_common.units import format_bytes, format_count, format_flops
from nonn_plan.cli.output import Output, format_pct

if TYPE_CHECKING:
    from pathlib import Path

    from boards.board_fit import BoardFit, BundleFit
    from nonn_core.accuracy_report import Evaluation, RepeatedEvaluation, SubsetAccuracy
    from nonn_core.class_accuracy import ClassAccuracy
    from nonn_core.distillation.loop import EpochMetrics
    from nonn_core.export.bundle import Agreement, Manifest

_MOST_SUBSETS = 31
"""Of five students."""


def show_history(output: Output, history: "list[EpochMetrics]", of: str = "") -> None:
    """Show the last epochs of a run; `of` says of which one."""
    names = list(history[-1].losses)
    output.table(
        f"Last epochs{of}",
        ("epoch", *names, "validation accuracy"),
        [
            (
                str(metrics.epoch),
                *(f"{metrics.losses[name]:.4f}" for name in names),
                format_pct(metrics.validation_accuracy_pct),
            )
            for metrics in history[-3:]
        ],
    )


def show_evaluation(output: Output, found: "Evaluation") -> None:
    """Show test accuracy, whole and by subset of students."""
    output.say(f"{found.data}: {found.accuracy_pct:.2f} % of {found.images} test images right")
    _show_subsets(output, found.subsets)


def show_repeats(output: Output, found: "RepeatedEvaluation") -> None:
    """Show test accuracy over seeds, whole and by subset of students."""
    deviation = "" if found.deviation_pct is None else f" +- {found.deviation_pct:.2f}"
    output.table(
        f"{found.data}: {found.accuracy_pct:.2f}{deviation} % of {found.images} test images right",
        ("seed", "test accuracy"),
        [(str(one.seed), format_pct(one.accuracy_pct)) for one in found.seeds],
    )
    _show_subsets(output, found.subsets)


def show_classes(
    output: Output,
    classes: "Sequence[ClassAccuracy]",
    images: str,
    files: "Sequence[Path]",
    *,
    all_sent: bool = True,
) -> None:
    """Show accuracy class by class, warn of lost classes, and write the confusion matrix.

    `images` says which ones they are, such as "test images"; unless `all_sent`, a class may be
    without any.
    """
    from nonn_core.class_accuracy import class_warnings, mean_accuracy_pct, write_confusion

    if not classes:
        if files:
            output.warn("no class of these images is known; no confusion matrix was written")
        return
    mean = f"mean over classes {mean_accuracy_pct(classes):.2f} %"
    if _matrix_fits(classes):
        output.table(f"Class by class, {mean}; how often each class was named", *_matrix(classes))
    else:
        worst = sorted(classes, key=lambda each: (each.accuracy_pct is None, each.accuracy_pct))
        shown = worst[:_MOST_CLASSES]
        of = "" if len(shown) == len(worst) else f"; the worst {len(shown)} of {len(worst)}"
        output.table(f"Class by class, {mean}{of}", *_mistakes(shown))
    judged = [each for each in classes if all_sent or each.images]
    output.warn(*class_warnings(judged, images))
    for path in files:
        write_confusion(classes, path)
        output.say(f"confusion matrix written to {path}")


_MOST_CLASSES = 20
_MATRIX_WIDTH = 100


def _matrix_fits(classes: "Sequence[ClassAccuracy]") -> bool:
    """Whether a line for people holds a column for each class."""
    longest = max(len(each.name) for each in classes)
    return longest + sum(3 + max(3, len(each.name)) for each in classes) <= _MATRIX_WIDTH - 25


def _matrix(
    classes: "Sequence[ClassAccuracy]",
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    from nonn_core.class_accuracy import confusion_matrix

    columns = ("class", "images", "right", *(each.name for each in classes))
    counts = confusion_matrix(classes).tolist()
    return columns, [
        (*_class_cells(each), *map(str, row)) for each, row in zip(classes, counts, strict=True)
    ]


def _mistakes(
    classes: "Sequence[ClassAccuracy]",
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return ("class", "images", "right", "most often taken for"), [
        (
            *_class_cells(each),
            ", ".join(f"{name} {count}" for name, count in list(each.mistaken_for.items())[:3]),
        )
        for each in classes
    ]


def _class_cells(one: "ClassAccuracy") -> tuple[str, str, str]:
    return one.name, str(one.images), "" if not one.images else format_pct(one.accuracy_pct)


def show_fits(output: Output, fits: "Sequence[BoardFit]") -> None:
    """Show what the built students of each board need, and what they may use."""
    output.table(
        "Built students, measured, against their boards' budgets",
        ("board", "students", "parameters", "memory", "allowed", "FLOPs", "allowed"),
        [
            (
                fit.board,
                ", ".join(fit.students),
                format_count(fit.params),
                fit.needed,
                fit.allowed,
                format_flops(fit.macs),
                "no limit" if fit.macs_limit is None else format_flops(fit.macs_limit),
            )
            for fit in fits
        ],
    )


def _show_subsets(output: Output, subsets: "Sequence[SubsetAccuracy]") -> None:
    """Show each subset of students; of many, means by how many answer."""
    few = len(subsets) <= _MOST_SUBSETS
    groups: dict[str, list[SubsetAccuracy]] = {}
    for one in subsets:
        groups.setdefault(", ".join(one.students) if few else str(len(one.students)), []).append(
            one
        )
    if subsets:
        output.table(
            "When only some students answer" + ("" if few else ": means by how many do"),
            ("students", "test accuracy", "zeros for others"),
            [
                (name, *(format_pct(mean(each)) for each in zip(*map(_both, alike), strict=True)))
                for name, alike in groups.items()
            ],
        )


def _both(one: "SubsetAccuracy") -> tuple[float, float]:
    return one.accuracy_pct, one.zero_filled


def show_bundle(output: Output, manifest: "Manifest") -> None:
    """Show the files of a bundle, and how far they compute what was trained."""
    _show_files(output, manifest)
    rows = {str(row.precision): row for row in manifest.agreement}
    if manifest.c_agreement is not None:
        rows["int8, in C"] = manifest.c_agreement
    show_agreement(output, rows)
    if manifest.c_agreement is not None:
        _show_c_libraries(output, manifest)


def _show_files(output: Output, manifest: "Manifest") -> None:
    int8 = "int8, QDQ" if manifest.int8_form == "QDQ" else "int8"
    rows: list[tuple[str, str, str, str]] = [
        (
            model.name,
            one.file,
            int8 if one.precision == "int8" else one.precision,
            format_bytes(one.size_bytes),
        )
        for model in manifest.models
        for one in model.files
    ]
    rows += [
        (model.name, one.file, "fp32, ncnn", format_bytes(one.size_bytes))
        for model in manifest.models
        if model.ncnn is not None
        for one in (model.ncnn.param, model.ncnn.weights)
    ]
    students = {each: one.name for one in manifest.models if one.c for each in one.c.files}
    rows += [
        (students.get(one.file, "kernels"), one.file, "int8, C", format_bytes(one.size_bytes))
        for one in manifest.c_files
    ]
    if manifest.fc is not None:
        rows.append(("FC layer", manifest.fc.file, "fp32", format_bytes(manifest.fc.size_bytes)))
    output.table("Files of the bundle", ("model", "file", "precision", "size"), rows)


def show_agreement(output: Output, rows: "dict[str, Agreement]") -> None:
    """Show how far exported models agree with the network in torch."""
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
                format_pct(row.label_agreement_pct),
                format_pct(row.accuracy_pct),
                f"{row.largest_difference:.2g}",
                f"{row.largest_logit:.3g}",
            )
            for name, row in rows.items()
        ],
    )


def _show_c_libraries(output: Output, manifest: "Manifest") -> None:
    """Show needs of C libraries, their comparison with onnxruntime, and what was left out."""
    found = [(model.name, model.c) for model in manifest.models if model.c is not None]
    output.table(
        "C libraries, beside 3 KB of kernels; their features compared with onnxruntime",
        ("student", "flash", "RAM", "images", "features", "one step off"),
        [
            (
                name,
                format_bytes(one.constant_bytes),
                format_bytes(one.arena_bytes + one.column_bytes),
                *("not run" if each is None else str(each) for each in one.compared),
            )
            for name, one in found
        ],
    )
    if any(one.images is None for _, one in found):
        output.warn("no C compiler (cc) is here: the C libraries were not compiled and compared")
    joint = [model.name for model in manifest.models if model.role == "joint"]
    if joint:
        output.warn(
            f"{', '.join(joint)}: the plan counts one G0 for a board; C libraries have one each"
        )


def show_bundle_fits(output: Output, fits: "Sequence[BundleFit]") -> None:
    """Show each board's models against the plan's memory budget."""
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
                fit.allowed,
                "yes" if fit.fits else "no",
            )
            for fit in fits
        ],
    )
