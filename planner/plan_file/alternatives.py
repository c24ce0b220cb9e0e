"""Alternatives to a NoNN: one network, whole or cut, and the teacher alone.

    nonn        students that never talk to each other, as planned
    compressed  one of the problem's networks as a single model, whole on one board
    both        one of these networks, cut by layers over two boards or more
    segmented   the teacher as it is, cut by layers over boards (or whole, where one board holds it)
    teacher     the teacher whole on the board where it answers soonest, whether it fits or not

As in JointCS (Li et al. 2021, ICPADS), compression and cut are chosen together: network, cuts,
boards and their order are the best there are for the problem's objective.  No alternative is called
the best of all: what latency, accuracy, energy and boards are worth is the user's to say.
"""

from collections.abc import Iterator, Sequence

from nonn_common.errors import UnprovenError
from nonn_common.units import FLOPS_PER_MAC
from nonn_core.networks.blueprint import NetworkSpec
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Cost, teacher_cost
from planner.accuracy import AccuracyEstimate
from planner.accuracy.rows import Method
from planner.data.objective_function import satisfies
from planner.data.problem_data import host_device
from planner.pipelines.segment_costs import CutObjective, PartCount, cut_model
from planner.pipelines.segmentation import (
    SLACK,
    AccuracyEstimator,
    Segmentation,
    best_segmentation,
    describe_segmentation,
    infeasibility_reason,
    recompute_segmentation,
)
from planner.plan_file.evaluation import PlanEvaluation, all_up_probability
from planner.plan_file.plan_document import Alternative, AlternativeKind, PlanDocument
from planner.problem.budgets import BUDGETS, BudgetName
from planner.problem.duty import LEAST_PER_S, Duty
from planner.problem.goals import OBJECTIVES, Objective, Requirement
from planner.problem.problem import Problem
from profiles.layer import BYTES_PER_VALUE
from simulator.task_graph import period_ms
from simulator.workloads.closed_form import fan_out_breakdown
from simulator.workloads.fan_out import FanOut, StudentWork


def find_alternatives(plan: PlanDocument) -> tuple[Alternative, ...]:
    """Return the five ways, the first four each at its best for the objective.

    A smaller network is taken to be trained by attention transfer (ATKD), which the rows do not
    tell from a NoNN of its size.  Raises ProfileError for unknown devices.
    """
    problem, smaller = plan.question, plan.question.specs
    known = problem.accuracy
    named = known.teacher.network if known is not None else None
    teacher = (parse_network(named),) if named is not None else ()
    return (
        _nonn(plan),
        _single("compressed", problem, smaller, "one", _estimate("compressed", problem)),
        _single("both", problem, smaller, "several", _estimate("both", problem)),
        _single("segmented", problem, teacher, "any", _estimate("segmented", problem)),
        teacher_alone(problem),
    )


def false_alternatives(plan: PlanDocument) -> Iterator[str]:
    """Yield figures of alternatives that their plan, cut or board does not give.

    That there is nothing better is not looked for again.
    """
    problem = plan.question
    for one in plan.alternatives:
        right: Alternative | None = None
        of = "cut"
        if one.kind == "nonn":
            right, of = _nonn(plan), "plan"
        elif one.kind == "teacher":
            right, of = teacher_alone(problem), "board"
        elif one.segmentation is not None:
            cut = recompute_segmentation(problem, one.segmentation)
            right = _cut(one.kind, problem, cut, _estimate(one.kind, problem))
        for field in Alternative.model_fields if right is not None else ():
            written = getattr(one, field)
            # Plans from before a figure was told say nothing of it.
            if written is not None and written != getattr(right, field):
                yield f"alternative {one.kind}: its figures are not those of its {of}: {field}"


def _estimate(kind: AlternativeKind, problem: Problem) -> AccuracyEstimator:
    """Estimator of the accuracy of one network of the problem; the teacher's is as measured."""
    if kind == "segmented":
        return lambda *_: _teacher_pct(problem)

    def estimated(params: int, macs: int, students: int) -> float | None:
        if problem.accuracy is None or not problem.accuracy.known:
            return None
        method: Method = "atkd" if students == 1 else "nonn"
        return problem.accuracy_model.estimate(params, macs, method).value_pct

    return estimated


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
        **_accuracies(plan.accuracy),
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
        which = ", ".join(map(str, problem.requirements))
        reason = f"none of {len(networks)} networks alone keeps what is required: {which}"
        return Alternative(kind=kind, networks=(), status="infeasible", reason=reason)
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
    if over := _missed(problem, best):
        return Alternative(kind=kind, networks=(), status="undecided", reason=over)
    return _cut(kind, problem, best, accuracy)


def _cut(
    kind: AlternativeKind, problem: Problem, best: Segmentation, accuracy: AccuracyEstimator
) -> Alternative:
    """Row of one network, whole or cut."""
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
        **_accuracies_of_network(problem, kind, best.params, best.macs),
        robustness_pct=_robustness_pct(problem, accuracy(best.params, best.macs, 1), best.boards),
        segmentation=best,
    )


def _robustness_pct(
    problem: Problem, accuracy_pct: float | None, boards: Sequence[str]
) -> float | None:
    """Expected accuracy of a network that needs all these boards up."""
    if problem.failures is None or accuracy_pct is None:
        return None
    return accuracy_pct * all_up_probability(problem, boards)


def _limits(problem: Problem) -> dict[CutObjective, float]:
    """Bounds on costs that depend on the cut; throughput as ms per image."""
    bounds = {one.objective: one.bound for one in problem.requirements}
    aims: tuple[CutObjective, ...] = ("latency", "energy", "energy-node", "boards")
    limits: dict[CutObjective, float] = {aim: bounds[aim] for aim in aims if aim in bounds}
    return limits | ({"throughput": 1000 / bounds["throughput"]} if "throughput" in bounds else {})


def _missed(problem: Problem, best: Segmentation) -> str | None:
    """Say so if the best cut breaks a requirement of memory, activations included, or life."""
    told = _powers_of(problem, best) | {"memory": sum(part.memory_bytes for part in best.parts)}
    for one in problem.requirements:
        value = told.get(one.objective)
        if value is not None and not satisfies(problem, one, value):
            text = f"{value:.6g} {OBJECTIVES[one.objective].unit}"
            return f"the best cut of {best.network} has {one.objective} {text}; asked: {one}"
    return None


def _powers_of(problem: Problem, cut: Segmentation | None) -> dict[Objective, float | None]:
    """Power of all boards, also on average, and life of batteries."""
    if cut is None:
        return {}
    spent = {part.board: (part.compute_ms, part.energy_mj or 0.0) for part in cut.parts}
    rate_per_s = problem.rate_per_s or LEAST_PER_S
    duty = Duty.of(rate_per_s, problem.boards, problem.budgets, spent)
    return {
        "battery": duty.battery_h,
        "fleet-power": sum(busy_mj / busy_ms for busy_ms, busy_mj in spent.values() if busy_ms),
        "fleet-average-power": duty.average_w,
    }


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


def _cost(problem: Problem, network: NetworkSpec) -> Cost:
    return teacher_cost(network, problem.image_shape, problem.classes)


def _accuracies(known: AccuracyEstimate | None) -> dict[str, float | None]:
    """Accuracy and its interval, as fields of an alternative."""
    if known is None:
        return {}
    return {f"accuracy_{name}": getattr(known, name) for name in ("low_pct", "high_pct")} | {
        "accuracy_pct": known.value_pct
    }


def _accuracies_of_network(
    problem: Problem, kind: AlternativeKind, params: int, macs: int
) -> dict[str, float | None]:
    """Accuracy of one network and its interval; the teacher's as it was measured."""
    if problem.accuracy is None or not problem.accuracy.known:
        return {}
    model = problem.accuracy_model
    if kind not in ("segmented", "teacher"):
        return _accuracies(model.estimate(params, macs, "atkd"))
    low, high = model.teacher_interval_pct()
    return {
        "accuracy_pct": _teacher_pct(problem),
        "accuracy_low_pct": low,
        "accuracy_high_pct": high,
    }


def teacher_alone(problem: Problem) -> Alternative:
    """Teacher alone on the board where it answers soonest, also where it does not fit.

    Of boards that are as quick it is one that holds it, if any does.  The layers of a teacher of no
    family known here are not known, so that its time follows from its MACs.
    """
    if problem.accuracy is None:
        return Alternative(
            kind="teacher", networks=(), status="undecided", reason="the teacher is not known"
        )
    times: dict[tuple[str, str], float] = {}
    rows = []
    for place, board in enumerate(problem.pipeline_boards):
        key = board.device.name, board.link.name
        if key not in times:
            times[key] = _teacher_on(problem, place).total_ms or 0.0
        rows.append((times[key], place))
    quickest = min(rows)[0]
    places = [place for total_ms, place in rows if total_ms <= quickest * (1 + SLACK)]
    found = [_teacher_on(problem, place) for place in places]
    return next((one for one in found if one.status == "feasible"), found[0])


def _teacher_on(problem: Problem, place: int) -> Alternative:
    """Teacher whole on the board of this place; raises ValueError where unknown."""
    if problem.accuracy is None:
        raise ValueError("the question says nothing of a teacher")
    facts, board, budget = (
        problem.accuracy.teacher,
        problem.pipeline_boards[place],
        problem.budgets[place],
    )
    size = BYTES_PER_VALUE[problem.smallest_precision]
    whole, figures = None, {}
    if facts.network is not None:
        spec = parse_network(facts.network)
        model = cut_model(spec, problem.image_shape, problem.classes, problem.smallest_precision)
        whole = describe_segmentation(problem, model, (board,), ())
        peak_bytes, busy_ms = model.ram_bytes(0, len(model.table)), whole.compute_ms
        figures = {
            "total_ms": whole.total_ms,
            "energy_fleet_mj": whole.energy_fleet_mj,
            "throughput_per_s": whole.throughput_per_s,
        }
    else:
        work = StudentWork("teacher", board.name, round(facts.macs), problem.classes)
        image_bytes = problem.image_shape.size_bytes
        alone = FanOut(host_device(problem), (board,), (work,), (board.name,), image_bytes)
        told = fan_out_breakdown(alone)
        peak = problem.partition.teacher.peak_elements if problem.partition.teacher else None
        peak_bytes, busy_ms = size * (peak or 0), told.compute_ms
        figures = {
            "total_ms": told.total_ms,
            "energy_fleet_mj": told.energy_total_mj if board.device.power_known else None,
            "throughput_per_s": 1000 / period_ms(alone.graph()),
        }
    stored_bytes = size * round(facts.params)
    memory_bytes = whole.memory_highest_bytes if whole else stored_bytes + peak_bytes
    row = Alternative(
        kind="teacher",
        networks=() if facts.network is None else (facts.network,),
        status="feasible",
        boards=1,
        energy_highest_mj=figures["energy_fleet_mj"],
        params=round(facts.params),
        memory_highest_bytes=memory_bytes,
        on=board.name,
        robustness_pct=_robustness_pct(problem, _teacher_pct(problem), [board.name]),
        segmentation=whole,
        **_accuracies_of_network(problem, "teacher", round(facts.params), round(facts.macs)),
        **figures,
    )
    uses: dict[BudgetName, float | None] = {
        "memory_bytes": memory_bytes,
        "flash_bytes": stored_bytes,
        "ram_bytes": peak_bytes,
        "macs": facts.macs,
        "busy_ms": busy_ms,
        "energy_mj": row.energy_fleet_mj,
        "power_w": (row.energy_fleet_mj or 0.0) / busy_ms if busy_ms else 0.0,
        "average_w": _powers_of(problem, whole).get("fleet-average-power"),
    }
    reasons = [
        f"it needs {BUDGETS[kind].text(uses[kind] or 0)}, "
        f"{board.name} has {BUDGETS[kind].text(budget.room(kind) or 0)}"
        for kind in budget.exceeded(uses)
    ] + [f"{one} is required" for one in problem.requirements if _breaks(problem, one, row)]
    return row.model_copy(update={"status": "infeasible", "reason": reasons[0]}) if reasons else row


def _breaks(problem: Problem, required: Requirement, row: Alternative) -> bool:
    """Whether one network on one board breaks a requirement, as far as that is known."""
    known: dict[Objective, float | None] = {
        "accuracy": row.accuracy_pct,
        "capacity": row.params,
        "latency": row.total_ms,
        "throughput": row.throughput_per_s,
        "energy": row.energy_fleet_mj,
        "energy-node": row.energy_highest_mj,
        "memory": row.memory_highest_bytes,
        "boards": row.boards,
        **_powers_of(problem, row.segmentation),
        "robustness": row.robustness_pct,
        "survival": 0,
    }
    value = known.get(required.objective)
    return value is not None and not satisfies(problem, required, value)


def _teacher_pct(problem: Problem) -> float | None:
    """Return the teacher's accuracy, if it is known."""
    return problem.accuracy_model.teacher_accuracy_pct if problem.accuracy else None


def with_alternatives(plan: PlanDocument) -> PlanDocument:
    """Return the plan with its alternatives."""
    return plan.model_copy(update={"alternatives": find_alternatives(plan)})
