"""The same way on photographs: a few images per class of CIFAR-10, where it is at hand."""

import tarfile
from collections import Counter

import pytest

from nonn_core.data.dataset import load_dataset
from nonn_core.distillation.run import train_teacher
from nonn_core.networks.family import parse_network
from nonn_core.recipe import OptimiserRecipe

PER_CLASS = {"train": 12, "test": 2}


@pytest.fixture(scope="module")
def few(shared_data, tmp_path_factory):
    """Copy the first few images of each class into a folder of their own."""
    archive = shared_data("cifar10-jpeg.tar.gz")
    folder = tmp_path_factory.mktemp("cifar")
    taken = Counter()
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            place = member.name.rpartition("/")[0]
            if not member.isfile() or taken[place] == PER_CLASS[place.partition("/")[0]]:
                continue
            taken[place] += 1
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tar.extractfile(member).read())
    return load_dataset(f"imagefolder:{folder}")


def test_photographs_are_read_trained_on_and_resumed(few, tmp_path):
    assert (few.classes, str(few.image), few.mirrored) == (10, "3x32x32", True)
    assert (len(few.train), len(few.test)) == (120, 20)
    optimiser = OptimiserRecipe(epochs=2, batch_size=36)
    spec = parse_network("wrn10:4,8,8")

    def dies(what, done, total):
        if what == "epoch 2/2":
            raise KeyboardInterrupt

    killed, whole = tmp_path / "killed.safetensors", tmp_path / "whole.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_teacher(spec, few, optimiser, 0, killed, dies)
    train_teacher(spec, few, optimiser, 0, killed)
    train_teacher(spec, few, optimiser, 0, whole)
    for suffix in (".metrics.jsonl", ".json", ".safetensors"):
        assert killed.with_suffix(suffix).read_bytes() == whole.with_suffix(suffix).read_bytes()
