"""Data sets as people have them: a rare class, transparent paper, photos of any size."""

import csv
import json

import numpy as np
import pytest
from PIL import Image as Picture

TRAIN = ("train-teacher", "--network", "wrn10:4,6,8", "--epochs", 1, "--batch-size", 8)


@pytest.fixture(scope="module")
def imbalanced(tmp_path_factory):
    """Photos by day and by night, and a rare class that looks like the night."""
    root, rng = tmp_path_factory.mktemp("imbalanced"), np.random.default_rng(0)
    for part, counts in (("train", (30, 30, 2)), ("test", (10, 10, 3))):
        for name, count in zip(("day", "night", "rare"), counts, strict=True):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (8, 8, 3)) + (150 if name == "day" else 0)
                target = root / part / name / f"{number}.png"
                Picture.fromarray(pixels.astype(np.uint8)).save(target)
    return root


def test_a_rare_class_that_is_lost_is_shown_and_warned_of(nonn_plan, imbalanced, tmp_path):
    teacher, table, picture = (tmp_path / name for name in ("t.safetensors", "c.csv", "c.png"))
    data = ("--data", f"imagefolder:{imbalanced}")
    said = nonn_plan(*TRAIN, *data, "-o", teacher, "--confusion", tmp_path / "v.csv", "--json")
    assert said.code == 0, said.err
    card = json.loads(teacher.with_suffix(".json").read_text())
    assert said.document["class_accuracy"] == card["class_accuracy"]
    assert [one["name"] for one in card["class_accuracy"]] == ["day", "night", "rare"]
    images = sum(one["images"] for one in card["class_accuracy"])
    right = sum(one["right"] for one in card["class_accuracy"])
    assert card["validation_accuracy_pct"] == pytest.approx(100 * right / images)
    assert (tmp_path / "v.csv").read_text().startswith("class,images,right,accuracy_pct,named day")

    said = nonn_plan("evaluate", teacher, "--confusion", table, "--confusion", picture, "--json")
    assert said.code == 0, said.err
    classes = {one["name"]: one for one in said.document["class_accuracy"]}
    assert [classes[name]["images"] for name in ("day", "night", "rare")] == [10, 10, 3]
    assert (classes["rare"]["right"], classes["rare"]["accuracy_pct"]) == (0, 0.0)
    assert sum(classes["rare"]["mistaken_for"].values()) == 3
    assert (
        "in 1 of 3 classes none of the test images is right: rare (0 of 3)"
        in (said.document["warnings"])
    )
    with table.open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert {name: int(row["right"]) for name, row in rows.items()} == {
        name: one["right"] for name, one in classes.items()
    }
    with Picture.open(picture) as drawn:
        assert drawn.format == "PNG"
    shown = nonn_plan("evaluate", teacher).out
    assert "Warning: in 1 of 3 classes none of the test images is right: rare (0 of 3)" in shown
    assert "mean over classes" in shown


def test_a_confusion_matrix_of_another_kind_is_refused_before_any_work(nonn_plan, imbalanced):
    said = nonn_plan(*TRAIN, "--data", f"imagefolder:{imbalanced}", "--confusion", "c.pdf")
    assert said.code == 2
    assert "c.pdf" in said.err
    assert ".csv or .png" in said.err


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photos of unlike sizes, some on their side, some on transparent paper, and two of no use."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 3)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (20 + number, 24, 4), dtype=np.uint8)
                exif = Picture.Exif()
                exif[0x0112] = 6 if number == 1 else 1
                photo = Picture.fromarray(pixels)
                target = root / part / name / f"{number}.png"
                (photo if number == 2 else photo.convert("RGB")).save(target, exif=exif)
    (root / "train" / "a" / "IMG_1.HEIC").write_bytes(b"x")
    (root / "test" / "b" / "IMG_2.HEIC").write_bytes(b"x")
    return root


def test_photos_of_any_size_are_trained_on_and_what_was_done_is_said(nonn_plan, photos, tmp_path):
    teacher = tmp_path / "t.safetensors"
    said = nonn_plan(
        *TRAIN, "--data", f"imagefolder:{photos}", "--image-size", 16, "-o", teacher, "--json"
    )
    assert said.code == 0, said.err
    assert (said.document["image"], said.document["data"]) == (
        "3x16x16",
        f"imagefolder,size=16:{photos}",
    )
    told = [text.removeprefix(f"{photos}: ") for text in said.document["warnings"]]
    assert told[:4] == [
        "2 files are left out, of kinds that are not read here: .heic 2 (test/b/IMG_2.HEIC)",
        "4 of 30 pictures are transparent; the paper behind them is taken as #ffffff "
        "(another colour: train-teacher --paper)",
        "4 of 30 pictures are turned upright, as their EXIF data say",
        "28 of 30 pictures are not square; their middle is kept, and up to 23 % is cut off",
    ]
    again = nonn_plan("evaluate", teacher, "--json")
    assert again.document["images"] == 6
    assert again.document["warnings"][:4] == said.document["warnings"][:4]
    # The card's reading holds for other pictures, too.
    other = nonn_plan("evaluate", teacher, "--data", f"imagefolder:{photos}", "--json")
    assert other.document["accuracy_pct"] == again.document["accuracy_pct"]


def test_what_is_trained_on_grey_pictures_has_one_channel(nonn_plan, tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 3)):
        for name in ("a", "b"):
            (tmp_path / "grey" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Picture.fromarray(pixels).save(tmp_path / "grey" / part / name / f"{number}.png")
    data, teacher = f"imagefolder:{tmp_path / 'grey'}", tmp_path / "t.safetensors"
    said = nonn_plan(*TRAIN, "--data", data, "-o", teacher, "--json")
    assert said.code == 0, said.err
    assert said.document["image"] == "1x8x8"
    assert nonn_plan("evaluate", teacher, "--json").document["images"] == 6
