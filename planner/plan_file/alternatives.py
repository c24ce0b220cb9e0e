"""Alternatives to a NoNN: one network, whole or cut, on the same boards.

    nonn        students that never talk to each other, as planned
    segmented   the teacher as it is, cut by layers over boards (or whole, where one board holds it)
    compressed  one of the problem's networks as a single model, whole on one board
    both        one of these networks, cut by layers over two boards or more

As in JointCS (Li et al. 2021, ICPADS), compression and cut are chosen together: network, cuts,
boards and their order are the best there are for the problem's objective.
"""

from collections.abc import Iterable, Mapping, Sequence

from nonn_common.errors import UnprovenError
from nonn_common.units import FLOPS_PER_MAC, format_bytes, format_count
from nonn_core.networks.blueprint import NetworkSpec
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Cost, teacher_cost
from planner.accuracy.rows import Method
from planner.data.objective_function import satisfies
from planner.pipelines.segment_costs import CutObjective, PartCount
from planner.pipelines.segmentation import (
    SLACK,
    AccuracyEstimator,
    Segmentation,
    best_segmentation,
    infeasibility_reason,
)
from planner.plan_file.evaluation import PlanEvaluation, all_up_probability
from planner.plan_file.plan_document import Alternative, AlternativeKind, PlanDocument, Verdict
from planner.problem.goals import OBJECTIVES, Objective, ObjectiveLevel
from planner.problem.problem import Problem
from profiles.layer import BYTES_PER_VALUE

_LABELS: Mapping[AlternativeKind, str] = {
    "nonn": "the NoNN",
    "segmented": "the teacher",
    "compressed": "one network whole",
    "both": "one network cut by layers",
}


def find_alternatives(plan: PlanDocument) -> tuple[Alternative, ...]:
    """Return the four ways, each at its best for the problem's objective and requirements.

    A smaller network is taken to be trained by attention transfer (ATKD), which the rows do not
    tell from a NoNN of its size.  Raises ProfileError for unknown devices.
    """
    problem, smaller = plan.question, plan.question.specs
    known = problem.accuracy
    named = known.teacher.network if known is not None else None
    teacher = (parse_network(named),) if named is not None else ()
    return (
        _nonn(plan),
        _single("segmented", problem, teacher, "any", lambda *_: _teacher_pct(problem)),
        _single("compressed", problem, smaller, "one", _estimate(problem)),
        _single("both", problem, smaller, "several", _estimate(problem)),
    )


def _estimate(problem: Problem) -> AccuracyEstimator:
    """Estimator of the accuracy of one network of the problem."""

    def estimated(params: int, macs: int, students: int) -> float | None:
        if problem.accuracy is None or not problem.accuracy.known:
            return None
        method: Method = "atkd" if students == 1 else "nonn"
        return problem.accuracy_model.estimate(params, macs, method).value_pct

    return estimated


def judge_alternatives(found: Sequence[Alternative], stages: Sequence[ObjectiveLevel]) -> Verdict:
    """Compare alternatives level by level, each within the tolerance of those before it.

    Stages that mean nothing to a single network (dropped, imbalance, students), those that are not
    compared (memory, flops, precision, survival, reliability), and those whose figure is not known
    for all, are passed over.  Ties go to the least latency, then to
    the first in the list.
    """
    left = [each for each in found if each.status == "feasible"]
    if not left:
        return Verdict(winner=None, why=(_joined_sentence(map(_unfit_sentence, found)),))
    asked = [(str(level.objective), level.tolerance_pct) for level in stages]
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
            _loss_sentence(each, winner, objective)
            for each, value in zip(left, known, strict=True)
            if value > limit
        ]
        left = [each for each, value in zip(left, known, strict=True) if value <= limit]
    losses += [f"{_label(each)} is its equal" for each in left[1:]]
    unfit = [_unfit_sentence(each) for each in found if each.status != "feasible"]
    rivals = _joined_sentence((*losses, *unfit))
    return Verdict(
        winner=left[0].kind,
        why=(f"Best is {_description(left[0])}.", *([rivals] if rivals else [])),
    )


def _nonn(plan: PlanDocument) -> Alternative:
    if plan.predicted is None:
        return Alternative(
            kind="nonn", networks=(), status="infeasible", reason="; ".join(plan.conflict)
        )
    decision = plan.decision
    worth = PlanEvaluation.of_plan(plan).robustness
    return Alternative(
        kind="nonn",
        networks=tuple(student.network for student in decision.students),
        status="feasible",
        boards=len(decision.used),
        total_ms=plan.predicted.total_ms,
        energy_fleet_mj=plan.predicted.energy_fleet_mj,
        energy_highest_mj=plan.predicted.energy_highest_mj,
        throughput_per_s=plan.predicted.throughput_per_s,
        params=decision.params,
        memory_highest_bytes=max(
            int(row.used) for row in plan.budgets if row.budget == "memory_bytes"
        ),
        accuracy_pct=plan.accuracy.value_pct if plan.accuracy else None,
        robustness_pct=worth.expected_accuracy_pct if worth else None,
    )


def _single(
    kind: AlternativeKind,
    problem: Problem,
    networks: Sequence[NetworkSpec],
    parts: PartCount,
    accuracy: AccuracyEstimator,
) -> Alternative:
    """Return the best way to run one of `networks` that does what is required."""
    if not networks:
        return Alternative(
            kind=kind,
            networks=(),
            status="undecided",
            reason="the network of the teacher is not known",
        )
    able = [network for network in networks if _does(problem, network, parts, accuracy)]
    if not able:
        return Alternative(
            kind=kind, networks=(), status="infeasible", reason=_none_does(problem, networks)
        )
    try:
        best = best_segmentation(
            problem, able, parts=parts, limits=_limits(problem), accuracy=accuracy
        )
    except UnprovenError as error:
        return Alternative(kind=kind, networks=(), status="undecided", reason=str(error))
    if best is None:
        smallest = min(able, key=lambda spec: _cost(problem, spec).params)
        reason = infeasibility_reason(problem, smallest, parts)
        return Alternative(kind=kind, networks=(), status="infeasible", reason=reason)
    if over := _over_memory(problem, best):
        return Alternative(kind=kind, networks=(), status="undecided", reason=over)
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
        accuracy_pct=accuracy(best.params, best.macs, 1),
        robustness_pct=_robustness_pct(problem, best, accuracy),
        segmentation=best,
    )


def _robustness_pct(
    problem: Problem, best: Segmentation, accuracy: AccuracyEstimator
) -> float | None:
    """Expected accuracy of a network that needs all its boards up."""
    accuracy_pct = accuracy(best.params, best.macs, 1)
    if problem.failures is None or accuracy_pct is None:
        return None
    return accuracy_pct * all_up_probability(problem, best.boards)


def _limits(problem: Problem) -> dict[CutObjective, float]:
    """Bounds on costs that depend on the cut; throughput as ms per image."""
    bounds = {one.objective: one.bound for one in problem.requirements}
    aims: tuple[CutObjective, ...] = ("latency", "energy", "energy-node", "boards")
    limits: dict[CutObjective, float] = {aim: bounds[aim] for aim in aims if aim in bounds}
    return limits | ({"throughput": 1000 / bounds["throughput"]} if "throughput" in bounds else {})


def _over_memory(problem: Problem, best: Segmentation) -> str | None:
    """Say so if the best cut needs more memory, activations included, than is required."""
    needed = sum(part.memory_bytes for part in best.parts)
    for one in problem.requirements:
        if one.objective == "memory" and not satisfies(problem, one, needed):
            return f"the best cut of {best.network} needs {format_bytes(needed)}; asked: {one}"
    return None


def _does(
    problem: Problem, network: NetworkSpec, parts: PartCount, accuracy: AccuracyEstimator
) -> bool:
    """Say whether a network has the required size and accuracy, however cut.

    Of memory that is its weights, and its activations where it is not cut.
    """
    cost = _cost(problem, network)
    size = BYTES_PER_VALUE[problem.smallest_precision]
    elements = cost.params + (cost.peak_elements if parts == "one" else 0)
    known: dict[Objective, float | None] = {
        "accuracy": accuracy(cost.params, cost.macs, 1),
        "capacity": cost.params,
        "flops": FLOPS_PER_MAC * cost.macs,
        "memory": size * elements,
        "precision": size,
        # One board that fails takes a network without copies with it.
        "survival": 0,
    }
    return all(
        satisfies(problem, one, value)
        for one in problem.requirements
        if (value := known.get(one.objective)) is not None
    )


def _none_does(problem: Problem, networks: Sequence[NetworkSpec]) -> str:
    which = ", ".join(map(str, problem.requirements))
    return f"none of {len(networks)} networks alone keeps what is required: {which}"


def _cost(problem: Problem, network: NetworkSpec) -> Cost:
    return teacher_cost(network, problem.image_shape, problem.classes)


def _teacher_pct(problem: Problem) -> float | None:
    """Return the teacher's accuracy, if it is known."""
    return problem.accuracy_model.teacher_accuracy_pct if problem.accuracy else None


def _value(one: Alternative, objective: str) -> float | None:
    """Value of an objective, negated where more is better."""
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
        "robustness": one.robustness_pct,
    }
    worth = more.get(objective)
    return less.get(objective) if worth is None else -worth


def _figure(one: Alternative, objective: str) -> str:
    """Write an objective's value for people."""
    figure = abs(_value(one, objective) or 0.0)
    if objective == "capacity":
        return f"{format_count(figure)} parameters"
    return f"{figure:.4g} {OBJECTIVES[objective].phrase}"


def _label(one: Alternative) -> str:
    """Name an alternative and, where it is one, its network."""
    network = f" ({one.networks[0]})" if one.segmentation else ""
    return f"{_LABELS[one.kind]}{network}"


def _board_phrase(one: Alternative) -> str:
    """Say how many boards work, and how full the fullest is."""
    fullest = format_bytes(one.memory_highest_bytes or 0)
    return f"1 board ({fullest})" if one.boards == 1 else f"{one.boards} boards (up to {fullest})"


def _description(one: Alternative) -> str:
    """Describe an alternative that is feasible."""
    known = ("latency", "energy") if one.energy_fleet_mj is not None else ("latency",)
    cost = " and ".join(_figure(one, objective) for objective in known)
    return f"{_label(one)} on {_board_phrase(one)} with {cost}"


def _loss_sentence(one: Alternative, winner: Alternative, objective: str) -> str:
    """Say what an alternative loses by."""
    figures = f"{_figure(one, objective)} against {_figure(winner, objective)}"
    return f"{_label(one)} on {_board_phrase(one)} loses by {objective}, {figures}"


def _unfit_sentence(one: Alternative) -> str:
    """Say why an alternative is none."""
    verb = "does not fit" if one.status == "infeasible" else "is undecided"
    return f"{_LABELS[one.kind]} {verb} ({one.reason})"


def _joined_sentence(sentences: Iterable[str]) -> str:
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def with_alternatives(plan: PlanDocument) -> PlanDocument:
    """Return the plan with its alternatives and the verdict on them."""
    found = find_alternatives(plan)
    judged = judge_alternatives(found, plan.question.objective)
    return plan.model_copy(update={"alternatives": found, "verdict": judged})
