"""`nonn-plan download`, from a server on this machine; what it names is what `--data` takes."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from local_server import serving

from nonn_core.data.files import PUBLISHED, PublishedDataset, PublishedFile


def idx(values):
    return (
        struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()
    )


@pytest.fixture
def server(monkeypatch):
    """A server that has a small data set of MNIST's form under the name of kmnist."""
    rng = np.random.default_rng(0)
    with serving() as running:
        files = []
        for part, count in (("train", 30), ("t10k", 10)):
            images = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
            labels = (np.arange(count) % 3).astype(np.uint8)
            for name, values in (("images-idx3", images), ("labels-idx1", labels)):
                content = gzip.compress(idx(values))
                running.files[f"{part}-{name}-ubyte.gz"] = content
                md5 = hashlib.md5(content).hexdigest()  # noqa: S324
                files.append(PublishedFile(f"{running.address}/{part}-{name}-ubyte.gz", md5))
        made = PublishedDataset("idx", tuple(files))
        monkeypatch.setitem(PUBLISHED, "kmnist", made)
        yield running


def test_what_is_downloaded_is_trained_on(nonn_plan, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = nonn_plan("download", "kmnist", "--json")
    assert said.code == 0, said.err
    assert said.document["data"] == "idx:kmnist"
    assert said.document["fetched"] == said.document["files"]
    assert said.document["files"] == [f"kmnist/{name}" for name in server.files]
    trained = nonn_plan(
        "train-teacher", "--network", "wrn10:4,4,4", "--data", said.document["data"],
        "--epochs", 1, "--batch-size", 16, "--json",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert trained.document["image"] == "1x8x8"


def test_what_is_there_is_said_to_be_there(nonn_plan, server, tmp_path):
    first = nonn_plan("download", "kmnist", "-o", tmp_path / "k")
    assert first.out.count("fetched, intact") == 4
    again = nonn_plan("download", "kmnist", "-o", tmp_path / "k")
    assert again.code == 0
    assert again.out.count("was there already, intact") == 4
    assert f"--data idx:{tmp_path / 'k'}" in again.out
    assert len(server.asked) == 4


def test_a_wrong_checksum_is_one_message_and_exit_code_1(nonn_plan, server, tmp_path):
    server.files["train-images-idx3-ubyte.gz"] = b"other"
    said = nonn_plan("download", "kmnist", "-o", tmp_path)
    assert said.code == 1
    assert f"{server.address}/train-images-idx3-ubyte.gz" in said.err
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_lists_all(nonn_plan, tmp_path):
    said = nonn_plan("download", "imagenet", "-o", tmp_path / "new")
    assert said.code == 2
    assert "mnist, fashion-mnist, kmnist, cifar10, cifar100" in said.err
    assert not list(tmp_path.iterdir())
