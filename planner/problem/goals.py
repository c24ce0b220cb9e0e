"""Goals of a plan: levels of its objective, requirements, basis of accuracy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self, get_args

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import InputError
from planner.accuracy.model import AccuracyModel, fit_accuracy_model
from planner.accuracy.rows import AccuracyRow, TeacherFacts

Objective = Literal[
    "accuracy",
    "capacity",
    "imbalance",
    "dropped",
    "latency",
    "latency-p95",
    "throughput",
    "energy",
    "energy-node",
    "fleet-power",
    "fleet-average-power",
    "battery",
    "memory",
    "flops",
    "boards",
    "students",
    "precision",
    "survival",
    "robustness",
    "reliability",
]


_COUNTED = ("filters", "boards", "bytes", "FLOPs")


@dataclass(frozen=True, slots=True)
class ObjectiveFacts:
    """Direction, unit and names of an objective.

    `unit` is that of its value, `scope` tells what the value is of where that is not the whole
    plan, `wording` is the unit in a sentence where it differs, `column` the column in tables.
    """

    column: str
    unit: str = ""
    scope: str = ""
    maximise: bool = False
    wording: str = ""

    @property
    def phrase(self) -> str:
        """The unit in a sentence."""
        return self.wording or self.unit

    @property
    def aim(self) -> str:
        """Which way is better, with the unit: `fewest filters`, `least ms`."""
        noun = ", ".join(filter(None, (self.unit or self.column, self.scope)))
        fewest = "fewest" if noun in _COUNTED else "least"
        return f"{'most' if self.maximise else fewest} {noun}"


OBJECTIVES: Mapping[str, ObjectiveFacts] = {
    "accuracy": ObjectiveFacts("accuracy_pct", "%", maximise=True, wording="% accuracy"),
    "capacity": ObjectiveFacts("capacity_params", "parameters", maximise=True),
    "imbalance": ObjectiveFacts("imbalance_filters", "filters"),
    "dropped": ObjectiveFacts("dropped", "points - filters"),
    "latency": ObjectiveFacts("latency_ms", "ms"),
    "latency-p95": ObjectiveFacts("latency_p95_ms", "ms", "95 of 100 images"),
    "throughput": ObjectiveFacts("throughput_per_s", "images/s", maximise=True),
    "energy": ObjectiveFacts("energy_mj", "mJ", "fleet"),
    "energy-node": ObjectiveFacts(
        "energy_node_mj", "mJ", "highest board", wording="mJ on one board"
    ),
    "fleet-power": ObjectiveFacts(
        "fleet_power_w", "W", "all boards computing", wording="W while all boards compute"
    ),
    "fleet-average-power": ObjectiveFacts(
        "fleet_average_power_w", "W", "all boards, on average", wording="W on average, all boards"
    ),
    "battery": ObjectiveFacts(
        "battery_h", "h", "first empty battery", maximise=True, wording="h of battery life"
    ),
    "memory": ObjectiveFacts("memory_used_bytes", "bytes"),
    "flops": ObjectiveFacts("used_flops", "FLOPs"),
    "boards": ObjectiveFacts("boards", wording="boards"),
    "students": ObjectiveFacts("students", maximise=True),
    "precision": ObjectiveFacts("precision_bytes", "bytes per value, added up", maximise=True),
    "survival": ObjectiveFacts("survival", "failures", maximise=True),
    "robustness": ObjectiveFacts(
        "robustness", "%", maximise=True, wording="% expected accuracy with failures"
    ),
    "reliability": ObjectiveFacts("reliability", "%", maximise=True),
}
"""The objectives; `planner.data.objective_function` says how each is counted and evaluated."""

MAXIMISED = frozenset(name for name, facts in OBJECTIVES.items() if facts.maximise)

_LEVEL = re.compile(r"(?P<objective>[a-z0-9-]+)(?::(?P<tolerance>[0-9]*\.?[0-9]+)%)?")


class ObjectiveLevel(Record):
    """One level of a lexicographic objective, and the tolerance of later ones."""

    objective: Objective = Field(
        description="accuracy: predicted test accuracy in percent. capacity: most parameters in "
        "all students together, the stand-in for accuracy (arXiv:1907.11804, Table 4). imbalance:"
        " max |Pi| - min |Pi| in filters (Eq. 2). dropped: |delta_val| in points - |P0| in "
        "filters (Eq. 2). latency: ms of one image, each board taking its mean time. "
        "latency-p95: ms that at least 95 of 100 images keep, each of K boards taking the time "
        "that it keeps in 0.95^(1/K) of them. throughput: images per second where they "
        "come as fast as they are served. energy: computing, mJ of one image over all boards."
        " energy-node: that of the board that spends most. battery: hours until the first board "
        "that works has an empty battery, at the question's rate. fleet-power: W of all boards "
        "that work while they compute, added up. fleet-average-power: W of the same on average, "
        "computing and idle, at the question's rate. memory: bytes of all students. "
        "flops: FLOPs of one image, all students. boards: fewest boards. students: most "
        "students. precision: most bytes per value, added up over students. survival: how "
        "many boards (or common causes) may fail, whichever they are, with each student still"
        " answered by one of its copies. robustness: accuracy to expect, in percent, when "
        "boards fail as likely as the question says. reliability: chance, in percent, that an"
        " answer has at least the target accuracy."
    )
    tolerance_pct: float = Field(
        default=0.0,
        ge=0,
        le=100,
        description="How far, in percent of its optimum, later stages may worsen this objective.",
    )

    @classmethod
    def parse(cls, text: str, where: str | None = None) -> Self:
        """Read `latency` or `capacity:5%`; raises InputError."""
        match = _LEVEL.fullmatch(text.strip().lower())
        tolerance_pct = float(match["tolerance"] or 0) if match else 0.0
        if match is None or match["objective"] not in get_args(Objective) or tolerance_pct > 100:
            names = ", ".join(get_args(Objective))
            raise InputError(
                "not an objective",
                where=where,
                found=text,
                allowed=f"one of {names}, with a tolerance of 0% to 100% if wanted: capacity:5%",
            )
        return cls.model_validate({"objective": match["objective"], "tolerance_pct": tolerance_pct})

    def __str__(self) -> str:
        return f"{self.objective}:{self.tolerance_pct:g}%" if self.tolerance_pct else self.objective


class Requirement(Record):
    """Requirement on the whole plan, beside the boards' own budgets."""

    objective: Objective = Field(description="What is bounded, as for an objective.")
    bound: float = Field(
        description="At least this where more is better, else at most this, in its unit."
    )

    @property
    def relation(self) -> str:
        """The objective and which way it is bounded."""
        return f"{self.objective} {'>=' if self.objective in MAXIMISED else '<='}"

    def __str__(self) -> str:
        return f"{self.relation} {self.bound:g}"


class AccuracyBasis(Record):
    """Basis of accuracy predictions, beside the published rows."""

    teacher: TeacherFacts = Field(description="The teacher.")
    teacher_accuracy_pct: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="Its test accuracy, in percent; null takes that of a published teacher alike.",
    )
    teacher_images: int | None = Field(
        default=None,
        ge=1,
        description="Images on which that was measured, where it is of a partition's few; null "
        "takes it as it is.",
    )
    own_rows: tuple[AccuracyRow, ...] = Field(default=(), description="The user's finished runs.")

    @property
    def known(self) -> bool:
        """Say whether the teacher's accuracy is known."""
        return self.model.teacher_accuracy_pct is not None

    @property
    def model(self) -> AccuracyModel:
        """The accuracy model, fitted."""
        return _fitted(self)


@lru_cache(maxsize=64)
def _fitted(basis: AccuracyBasis) -> AccuracyModel:
    return fit_accuracy_model(
        basis.teacher, basis.teacher_accuracy_pct, basis.own_rows, basis.teacher_images
    )
