"""Goals of a plan: levels of its objective, requirements, budgets of boards, basis of accuracy."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from functools import lru_cache
from typing import Literal, Self, get_args

from pydantic import Field

from nonn_common.document import Record
from nonn_common.errors import InputError
from nonn_common.units import FLOPS_PER_MAC, LARGEST, format_bytes, format_flops
from planner.accuracy.model import AccuracyModel, fit_accuracy_model
from planner.accuracy.rows import AccuracyRow, TeacherFacts
from profiles.fleet import Board, Fleet, resolve

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
    "memory",
    "flops",
    "boards",
    "students",
    "precision",
    "survival",
    "robustness",
    "reliability",
]


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
    def title(self) -> str:
        """The unit and its scope in brackets, for people."""
        return f" ({', '.join(filter(None, (self.unit, self.scope)))})" if self.unit else ""


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
        " energy-node: that of the board that spends most. memory: bytes of all students. "
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
    def parse(cls, text: str) -> Self:
        """Read `latency` or `capacity:5%`; raises InputError."""
        match = _LEVEL.fullmatch(text.strip().lower())
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


BudgetName = Literal["memory_bytes", "macs", "busy_ms", "energy_mj"]


@dataclass(frozen=True, slots=True)
class BudgetFormat:
    """How a budget is called, and how a quantity of it is written."""

    noun: str
    text: Callable[[float], str]


BUDGETS: dict[BudgetName, BudgetFormat] = {
    "memory_bytes": BudgetFormat("memory", lambda size: format_bytes(int(size))),
    "macs": BudgetFormat("FLOP", lambda macs: format_flops(int(macs))),
    "busy_ms": BudgetFormat("time", lambda time_ms: f"{time_ms:g} ms"),
    "energy_mj": BudgetFormat("energy", lambda energy_mj: f"{energy_mj:g} mJ"),
}


_SIGNIFICANT_DIGITS = 6


def format_budget(budget: BudgetName, value: float) -> str:
    """Write a budget, rounded up to the digits that people read."""
    if budget == "memory_bytes":
        return BUDGETS[budget].text(_to_tenths(round(value)))
    if budget == "macs":
        return BUDGETS[budget].text(_to_tenths(FLOPS_PER_MAC * round(value)) // FLOPS_PER_MAC)
    return BUDGETS[budget].text(round_loosely(value))


def round_loosely(value: float, *, down: bool = False, digits: int = _SIGNIFICANT_DIGITS) -> float:
    """Round up, or down, to six digits; what has fewer stays."""
    near = float(f"{value:.12g}")
    context = Context(prec=digits, rounding=ROUND_FLOOR if down else ROUND_CEILING)
    return float(context.create_decimal(repr(near)))


def _to_tenths(quantity: int) -> int:
    """Round up to a tenth of the prefix (thousand, million ...) that is written."""
    step = 10 ** (3 * ((len(str(quantity)) - 1) // 3) - 1) if quantity >= 1000 else 1
    return -(-quantity // step) * step


class BoardBudget(Record):
    """Budgets of the students of one board together; null is no limit."""

    board: str = Field(min_length=1, description="Name of the board in the fleet.")
    memory_bytes: int = Field(
        gt=0,
        le=LARGEST,
        description="Bytes of weights, peak activations and runtime, B_mem of Eq. 2.",
    )
    runtime_bytes: int = Field(
        default=0, ge=0, le=LARGEST, description="Bytes that the runtime takes of memory_bytes."
    )
    asked_bytes: int | None = Field(
        default=None, gt=0, description="Budget asked for, where the device has less memory."
    )
    macs: int | None = Field(
        default=None, gt=0, le=LARGEST, description="MACs per image, B_FLOP of Eq. 2."
    )
    busy_ms: float | None = Field(
        default=None, gt=0, le=1e9, description="Time that the board may compute per image, in ms."
    )
    energy_mj: float | None = Field(
        default=None, gt=0, le=1e9, description="Energy it may compute with per image, in mJ."
    )

    @property
    def room_bytes(self) -> int:
        """Bytes that the runtime leaves to weights and activations."""
        return max(0, self.memory_bytes - self.runtime_bytes)


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """Limits as people give them, for all boards or for one; None says nothing."""

    memory_bytes: int | None = None
    runtime_bytes: int | None = None
    macs: int | None = None
    busy_ms: float | None = None
    energy_mj: float | None = None

    def over(self, other: "BudgetLimits") -> "BudgetLimits":
        """Return these limits, and the other's where these say nothing."""
        return BudgetLimits(
            self.memory_bytes or other.memory_bytes,
            other.runtime_bytes if self.runtime_bytes is None else self.runtime_bytes,
            self.macs or other.macs,
            self.busy_ms or other.busy_ms,
            self.energy_mj or other.energy_mj,
        )


NO_LIMITS = BudgetLimits()


def board_budgets(
    fleet: Fleet,
    everywhere: BudgetLimits = NO_LIMITS,
    own: Mapping[str, BudgetLimits] | None = None,
) -> tuple[BoardBudget, ...]:
    """Return one budget per board of `fleet`: its own limits, or else those of everywhere.

    Where nothing is said, memory is what the device may use (`usable_bytes`), the runtime takes
    nothing of it, and nothing else is limited.  No budget is more than the memory of the device,
    where that is told.  Raises InputError for an unknown board.
    """
    own = own or {}
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
        limits = own.get(board.name, NO_LIMITS).over(everywhere)
        asked_bytes = _memory_bytes(board, limits, f"fleet {fleet.name}: {board.name}")
        memory_bytes = min(asked_bytes, board.device.ram_bytes or asked_bytes)
        rows.append(
            BoardBudget(
                board=board.name,
                memory_bytes=memory_bytes,
                asked_bytes=asked_bytes if asked_bytes > memory_bytes else None,
                runtime_bytes=limits.runtime_bytes or 0,
                macs=limits.macs,
                busy_ms=limits.busy_ms,
                energy_mj=limits.energy_mj,
            )
        )
    return tuple(rows)


def memory_notes(budgets: Sequence[BoardBudget]) -> tuple[str, ...]:
    """Sentences on budgets of more memory than their boards have, alike ones in one."""
    alike: dict[tuple[int, int], list[str]] = {}
    for row in budgets:
        if row.asked_bytes is not None:
            alike.setdefault((row.asked_bytes, row.memory_bytes), []).append(row.board)
    return tuple(
        f"planned with {format_bytes(has)} on {', '.join(boards)}, all memory that there is, in "
        f"place of the {format_bytes(asked)} asked for"
        for (asked, has), boards in alike.items()
    )


def _memory_bytes(board: Board, limits: BudgetLimits, where: str) -> int:
    """Memory budget of a board, in bytes; raises InputError where nothing tells any."""
    found = limits.memory_bytes or board.device.usable_bytes
    if found is None:
        raise InputError(
            "the memory of this board is not known",
            where=where,
            found=f"no ram_bytes in device {board.device.name}",
            fix="give its budget, such as --memory 500KB",
        )
    return found


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
