"""Where training computes, and how precisely."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nonn_core.data.dataset import Dataset
from nonn_core.image import Image
from nonn_core.recipe import ComputeRecipe
from profiles.errors import InputError


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and the precision of the convolutions and matrix products on it."""

    device: torch.device
    precision: Literal["fp32", "bf16"]

    @classmethod
    def of(cls, recipe: ComputeRecipe) -> "Compute":
        """Return what a recipe asks for; raises InputError for a device that is not here."""
        return cls(chosen_device(recipe.device), recipe.precision)

    def autocast(self) -> AbstractContextManager[object]:
        """Let what runs inside choose its precision; weights and their gradients stay fp32."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


@contextmanager
def on_the_fastest_device(network: nn.Module, dataset: Dataset) -> Iterator[Dataset]:
    """Take network and images to a GPU if there is one; the network comes back to the CPU."""
    device = chosen_device("auto")
    network.to(device)
    try:
        yield dataset.to(device)
    finally:
        network.cpu()


ON_CPU = Compute(torch.device("cpu"), "fp32")


def images_at_once(image: Image, device: torch.device) -> int:
    """Return how many images a network that does not learn is best given at once.

    As many as keep a GPU busy; on a CPU as few as leave the maps of a layer in the cache, which
    makes a WRN40-4 on 32x32 images 1.4 times faster than batches of 128 do.
    """
    pixels = 2**15 if device.type == "cpu" else 2**20
    return max(1, pixels // (image.height * image.width))


def chosen_device(asked: str) -> torch.device:
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
