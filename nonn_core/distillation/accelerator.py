"""Accelerators: the device, its precision, and several processes that train one network.

`torchrun` starts the processes, on one node or more.  Each sees its own part of every batch;
after each step all have the same weights.  Only the process of rank 0 writes files.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import torch
from torch import Tensor, distributed, nn

from nonn_common.errors import InputError, TrainingError
from nonn_core.data.dataset import Dataset
from nonn_core.networks.blueprint import ImageShape
from nonn_core.recipe import ComputeRecipe


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and the precision of the convolutions and matrix products on it."""

    device: torch.device
    precision: Literal["fp32", "bf16"]

    @classmethod
    def of(cls, recipe: ComputeRecipe) -> "Compute":
        """Device and precision of a recipe.

        Raises InputError for a device that is not here.
        """
        return cls(select_device(recipe.device), recipe.precision)

    def autocast(self) -> AbstractContextManager[object]:
        """Let what runs inside choose its precision; weights and their gradients stay fp32."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def on_fastest_device(network: nn.Module, dataset: Dataset) -> Iterator[Dataset]:
    """Network and images on a GPU, if there is one.

    The network comes back to the CPU.
    """
    device = select_device("auto")
    network.to(device)
    try:
        yield dataset.to(device)
    finally:
        network.cpu()


ON_CPU = Compute(torch.device("cpu"), "fp32")


def inference_batch_size(image: ImageShape, device: torch.device) -> int:
    """Return how many images a network that does not learn is best given at once.

    As many as keep a GPU busy; on a CPU as few as leave the maps of a layer in the cache, which
    makes a WRN40-4 on 32x32 images 1.4 times faster than batches of 128 do.
    """
    pixels = 2**15 if device.type == "cpu" else 2**20
    return max(1, pixels // (image.height * image.width))


def select_device(asked: str) -> torch.device:
    """Return the device that `cpu`, `cuda`, `cuda:1` ... or `auto` names, on this machine.

    Of several processes on one machine each gets a GPU of its own.  Raises InputError.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = os.environ.get("LOCAL_RANK", "0")
    name = {"auto": f"cuda:{own}" if gpus else "cpu", "cuda": f"cuda:{own}"}.get(asked, asked)
    here = ["cpu", *(f"cuda:{number}" for number in range(gpus))]
    if name not in here:
        raise InputError(
            "there is no such device here",
            where="compute.device",
            found=asked if name == asked else f"{asked}, which is {name} in this process",
            allowed=", ".join(["auto", *here]),
        )
    return torch.device(name)


Value = TypeVar("Value")

# While one process runs the teacher over all views, the others wait.
_TIMEOUT = timedelta(days=7)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, for as long as the context lasts.

    Does nothing in a process that was started alone.  Raises TrainingError when the others cannot
    be reached, or are lost on the way.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the processes of this run did not find each other: {_first_line(error)}; start them "
            "with: torchrun --nproc-per-node N -m nonn_plan train RECIPE"
        ) from None
    try:
        yield
    finally:
        distributed.destroy_process_group()


def world_size() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number, counted from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def node_rank() -> int:
    """Return the number of this process's machine, counted from 0."""
    return int(os.environ.get("GROUP_RANK", "0")) if world_size() > 1 else 0


def is_local_rank_zero() -> bool:
    """Say whether this process does what its machine needs only once."""
    return world_size() == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def shard(positions: Tensor) -> Tensor:
    """Return this process's part of a batch's positions (N,).

    A batch of fewer images than processes is for each of them the whole batch.
    """
    if len(positions) < world_size():
        return positions
    return positions[rank() :: world_size()]


def all_reduce_mean(
    gradients: Sequence[Tensor], losses: Tensor, images: int
) -> tuple[Tensor, Tensor]:
    """Turn gradients, in place, into their mean over the images of all processes' parts.

    Each process gives the means over its own `images`.  Returns the losses (L,) averaged likewise,
    and the number of images of all, both on the device.
    """
    flat = torch.cat([*(each.flatten() for each in gradients), losses, losses.new_ones(1)])
    flat *= images
    with _collective():
        distributed.all_reduce(flat)
    whole = flat[-1:].clone()
    flat /= whole
    sizes = [*(each.numel() for each in gradients), len(losses), 1]
    *means, all_losses, _ = torch.split(flat, sizes)
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))
    return all_losses, whole.squeeze()


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors by those of the first process, in place."""
    if world_size() == 1:
        return
    with torch.no_grad(), _collective():
        for tensor in tensors:
            sent = tensor.contiguous()
            distributed.broadcast(sent, src=0)
            tensor.copy_(sent)


def broadcast_object(value: Value) -> Value:
    """Value of the process of rank 0, anything that can be pickled."""
    if world_size() == 1:
        return value
    values = [value]
    with _collective():
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def barrier() -> None:
    """Go on when all processes have come here."""
    if world_size() > 1:
        with _collective():
            distributed.barrier()


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"another process of this run is gone: {_first_line(error)}; finished epochs are kept; "
            "start the same command again to go on"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
