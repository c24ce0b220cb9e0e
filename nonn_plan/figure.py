"""Pictures of the files that commands write, whichever file it is.

A partition, a run's metrics, an evaluation and a validation; each picture shows nothing that its
file does not say.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from nonn_common.document import read_plain, write_atomic
from nonn_common.errors import InputError
from nonn_core.accuracy_report import Evaluation, RepeatedEvaluation
from nonn_core.figure import (
    COLOURS,
    SMALL,
    accuracies_by_students,
    finish,
    partition_figure,
    read_metrics,
    subsets_figure,
    training_figure,
)
from nonn_core.partition import Partition
from planner.plan_file.plan_document import PlanDocument

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from boards.board_validation import Comparison, Validation

DRAWN = (
    "partition.json, the folder of a run or its metrics.jsonl, evaluation.json, or validation.json"
)
"""Files of which there are pictures, for messages."""
_METRICS = "metrics.jsonl"
_MOST_BOARDS = 16
_ACCURACIES = 3


@dataclass(frozen=True, slots=True)
class DocumentFigure:
    """A picture of a file: what it shows, and what the file could not tell."""

    shows: str
    figure: "Figure"
    untold: tuple[str, ...] = ()

    def write(self, path: Path) -> None:
        """Write the picture as PNG, whole or not at all."""
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=130)
        write_atomic(path, stream.getvalue())


def figure_of(path: Path, plan: PlanDocument | None = None) -> DocumentFigure:
    """Figure of a partition, of a run's training, of an evaluation, or of a validation.

    With a `plan`, an evaluation is shown by boards that work, in place of students that answer.

    Raises InputError for any other file, and for a plan that does not go with it.
    """
    trained = path.is_dir() or path.suffix == ".jsonl"
    known = not path.exists() or path.suffix.lower() in (".json", ".yaml", ".yml")
    plain = read_plain(path) if known and not trained else {}
    fields = plain.keys() if isinstance(plain, dict) else set()
    evaluated = {"subsets", "accuracy_pct"} <= fields
    if plan is not None and not evaluated:
        raise InputError(
            "goes with an evaluation alone, whose students it puts on boards",
            where="--plan",
            found=str(path),
            allowed="evaluation.json",
        )
    if trained:
        epochs = read_metrics(_metrics_of(path) if path.is_dir() else path)
        return DocumentFigure("training losses and accuracy by epoch", training_figure(epochs))
    if {"communities", "drop_steps"} <= fields:
        return _of_partition(Partition.read(path))
    if evaluated:
        kind = RepeatedEvaluation if "seeds" in fields else Evaluation
        return _of_evaluation(kind.read(path), plan, str(path))
    if {"total_ms", "boards", "advice"} <= fields:
        from boards.board_validation import Validation

        shows = "times and accuracy, predicted beside measured"
        return DocumentFigure(shows, validation_figure(Validation.read(path)))
    planned = {"question", "students"} <= fields
    raise InputError(
        "is a file without a picture",
        where=str(path),
        allowed=DRAWN,
        fix=f"a plan's image: nonn-plan simulate {path} --gantt gantt.png" if planned else None,
    )


def _metrics_of(folder: Path) -> Path:
    """Metrics of a run's folder; raises InputError, also for a folder of several seeds' runs."""
    found = folder / _METRICS
    if not found.exists():
        seeds = sorted(folder.glob(f"*/{_METRICS}"))
        raise InputError(
            f"is a folder without {_METRICS}",
            where=str(folder),
            allowed=DRAWN,
            fix=f"name the run, such as {seeds[0].parent}" if seeds else None,
        )
    return found


def _of_partition(partition: Partition) -> DocumentFigure:
    untold = []
    if not partition.links:
        untold.append("the file holds no links; communities are drawn without them")
    steps = partition.curve or partition.drop_steps
    shows = "filter network with its communities"
    if any(step.delta_val_pct is not None for step in steps):
        shows += ", delta_val by dropped filters"
    else:
        untold.append("no drop of filters was measured; delta_val is not drawn")
    return DocumentFigure(shows, partition_figure(partition), tuple(untold))


def _of_evaluation(
    found: Evaluation | RepeatedEvaluation, plan: PlanDocument | None, where: str
) -> DocumentFigure:
    if not found.subsets:
        raise InputError(
            "is of a network without students, of which none can be missing",
            where=where,
            allowed="the evaluation of a NoNN",
        )
    if plan is None:
        across, by_count = "students that answer", accuracies_by_students(found)
        return DocumentFigure(f"accuracy by {across}", subsets_figure(found, by_count, across))
    by_count, silent = accuracies_by_boards(found, plan, where)
    figure = subsets_figure(found, by_count, "boards that work")
    untold = f"in {silent} choices of boards no student answers; these are left out"
    return DocumentFigure("accuracy by boards that work", figure, (untold,) if silent else ())


def accuracies_by_boards(
    found: Evaluation | RepeatedEvaluation, plan: PlanDocument, where: str
) -> tuple[dict[int, list[float]], int]:
    """Accuracies of all choices of boards, by how many work; choices in which nobody answers.

    A student answers where one of its boards works, and that of G0 where G0 has its own.

    Raises InputError where the plan has other students, or too many boards.
    """
    accuracy = {frozenset(one.students): one.accuracy_pct for one in found.subsets}
    homes = {student.name: frozenset(student.boards) for student in plan.students}
    if (known := frozenset[str]().union(*accuracy)) != homes.keys():
        raise InputError(
            "has other students than the plan",
            where=where,
            found=", ".join(sorted(known)),
            allowed=", ".join(homes) or "none, as the plan has no students",
        )
    group0 = frozenset[str]() if plan.group0 is None else frozenset({plan.group0.board})
    boards = sorted(group0.union(*homes.values()))
    if len(boards) > _MOST_BOARDS:
        raise InputError(
            "too many boards for all choices of them",
            where="--plan",
            found=len(boards),
            allowed=f"up to {_MOST_BOARDS}",
            fix="leave out --plan",
        )
    by_count: dict[int, list[float]] = {}
    silent = 0
    for count in range(1, len(boards) + 1):
        for working in map(frozenset, combinations(boards, count)):
            answering = frozenset(name for name, own in homes.items() if own & working)
            if answering and group0 <= working:
                by_count.setdefault(count, []).append(accuracy[answering])
            else:
                silent += 1
    return by_count, silent


def validation_figure(validation: "Validation") -> "Figure":
    """Figure of predicted beside measured times, of an image and of each board, and accuracy."""
    from matplotlib.figure import Figure

    rows = [
        ("image, median", validation.total_ms),
        ("compute, longest board", validation.compute_ms),
        ("communication, the rest", validation.communication_ms),
        ("image, 95th percentile", validation.p95_ms),
    ]
    for each in validation.boards:
        rows.append((f"{each.board} computed", each.computed_ms))
        rows.append((f"{each.board} replied", each.replied_ms))
    figure = Figure(figsize=(8.0, 2.2 + 0.36 * (len(rows) + _ACCURACIES)), layout="constrained")
    times, accuracy = figure.subplots(2, 1, height_ratios=(len(rows), _ACCURACIES))
    _draw_times(times, rows)
    missing = f"; {validation.incomplete} more lacked a student" * bool(validation.incomplete)
    finish(times, f"{validation.images} images{missing}; boards: medians", "ms", "")
    _draw_accuracy(accuracy, validation)
    return figure


def _draw_times(axes: "Axes", rows: "Sequence[tuple[str, Comparison]]") -> None:
    """Draw two bars for each time; one that is unknown says so."""
    for shift, label, colour, hatch, values in (
        (-0.2, "predicted", COLOURS[0], "", [time.predicted for _, time in rows]),
        (0.2, "measured", COLOURS[1], "//", [time.measured for _, time in rows]),
    ):
        bars = axes.barh(
            [place + shift for place in range(len(rows))],
            [value or 0.0 for value in values],
            height=0.38,
            label=label,
            color=colour,
            hatch=hatch,
            edgecolor="white",
        )
        axes.bar_label(bars, [_shown(value) for value in values], padding=3, fontsize=SMALL)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlim(left=0)


def _draw_accuracy(axes: "Axes", validation: "Validation") -> None:
    """Draw the plan's accuracy with its interval, and those of models and boards."""
    found = validation.accuracy
    values = (found.predicted_pct, found.exported_pct, found.measured_pct)
    colours = (COLOURS[0], COLOURS[4], COLOURS[1])
    axes.barh(range(_ACCURACIES), [value or 0.0 for value in values], height=0.6, color=colours)
    texts = [_shown(value) for value in values]
    if found.predicted_pct is not None and found.low_pct is not None and found.high_pct is not None:
        errors = [[found.predicted_pct - found.low_pct], [found.high_pct - found.predicted_pct]]
        axes.errorbar([found.predicted_pct], [0], xerr=errors, fmt="none", color="black", capsize=4)
        texts[0] += f" ({found.low_pct:.1f} to {found.high_pct:.1f})"
    for place, text in enumerate(texts):
        x = 3 if values[place] is None else 104
        axes.text(x, place, text, va="center", fontsize=SMALL)
    axes.set_yticks(range(_ACCURACIES), ("predicted", "exported models", "measured"))
    axes.invert_yaxis()
    axes.set_xlim(0, 125)
    axes.set_xticks(range(0, 101, 20))
    finish(axes, "Accuracy", "right images, %", "", legend=False)


def _shown(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"
