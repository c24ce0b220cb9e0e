"""The recipe of a training run: everything `nonn-plan train` needs, for one plan.

Written by `nonn-plan config` from a plan, edited by a person, read by training.  Torch-free.
"""

from itertools import combinations
from typing import Literal, Self

from pydantic import Field, model_validator

from nonn_core.family import ImageShape, NetworkName, WrnSpec
from nonn_core.partition import Filters
from profiles.document import Document, Record


class OptimiserRecipe(Record):
    """Stochastic gradient descent with Nesterov momentum and a cosine schedule."""

    epochs: int = Field(gt=0, le=1_000_000, description="Passes over the training images.")
    batch_size: int = Field(default=128, gt=0, le=1_000_000, description="Images per step.")
    learning_rate: float = Field(
        default=0.1, gt=0, le=1e6, description="Initial rate (A, section 5.1)."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum (A, section 5.1).")
    weight_decay: float = Field(
        default=5e-4, ge=0, le=1e3, description="L2 penalty on all weights."
    )


class DistillationRecipe(Record):
    """Weights of the losses."""

    alpha: float = Field(default=0.9, ge=0, le=1, description="Share of the soft labels, Eq. 1.")
    temperature: float = Field(default=4.0, gt=0, le=1e6, description="Tau of Eq. 1.")
    beta: float = Field(
        default=100.0,
        ge=0,
        le=1e12,
        description="Weight of activation transfer, Eq. 6; 0 turns it off.",
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
    def spec(self) -> WrnSpec:
        """The network, parsed."""
        return WrnSpec.parse(self.network)


class NonnRecipe(Record):
    """A network of neural networks: several students that share G0."""

    kind: Literal["nonn"] = Field(default="nonn", description="Says which model this is.")
    students: tuple[StudentRecipe, ...] = Field(min_length=1, description="Students of the plan.")

    @model_validator(mode="after")
    def _students_are_disjoint_and_share_g0(self) -> Self:
        names = [student.name for student in self.students]
        if len(set(names)) < len(names):
            raise ValueError("students must have different names")
        if len({student.spec.group0 for student in self.students}) > 1:
            raise ValueError("students share G0, so depth and first width must be the same")
        for one, other in combinations(self.students, 2):
            if set(one.filters) & set(other.filters):
                raise ValueError(f"{one.name} and {other.name} mimic the same filters")
        return self


class SingleRecipe(Record):
    """One undivided classifier, the baseline that plain knowledge distillation gives."""

    kind: Literal["single"] = Field(default="single", description="Says which model this is.")
    network: NetworkName = Field(description="Network, e.g. wrn16:32,64,88.")

    @property
    def spec(self) -> WrnSpec:
        """The network, parsed."""
        return WrnSpec.parse(self.network)


class TrainingRecipe(Document):
    """All that a training run needs."""

    data: str = Field(description="Data set: `digits` or `imagefolder:PATH`.")
    image: ImageShape = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    teacher: str = Field(description="Teacher file (.safetensors, its .json beside it).")
    model: NonnRecipe | SingleRecipe = Field(discriminator="kind", description="What to train.")
    optimiser: OptimiserRecipe = Field(description="How the weights are found.")
    distillation: DistillationRecipe = Field(
        default_factory=DistillationRecipe, description="How the losses are weighted."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of weights, order and augmentation."
    )
