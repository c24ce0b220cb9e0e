"""A tiny data set, a tiny trained teacher, and shared folders, made once for all of these tests."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from nonn_core.data.dataset import load_dataset
from nonn_core.distillation.run import train_teacher
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import StudentShape
from nonn_core.recipe import DistillationRecipe, OptimiserRecipe, TrainingRecipe
from nonn_core.teacher.teacher import Teacher

CLASSES = ("bar", "disc", "grid")


def _pixels(label, rng):
    """Make noise with a bright band; its rows and its colour are the class."""
    pixels = rng.integers(0, 90, (8, 8, 3))
    pixels[2 * label : 2 * label + 3, :, label] += 150
    return pixels.astype(np.uint8)


def _write_images(folder, per_class, rng):
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            Picture.fromarray(_pixels(label, rng)).save(folder / name / f"{number:03}.png")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """An image folder of 3 classes: 3x8x8, 72 images to train and 24 to test."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(7)
    _write_images(folder / "train", 24, rng)
    _write_images(folder / "test", 8, rng)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    return load_dataset(f"imagefolder:{tiny_folder}")


@pytest.fixture(scope="session")
def short():
    """Two epochs of five batches (the last one smaller)."""
    return OptimiserRecipe(epochs=2, batch_size=14, learning_rate=0.05)


@pytest.fixture(scope="session")
def teacher_path(tmp_path_factory, tiny, short):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    train_teacher(parse_network("wrn10:4,6,8"), tiny, short, 3, path)
    return path


@pytest.fixture
def teacher(teacher_path):
    return Teacher.load(teacher_path)


@pytest.fixture(scope="session")
def two_shapes():
    """Two students of unequal widths and filters that share G0."""
    return [
        StudentShape(parse_network("wrn10:4,5,6"), 3),
        StudentShape(parse_network("wrn10:4,8,7"), 5),
    ]


@pytest.fixture(scope="session")
def nonn_recipe(teacher_path, tiny, short):
    return TrainingRecipe.check(
        {
            "data": tiny.source,
            "image": "3x8x8",
            "teacher": str(teacher_path),
            "model": {
                "kind": "nonn",
                "students": [
                    {"name": "left", "network": "wrn10:4,5,6", "filters": [0, 2, 7]},
                    {"name": "right", "network": "wrn10:4,8,7", "filters": [1, 3, 4, 5]},
                ],
            },
            "optimiser": short.model_dump(),
            "distillation": DistillationRecipe(beta=10).model_dump(),
            "seed": 5,
        },
        where="this test",
    )


@pytest.fixture(scope="session")
def single_recipe(nonn_recipe):
    content = nonn_recipe.model_dump(mode="json")
    content["model"] = {"kind": "single", "network": "wrn10:4,6,9"}
    return TrainingRecipe.check(content, where="this test")


@pytest.fixture(scope="session")
def shared_data():
    """Return a function that finds a file of ../shared/data, or skips the test without it."""

    def find(name):
        path = Path(__file__).parents[2].parent / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"../shared/data/{name} is not here")
        return path

    return find
