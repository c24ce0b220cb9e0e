import pytest
import torch

from nonn_common.errors import InputError
from nonn_core.distillation.accelerator import Compute, inference_batch_size, select_device
from nonn_core.networks.blueprint import ImageShape
from nonn_core.recipe import ComputeRecipe


@pytest.fixture
def gpus(monkeypatch):
    """Let torch say that there are two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_without_a_gpu_it_is_the_processor(no_gpu, asked):
    assert select_device(asked) == torch.device("cpu")


@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "gpu", "", "mps", "meta"])
def test_a_device_that_is_not_here_is_refused(no_gpu, asked):
    with pytest.raises(InputError, match=r"no such device here.*allowed: auto, cpu$"):
        select_device(asked)


def test_a_gpu_is_chosen_where_there_is_one(gpus):
    assert select_device("auto") == select_device("cuda") == torch.device("cuda:0")
    assert select_device("cuda:1") == torch.device("cuda:1")
    assert select_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="allowed: auto, cpu, cuda:0, cuda:1"):
        select_device("cuda:2")


def test_each_process_of_a_machine_has_its_own_gpu(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device("auto") == select_device("cuda") == torch.device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="cuda:2 in this process"):
        select_device("cuda")


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_that_of_convolutions_and_products(precision, expected):
    compute = Compute.of(ComputeRecipe(device="cpu", precision=precision))
    layer, values = torch.nn.Conv2d(2, 3, 1), torch.randn(1, 2, 4, 4)
    with compute.autocast():
        assert layer(values).dtype == expected
        assert (values[0, 0] @ values[0, 1]).dtype == expected
    assert layer.weight.dtype == torch.float32


def test_a_frozen_network_gets_images_by_their_size():
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    assert inference_batch_size(ImageShape(3, 32, 32), cpu) == 32
    assert inference_batch_size(ImageShape(3, 32, 32), gpu) == 1024
    assert inference_batch_size(ImageShape(3, 1024, 1024), cpu) == 1
