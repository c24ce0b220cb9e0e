"""The teacher: a trained classifier, its card, and the layer whose knowledge is shared out."""

import hashlib
from pathlib import Path
from typing import Self

import torch
from pydantic import Field
from torch import Tensor, nn

from nonn_core.data.dataset import Dataset
from nonn_core.family import NetworkName, NetworkSpec, parse_network
from nonn_core.image import Image, ImageShape
from nonn_core.learning.lesson import Lesson, Subject
from nonn_core.modules import Classifier, build_classifier, pooled
from nonn_core.partition import TeacherReference
from nonn_core.recipe import OptimiserRecipe
from nonn_core.weights import load_weights, read_tensors, write_tensors
from profiles.document import Document
from profiles.errors import InputError

DEFAULT_FCONV = "trunk"
SUFFIX = ".safetensors"


class TeacherCard(Document):
    """What is known of a teacher beside its weights; `teacher.json` beside the weights."""

    network: NetworkName = Field(description="Network, e.g. wrn16-2.")
    data: str = Field(description="Data set it was trained on.")
    image: ImageShape = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    classes: int = Field(gt=1, le=1_000_000, description="Number of classes.")
    fconv: str = Field(description="Name of the module whose output is fconv, after activation.")
    optimiser: OptimiserRecipe = Field(description="How it was trained.")
    seed: int = Field(
        ge=0, lt=2**31, description="Seed of weights, order, and of the validation split."
    )
    validation_accuracy_pct: float = Field(description="On the 10 % held from training, percent.")

    @property
    def spec(self) -> NetworkSpec:
        """The network, parsed."""
        return parse_network(self.network)


class Teacher:
    """A trained classifier in evaluation mode that also returns its fconv maps."""

    def __init__(self, network: Classifier, card: TeacherCard, path: Path) -> None:
        """Watch the module that `card.fconv` names.

        Raises InputError when there is no such module, or when its pooled output does not give
        the teacher's logits, which is what makes a layer the last convolutional one.
        """
        self.network = network.eval().requires_grad_(False)
        self.card = card
        self.path = path
        self._maps: Tensor | None = None
        _module_named(network, card.fconv, path).register_forward_hook(self._keep)
        self._check_fconv()

    @classmethod
    def load(cls, path: Path, fconv: str | None = None) -> Self:
        """Load `teacher.safetensors` and the `.json` beside it; `fconv` overrides the card's.

        Raises InputError naming the file, and the tensor if one does not fit.
        """
        if path.suffix != SUFFIX:
            raise InputError("teacher file", found=str(path), allowed=f"a name ending in {SUFFIX}")
        if not path.is_file():
            raise InputError(
                "no such teacher",
                where=str(path),
                fix="a relative name starts at the folder in which the command runs",
            )
        card = TeacherCard.read(path.with_suffix(".json"))
        if fconv is not None:
            card = card.model_copy(update={"fconv": fconv})
        image = Image.parse(card.image)
        network = build_classifier(card.spec, image.channels, card.classes, seed=0)
        tensors, _ = read_tensors(path)
        load_weights(network, tensors, path)
        return cls(network, card, path)

    def save(self) -> None:
        """Write the card and then the weights, each atomically; weights mean that all is there."""
        self.card.write(self.path.with_suffix(".json"))
        write_tensors(self.path, dict(self.network.state_dict()))

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, C, H, W) to logits (N, classes) and fconv maps (N, filters, H, W)."""
        with torch.no_grad():
            logits, _ = self.network(images)
        assert self._maps is not None  # noqa: S101  (the hook has run)
        return logits, self._maps

    def lesson(self, images: Tensor, subject: Subject) -> Lesson:
        """Show what the subject asks for of images (N, C, H, W)."""
        logits, maps = self(images)
        return Lesson(logits, [maps[:, list(filters)] for filters in subject.partitions])

    @property
    def fingerprint(self) -> str:
        """A digest of the weights; another teacher under the same name has another one."""
        digest = hashlib.blake2b(digest_size=16)
        for value in self.network.state_dict().values():
            digest.update(value.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def reference(self) -> TeacherReference:
        """What a partition says of this teacher."""
        return TeacherReference(
            path=str(self.path),
            network=self.card.network,
            data=self.card.data,
            image=self.card.image,
            classes=self.card.classes,
        )

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless the teacher is made for such images and classes."""
        found = f"{dataset.image}, {dataset.classes} classes"
        allowed = f"{self.card.image}, {self.card.classes} classes"
        if found != allowed:
            raise InputError(
                f"data set {dataset.source} is not what the teacher was made for",
                where=str(self.path),
                found=found,
                allowed=allowed,
            )

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Return weight (classes, filters) and bias (classes,) of the last layer."""
        return self.network.fc.weight, self.network.fc.bias

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module, inputs
        self._maps = output

    def _check_fconv(self) -> None:
        image = Image.parse(self.card.image)
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(2, image.channels, image.height, image.width, generator=generator)
        logits, maps = self(probe)
        fits = maps.dim() == 4 and maps.shape[1] == self.network.fc.in_features
        if not fits or not torch.allclose(self.network.fc(pooled(maps)), logits, atol=1e-4):
            raise InputError(
                "is not the last convolutional layer: averaged over height and width, its output "
                "does not give the teacher's logits",
                where=f"{self.path}: fconv",
                found=self.card.fconv,
                fix=f"use {DEFAULT_FCONV!r}, the output after the last activation",
            )


def _module_named(network: nn.Module, name: str, path: Path) -> nn.Module:
    modules: dict[str, nn.Module] = dict(network.named_modules())
    modules.pop("")
    if name not in modules:
        raise InputError(
            "the teacher has no such module",
            where=f"{path}: fconv",
            found=name,
            allowed=", ".join(key for key in modules if key.count(".") < 2),
        )
    return modules[name]
