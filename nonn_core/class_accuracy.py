"""Accuracy class by class, and the confusion matrix: as records, CSV and picture.  Torch-free."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from nonn_common.document import Record, check_own_place, check_picture, check_suffix, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


UNANSWERED = -1
"""Stands for the class that was named where no answer came."""
FAR_BELOW_POINTS = 20.0
"""A class so far below all images' accuracy is worth a warning, if it is no accident."""
CONFIDENCE = 0.95
"""One-sided, of a class lying below."""
_MOST_NAMED = 5
_MOST_NUMBERS = 20
"""Of more classes than this the cells of the picture hold no numbers."""
_MOST_NAMES = 60
_CSV_START = b"class,"


class ClassAccuracy(Record):
    """One row of the confusion matrix: the images of a class, and their answers.

    Right ones and mistaken ones together are `images`, but for those that nobody answered.
    """

    name: str = Field(description="Name of the class.")
    images: int = Field(ge=0, description="Number of its images.")
    right: int = Field(ge=0, description="Of these, images whose class was named.")
    mistaken_for: dict[str, int] = Field(
        description="Images that were taken for another class, by its name, most often first."
    )
    accuracy_pct: float | None = Field(
        description="Share of its images that are right, in percent; null without images."
    )

    @classmethod
    def of(cls, name: str, images: int, right: int, mistaken: Counter[str]) -> Self:
        """Class of these counts."""
        accuracy_pct = 100 * right / images if images else None
        by_count = dict(mistaken.most_common())
        return cls(
            name=name, images=images, right=right, mistaken_for=by_count, accuracy_pct=accuracy_pct
        )


def class_accuracies(
    names: Sequence[str], labels: Iterable[int], answers: Iterable[int]
) -> tuple[ClassAccuracy, ...]:
    """Count images by class (`labels`) and by the class that was named (`answers`).

    Both are numbers of classes, counted from 0; an answer may be UNANSWERED.
    """
    cells = Counter(zip(labels, answers, strict=True))
    images: Counter[int] = Counter()
    mistaken: dict[int, Counter[str]] = {number: Counter() for number in range(len(names))}
    for (label, answer), count in cells.items():
        images[label] += count
        if answer not in (label, UNANSWERED):
            mistaken[label][names[answer]] += count
    return tuple(
        ClassAccuracy.of(name, images[number], cells[number, number], mistaken[number])
        for number, name in enumerate(names)
    )


def summed(repeats: Sequence[Sequence[ClassAccuracy]]) -> tuple[ClassAccuracy, ...]:
    """Sum of the counts of several evaluations of the same classes."""
    return tuple(
        ClassAccuracy.of(
            same[0].name,
            sum(each.images for each in same),
            sum(each.right for each in same),
            sum((Counter(each.mistaken_for) for each in same), Counter()),
        )
        for same in zip(*repeats, strict=True)
    )


def mean_accuracy_pct(classes: Sequence[ClassAccuracy]) -> float:
    """Mean accuracy over the classes that have images, each counting alike, in percent."""
    known = [each.accuracy_pct for each in classes if each.accuracy_pct is not None]
    return float(np.mean(known))


def class_warnings(classes: Sequence[ClassAccuracy], images: str) -> tuple[str, ...]:
    """Sentences on classes without images, without a right one, and far below the whole.

    Far: by FAR_BELOW_POINTS, and with CONFIDENCE (Wilson's bound).  `images` says which ones they
    are, such as "test images".
    """
    count = sum(each.images for each in classes)
    if not count:
        return ()
    whole = sum(each.right for each in classes) / count
    unknown = [each.name for each in classes if not each.images]
    lost = [
        f"{each.name} (0 of {each.images})" for each in classes if each.images and not each.right
    ]
    low = [
        f"{each.name} ({each.accuracy_pct:.2f} % of {each.images})"
        for each in classes
        if each.right and _is_far_below(each, whole)
    ]
    of_all = f"of {len(classes)} classes"
    sentences = (
        (unknown, f"{len(unknown)} {of_all} have no {images}; their accuracy is not known"),
        (lost, f"in {len(lost)} {of_all} none of the {images} is right"),
        (low, f"{len(low)} {of_all} lie far below the {100 * whole:.2f} % of all {images}"),
    )
    return tuple(f"{sentence}: {_listed(names)}" for names, sentence in sentences if names)


def _is_far_below(one: ClassAccuracy, whole: float) -> bool:
    from scipy.stats import binomtest

    if one.right / one.images > whole - FAR_BELOW_POINTS / 100:
        return False
    # Both sides of an interval of 90 % are bounds of 95 %.
    interval = binomtest(one.right, one.images).proportion_ci(2 * CONFIDENCE - 1, method="wilson")
    return bool(interval.high < whole)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def confusion_matrix(classes: Sequence[ClassAccuracy]) -> NDArray[np.int64]:
    """Numbers of images (classes, classes): rows are classes, columns the classes named."""
    names = [each.name for each in classes]
    rows = [{**each.mistaken_for, each.name: each.right} for each in classes]
    return np.array([[row.get(name, 0) for name in names] for row in rows], dtype=np.int64)


def confusion_csv(classes: Sequence[ClassAccuracy]) -> bytes:
    """CSV line for each class: images, accuracy, and how often each class was named."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    named = [f"named {each.name}" for each in classes]
    writer.writerow(("class", "images", "right", "accuracy_pct", *named, "unanswered"))
    for each, row in zip(classes, confusion_matrix(classes), strict=True):
        accuracy = "" if each.accuracy_pct is None else f"{each.accuracy_pct:.4f}"
        unanswered = each.images - int(row.sum())
        writer.writerow((each.name, each.images, each.right, accuracy, *row.tolist(), unanswered))
    return stream.getvalue().encode()


def confusion_png(classes: Sequence[ClassAccuracy]) -> bytes:
    """PNG of `confusion_figure`."""
    stream = io.BytesIO()
    confusion_figure(classes).savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def confusion_figure(classes: Sequence[ClassAccuracy]) -> "Figure":
    """Picture of the confusion matrix in percent of each class, and each class's accuracy."""
    from matplotlib.figure import Figure

    matrix, count = confusion_matrix(classes), len(classes)
    images = np.array([each.images for each in classes])
    shares = 100 * matrix / np.maximum(images, 1)[:, None]
    longest = max(len(each.name) for each in classes[:_MOST_NAMES])
    side = min(3.0 + 0.45 * count, 14.0)
    figure = Figure(figsize=(side + 2.2 + 0.09 * min(longest, 30), side), layout="constrained")
    cells, bars = figure.subplots(1, 2, width_ratios=(4, 1), sharey=True)
    cells.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    if count <= _MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(matrix):
            if number:
                colour = "white" if shares[row, column] > 60 else "black"
                cells.text(column, row, str(number), ha="center", va="center", color=colour)
    step = 1 + (count - 1) // _MOST_NAMES
    shown = range(0, count, step)
    names = [_short(classes[number].name) for number in shown]
    # A name with two dollars is no formula.
    cells.set_xticks(shown, names, rotation=90, fontsize=8, parse_math=False)
    cells.set_yticks(shown, names, fontsize=8, parse_math=False)
    cells.set_xlabel("class that was named")
    cells.set_ylabel("class of the image")
    cells.set_title("images (colour: share of their class)", fontsize=10)
    bars.barh(range(count), [each.accuracy_pct or 0.0 for each in classes], color="0.8")
    if count <= _MOST_NUMBERS:
        for row, each in enumerate(classes):
            bars.text(104, row, _percent(each), va="center", fontsize=8)
    whole = 100 * sum(each.right for each in classes) / max(1, images.sum())
    bars.axvline(whole, color="0.3", linestyle="--", linewidth=1)
    bars.set_xlim(0, 150 if count <= _MOST_NUMBERS else 100)
    bars.set_xticks((0, 50, 100))
    bars.set_xlabel("right, %")
    bars.set_title(f"all: {whole:.2f} %", fontsize=10)
    bars.tick_params(axis="y", left=False, labelleft=False)
    bars.spines[["top", "right"]].set_visible(False)
    return figure


def _percent(one: ClassAccuracy) -> str:
    return "none" if one.accuracy_pct is None else f"{one.accuracy_pct:.1f} %"


def _short(name: str) -> str:
    return name if len(name) <= 30 else f"{name[:29]}…"


_FORMS: dict[str, tuple[Callable[[Path], None], Callable[[Sequence[ClassAccuracy]], bytes]]] = {
    ".csv": (lambda path: check_own_place(path, _CSV_START), confusion_csv),
    ".png": (check_picture, confusion_png),
}


def check_confusion_file(path: Path) -> None:
    """Make sure that a confusion matrix can be written here: NAME.csv or NAME.png."""
    check_suffix(path, *_FORMS)
    check, _ = _FORMS[path.suffix]
    check(path)


def write_confusion(classes: Sequence[ClassAccuracy], path: Path) -> None:
    """Write the confusion matrix, as the end of the name says."""
    _, form = _FORMS[path.suffix]
    write_atomic(path, form(classes))
