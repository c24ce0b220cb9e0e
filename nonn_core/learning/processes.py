"""Several processes that train one network together, on one machine or more.

`torchrun` starts them.  Each sees its own part of every batch; after each step all have the same
weights.  Only the first process writes files.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from profiles.errors import TrainingError

Told = TypeVar("Told")

# While one process runs the teacher over all views, the others wait.
_PATIENCE = timedelta(days=7)


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` started, for as long as the context lasts.

    Does nothing in a process that was started alone.  Raises TrainingError when the others cannot
    be reached, or are lost on the way.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"the processes of this run did not find each other: {_first_line(error)}; start them "
            "with: torchrun --nproc-per-node N -m nonn_plan train RECIPE"
        ) from None
    try:
        yield
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this process's number, counted from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def machine() -> int:
    """Return the number of this process's machine, counted from 0."""
    return int(os.environ.get("GROUP_RANK", "0")) if count() > 1 else 0


def first_on_machine() -> bool:
    """Say whether this process does what its machine needs only once."""
    return count() == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def own_part(positions: Tensor) -> Tensor:
    """Return this process's part of a batch's positions (N,).

    A batch of fewer images than processes is for each of them the whole batch.
    """
    if len(positions) < count():
        return positions
    return positions[rank() :: count()]


def average(gradients: Sequence[Tensor], losses: Tensor, images: int) -> tuple[Tensor, Tensor]:
    """Turn gradients, in place, into their mean over the images of all processes' parts.

    Each process gives the means over its own `images`.  Returns the losses (L,) averaged likewise,
    and the number of images of all, both on the device.
    """
    flat = torch.cat([*(each.flatten() for each in gradients), losses, losses.new_ones(1)])
    flat *= images
    with _together():
        distributed.all_reduce(flat)
    whole = flat[-1:].clone()
    flat /= whole
    sizes = [*(each.numel() for each in gradients), len(losses), 1]
    *means, all_losses, _ = torch.split(flat, sizes)
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view(gradient.shape))
    return all_losses, whole.squeeze()


def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors by those of the first process, in place."""
    if count() == 1:
        return
    with torch.no_grad(), _together():
        for tensor in tensors:
            sent = tensor.contiguous()
            distributed.broadcast(sent, src=0)
            tensor.copy_(sent)


def told_by_first(value: Told) -> Told:
    """Return the first process's value, anything that can be pickled."""
    if count() == 1:
        return value
    told = [value]
    with _together():
        distributed.broadcast_object_list(told, src=0)
    return told[0]


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        with _together():
            distributed.barrier()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"another process of this run is gone: {_first_line(error)}; finished epochs are kept; "
            "start the same command again to go on"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
