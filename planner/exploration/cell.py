"""A cell of an exploration: one question, and what was found of it, as a file of its own.

The file's name is the digest of all that the answer depends on, so that the same question is never
solved twice, and another one never mistaken for it.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field

from planner.answer import value_of
from planner.assignment import Assignment
from planner.evaluation import measured
from planner.exploration.breakpoints import Breakpoint, Range, breakpoints
from planner.exploration.front import front as front_of
from planner.model import solve
from planner.plan import PlanDocument, StageResult
from planner.prover import Meter, Prover
from planner.question import Question
from planner.stage import Objective
from profiles.document import Document, Record
from profiles.errors import InputError, UnprovenError
from profiles.fleet import resolve

Kind = Literal["plan", "front", "breakpoints"]
Status = Literal["optimal", "infeasible", "unproven"]
FIGURES: tuple[Objective, ...] = (
    "capacity",
    "imbalance",
    "latency",
    "energy",
    "memory",
    "flops",
    "boards",
    "students",
)
"""What is told of each plan, beside what was asked for."""


class FrontPoint(Record):
    """A plan of a front: its values, and what it consists of."""

    values: dict[str, float] = Field(description="Value of each measure, in its unit.")
    networks: tuple[str, ...] = Field(description="Networks of the students.")
    boards: tuple[str, ...] = Field(description="Boards of the students, in the same order.")


class Found(Document):
    """What was found of one question; written when it is found, and found again by its digest."""

    digest: str = Field(description="Digest of the question, of what was asked, and of versions.")
    kind: Kind = Field(description="One plan, a Pareto front, or the break-points of a budget.")
    status: Status = Field(
        description="optimal: proven, whole. infeasible: proven that there is no plan. unproven: "
        "the limit stopped the solver; what is here holds, and there may be better or more."
    )
    values: dict[str, float] = Field(
        default={},
        description="Of a plan: value of each stage and further figures, in their units.",
    )
    networks: tuple[str, ...] = Field(default=(), description="Of a plan: the students' networks.")
    stages: tuple[StageResult, ...] = Field(default=(), description="Of a plan: the proof.")
    conflict: tuple[str, ...] = Field(
        default=(), description="What cannot hold together, where there is no plan."
    )
    points: tuple[FrontPoint, ...] = Field(default=(), description="Of a front: its plans.")
    breakpoints: tuple[Breakpoint, ...] = Field(
        default=(), description="Of a budget: its break-points, the highest first."
    )
    deterministic_time: float = Field(ge=0, description="Time it took, in the solver's unit.")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what is to be found of it."""

    kind: Kind
    question: Question
    over: Range | None = None

    @property
    def digest(self) -> str:
        """Digest of all that the answer depends on, versions and hardware included."""
        content = {
            "kind": self.kind,
            "question": self.question.model_dump(mode="json"),
            "over": repr(self.over),
            "hardware": repr(resolve(self.question.fleet)),
            "versions": versions(),
        }
        text = json.dumps(content, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def find(self) -> Found:
        """Solve it."""
        finding = {"plan": _plan, "front": _front, "breakpoints": _breakpoints}
        return finding[self.kind](self)


def versions() -> dict[str, str]:
    """Return the versions that an answer depends on."""
    return {name: version(name) for name in ("nonn-plan", "ortools")}


def read_found(path: Path, digest: str) -> Found | None:
    """Return what an earlier run found; None where it did not, or its file is damaged."""
    try:
        found = Found.read(path)
    except InputError:
        return None
    return found if found.digest == digest else None


def _plan(asked: Asked) -> Found:
    question = asked.question
    try:
        plan = solve(question)
    except UnprovenError:
        return Found(
            digest=asked.digest,
            kind="plan",
            status="unproven",
            deterministic_time=question.deterministic_limit,
        )
    return Found(
        digest=asked.digest,
        kind="plan",
        status="unproven" if plan.status == "feasible" else plan.status,
        values=_values_of_plan(plan),
        networks=tuple(student.network for student in plan.students),
        stages=plan.stages,
        conflict=plan.conflict,
        deterministic_time=plan.solver.deterministic_time,
    )


def _values_of_plan(plan: PlanDocument) -> dict[str, float]:
    if plan.predicted is None:
        return {}
    names: dict[Objective, None] = dict.fromkeys(
        [*(stage.objective for stage in plan.stages), *FIGURES]
    )
    values: dict[str, float] = {
        name: measured(name, plan.question, plan.decision, plan.predicted) for name in names
    }
    if plan.accuracy is not None and plan.accuracy.value_pct is not None:
        values["accuracy"] = plan.accuracy.value_pct
    return values


def _front(asked: Asked) -> Found:
    question = asked.question
    meter = Meter(question.deterministic_limit)
    front = front_of(Prover(question, meter, most_drafts=0))
    points = [_point(question, one.assignment) for one in front.found]
    status: Status = "optimal" if points else "infeasible"
    return Found(
        digest=asked.digest,
        kind="front",
        status=status if front.complete else "unproven",
        points=tuple(points),
        deterministic_time=round(question.deterministic_limit - meter.left, 6),
    )


def _point(question: Question, assignment: Assignment) -> FrontPoint:
    return FrontPoint(
        values={
            stage.objective: value_of(question, stage.objective, assignment)
            for stage in question.objective
        },
        networks=tuple(student.network for student in assignment.students),
        boards=tuple(question.fleet.boards[one.board].name for one in assignment.students),
    )


def _breakpoints(asked: Asked) -> Found:
    if asked.over is None:
        raise ValueError("break-points are of a budget")
    question = asked.question
    meter = Meter(question.deterministic_limit)
    steps = breakpoints(Prover(question, meter, most_drafts=0), asked.over)
    status: Status = "optimal" if steps.breakpoints else "infeasible"
    return Found(
        digest=asked.digest,
        kind="breakpoints",
        status=status if steps.proven else "unproven",
        breakpoints=steps.breakpoints,
        deterministic_time=round(question.deterministic_limit - meter.left, 6),
    )
