"""Teacher: a trained classifier, ours or anybody's, and what it outputs for students."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import Field
from torch import Tensor

from nonn_common import Progress, silent
from nonn_common.document import Document
from nonn_common.errors import InputError
from nonn_core.class_accuracy import ClassAccuracy
from nonn_core.data.dataset import Dataset, Images, load_dataset
from nonn_core.data.picture import PictureReading
from nonn_core.networks.blueprint import Filters, ImageShape, ImageShapeText, NetworkSpec
from nonn_core.networks.family import NetworkName, parse_network
from nonn_core.networks.modules import (
    Classifier,
    attention_map,
    build_classifier,
    fingerprint,
    global_average_pool,
    load_weights,
    read_tensors,
    write_tensors,
)
from nonn_core.networks.network_cost import teacher_cost
from nonn_core.partition import SignedMaps, TeacherReference
from nonn_core.recipe import OptimiserRecipe, is_code
from nonn_core.teacher.foreign import ForeignClassifier, load_foreign
from nonn_core.teacher.network_source import PROGRAM_SUFFIX


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """Targets that a teacher computes beside its logits.

    `partitions` are sets of fconv filters, one for each student; `attention` asks for the attention
    maps of the teacher's groups.
    """

    partitions: tuple[Filters, ...] = ()
    attention: bool = False


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """Outputs of the teacher for N images.

    `logits` (N, classes); `maps` one (N, |P_p|, H, W) for each partition of the targets, fconv's
    activations, made >= 0; `attention` one (N, H_g, W_g) for each group of the teacher, its squared
    activations summed over channels.
    """

    logits: Tensor
    maps: Sequence[Tensor] = ()
    attention: Sequence[Tensor] = ()


DEFAULT_FCONV = "trunk"
SUFFIX = ".safetensors"
REFERENCES = f"a name ending in {SUFFIX} or {PROGRAM_SUFFIX}, or package.module:callable"
_PROBED = 4
"""Images on which the fconv of a foreign teacher is looked for."""


class Teacher:
    """A trained classifier in evaluation mode, with its maps.

    `reference` is what a partition says of it; `seed` that of its validation split, which is made
    class by class, or, as of teachers from before that, at random; `signed_maps` what stands for
    negative values of fconv.  `warnings` are for people.
    """

    def __init__(
        self,
        network: Classifier | ForeignClassifier,
        reference: TeacherReference,
        seed: int,
        signed_maps: SignedMaps = "relu",
        warnings: tuple[str, ...] = (),
        split_by_class: bool = True,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.reference = reference
        self.seed = seed
        self.signed_maps = signed_maps
        self.warnings = warnings
        self._split_by_class = split_by_class

    @staticmethod
    def load(
        reference: str | Path,
        fconv: str | None = None,
        dataset: Dataset | None = None,
        seed: int = 0,
        signed_maps: SignedMaps = "relu",
    ) -> "Teacher":
        """Load `NAME.safetensors`, `NAME.pt2` or `package.module:callable`.

        `fconv` names the layer, where it is not to be found by itself.  The last two say nothing
        of data: they are for the images and classes of `dataset`, which `seed` splits.  Their fconv
        may have negative values, for which `signed_maps` says what stands.  Raises InputError that
        names the file, or what is wrong with the network.
        """
        text = str(reference)
        if text.lower().endswith(SUFFIX):
            return TrainedTeacher.read(Path(text), fconv)
        if not is_teacher(text):
            raise InputError("teacher", found=text, allowed=REFERENCES)
        if dataset is None:
            raise InputError(
                "this teacher does not say which images it is for", where=text, fix="give --data"
            )
        return _foreign_teacher(text, fconv, dataset, seed, signed_maps)

    def to(self, device: torch.device | str) -> Self:
        """Move the network; images must then come from there."""
        self.network.to(device)
        return self

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to logits and fconv maps.

        (N, C, H, W) to (N, classes) and (N, filters, H, W).
        """
        logits, maps = self._logits_and_maps(images)
        return logits, maps[-1]

    def activations(self, maps: Tensor) -> Tensor:
        """Activations >= 0 of fconv's maps, of the same shape."""
        return maps.abs() if self.signed_maps == "abs" else maps.relu()

    def maps_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to fconv's maps as they are, and to what the last layer reads.

        (N, C, H, W) to (N, filters, H, W) and (N, filters).
        """
        with torch.no_grad():
            if isinstance(self.network, ForeignClassifier):
                seen = self.network.observe(images)
                return seen.maps, seen.features
            maps = self.network(images)[1][-1]
            return maps, global_average_pool(maps)

    def split(self, dataset: Dataset) -> tuple[Images, Images]:
        """Split into training images, and the validation images that the teacher never saw."""
        return dataset.split(self.seed, self._split_by_class)

    def outputs(self, images: Tensor, targets: TargetSpec) -> TeacherOutputs:
        """Outputs for images (N, C, H, W), as far as the targets ask.

        Attention comes from G0 and each further stage of a network of ours; of a foreign one,
        whose stages are not known, from fconv alone.
        """
        logits, maps = self._logits_and_maps(images)
        partitions = [
            self.activations(maps[-1][:, list(filters)]) for filters in targets.partitions
        ]
        return TeacherOutputs(
            logits, partitions, [attention_map(each) for each in maps] if targets.attention else ()
        )

    @property
    def filters(self) -> int:
        """Number of fconv filters."""
        return self.classifier()[0].shape[1]

    @property
    def fingerprint(self) -> str:
        """A digest of the weights; another teacher under the same name has another one."""
        return fingerprint(self.network)

    def check_data(self, dataset: Dataset) -> None:
        """Raise InputError unless the teacher is made for such images and classes."""
        found = f"{dataset.image}, {dataset.classes} classes"
        allowed = f"{self.reference.image}, {self.reference.classes} classes"
        if found != allowed:
            raise InputError(
                f"data set {dataset.source} is not what the teacher was made for",
                where=self.reference.path,
                found=found,
                allowed=allowed,
            )

    def check_fingerprint(self, partitioned: str | None) -> None:
        """Raise InputError unless this is the teacher that was partitioned, if that is known."""
        if partitioned is not None and partitioned != self.fingerprint:
            raise InputError(
                "this is not the teacher that was partitioned: its weights are others",
                where=self.reference.path,
                fix="partition it, then plan and configure again",
            )

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Return weight (classes, filters) and bias (classes,) of the last layer."""
        if isinstance(self.network, Classifier):
            return self.network.fc.weight, self.network.fc.bias
        return self.network.fc_weight, self.network.fc_bias

    def _logits_and_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits and the maps of what may be asked for, fconv's last."""
        with torch.no_grad():
            logits, maps = self.network(images)
        return logits, maps


class TeacherCard(Document):
    """Facts of our own teacher, `NAME.json` beside its weights."""

    network: NetworkName = Field(description="Network, e.g. wrn16-2.")
    data: str = Field(description="Data set it was trained on.")
    image: ImageShapeText = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    classes: int = Field(gt=1, le=1_000_000, description="Number of classes.")
    fconv: str = Field(description="Name of the module whose output is fconv, after activation.")
    optimiser: OptimiserRecipe = Field(description="How it was trained.")
    seed: int = Field(
        ge=0, lt=2**31, description="Seed of weights, order, and of the validation split."
    )
    split_by_class: bool = Field(
        default=False,
        description="Whether each class gives a tenth of its images for validation; false where "
        "chance took a tenth of all.",
    )
    validation_accuracy_pct: float = Field(description="On the 10 % held from training, percent.")
    class_accuracy: tuple[ClassAccuracy, ...] = Field(
        default=(),
        description="Accuracy of each class on these images, and what it was taken for; empty in "
        "files of older versions.",
    )

    @classmethod
    def beside(cls, weights: Path) -> Self:
        """Read the card of these weights; raises InputError."""
        card = weights.with_suffix(".json")
        if not card.is_file():
            raise InputError(
                "is not a teacher that was trained here: it has no card, which says what network "
                "the weights are of",
                where=str(weights),
                allowed=f"{card} beside it, as train-teacher writes it",
                fix="give a network of your own as package.module:callable, a function that loads "
                "its weights and returns it",
            )
        return cls.read(card)

    @property
    def spec(self) -> NetworkSpec:
        """The network, parsed."""
        return parse_network(self.network)


class TrainedTeacher(Teacher):
    """A teacher that this program trained, of a family of `nonn_core.networks.family`."""

    def __init__(self, network: Classifier, card: TeacherCard, path: Path) -> None:
        """Raise InputError when the card's fconv is not the one that such a network has."""
        if card.fconv != DEFAULT_FCONV:
            raise InputError(
                "is not the last convolutional layer of a network trained here",
                where=f"{path}: fconv",
                found=card.fconv,
                allowed=f"{DEFAULT_FCONV}, the output after the last activation",
            )
        layout = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(
            layout, _reference(card, path), card.seed, split_by_class=card.split_by_class
        )
        self.card = card
        self.path = path

    @classmethod
    def read(cls, path: Path, fconv: str | None = None) -> Self:
        """Read the weights and the `.json` beside them; `fconv` overrides the card's.

        Raises InputError naming the file, and the tensor if one does not fit.
        """
        if not path.is_file():
            raise InputError(
                "no such teacher",
                where=str(path),
                fix="a relative name starts at the folder in which the command runs",
            )
        card = TeacherCard.beside(path)
        if fconv is not None:
            card = card.model_copy(update={"fconv": fconv})
        image = ImageShape.parse(card.image)
        network = build_classifier(card.spec, image.channels, card.classes, seed=0)
        tensors, _ = read_tensors(path)
        load_weights(network, tensors, path)
        return cls(network, card, path)

    def save(self) -> None:
        """Write the card and then the weights, each atomically; weights mean that all is there."""
        self.card.write(self.path.with_suffix(".json"))
        write_tensors(self.path, dict(self.network.state_dict()))


def is_teacher(reference: str) -> bool:
    """Whether this text refers to a teacher, whether or not it exists."""
    named = reference.lower().endswith((SUFFIX, PROGRAM_SUFFIX))
    return named or is_code(reference)


def teacher_and_data(
    reference: str,
    data: str | None,
    fconv: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
    signed_maps: SignedMaps = "relu",
) -> tuple[Teacher, Dataset]:
    """Load a teacher and a data set.

    That is `data`, or without it the one of the teacher's card; pictures are read as the card's
    were.  Raises InputError where neither says which data.
    """
    if data is not None and not reference.endswith(SUFFIX):
        dataset = load_dataset(data, progress)
        return Teacher.load(reference, fconv, dataset, seed, signed_maps), dataset
    teacher = Teacher.load(reference, fconv)
    made_for = teacher.reference
    usual = PictureReading.of_source(made_for.data, made_for.image)
    return teacher, load_dataset(data or made_for.data, progress, usual)


def _reference(card: TeacherCard, path: Path) -> TeacherReference:
    cost = teacher_cost(card.spec, ImageShape.parse(card.image), card.classes)
    return TeacherReference(
        path=str(path),
        network=card.network,
        fconv=card.fconv,
        data=card.data,
        image=card.image,
        classes=card.classes,
        params=cost.params,
        macs=cost.macs,
        peak_elements=cost.peak_elements,
    )


def _foreign_teacher(
    path: str, fconv: str | None, dataset: Dataset, seed: int, signed_maps: SignedMaps
) -> Teacher:
    probe = dataset.normalised(dataset.train.pixels[:_PROBED]).cpu()
    network = load_foreign(path, probe, dataset.classes, fconv)
    counted = network.count_macs(probe[:1])
    reference = TeacherReference(
        path=path,
        network=None,
        fconv=network.fconv,
        data=dataset.source,
        image=str(dataset.image),
        classes=dataset.classes,
        params=network.params,
        macs=None if counted is None else counted.macs,
        peak_elements=network.peak_elements(probe[:1]),
    )
    warnings = network.warnings
    if counted is None:
        warnings += ("the teacher's MACs are not known: it cannot be traced",)
    elif counted.uncounted:
        warnings += (
            f"the teacher's MACs are more than {counted.macs}: those of "
            f"{', '.join(counted.uncounted)} are not counted",
        )
    return Teacher(network, reference, seed, signed_maps, warnings)
