"""Recipe of a training run, and grids of recipes that differ in a few numbers.

A recipe holds everything that `nonn-plan train` needs for one plan: written by
`nonn-plan config`, edited by a person, read by training.  Torch-free.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from nonn_common.document import Document, Record
from nonn_common.errors import InputError, TrainingError
from nonn_core.data.picture import PictureReading
from nonn_core.networks.blueprint import Filters, ImageShapeText, NetworkSpec
from nonn_core.networks.family import NetworkName, parse_network
from nonn_core.partition import SignedMaps


class OptimiserRecipe(Record):
    """Stochastic gradient descent with Nesterov momentum and a cosine schedule."""

    epochs: int = Field(gt=0, le=1_000_000, description="Passes over the training images.")
    batch_size: int = Field(
        default=128,
        ge=2,
        le=1_000_000,
        description="Images per step; of one alone, batch normalisation can make nothing.",
    )
    learning_rate: float = Field(
        default=0.1, gt=0, le=1e6, description="Initial rate (arXiv:1907.11804, section 5.1)."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum, as published.")
    weight_decay: float = Field(
        default=5e-4, ge=0, le=1e3, description="L2 penalty on all weights."
    )


LossForm = Literal["printed", "authors", "hinton", "logit-standardised"]
"""Readings of Eq. 1 and Eq. 6; `nonn_core.distillation.losses` has each."""
PRINTED: LossForm = "printed"


class DistillationRecipe(Record):
    """Form and weights of the losses."""

    form: LossForm = Field(
        default=PRINTED,
        description="Eq. 1 and Eq. 6 as `printed`; as in the program of the `authors`, where beta "
        "is of a mean over elements (10000 there is 1.6 on the printed sum over 6,208 elements); "
        "soft labels times tau squared (`hinton`, arXiv:1503.02531); or the same of z-scores of "
        "logits (`logit-standardised`, arXiv:2403.01427). The last two have Eq. 6 as printed.",
    )
    alpha: float = Field(default=0.9, ge=0, le=1, description="Share of the soft labels, Eq. 1.")
    temperature: float = Field(default=4.0, gt=0, le=1e6, description="Tau of Eq. 1.")
    beta: float = Field(
        default=100.0,
        ge=0,
        le=1e12,
        description="Weight of activation transfer, Eq. 6, from the teacher's fconv into a NoNN's "
        "students; 0 turns it off. Other models have no partitions and do without.",
    )
    attention: float = Field(
        default=0.0,
        ge=0,
        le=1e12,
        description="Weight of attention transfer (arXiv:1612.03928; published 1000): from the "
        "teacher's groups of layers into an undivided network's, or from each partition into its "
        "student; 0 turns it off.",
    )
    student_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Chance that a student's answer to a training image is missing, so that the "
        "others learn to do without; at least one always answers.",
    )


class ComputeRecipe(Record):
    """Device and precision of training; they change speed and rounding only."""

    device: str = Field(
        default="auto", description="`cpu`, `cuda`, `cuda:1` ..., or `auto`: a GPU if there is one."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Of convolutions and matrix products; weights, norms and losses stay fp32.",
    )
    cached_views: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Fixed augmented views of each image over which the teacher runs once; 0 "
        "augments anew and runs the teacher in each step.",
    )


class StudentRecipe(Record):
    """One student: its network and the fconv filters it mimics."""

    name: str = Field(min_length=1, description="Name of the student in the plan.")
    network: NetworkName = Field(description="Network, e.g. wrn16:32,64,88.")
    filters: Filters = Field(min_length=1, description="Ids of the filters it mimics.")

    @model_validator(mode="after")
    def _filters_differ(self) -> Self:
        if len(set(self.filters)) < len(self.filters):
            raise ValueError("a student mimics each filter once; a filter is named twice")
        return self

    @property
    def spec(self) -> NetworkSpec:
        """The network, parsed."""
        return parse_network(self.network)


class NonnRecipe(Record):
    """A network of neural networks: several students that share G0."""

    kind: Literal["nonn"] = Field(default="nonn", description="Says which model this is.")
    students: tuple[StudentRecipe, ...] = Field(min_length=1, description="Students of the plan.")
    group0: Literal["replicated", "own-board", "separate"] = Field(
        default="replicated",
        description="G0, the stem and first group: one for all students in training and a copy on "
        "each board; one for all that runs on a board of its own; or a separate one for each.",
    )

    @model_validator(mode="after")
    def _students_have_names_and_fit_g0(self) -> Self:
        names = [student.name for student in self.students]
        if len(set(names)) < len(names):
            raise ValueError("students must have different names")
        shapes = {student.spec.group0 for student in self.students}
        if self.group0 != "separate" and len(shapes) > 1:
            raise ValueError(
                "students share G0, so family, depth and first width must be the same; or set "
                "group0 to separate"
            )
        return self


class SingleRecipe(Record):
    """One undivided classifier, the baseline that plain knowledge distillation gives."""

    kind: Literal["single"] = Field(default="single", description="Says which model this is.")
    network: NetworkName = Field(description="Network, e.g. wrn16:32,64,88.")

    @property
    def spec(self) -> NetworkSpec:
        """The network, parsed."""
        return parse_network(self.network)


class SplitNetRecipe(Record):
    """SplitNet (Kim et al. 2017, PMLR 70:1866-1874): one network that learns to fall into groups.

    It trains twice from the full learning rate: from the labels, as published, while groups are
    being assigned, and after the cut as the distillation says.  The weights of the losses are those
    of its published program.
    """

    kind: Literal["splitnet"] = Field(default="splitnet", description="Says which model this is.")
    network: NetworkName = Field(description="Network before the cut, e.g. wrn16-8.")
    groups: tuple[Annotated[int, Field(ge=2, le=1024)], ...] = Field(
        min_length=1,
        description="Groups of each split stage, from the first to the last, and of the FC layer, "
        "e.g. [2, 2, 4] splits two stages in two and the FC layer in four; each divides the next.",
    )
    assignment_share: float = Field(
        default=0.6, gt=0, lt=1, description="Share of the epochs before the cut."
    )
    gamma_weight: float = Field(
        default=1.0, ge=0, le=1e6, description="Weight of R_W: no weight leads to another group."
    )
    gamma_overlap: float = Field(
        default=1.0, ge=0, le=1e6, description="Weight of R_D: each channel is in one group."
    )
    gamma_balance: float = Field(
        default=10.0, ge=0, le=1e6, description="Weight of R_E: groups are of equal size."
    )

    @model_validator(mode="after")
    def _each_group_falls_into_equally_many(self) -> Self:
        if any(finer % coarser for coarser, finer in pairwise(self.groups)):
            raise ValueError("each number of groups must divide the next one")
        return self

    @model_validator(mode="after")
    def _network_has_what_is_split(self) -> Self:
        from nonn_core.networks.group_layout import group_layout

        try:
            # Neither an image's channels nor the classes of the data are known here, or matter.
            group_layout(self.spec, 1, self.groups[-1], self.groups)
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def spec(self) -> NetworkSpec:
        """The network before the cut, parsed."""
        return parse_network(self.network)


_CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_code(teacher: str) -> bool:
    """Whether a teacher is `package.module:callable`, which runs where it is loaded."""
    return _CODE.fullmatch(teacher) is not None


class TrainingRecipe(Document):
    """All that a training run needs."""

    data: str = Field(
        description="Data set: `digits`, or its kind and path, such as `imagefolder:PATH` or "
        "`imagefolder,size=64,paper=white:PATH`."
    )
    image: ImageShapeText = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    teacher: str = Field(
        description="Teacher file (.safetensors, its .json beside it; or .pt2), or "
        "package.module:callable."
    )
    teacher_fingerprint: str | None = Field(
        default=None,
        description="Digest of the weights of the teacher that was partitioned; null: any teacher.",
    )
    fconv: str | None = Field(
        default=None,
        description="Name of the teacher's layer whose output is fconv; null: the one that is "
        "found.",
    )
    signed_maps: SignedMaps = Field(
        default="relu",
        description="What stands for negative values of fconv, such as those of SiLU or GELU, "
        "when students learn from it: relu is 0, abs is their size.",
    )
    model: NonnRecipe | SingleRecipe | SplitNetRecipe = Field(
        discriminator="kind", description="What to train."
    )
    start: str | None = Field(
        default=None,
        description="Folder of a finished run of the same model, whose weights training starts "
        "from; null: new ones.",
    )
    fake_quantised: bool = Field(
        default=False,
        description="Whether training rounds weights and activations as int8 will.",
    )
    optimiser: OptimiserRecipe = Field(description="How the weights are found.")
    distillation: DistillationRecipe = Field(
        default_factory=DistillationRecipe, description="How the losses are weighted."
    )
    compute: ComputeRecipe = Field(
        default_factory=ComputeRecipe, description="Where and how training computes."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of weights, order and augmentation."
    )

    @property
    def reading(self) -> PictureReading:
        """How the pictures of its data set become images of its shape."""
        return PictureReading.of_source(self.data, self.image)

    def require_trust(self, where: Path, *, trusted: bool) -> None:
        """Refuse code that a file names, unless its user trusts it; raises InputError."""
        if is_code(self.teacher) and not trusted:
            raise InputError(
                "the teacher of this recipe is code, which runs when it is loaded",
                where=str(where),
                found=self.teacher,
                allowed="a teacher file, which holds weights alone",
                fix="read that module; if you trust it, give --trust",
            )

    @model_validator(mode="after")
    def _losses_are_for_this_model(self) -> Self:
        losses, model = self.distillation, self.model
        students = len(model.students) if isinstance(model, NonnRecipe) else 0
        if losses.student_dropout and students < 2:
            raise ValueError("student_dropout needs a NoNN of two students or more; set it to 0")
        if losses.attention and isinstance(model, SplitNetRecipe):
            raise ValueError("a SplitNet trains without attention transfer; set attention to 0")
        if isinstance(model, SplitNetRecipe) and self.optimiser.epochs < 2:
            raise ValueError("a SplitNet needs two epochs or more: before and after the cut")
        return self


Setting = Mapping[str, float | str]
"""A value for each field, named as in the recipe: `distillation.beta`."""
FIELDS = tuple(
    f"{part}.{name}"
    for part, record in (("distillation", DistillationRecipe), ("optimiser", OptimiserRecipe))
    for name in record.model_fields
)
_TEXTS: Mapping[str, tuple[str, ...]] = {"distillation.form": get_args(LossForm)}
"""Fields whose values are words."""
_ALLOWED = "FIELD=VALUE,VALUE,... such as distillation.beta=10,100,1000,10000"


@dataclass(frozen=True, slots=True)
class Axis:
    """A field of a recipe, and the values that are tried for it."""

    field: str
    values: tuple[float | str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `distillation.beta=10,100`; raises InputError."""
        field, _, values = text.partition("=")
        if field not in FIELDS:
            raise InputError(
                "not a field whose values can be tried", found=field, allowed=", ".join(FIELDS)
            )
        if words := _TEXTS.get(field):
            typed = tuple(dict.fromkeys(values.split(",")))
            if unknown := [value for value in typed if value not in words]:
                raise InputError(
                    "not a value of this field",
                    where=field,
                    found=unknown[0],
                    allowed=", ".join(words),
                )
            return cls(field, typed)
        try:
            numbers = tuple(dict.fromkeys(float(value) for value in values.split(",")))
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            raise InputError("not numbers to try", found=text, allowed=_ALLOWED)
        return cls(field, numbers)


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting and its validation accuracy; None where it diverged."""

    setting: Setting
    validation_accuracy_pct: float | None


def grid_settings(axes: Sequence[Axis]) -> tuple[Setting, ...]:
    """Return every combination of the axes' values, one empty setting where there is no axis.

    Raises InputError when two axes are of one field.
    """
    fields = [axis.field for axis in axes]
    if len(set(fields)) < len(fields):
        raise InputError("a field is named twice", found=", ".join(fields))
    values = product(*(axis.values for axis in axes))
    return tuple(dict(zip(fields, each, strict=True)) for each in values)


def with_setting(recipe: TrainingRecipe, setting: Setting) -> TrainingRecipe:
    """Return the recipe with these values; raises InputError for one that it does not allow."""
    content = recipe.model_dump(mode="json")
    for field, value in setting.items():
        part, _, name = field.partition(".")
        content[part][name] = value
    return TrainingRecipe.check(content, where=f"a recipe with {setting_label(setting)}")


def setting_label(setting: Setting) -> str:
    """Name a setting: `beta=100,alpha=0.9`."""
    return ",".join(
        f"{field.partition('.')[2]}={value if isinstance(value, str) else format(value, '.12g')}"
        for field, value in setting.items()
    )


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the trial of highest validation accuracy, the first of equals.

    Raises TrainingError when all of them diverged.
    """
    finished = [trial for trial in trials if trial.validation_accuracy_pct is not None]
    if not finished:
        raise TrainingError("training diverged with every setting; lower the learning rate or beta")
    return max(finished, key=lambda trial: trial.validation_accuracy_pct or 0.0)
