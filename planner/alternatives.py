"""Compress or segment: a NoNN beside what else the same boards could do with the same knowledge.

    nonn        students that never talk to each other, as planned
    segmented   the teacher as it is, cut by layers over boards (or whole, where one board holds it)
    compressed  one of the question's networks as a single model, whole on one board
    both        one of these networks, cut by layers over two boards or more

As in JointCS (Li et al. 2021, ICPADS), compression and cut are chosen together: network, cuts,
boards and their order are the best there are for the question's objective.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from nonn_core.costs import teacher_cost
from nonn_core.family import NetworkSpec
from planner.plan import PlanDocument
from planner.question import Question
from planner.segments.choice import SLACK, Accuracy, segment, why_not
from planner.segments.costs import Parts
from planner.segments.segmentation import Segmentation
from planner.stage import Stage
from planner.workload import fan_out
from profiles.document import Record
from profiles.errors import UnprovenError
from profiles.units import format_bytes, format_count
from simulator.job import period_ms

Kind = Literal["nonn", "segmented", "compressed", "both"]

_LABELS: Mapping[Kind, str] = {
    "nonn": "the NoNN",
    "segmented": "the teacher",
    "compressed": "one network whole",
    "both": "one network cut by layers",
}


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
    segmentation: Segmentation | None = Field(
        default=None, description="Its parts; null for a NoNN."
    )


class Verdict(Record):
    """Which alternative wins, and why."""

    winner: Kind | None = Field(description="Null where none is feasible.")
    why: tuple[str, ...] = Field(min_length=1, description="Sentences for people.")


def alternatives(
    question: Question,
    plan: PlanDocument,
    teacher_network: NetworkSpec | None,
    *,
    accuracy: Accuracy | None = None,
) -> tuple[Alternative, ...]:
    """Return the four ways, each at its best for the question's objective.

    `accuracy` estimates that of students and smaller networks.  The teacher's is the one measured
    with nothing dropped, if this is the partition's teacher.  Raises ProfileError for unknown
    devices.
    """
    smaller = question.specs
    teacher = (teacher_network,) if teacher_network is not None else ()
    teacher_pct = _teacher_pct(question, teacher_network)
    return (
        _nonn(plan, accuracy),
        _single("segmented", question, teacher, "any", lambda *_: teacher_pct),
        _single("compressed", question, smaller, "one", accuracy),
        _single("both", question, smaller, "several", accuracy),
    )


def verdict(found: Sequence[Alternative], stages: Sequence[Stage]) -> Verdict:
    """Compare alternatives stage by stage, each within the tolerance of those before it.

    Stages that mean nothing to a single network (dropped, imbalance, students, robustness), and
    those whose figure is not known for all, are passed over.  Ties go to the least latency, then to
    the first in the list.
    """
    left = [each for each in found if each.status == "feasible"]
    if not left:
        return Verdict(winner=None, why=(_all(map(_unfit, found)),))
    asked = [(str(stage.objective), stage.tolerance_pct) for stage in stages]
    losses: list[str] = []
    for objective, tolerance_pct in (*asked, ("latency", 0.0)):
        values = [_value(each, objective) for each in left]
        known = [value for value in values if value is not None]
        if len(known) < len(left):
            continue
        best = min(known)
        limit = best + abs(best) * (tolerance_pct / 100 + SLACK)
        winner = left[known.index(best)]
        losses += [
            _loss(each, winner, objective)
            for each, value in zip(left, known, strict=True)
            if value > limit
        ]
        left = [each for each, value in zip(left, known, strict=True) if value <= limit]
    losses += [f"{_named(each)} is its equal" for each in left[1:]]
    unfit = [_unfit(each) for each in found if each.status != "feasible"]
    rivals = _all((*losses, *unfit))
    return Verdict(
        winner=left[0].kind, why=(f"Best is {_told(left[0])}.", *([rivals] if rivals else []))
    )


def _nonn(plan: PlanDocument, accuracy: Accuracy | None) -> Alternative:
    if plan.predicted is None:
        return Alternative(
            kind="nonn", networks=(), status="infeasible", reason="; ".join(plan.conflict)
        )
    students = plan.students
    params = sum(student.params for student in students)
    macs = sum(student.macs for student in students)
    return Alternative(
        kind="nonn",
        networks=tuple(student.network for student in students),
        status="feasible",
        boards=len(plan.send_order),
        total_ms=plan.predicted.total_ms,
        energy_fleet_mj=plan.predicted.energy_fleet_mj,
        energy_highest_mj=plan.predicted.energy_highest_mj,
        throughput_per_s=1000.0 / period_ms(fan_out(plan).job()),
        params=params,
        memory_highest_bytes=max(row.used for row in plan.budgets if row.budget == "memory_bytes"),
        accuracy_pct=accuracy(params, macs, len(students)) if accuracy else None,
    )


def _single(
    kind: Kind,
    question: Question,
    networks: Sequence[NetworkSpec],
    parts: Parts,
    accuracy: Accuracy | None,
) -> Alternative:
    """Return the best way to run one of `networks`."""
    if not networks:
        return Alternative(
            kind=kind,
            networks=(),
            status="undecided",
            reason="the network of the teacher is not known",
        )
    try:
        best = segment(question, networks, parts=parts, accuracy=accuracy)
    except UnprovenError as error:
        return Alternative(kind=kind, networks=(), status="undecided", reason=str(error))
    if best is None:
        smallest = min(networks, key=lambda spec: _cost_params(question, spec))
        reason = why_not(question, smallest, parts)
        return Alternative(kind=kind, networks=(), status="infeasible", reason=reason)
    return Alternative(
        kind=kind,
        networks=(best.network,),
        status="feasible",
        boards=len(best.parts),
        total_ms=best.total_ms,
        energy_fleet_mj=best.energy_fleet_mj,
        energy_highest_mj=best.energy_highest_mj,
        throughput_per_s=best.throughput_per_s,
        params=best.params,
        memory_highest_bytes=best.memory_highest_bytes,
        accuracy_pct=accuracy(best.params, best.macs, 1) if accuracy else None,
        segmentation=best,
    )


def _cost_params(question: Question, network: NetworkSpec) -> int:
    return teacher_cost(network, question.image_shape, question.classes).params


def _teacher_pct(question: Question, network: NetworkSpec | None) -> float | None:
    """Return the teacher's measured accuracy, if this network is the one that was measured."""
    measured = question.partition.teacher
    if measured is None or network is None or measured.network != str(network):
        return None
    return question.partition.drop_steps[0].accuracy_pct


def _value(one: Alternative, objective: str) -> float | None:
    """Return what is to be small: the value of an objective, or its negative."""
    less: dict[str, float | None] = {
        "latency": one.total_ms,
        "energy": one.energy_fleet_mj,
        "energy-node": one.energy_highest_mj,
        "boards": one.boards,
    }
    more: dict[str, float | None] = {
        "accuracy": one.accuracy_pct,
        "capacity": one.params,
        "throughput": one.throughput_per_s,
    }
    worth = more.get(objective)
    return less.get(objective) if worth is None else -worth


def _figure(one: Alternative, objective: str) -> str:
    """Write an objective's value for people."""
    figure = abs(_value(one, objective) or 0.0)
    units = {
        "latency": "ms",
        "energy": "mJ",
        "energy-node": "mJ on one board",
        "boards": "boards",
        "accuracy": "% accuracy",
        "throughput": "images/s",
    }
    if objective == "capacity":
        return f"{format_count(figure)} parameters"
    return f"{figure:.4g} {units[objective]}"


def _named(one: Alternative) -> str:
    """Name an alternative and, where it is one, its network."""
    network = f" ({one.networks[0]})" if one.segmentation else ""
    return f"{_LABELS[one.kind]}{network}"


def _place(one: Alternative) -> str:
    """Say how many boards work, and how full the fullest is."""
    fullest = format_bytes(one.memory_highest_bytes or 0)
    return f"1 board ({fullest})" if one.boards == 1 else f"{one.boards} boards (up to {fullest})"


def _told(one: Alternative) -> str:
    """Describe an alternative that is feasible."""
    cost = f"{_figure(one, 'latency')} and {_figure(one, 'energy')}"
    return f"{_named(one)} on {_place(one)} with {cost}"


def _loss(one: Alternative, winner: Alternative, objective: str) -> str:
    """Say what an alternative loses by."""
    figures = f"{_figure(one, objective)} against {_figure(winner, objective)}"
    return f"{_named(one)} on {_place(one)} loses by {objective}, {figures}"


def _unfit(one: Alternative) -> str:
    """Say why an alternative is none."""
    verb = "does not fit" if one.status == "infeasible" else "is undecided"
    return f"{_LABELS[one.kind]} {verb} ({one.reason})"


def _all(sentences: Iterable[str]) -> str:
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
