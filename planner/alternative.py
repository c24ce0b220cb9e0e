"""An alternative: one way to answer on the boards of a question, and which of them wins."""

from typing import Literal

from pydantic import Field

from planner.segments.segmentation import Segmentation
from profiles.document import Record

Kind = Literal["nonn", "segmented", "compressed", "both"]


class Alternative(Record):
    """One way to answer on these boards, at its best; figures are null where there is none."""

    kind: Kind = Field(description="Which way.")
    networks: tuple[str, ...] = Field(description="Its network, or that of each student.")
    status: Literal["feasible", "infeasible", "undecided"] = Field(
        description="infeasible: nothing of this kind is within the budgets, proven; undecided: "
        "not known, or too large a search."
    )
    reason: str | None = Field(default=None, description="Why it is not feasible.")
    boards: int | None = Field(default=None, ge=1, description="Boards that work.")
    total_ms: float | None = Field(default=None, ge=0, description="Latency of one image.")
    energy_fleet_mj: float | None = Field(
        default=None, ge=0, description="Computing energy of one image, all boards together."
    )
    energy_highest_mj: float | None = Field(
        default=None, ge=0, description="Computing energy of the board that spends most."
    )
    throughput_per_s: float | None = Field(
        default=None, gt=0, description="Images per second, many being under way."
    )
    params: int | None = Field(default=None, ge=0, description="Parameters, all boards together.")
    memory_highest_bytes: int | None = Field(
        default=None, ge=0, description="Weights and peak activations on the fullest board."
    )
    accuracy_pct: float | None = Field(
        default=None,
        description="The teacher's measured validation accuracy, or an estimate; null if unknown.",
    )
    robustness_pct: float | None = Field(
        default=None,
        description="Expected accuracy when boards fail, where the question says how; null if "
        "unknown.",
    )
    segmentation: Segmentation | None = Field(
        default=None, description="Its parts; null for a NoNN."
    )


class Verdict(Record):
    """Which alternative wins, and why."""

    winner: Kind | None = Field(description="Null where none is feasible.")
    why: tuple[str, ...] = Field(min_length=1, description="Sentences for people.")
