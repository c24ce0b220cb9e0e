"""Objectives: what a person may ask for, one after the other, and what must hold in any case."""

import re
from typing import Literal, Self, get_args

from pydantic import Field

from profiles.document import Record
from profiles.errors import InputError

Objective = Literal[
    "accuracy",
    "capacity",
    "imbalance",
    "dropped",
    "latency",
    "throughput",
    "energy",
    "energy-node",
    "memory",
    "flops",
    "boards",
    "students",
    "precision",
    "survival",
    "robustness",
    "reliability",
]

MORE_IS_BETTER: tuple[Objective, ...] = (
    "accuracy",
    "capacity",
    "throughput",
    "students",
    "precision",
    "survival",
    "robustness",
    "reliability",
)

_STAGE = re.compile(r"(?P<objective>[a-z-]+)(?::(?P<tolerance>[0-9]*\.?[0-9]+)%)?")


class Stage(Record):
    """One objective of a lexicographic list, and how much of it later ones may give up."""

    objective: Objective = Field(
        description="accuracy: predicted test accuracy in percent. capacity: most parameters in "
        "all students together, the stand-in for accuracy (A, Table 4). imbalance: max |Pi| - "
        "min |Pi| in filters (A, Eq. 2). dropped: |delta_val| in points - |P0| in filters (A, "
        "Eq. 2). latency: ms of one image. throughput: images per second where they come as fast "
        "as they are served. energy: computing, mJ of one image over all boards. energy-node: "
        "that of the board that spends most. memory: bytes of all students. flops: FLOPs of one "
        "image, all students. boards: fewest boards. students: most students. precision: most "
        "bytes per value, added up over students. survival: how many boards (or common causes) may "
        "fail, whichever they are, with each student still answered by one of its copies. "
        "robustness: accuracy to expect, in percent, when boards fail as likely as the question "
        "says. reliability: chance, in percent, that an answer has at least the target accuracy."
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


class Requirement(Record):
    """What must hold of the whole plan, beside the boards' own budgets."""

    objective: Objective = Field(description="What is bounded, as for an objective.")
    bound: float = Field(
        description="At least this where more is better, else at most this, in its unit."
    )

    @property
    def relation(self) -> str:
        """The objective and which way it is bounded."""
        return f"{self.objective} {'>=' if self.objective in MORE_IS_BETTER else '<='}"

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"
