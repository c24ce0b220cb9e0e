"""A teacher from somebody else's package, through every command that takes one."""

import json

import pytest
import torch

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.last = nn.Conv2d(12, 16, 3, padding=1)
        self.fc = nn.Linear(16, 3)

    def forward(self, images):
        maps = self.last(F.relu(self.stem(images)))
        return self.fc(F.relu(maps).mean((2, 3)))


def make():
    return Net()


class Hybrid(Net):
    # Attention between the places, GELU at the end, weights in half precision.

    def __init__(self):
        super().__init__()
        self.qkv = nn.Conv2d(16, 48, 1)
        self.half()

    def forward(self, images):
        maps = self.last(F.relu(self.stem(images)))
        query, key, value = self.qkv(maps).flatten(2).mT.chunk(3, -1)
        seen = F.scaled_dot_product_attention(query, key, value).mT.reshape(maps.shape)
        return self.fc(F.gelu(maps + seen).mean((2, 3)) + torch.cdist(images, images).mean() * 0)
"""
REFERENCE = "odd_package.nets:make"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "odd_package").mkdir()
    (folder / "odd_package" / "nets.py").write_text(SOURCE)
    return folder


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def partition(nonn_plan, pictures, folder):
    path = folder / "partition.json"
    said = nonn_plan(
        "partition", REFERENCE, "--data", f"imagefolder:{pictures}", "--seed", 4,
        "--link-percentile", 50, "-o", path, "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    return path


def test_partition_plan_config_train_evaluate(nonn_plan, partition, folder, pictures):
    found = json.loads(partition.read_text())
    assert found["filters"] == 16
    assert found["teacher"]["path"] == REFERENCE
    assert found["teacher"]["network"] is None
    assert found["teacher"]["fconv"] == "relu_1"
    # 9 images of 90 are held; the first drop step is the whole teacher.
    assert found["images"] == 9
    plan, recipe, run = folder / "plan.json", folder / "train.yaml", folder / "run"
    planned = ["plan", partition, "--fleet", "rpi3x2", "--students", 2, "-o", plan]
    said = nonn_plan(*planned, "--student", "wrn10:4,6,8", "--json")
    assert said.code == 0, said.err
    simulated = nonn_plan("simulate", plan, "--json")
    assert simulated.document["teacher_alone"].keys() == {"rpi-3b"}
    said = nonn_plan("config", plan, "--epochs", 2, "--batch-size", 16, "-o", recipe, "--json")
    assert said.code == 0, said.err
    assert (said.document["teacher"], said.document["fconv"]) == (REFERENCE, "relu_1")
    # The layer belongs to the teacher: of another one it is found anew.
    other = ["config", plan, "--teacher", "other.pt2", "-o", folder / "other.yaml", "--json"]
    assert nonn_plan(*other).document["fconv"] is None
    said = nonn_plan("train", recipe, "-o", run)
    assert (said.code, run.exists()) == (2, False)
    assert f"{recipe}: the teacher of this recipe is code" in said.err and "--trust" in said.err
    said = nonn_plan("train", recipe, "-o", run, "--trust", "--json")
    assert said.code == 0, said.err
    assert [row["epoch"] for row in said.document] == [1, 2]
    assert said.document[-1]["losses"]["transfer"] > 0
    assert nonn_plan("evaluate", run, "--plan", plan).code == 0


def test_plan_and_explore_propose_students_of_a_network_of_no_family(
    nonn_plan, partition, tmp_path
):
    """The smallest ones, as even these have more than a quarter of the teacher's parameters."""
    # 12 filters of 27 weights, 16 of 108, 3 classes of 16, all with a bias.
    assert json.loads(partition.read_text())["teacher"]["params"] == 12 * 28 + 16 * 109 + 3 * 17
    asked = [partition, "--fleet", "rpi3x2", "--memory", "40KB"]
    said = nonn_plan("plan", *asked, "-o", tmp_path / "plan.json")
    assert said.code == 0, said.err
    assert "networks for students are proposed, scaled to the budgets" in said.out
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["status"] == "optimal"
    firsts, middles, lasts = (1, 2), (2, 3, 4), (2, 4, 6, 8)
    expected = {f"wrn16:{a},{b},{c}" for a in firsts for b in middles for c in lasts}
    assert set(found["question"]["networks"]) == expected
    said = nonn_plan("explore", *asked, "--objective", "capacity", "-o", tmp_path / "cells")
    assert said.code == 0, said.err
    assert "networks for students are proposed" in said.out


def test_what_a_partition_changes_or_cannot_count_is_said(nonn_plan, pictures, tmp_path):
    said = nonn_plan(
        "partition", "odd_package.nets:Hybrid", "--data", f"imagefolder:{pictures}",
        "--signed-maps", "ABS", "-o", tmp_path / "partition.json", "--json",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.document["teacher"]["signed_maps"] == "abs"
    half, macs, signed, scarce, *untrained = said.document["warnings"]
    assert scarce.startswith("the rarest class has 3 validation images, fewer than 10")
    # Nobody trained it: it may be near chance, and most of its filters alone.
    known = ("the teacher is right on", "filters have no link")
    assert all(any(part in text for part in known) for text in untrained)
    assert half == "weights are torch.float16: the network was converted to float32"
    # By hand: convolutions of 9x9 to 5x5 maps, attention of 25 places, the last layer.
    counted = 25 * (12 * 27 + 16 * 108 + 48 * 16) + 2 * 25 * 25 * 16 + 3 * 16
    assert macs == f"the teacher's MACs are more than {counted}: those of cdist are not counted"
    assert said.document["teacher"]["macs"] == counted
    assert "fconv gelu has negative values" in signed
    assert signed in said.err
    plan = tmp_path / "plan.json"
    asked = ["--fleet", "rpi3x2", "--student", "wrn10:4,6,8", "-o", plan]
    assert nonn_plan("plan", tmp_path / "partition.json", *asked).code == 0
    recipe = nonn_plan("config", plan, "-o", tmp_path / "train.yaml", "--json").document
    assert (recipe["fconv"], recipe["signed_maps"]) == ("gelu", "abs")
    refused = nonn_plan("partition", REFERENCE, "--data", "digits", "--signed-maps", "tanh")
    assert (refused.code, "allowed: relu or abs" in refused.err) == (2, True)


def test_evaluate_takes_any_teacher(nonn_plan, pictures, tmp_path):
    """The same network imported and exported is right on the same images."""
    from odd_package import nets

    torch.export.save(torch.export.export(nets.Net().eval(), (torch.zeros(5, 3, 9, 9),)), "net.pt2")
    data = f"imagefolder:{pictures}"
    imported = nonn_plan("evaluate", REFERENCE, "--data", data, "--json")
    exported = nonn_plan("evaluate", "net.pt2", "--data", data, "--json")
    assert imported.code == exported.code == 0, imported.err + exported.err
    assert imported.document == exported.document
    assert imported.document["images"] == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([REFERENCE], "give --data"),
        (["odd_package.nets:nobody", "--data", "digits"], "cannot be built"),
        (["odder_package:make", "--data", "digits"], "cannot be imported"),
        ([REFERENCE, "--data", "digits"], "cannot be run on images (4, 1, 16, 16)"),
        (["nothing.pt2", "--data", "digits"], "nothing.pt2: no such teacher"),
        (["teacher.onnx"], "package.module:callable"),
    ],
)
def test_a_wrong_teacher_is_a_wrong_input(nonn_plan, arguments, message):
    for command in ("partition", "evaluate"):
        said = nonn_plan(command, *arguments)
        assert said.code == 2, said.err
        assert message in " ".join(said.err.split())
        assert "Traceback" not in said.err


def test_a_wrong_fconv_lists_the_candidates(nonn_plan, pictures, folder):
    said = nonn_plan(
        "partition", REFERENCE, "--data", f"imagefolder:{pictures}", "--fconv", "last",
        "-o", folder / "other.json",
    )  # fmt: skip
    assert said.code == 2
    assert "allowed: relu_1" in " ".join(said.err.split())
    assert not (folder / "other.json").exists()
