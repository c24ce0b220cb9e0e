"""Two real processes that train one network, started as torchrun starts them."""

import json
import os
import socket

import pytest
import torch
from forked_python import TRAINING, template

from nonn_common.errors import TrainingError
from nonn_core.distillation import accelerator
from nonn_core.networks.modules import read_tensors

TRAINS = """
import json, os, sys
from pathlib import Path
import torch
from torch.nn import functional as F
from nonn_core.data.dataset import load_dataset
from nonn_core.distillation import accelerator
from nonn_core.distillation.batches import LiveBatches
from nonn_core.distillation.loop import Checkpoint
from nonn_core.distillation.loop import TrainingTask, fit
from nonn_core.recipe import OptimiserRecipe
from nonn_core.networks.modules import write_tensors
from nonn_common.errors import TrainingError

class Plain(torch.nn.Module):
    # Without batch statistics, half a batch's mean gradients are halves of the whole one's.
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.fc = torch.nn.Linear(4, 3)
        self.register_buffer("own", torch.tensor(float(accelerator.rank())))

    def forward(self, images):
        maps = F.relu(self.conv(images))
        return self.fc(maps.mean(dim=(2, 3))), [maps]

def objective(batch):
    logits, maps = network(batch.images)
    loss = F.cross_entropy(logits, batch.labels)
    if diverges and accelerator.rank() == 1:
        loss = loss * float("nan")
    return {"loss": loss, "activity": maps[0].mean()}

source, folder, mode = sys.argv[1:]
diverges = mode == "diverges"
with accelerator.process_group():
    # Weights that differ at first: the first process's are taken.
    torch.manual_seed(0 if accelerator.rank() == 0 else 99)
    place = Path(folder, str(accelerator.rank()))
    data = load_dataset(source)
    network = Plain()
    training, validation = data.split(0)

    def progress(what, done, total):
        if mode == "loses one" and accelerator.rank() == 1 and done == 3:
            os._exit(9)

    task = TrainingTask(
        network, objective, LiveBatches(data, training, 14, 1), data, validation,
        OptimiserRecipe(epochs=int(mode) if mode.isdigit() else 2, batch_size=14,
                        learning_rate=0.05),
        Checkpoint(place / "checkpoint.safetensors", place / "metrics.jsonl", "this run"),
    )
    try:
        history = fit(task, progress)
    except TrainingError as error:
        print(error)
        sys.exit(1)
    write_tensors(place / "end.safetensors", network.state_dict())
    print(json.dumps([metrics.losses for metrics in history]))
"""


def started(count, source, folder, mode):
    """Start so many processes of one run; return each one's exit code and last words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [
        template(*TRAINING).start(
            *("-c", TRAINS, source, folder, mode),
            env={
                **os.environ,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(count),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
        )
        for rank in range(count)
    ]
    found = []
    for child in children:
        out, err = child.communicate(timeout=120)
        found.append((child.returncode, out.strip(), err))
    return found


@pytest.fixture(scope="module")
def source(tiny):
    return tiny.source


def test_two_processes_train_what_one_trains(source, tmp_path):
    # 65 images in batches of 14: the last one has 9, shared 5 to 4.
    ((code, alone, err),) = started(1, source, tmp_path / "alone", "3")
    assert code == 0, err
    both = started(2, source, tmp_path / "whole", "3")
    assert [code for code, _, _ in both] == [0, 0], both
    losses = [json.loads(out) for out in (alone, both[0][1], both[1][1])]
    assert losses[1] == losses[2]
    for one, other in zip(losses[0], losses[1], strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    expected, _ = read_tensors(tmp_path / "alone" / "0" / "end.safetensors")
    first, _ = read_tensors(tmp_path / "whole" / "0" / "end.safetensors")
    second, _ = read_tensors(tmp_path / "whole" / "1" / "end.safetensors")
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-5)
    # Buffers are the first one's; files are written by it alone.
    assert float(second["own"]) == 0
    assert [path.name for path in (tmp_path / "whole" / "1").iterdir()] == ["end.safetensors"]
    assert len((tmp_path / "whole" / "0" / "metrics.jsonl").read_text().splitlines()) == 3

    # Started again, there is nothing to do; the second process is told what the first one reads.
    (tmp_path / "whole" / "1" / "end.safetensors").unlink()
    assert [out for _, out, _ in started(2, source, tmp_path / "whole", "3")] == [both[0][1]] * 2
    again, _ = read_tensors(tmp_path / "whole" / "1" / "end.safetensors")
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_when_one_diverges_all_stop(source, tmp_path):
    both = started(2, source, tmp_path, "diverges")
    assert [code for code, _, _ in both] == [1, 1], both
    assert "diverged in epoch 1, batch 1: loss is not a finite number" in both[0][1]


def test_when_one_is_lost_the_other_says_so(source, tmp_path):
    (code, said, err), (lost, _, _) = started(2, source, tmp_path, "loses one")
    assert lost == 9
    assert code == 1, err
    assert "another process of this run is gone" in said
    assert "start the same command again" in said


def test_a_process_alone_is_the_first_of_one():
    assert (accelerator.world_size(), accelerator.rank(), accelerator.node_rank()) == (1, 0, 0)
    assert accelerator.is_local_rank_zero()
    positions = torch.arange(7)
    assert torch.equal(accelerator.shard(positions), positions)
    assert accelerator.broadcast_object("mine") == "mine"
    value = torch.ones(2)
    accelerator.broadcast([value])
    accelerator.barrier()
    assert torch.equal(value, torch.ones(2))


def test_processes_that_do_not_find_each_other_say_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(TrainingError, match=r"did not find each other.*torchrun"),
        accelerator.process_group(),
    ):
        pass
