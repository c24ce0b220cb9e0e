"""A trained network taken apart into the models that boards run."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

import torch
from torch import Tensor, nn

from nonn_core.bundle import Port, Role
from nonn_core.data.dataset import Dataset
from nonn_core.nonn import Nonn
from nonn_core.partition import Filters
from nonn_core.recipe import NonnRecipe, TrainingRecipe

IMAGE, MAPS, VECTOR, LOGITS = "image", "maps", "vector", "logits"
WHITE = 255


@dataclass(frozen=True, slots=True)
class Part:
    """One model: a torch module, an input that it reads, and what is said of it in the manifest."""

    name: str
    role: Role
    network: str | None
    module: nn.Module
    example: Tensor
    reads: Port
    answers: Port
    filters: Filters = ()
    fc_offset: int | None = None

    @property
    def stem(self) -> str:
        """Its file's name, without suffix; students' names may hold any letter."""
        named = self.role in ("student", "head")
        return f"student-{quote(self.name, safe='')}" if named else self.name


class OnPixels(nn.Module):
    """A module that reads pixels from 0 to 255, float32 (N, C, H, W), and normalises them."""

    mean: Tensor
    scale: Tensor

    def __init__(self, module: nn.Module, dataset: Dataset) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", WHITE * dataset.mean)
        self.register_buffer("scale", 1 / (WHITE * dataset.std))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (N, C, H, W) to what the module answers for normalised images."""
        return cast(Tensor, self.module((pixels - self.mean) * self.scale))


class _Logits(nn.Module):
    """An undivided network that answers logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images)[0])


def parts(network: nn.Module, recipe: TrainingRecipe, dataset: Dataset) -> Iterator[Part]:
    """Yield the models that a trained network is deployed as, G0 before the heads that need it."""
    if isinstance(recipe.model, NonnRecipe):
        assert isinstance(network, Nonn)  # noqa: S101  (built from this recipe)
        if recipe.model.group0 == "own-board":
            yield from _heads_and_group0(network, recipe.model, dataset)
        else:
            yield from _students(network, recipe.model, dataset)
    else:
        module = OnPixels(_Logits(network), dataset)
        pixels = _pixels(dataset)
        yield _part("model", "whole", recipe.model.network, module, pixels, (IMAGE, LOGITS))


def _students(network: Nonn, recipe: NonnRecipe, dataset: Dataset) -> Iterator[Part]:
    offset = 0
    for student, deployed in zip(recipe.students, network.deployed(), strict=True):
        yield _part(
            student.name,
            "student",
            student.network,
            OnPixels(deployed, dataset),
            _pixels(dataset),
            (IMAGE, VECTOR),
            student.filters,
            offset,
        )
        offset += len(student.filters)


def _heads_and_group0(network: Nonn, recipe: NonnRecipe, dataset: Dataset) -> Iterator[Part]:
    group0 = _part(
        "group0",
        "group0",
        None,
        OnPixels(network.group0[0], dataset),
        _pixels(dataset),
        (IMAGE, MAPS),
    )
    yield group0
    maps = torch.zeros(len(group0.example), *group0.answers.shape)
    offset = 0
    for student, head in zip(recipe.students, network.deployed_heads(), strict=True):
        yield _part(
            student.name,
            "head",
            student.network,
            head,
            maps,
            (MAPS, VECTOR),
            student.filters,
            offset,
        )
        offset += len(student.filters)


def _part(
    name: str,
    role: Role,
    network: str | None,
    module: nn.Module,
    example: Tensor,
    ports: tuple[str, str],
    filters: Filters = (),
    fc_offset: int | None = None,
) -> Part:
    """Complete a part with the shapes of its ports."""
    reads, answers = ports
    with torch.no_grad():
        answer = module.eval()(example)
    return Part(
        name,
        role,
        network,
        module,
        example,
        Port(name=reads, shape=tuple(example.shape[1:])),
        Port(name=answers, shape=tuple(answer.shape[1:])),
        filters,
        fc_offset,
    )


def _pixels(dataset: Dataset) -> Tensor:
    """Two black images; the exporter would take a batch of one for a fixed size."""
    image = dataset.image
    return torch.zeros(2, image.channels, image.height, image.width)
