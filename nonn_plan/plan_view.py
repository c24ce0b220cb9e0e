"""Plans as people see them."""

from nonn_plan.output import Output
from planner.accuracy.model import AccuracyEstimate
from planner.budget import BUDGETS
from planner.evaluation import robustness, survived
from planner.plan import PlanDocument, PlannedGroup0, StageResult
from profiles.fleet import resolve
from profiles.units import format_bytes, format_count, format_flops


def show_plan(output: Output, answer: PlanDocument) -> None:
    """Show a plan's students, budgets, proof and prediction; nothing where there is none."""
    if answer.predicted is None:
        return
    output.table(
        f"Plan ({answer.status})",
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
            for one in answer.students
        ],
    )
    if answer.group0 is not None:
        _show_group0(output, answer.group0)
    _show_budgets(output, answer)
    cost = answer.predicted
    output.say(
        f"latency {cost.total_ms:.1f} ms (compute {cost.compute_ms:.1f}, communication "
        f"{cost.communication_ms:.1f}); energy per node {cost.energy_per_node_mj:.1f} mJ; "
        f"dropped {answer.dropped_filters} filters"
    )
    output.say(f"throughput {cost.throughput_per_s:.3g} images per second; host {answer.host}")
    if answer.accuracy is not None:
        _show_accuracy(output, answer.accuracy)
    _show_failures(output, answer)
    for sentence in answer.verdict.why if answer.verdict else ():
        output.say(sentence)
    if noisy := _noisy_links(answer):
        output.say(
            f"predicted without loss and jitter of {', '.join(noisy)}: `nonn-plan simulate` shows "
            "them"
        )


def _show_group0(output: Output, group0: PlannedGroup0) -> None:
    """Say where G0 is, and what it costs there."""
    output.say(
        f"G0 has a board of its own, {group0.board}: {format_count(group0.params)} parameters, "
        f"{format_flops(group0.macs)}, {format_bytes(group0.memory_bytes)}; it sends "
        f"{format_bytes(group0.maps_bytes)} of maps to each student's board"
    )


def _show_failures(output: Output, answer: PlanDocument) -> None:
    """Say which failures the plan survives, and what it is then worth."""
    question, made = answer.question, answer.decision
    if question.max_copies > 1 or question.failures:
        count = survived(question, made)
        output.say(
            f"no student is lost by any {count} failure{'s' * (count != 1)}"
            if count
            else "there is a failure that loses a student"
        )
    worth = robustness(question, made)
    if worth is not None:
        target = question.failures.target_pct if question.failures else None
        often = (
            ""
            if worth.reliability_pct is None
            else f"; at least {target:g} % in {worth.reliability_pct:.3f} % of all cases"
        )
        output.say(f"expected accuracy with failures {worth.expected_accuracy_pct:.3f} %{often}")


def _show_accuracy(output: Output, accuracy: AccuracyEstimate) -> None:
    """Say what accuracy to expect, how sure that is, and what it rests on."""
    if accuracy.value_pct is None:
        interval = f"{accuracy.drop_low_pct:.2f} to {accuracy.drop_high_pct:.2f}"
        expected = f"{accuracy.drop_pct:.2f} points below the teacher (95 %: {interval})"
    else:
        interval = f"{accuracy.low_pct:.2f} to {accuracy.high_pct:.2f}"
        expected = f"{accuracy.value_pct:.2f} % (95 %: {interval})"
    output.say(
        f"expected accuracy {expected}, from {accuracy.basis}; leave-one-out error "
        f"{accuracy.leave_one_out_pct:.2f} points"
    )


def _noisy_links(answer: PlanDocument) -> list[str]:
    """Return the links of the plan's boards that lose messages, or delay them by chance."""
    _, boards = resolve(answer.question.fleet)
    links = (board.link for board in boards if board.name in answer.decision.used)
    return sorted({link.name for link in links if link.loss_pct.value or link.jitter_ms.value})


def _show_budgets(output: Output, answer: PlanDocument) -> None:
    rows = []
    for row in answer.budgets:
        shown = BUDGETS[row.budget]
        if row.limit is not None and row.slack is not None:
            amounts = (shown.text(amount) for amount in (row.used, row.limit, row.slack))
            rows.append((row.board, shown.noun, *amounts))
    output.table("Budgets", ("board", "budget", "used", "limit", "slack"), rows)
    output.table(
        "Proof",
        ("stage", "this plan", "best", "bound", "gap"),
        list(map(_proof_row, answer.stages)),
    )


def _proof_row(stage: StageResult) -> tuple[str, ...]:
    bound = "none" if stage.bound is None else f"{stage.bound:.7g}"
    gap = "none" if stage.gap_pct is None else f"{stage.gap_pct:.2f} %"
    return stage.objective, f"{stage.value:.7g}", f"{stage.best:.7g}", bound, gap
