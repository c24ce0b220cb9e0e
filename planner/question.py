"""The question: what a plan is asked for.

Everything the answer depends on is in here, so that a plan, which embeds its question, can be
checked, simulated and trained from its own file alone.  Loads no solver.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from nonn_core.costs import Precision
from nonn_core.family import NetworkName, NetworkSpec, parse_network
from nonn_core.image import Image, ImageShape
from nonn_core.partition import DropStep, Partition
from profiles.document import Record
from profiles.errors import InputError
from profiles.fleet import Fleet, resolve
from profiles.units import LARGEST

Objective = Literal["capacity", "imbalance", "dropped", "latency", "energy", "boards", "students"]

_STAGE = re.compile(r"(?P<objective>[a-z]+)(?::(?P<tolerance>[0-9]*\.?[0-9]+)%)?")


class Stage(Record):
    """One objective of a lexicographic list, and how much of it later ones may give up."""

    objective: Objective = Field(
        description="capacity: most parameters in all students together, the stand-in for accuracy "
        "(A, Table 4). imbalance: max |Pi| - min |Pi| in filters (A, Eq. 2). dropped: |delta_val| "
        "in points - |P0| in filters (A, Eq. 2). latency: ms of one image. energy: mJ of one image "
        "over all boards. boards: fewest boards. students: most students."
    )
    tolerance_pct: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="How far, in percent of its optimum, later stages may worsen this objective.",
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `latency` or `capacity:5%`; raises InputError."""
        match = _STAGE.fullmatch(text.strip().lower())
        tolerance_pct = float(match["tolerance"] or 0) if match else 0.0
        if match is None or match["objective"] not in get_args(Objective) or tolerance_pct > 100:
            names = ", ".join(get_args(Objective))
            raise InputError(
                "not an objective",
                found=text,
                allowed=f"one of {names}, with a tolerance of 0% to 100% if wanted: capacity:5%",
            )
        return cls.model_validate({"objective": match["objective"], "tolerance_pct": tolerance_pct})

    def __str__(self) -> str:
        return f"{self.objective}:{self.tolerance_pct:g}%" if self.tolerance_pct else self.objective


DEFAULT_OBJECTIVE = (
    Stage(objective="dropped"),
    Stage(objective="capacity", tolerance_pct=5.0),
    Stage(objective="imbalance"),
    Stage(objective="latency"),
)


class BoardBudget(Record):
    """What the students of one board may use together."""

    board: str = Field(min_length=1, description="Name of the board in the fleet.")
    memory_bytes: int = Field(
        gt=0, le=LARGEST, description="Bytes of weights and peak activations, B_mem of A, Eq. 2."
    )
    macs: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST,
        description="MACs per image, B_FLOP of A, Eq. 2; null is no limit.",
    )


def budgets(
    fleet: Fleet,
    memory_bytes: int | None = None,
    macs: int | None = None,
    overrides: Mapping[str, tuple[int | None, int | None]] | None = None,
) -> tuple[BoardBudget, ...]:
    """Return one budget per board of `fleet`.

    `memory_bytes` and `macs` hold for every board; `overrides` maps a board's name to its own
    (memory_bytes, macs).  Where nothing is said, memory is what the device may use
    (`usable_bytes`) and MACs are not limited.  Raises InputError for an unknown board.
    """
    own = dict(overrides or {})
    _, boards = resolve(fleet)
    names = [board.name for board in boards]
    if unknown := set(own) - set(names):
        raise InputError(
            "no such board in the fleet",
            where=f"fleet {fleet.name}",
            found=min(unknown),
            allowed=", ".join(names),
        )
    rows = []
    for board in boards:
        own_memory, own_macs = own.get(board.name, (None, None))
        rows.append(
            BoardBudget(
                board=board.name,
                memory_bytes=own_memory or memory_bytes or board.device.usable_bytes,
                macs=own_macs or macs,
            )
        )
    return tuple(rows)


def _repeated(values: Sequence[str]) -> str:
    return ", ".join(value for value, count in Counter(values).items() if count > 1)


class Question(Record):
    """A planning question: boards, budgets, networks to choose from, knowledge, objective."""

    fleet: Fleet = Field(description="Host and boards.")
    budgets: tuple[BoardBudget, ...] = Field(description="One per board, in the fleet's order.")
    precision: Precision = Field(
        default="fp32", description="Storage of weights and activations on the boards."
    )
    image: ImageShape = Field(description="Image shape CHANNELSxHEIGHTxWIDTH.")
    classes: int = Field(gt=1, le=1_000_000, description="Classes of the classifier.")
    networks: tuple[NetworkName, ...] = Field(
        min_length=1, description="Networks a student may be, e.g. wrn16:32,64,88."
    )
    min_students: int = Field(default=1, ge=1, le=1000, description="Fewest students.")
    max_students: int | None = Field(
        default=None, ge=1, le=1000, description="Most students; null is one per board, as in A."
    )
    epsilon_pct: float = Field(
        ge=0,
        description="Bound on |delta_val| in percentage points, epsilon of A, Eq. 2; 0 for no P0.",
    )
    partition: Partition = Field(description="Communities and what may be dropped as P0.")
    teacher: str | None = Field(default=None, description="Teacher file, for the recipe.")
    data: str | None = Field(default=None, description="Data set, for the recipe.")
    objective: tuple[Stage, ...] = Field(
        default=DEFAULT_OBJECTIVE, min_length=1, description="Stages, most important first."
    )
    deterministic_limit: float = Field(
        default=120.0,
        gt=0,
        description="Limit on the solver's deterministic time, all stages together; about one unit "
        "per second of one core, and the same on every machine.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of the solver.")

    @model_validator(mode="after")
    def _each_board_has_its_budget(self) -> Self:
        boards = [board.name for board in self.fleet.boards]
        if [budget.board for budget in self.budgets] != boards:
            raise ValueError(f"budgets must name each board once, in order: {', '.join(boards)}")
        return self

    @model_validator(mode="after")
    def _ranges_make_sense(self) -> Self:
        if self.min_students > self.most_students:
            raise ValueError(
                f"min_students ({self.min_students}) is above max_students ({self.most_students})"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        if twice := _repeated(self.networks):
            raise ValueError(f"each network is named once; repeated: {twice}")
        if twice := _repeated([stage.objective for stage in self.objective]):
            raise ValueError(f"each objective is named once; repeated: {twice}")
        return self

    @property
    def most_students(self) -> int:
        """Most students; one per board where the question does not say."""
        return self.max_students or len(self.fleet.boards)

    @property
    def image_shape(self) -> Image:
        """The image, parsed."""
        return Image.parse(self.image)

    @property
    def specs(self) -> tuple[NetworkSpec, ...]:
        """The networks, parsed."""
        return tuple(parse_network(name) for name in self.networks)

    def allows(self, step: DropStep) -> bool:
        """Say whether |delta_val| < epsilon holds for this step (A, Eq. 2).

        Where delta_val was not measured, nothing may be dropped but the filters without any link,
        which A (section 4.2) removes without a loss.  Something must remain.
        """
        dropped = set(step.communities)
        if len(dropped) == len(self.partition.communities):
            return False
        if step.delta_val_pct is not None:
            return abs(step.delta_val_pct) < self.epsilon_pct or not dropped
        return dropped in (set(), self.unlinked)

    @property
    def unlinked(self) -> set[int]:
        """Ids of the communities without any link, g0 (A, section 4.2)."""
        return {one.id for one in self.partition.communities if not one.linked}
