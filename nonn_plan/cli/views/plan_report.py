"""Partitions and plans as people see them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nonn_common.units import format_bytes, format_count, format_flops
from nonn_core.evidence import counted_images, partition_warnings, student_warnings
from nonn_core.partition import Community, Partition
from nonn_plan.cli.output import Output, format_estimate, format_pct
from nonn_plan.cli.views.board_report import show_duty
from nonn_plan.cli.views.explanation_report import show_proof
from planner.accuracy import AccuracyEstimate
from planner.plan_file.evaluation import PlanEvaluation
from planner.plan_file.plan_document import (
    Alternative,
    JointModel,
    PlanDocument,
    PlannedGroup0,
    Prediction,
)
from planner.problem.budgets import BUDGETS
from planner.problem.problem import Problem
from profiles.device import TimingMethod
from profiles.fleet import noisy_links, resolve
from profiles.link import noise_text
from profiles.operating_point import point_text

if TYPE_CHECKING:
    from nonn_core.communities.knowledge import GammaRow


HOW: Mapping[TimingMethod, str] = {"per-layer": "layer by layer", "flop-affine": "by FLOPs alone"}
_CLAUSES = re.compile(r"; (?![^(]*\))")
"""Between the clauses of a sentence, those in brackets apart: each is said by itself."""
_GAMMA_COLUMNS = (
    "gamma",
    "communities",
    "largest",
    "smallest",
    "modularity",
    "at gamma 1",
    "g0",
    "P0",
)


def show_partition(output: Output, partition: Partition) -> None:
    """Show communities, what dropping them does to the teacher, and what is too scarce."""
    output.table(
        f"Communities of {partition.filters} filters (modularity {partition.modularity:.3f})",
        ("community", "filters", "what"),
        [(str(one.id), str(len(one.filters)), _origin(one)) for one in partition.communities],
    )
    p0 = None if partition.epsilon_pct is None else partition.p0(partition.epsilon_pct)
    bounded = partition.confidence_pct is not None
    bound_column = (f"loss at most ({partition.confidence_pct:g} %)",) if bounded else ()
    output.table(
        "What may be dropped as P0",
        ("communities", "filters", "validation accuracy", "delta_val", *bound_column, ""),
        [
            (
                ", ".join(map(str, step.communities)) or "none",
                str(step.filters),
                format_pct(step.accuracy_pct),
                format_pct(step.delta_val_pct),
                *((format_pct(step.loss_bound_pct),) if bounded else ()),
                f"largest below {partition.epsilon_pct:g} %"
                if partition.epsilon_pct and step == p0
                else "",
            )
            for step in partition.drop_steps
        ],
    )
    if bounded and p0 is not None and partition.images_needed is not None:
        output.say(
            f"the measured delta_val alone would drop {partition.estimated_filters} filters, not "
            f"{p0.filters}; to be sure of that takes {counted_images(partition.images_needed)} or "
            f"more, and there are {partition.images:,}"
        )
    output.warn(*partition_warnings(partition))


def show_gammas(output: Output, rows: "Sequence[GammaRow]", files: Sequence[str]) -> None:
    """Show what each gamma finds."""
    output.table(
        "Communities by gamma (g0 not counted), and how many filters P0 may hold",
        (*_GAMMA_COLUMNS, "file"),
        [
            (
                f"{row.gamma:g}",
                str(row.communities),
                str(row.largest),
                str(row.smallest),
                f"{row.modularity:.4f}",
                f"{row.plain_modularity:.4f}",
                str(row.g0_filters),
                "not measured" if row.p0_filters is None else str(row.p0_filters),
                file,
            )
            for row, file in zip(rows, files, strict=True)
        ],
    )


def _origin(community: Community) -> str:
    if community.unneeded:
        return "single filters that are not missed"
    return "linked" if community.linked else "without a link (g0)"


def show_plan(output: Output, plan: PlanDocument) -> None:
    """Show a plan's students, budgets, proof and prediction; nothing where there is none."""
    if plan.predicted is None:
        return
    output.warn(*student_warnings({one.name: len(one.filters) for one in plan.students}))
    output.table(
        f"Plan ({plan.status})",
        ("student", "board", "network", "filters", "parameters", "FLOPs", "memory"),
        [
            (
                one.name,
                ", ".join(one.boards),
                one.network,
                str(len(one.filters)),
                format_count(one.params),
                format_flops(one.macs),
                format_bytes(one.memory_bytes),
            )
            for one in plan.students
        ],
    )
    if plan.group0 is not None:
        _show_group0(output, plan.group0)
    for model in plan.joint_models:
        _show_joint_model(output, model)
    _show_balance(output, plan)
    _show_points(output, plan)
    _show_budgets(output, plan)
    show_proof(output, plan)
    _show_times(output, plan)
    cost = plan.predicted
    energy_mj = cost.energy_per_node_mj
    energy = "not known" if energy_mj is None else f"{energy_mj:.1f} mJ"
    output.say(
        f"latency {cost.total_ms:.1f} ms (longest board {cost.compute_ms:.1f}, rest "
        f"{cost.communication_ms:.1f}); energy per node {energy}; "
        f"dropped {plan.dropped_filters} filters"
    )
    _show_interval(output, plan, cost)
    if cost.expected_ms is not None and cost.p95_ms is not None:
        output.say(
            "boards and runs differ: the join takes "
            f"{cost.expected_ms:.1f} ms in the mean, at most {cost.p95_ms:.1f} ms in 95 of 100 "
            "images; latency is that of the means"
        )
    output.warn(*unknown_spread(plan.question, plan.decision.used))
    output.say(f"throughput {cost.throughput_per_s:.3g} images per second; host {plan.host}")
    show_duty(output, plan)
    if plan.accuracy is not None:
        _show_accuracy(output, plan.accuracy)
    _show_failures(output, plan)
    _show_alternatives(output, plan)
    _, boards = resolve(plan.question.fleet)
    used = [board for board in boards if board.name in plan.decision.used]
    if noisy := noisy_links(used):
        names = sorted({board.link.name for board in used if noise_text(board.link)})
        for sentence in noisy:
            output.say(sentence)
        output.warn(
            f"predicted without loss and jitter of {', '.join(names)}: `nonn-plan simulate` shows "
            "them"
        )


def unknown_spread(problem: Problem, boards: Collection[str]) -> Iterator[str]:
    """Warning of a percentile where the spread of some of `boards` is unknown."""
    if "latency-p95" not in problem.goals:
        return
    used = [board.device for board in problem.boards if board.name in boards]
    unknown = dict.fromkeys(device.name for device in used if device.compute_cv is None)
    if unknown:
        same = " and is latency" if all(device.compute_cv is None for device in used) else ""
        yield (
            f"no spread is known of {', '.join(unknown)} (compute_cv): latency-p95 takes their "
            f"mean times{same}"
        )


def _show_times(output: Output, plan: PlanDocument) -> None:
    """Show each board's computing time with its interval, and what predicts it."""
    if not any("per-layer" in row.how for row in plan.board_times):
        return
    output.table(
        "Computing time of one image, ms",
        ("board", "planned", "90 % interval", "predicted"),
        [
            (
                row.board,
                f"{row.busy_ms:.2f}",
                "not known"
                if row.low_ms is None or row.high_ms is None
                else f"{row.low_ms:.2f} to {row.high_ms:.2f}",
                " and ".join(HOW[how] for how in row.how),
            )
            for row in plan.board_times
        ],
    )


def _show_interval(output: Output, plan: PlanDocument, cost: Prediction) -> None:
    """Say what predicts times, what latency lies between, and what is not known."""
    by_flops = [row.board for row in plan.board_times if "flop-affine" in row.how]
    if len(by_flops) == len(plan.board_times):
        output.say("times are predicted by FLOPs alone (FLOP-affine) on every board")
    elif by_flops:
        output.say(f"times are predicted by FLOPs alone (FLOP-affine) on {', '.join(by_flops)}")
    robust = plan.question.timing == "upper-end"
    if cost.low_ms is not None and cost.middle_ms is not None and cost.high_ms is not None:
        output.say(
            f"latency {cost.low_ms:.1f} to {cost.high_ms:.1f} ms with all boards at the ends of "
            f"their intervals, {cost.middle_ms:.1f} as predicted"
            f"{'; planned for the upper ends' if robust else ''}"
        )
    elif robust:
        output.warn("--robust changes nothing: no board's interval is known")
    untold = {
        board.device.name
        for board in plan.question.boards
        if board.name in plan.decision.used and not board.device.power_known
    }
    if untold:
        output.warn(f"energy is not known: no power is known of {', '.join(sorted(untold))}")


def _show_balance(output: Output, plan: PlanDocument) -> None:
    """Say how alike the partitions are, and how alike they have to be."""
    found = plan.balance
    if found is None:
        return
    if len(plan.students) > 1 and found.most_spread is not None:
        output.say(
            f"partitions are {found.largest - found.smallest} filters apart, of at most "
            f"{found.most_spread}: the least possible, {found.least_spread}, and "
            f"{plan.question.balance_pct:g} % of the mean"
        )
    if not found.least_proven:
        output.warn(
            f"the least possible difference of partitions is not proven: {found.least_spread} "
            "filters are the least that was found"
        )
    if plan.question.inversion != 0:
        output.warn(
            "no plan within the limits gives each wider student as many filters as narrower ones: "
            f"here up to {found.inversion} fewer"
        )


def _show_group0(output: Output, group0: PlannedGroup0) -> None:
    """Show G0's board, and its cost there."""
    output.say(
        f"G0 has a board of its own, {group0.board}: {format_count(group0.params)} parameters, "
        f"{format_flops(group0.macs)}, {format_bytes(group0.memory_bytes)}; it sends "
        f"{format_bytes(group0.maps_bytes)} of maps to each student's board"
    )


def _show_joint_model(output: Output, model: JointModel) -> None:
    """Show the students that share a board's G0, and what they cost together."""
    output.say(
        f"{', '.join(model.students)} share one G0 on {model.board}; together they are "
        f"{format_count(model.params)} parameters, {format_flops(model.macs)}, "
        f"{format_bytes(model.memory_bytes)}"
    )


def _show_points(output: Output, plan: PlanDocument) -> None:
    """Say at which operating points boards run, where these are open, and what they draw."""
    rows = zip(plan.question.fleet.boards, plan.question.points, strict=True)
    chosen: dict[str, list[str]] = {}
    for row, points in rows:
        if row.points == "any" and row.name in plan.decision.used:
            device = next(one.device for one in points if one.device.name == row.device)
            at = f"{point_text(device)} ({device.name}), of {len(points)} operating points"
            chosen.setdefault(at, []).append(row.name)
    for at, names in chosen.items():
        output.say(f"{', '.join(names)}: {at}")
    if "fleet-power" in plan.question.goals:
        powers = PlanEvaluation.of_plan(plan).power_w
        each = ", ".join(f"{name} {power_w or 0.0:.4g} W" for name, power_w in powers.items())
        whole_w = sum(power_w or 0.0 for power_w in powers.values())
        output.say(f"while all boards compute they draw {whole_w:.4g} W: {each}")


def _show_failures(output: Output, plan: PlanDocument) -> None:
    """Show the failures that the plan survives, and accuracy with failures."""
    problem, evaluation = plan.question, PlanEvaluation.of_plan(plan)
    if problem.max_copies > 1 or problem.failures:
        count = evaluation.survivable_failures
        output.say(
            f"no student is lost by any {count} failure{'s' * (count != 1)}"
            if count
            else "there is a failure that loses a student"
        )
    robustness = evaluation.robustness
    if robustness is not None:
        target = problem.failures.target_pct if problem.failures else None
        reliability = (
            ""
            if robustness.reliability_pct is None
            else f"; at least {target:g} % in {robustness.reliability_pct:.3f} % of all cases"
        )
        expected = f"{robustness.expected_accuracy_pct:.3f} %"
        output.say(f"expected accuracy with failures {expected}{reliability}")


def _show_alternatives(output: Output, plan: PlanDocument) -> None:
    """Show costs of the plan, one network and the teacher, and why some fail."""
    if not plan.alternatives:
        return
    names = {one.kind: alternative_name(plan, one) for one in plan.alternatives}
    # The teacher in one piece is the teacher alone.
    shown = [one for one in plan.alternatives if one.kind != "segmented" or one.boards != 1]
    fits = {"feasible": "yes", "infeasible": "no", "undecided": "not known"}
    output.table(
        "Trade-off: students, one network, or the teacher",
        ("way", "latency", "accuracy", "energy", "boards", "fits"),
        [
            (
                names[one.kind],
                "-" if one.total_ms is None else f"{one.total_ms:.1f} ms",
                _alternative_accuracy(one),
                "-" if one.energy_fleet_mj is None else f"{one.energy_fleet_mj:.1f} mJ",
                "-" if one.boards is None else str(one.boards),
                fits[one.status],
            )
            for one in shown
        ],
    )
    for one in shown:
        if one.status != "feasible":
            verb = "does not fit" if one.status == "infeasible" else "is not known"
            output.say(f"{names[one.kind]} {verb}: {one.reason}")
        if one.kind == "teacher" and one.total_ms is not None and one.segmentation is None:
            output.say("the teacher's latency is predicted by its FLOPs alone")


def alternative_name(plan: PlanDocument, one: Alternative) -> str:
    """Short name of an alternative, with its network or its board."""
    network = one.networks[0] if one.networks else "one network"
    return {
        "nonn": f"NoNN of {len(plan.students)}" if plan.students else "NoNN",
        "compressed": f"{network} whole",
        "both": f"{network} cut",
        "segmented": "teacher cut",
        "teacher": f"teacher on {one.on}" if one.on else "teacher alone",
    }[one.kind]


def _alternative_accuracy(one: Alternative) -> str:
    """Accuracy with the digits that its interval bears."""
    value, low, high = one.accuracy_pct, one.accuracy_low_pct, one.accuracy_high_pct
    if value is None:
        return "-"
    known = (value, value if low is None else low, value if high is None else high)
    return f"{format_estimate(*known)[0]} %"


def _show_accuracy(output: Output, accuracy: AccuracyEstimate) -> None:
    """Show the expected accuracy, its interval, and its basis."""
    known = (accuracy.value_pct, accuracy.low_pct, accuracy.high_pct)
    drops = (accuracy.drop_pct, accuracy.drop_low_pct, accuracy.drop_high_pct)
    told = [figure for figure in known if figure is not None]
    value, interval = format_estimate(*(told or drops))
    unit = "%" if told else "points below the teacher"
    output.say(
        f"expected accuracy {value} {unit} (95 %: {interval}); "
        f"leave-one-out error {accuracy.leave_one_out_pct:.2g} points"
    )
    rows, *further = _CLAUSES.split(accuracy.basis)
    output.say(f"accuracy rests on {rows}")
    for clause in further:
        output.say(clause)


def _show_budgets(output: Output, plan: PlanDocument) -> None:
    rows = []
    for row in plan.budgets:
        shown = BUDGETS[row.budget]
        if row.limit is not None and row.slack is not None:
            amounts = (shown.text(amount) for amount in (row.used, row.limit, row.slack))
            rows.append((row.board, shown.noun, *amounts))
    output.table("Budgets", ("board", "budget", "used", "limit", "slack"), rows)
