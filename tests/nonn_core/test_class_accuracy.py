"""Accuracy class by class, on counts that are known by hand."""

import csv
import io

import numpy as np
import pytest
from PIL import Image as Picture

from nonn_common.errors import InputError
from nonn_core.class_accuracy import (
    UNANSWERED,
    check_confusion_file,
    class_accuracies,
    class_warnings,
    confusion_csv,
    confusion_figure,
    confusion_matrix,
    mean_accuracy_pct,
    summed,
    write_confusion,
)

NAMES = ("cat", "dog", "newt")
LABELS = [0] * 90 + [1] * 60 + [2] * 12
ANSWERS = [0] * 88 + [1] * 2 + [1] * 57 + [0] * 2 + [UNANSWERED] + [0] * 9 + [1] * 3


@pytest.fixture
def classes():
    """Right: 88 of 90 cats, 57 of 60 dogs, none of 12 newts; nobody answered one dog."""
    return class_accuracies(NAMES, LABELS, ANSWERS)


def test_images_are_counted_by_class_and_by_what_they_were_taken_for(classes):
    assert [(one.name, one.images, one.right) for one in classes] == [
        ("cat", 90, 88), ("dog", 60, 57), ("newt", 12, 0),
    ]  # fmt: skip
    assert [one.mistaken_for for one in classes] == [
        {"dog": 2}, {"cat": 2}, {"cat": 9, "dog": 3},
    ]  # fmt: skip
    assert confusion_matrix(classes).tolist() == [[88, 2, 0], [2, 57, 0], [9, 3, 0]]
    assert [one.accuracy_pct for one in classes] == [100 * 88 / 90, 95.0, 0.0]
    assert mean_accuracy_pct(classes) == pytest.approx((100 * 88 / 90 + 95) / 3)


def test_a_class_of_which_nothing_is_right_is_warned_of(classes):
    (warning,) = class_warnings(classes, "test images")
    assert warning == "in 1 of 3 classes none of the test images is right: newt (0 of 12)"


def counted(*rows):
    """Classes of so many images and right ones each; the rest is taken for the first class."""
    labels = [k for k, (images, _) in enumerate(rows) for _ in range(images)]
    answers = [
        k if number < right else (k + 1) % len(rows)
        for k, (images, right) in enumerate(rows)
        for number in range(images)
    ]
    names = [chr(ord("a") + k) for k in range(len(rows))]
    return class_accuracies(names, labels, answers)


@pytest.mark.parametrize(
    ("right", "low"),
    # Of 20 images beside 180 right ones.  Wilson's upper bound of 14 of 20 is 83.9 %, of all 97 %;
    # 16 of 20 lies 18 points below all 98 %.
    [(1, True), (10, True), (14, True), (16, False), (20, False)],
)
def test_a_class_far_below_all_images_is_warned_of(right, low):
    warnings = class_warnings(counted((90, 90), (90, 90), (20, right)), "test images")
    assert len(warnings) == low
    if low:
        whole, own = (180 + right) / 2, 5 * right
        assert warnings == (
            f"1 of 3 classes lie far below the {whole:.2f} % of all test images: "
            f"c ({own:.2f} % of 20)",
        )


def test_two_images_are_too_few_to_lie_far_below():
    # Wilson's upper bound of 1 of 2 is 87.5 %, of 4 of 5 images 80 %.
    assert class_warnings(counted((3, 3), (2, 1)), "test images") == ()


def test_even_classes_and_chance_are_not_warned_of():
    assert class_warnings(counted(*[(14, 13)] * 10), "test images") == ()
    assert class_warnings(counted(*[(50, 5)] * 10), "test images") == ()
    assert class_warnings((), "test images") == ()


def test_a_class_without_images_is_warned_of():
    (warning,) = class_warnings(counted((5, 5), (4, 4), (0, 0)), "validation images")
    assert warning == "1 of 3 classes have no validation images; their accuracy is not known: c"


def test_many_lost_classes_are_one_warning_that_names_five():
    lost = counted((50, 50), *[(3, 0)] * 7)
    (warning,) = class_warnings(lost, "images")
    assert warning.startswith("in 7 of 8 classes none of the images is right: b (0 of 3), c (0")
    assert warning.endswith("f (0 of 3) and 2 more")


def test_seeds_are_summed(classes):
    twice = summed([classes, class_accuracies(NAMES, LABELS, LABELS)])
    assert [(one.images, one.right) for one in twice] == [(180, 178), (120, 117), (24, 12)]
    assert twice[2].mistaken_for == {"cat": 9, "dog": 3}


def test_the_csv_holds_accuracy_and_the_whole_matrix(classes):
    rows = list(csv.reader(io.StringIO(confusion_csv(classes).decode())))
    assert rows == [
        ["class", "images", "right", "accuracy_pct", "named cat", "named dog", "named newt",
         "unanswered"],
        ["cat", "90", "88", "97.7778", "88", "2", "0", "0"],
        ["dog", "60", "57", "95.0000", "2", "57", "0", "1"],
        ["newt", "12", "0", "0.0000", "9", "3", "0", "0"],
    ]  # fmt: skip


def test_the_picture_shows_shares_counts_and_accuracies(classes, tmp_path):
    figure = confusion_figure(classes)
    cells, bars = figure.axes
    shown = np.asarray(cells.images[0].get_array())
    assert shown[2].tolist() == [75.0, 25.0, 0.0]
    assert [text.get_text() for text in cells.texts] == ["88", "2", "2", "57", "9", "3"]
    assert [label.get_text() for label in cells.get_yticklabels()] == list(NAMES)
    assert [bar.get_width() for bar in bars.patches] == [100 * 88 / 90, 95.0, 0.0]
    assert [text.get_text() for text in bars.texts] == ["97.8 %", "95.0 %", "0.0 %"]
    assert bars.get_title() == "all: 89.51 %"
    write_confusion(classes, tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("count", [2, 100])
def test_a_picture_of_few_and_of_many_classes_is_drawn(count, tmp_path):
    names = [f"a $class$ of number {k}" for k in range(count)]
    many = class_accuracies(names, list(range(count)), [0] * count)
    write_confusion(many, tmp_path / "a.png")
    with Picture.open(tmp_path / "a.png") as picture:
        assert max(picture.size) <= 2600


def test_a_file_of_another_kind_is_not_written_over(tmp_path, classes):
    with pytest.raises(InputError, match=r"\.csv or \.png"):
        check_confusion_file(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("something else")
    with pytest.raises(InputError, match="holds something else"):
        check_confusion_file(tmp_path / "a.csv")
    write_confusion(classes, tmp_path / "b.csv")
    check_confusion_file(tmp_path / "b.csv")
