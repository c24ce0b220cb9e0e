"""Final table of a quickstart: teacher, NoNN and one distilled student, side by side."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from pydantic import Field

from nonn_common.document import Document, Record
from nonn_core.networks.family import parse_network
from nonn_core.networks.network_cost import Cost, classifier_params, group0_cost
from planner.plan_file.evaluation import plan_workload
from planner.plan_file.plan_document import PlanDocument
from profiles.device import DeviceProfile, compute_ms
from profiles.fleet import resolve
from simulator.workloads import closed_form
from simulator.workloads.fan_out import SingleModel

if TYPE_CHECKING:
    from boards.board_fit import BoardFit


class SummaryRow(Record):
    """One model of the final table."""

    model: str = Field(description="What it is.")
    total_params: int = Field(description="Parameters of the whole model.")
    largest_board_params: int = Field(description="Parameters on the board that holds most.")
    largest_board_macs: int = Field(description="MACs per image on the board that computes most.")
    largest_board_memory_bytes: int = Field(description="Memory on the board that needs most.")
    within_budgets: bool = Field(description="Whether it runs on the fleet within all budgets.")
    accuracies_pct: tuple[float, ...] = Field(description="Test accuracy of each seed, percent.")
    accuracy_pct: float = Field(description="Their mean.")
    spread_pct: float | None = Field(description="Their standard deviation; null for one seed.")
    latency_ms: float = Field(description="Simulated latency of one image.")
    energy_per_node_mj: float = Field(description="Simulated computing energy per board.")


class Summary(Document):
    """Results of a quickstart, and its files."""

    models: tuple[SummaryRow, ...] = Field(description="Teacher, NoNN, and one distilled student.")
    files: dict[str, str] = Field(description="What was written, and where.")


def nonn_params(plan: PlanDocument) -> int:
    """Count the NoNN's parameters: students with one copy of G0, and the FC layer."""
    spec = parse_network(plan.students[0].network)
    copies = 0 if plan.group0 else len(plan.students) - 1
    group0_params = group0_cost(spec, plan.question.image_shape).params
    features = sum(len(student.filters) for student in plan.students)
    students = plan.decision.params - copies * group0_params
    return students + classifier_params(features, plan.question.classes)


def undivided_row(
    model: str, cost: Cost, accuracies_pct: tuple[float, ...], plan: PlanDocument
) -> SummaryRow:
    """Describe an undivided network, alone on the weakest kind of board of the fleet."""
    breakdown = closed_form.single_model_breakdown(SingleModel(weakest_device(plan), cost.macs))
    memory_bytes = cost.memory_bytes(plan.question.smallest_precision)
    return SummaryRow(
        model=model,
        total_params=cost.params,
        largest_board_params=cost.params,
        largest_board_macs=cost.macs,
        largest_board_memory_bytes=memory_bytes,
        within_budgets=any(
            memory_bytes <= budget.memory_bytes
            and (budget.macs is None or cost.macs <= budget.macs)
            for budget in plan.question.budgets
        ),
        **_statistics(accuracies_pct),
        latency_ms=breakdown.total_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
    )


def nonn_row(
    plan: PlanDocument, fits: "Sequence[BoardFit]", accuracies_pct: tuple[float, ...]
) -> SummaryRow:
    """Describe the NoNN of a plan, its built students measured on their boards."""
    breakdown = closed_form.fan_out_breakdown(plan_workload(plan))
    return SummaryRow(
        model=f"NoNN, {len(plan.students)} students",
        total_params=nonn_params(plan),
        largest_board_params=max(fit.params for fit in fits),
        largest_board_macs=max(fit.macs for fit in fits),
        largest_board_memory_bytes=max(fit.memory_bytes for fit in fits),
        within_budgets=all(fit.fits for fit in fits),
        **_statistics(accuracies_pct),
        latency_ms=breakdown.total_ms,
        energy_per_node_mj=breakdown.energy_per_node_mj,
    )


def _statistics(accuracies_pct: tuple[float, ...]) -> dict[str, Any]:
    return {
        "accuracies_pct": accuracies_pct,
        "accuracy_pct": mean(accuracies_pct),
        "spread_pct": stdev(accuracies_pct) if len(accuracies_pct) > 1 else None,
    }


def weakest_device(plan: PlanDocument) -> DeviceProfile:
    """Slowest kind of board in the fleet."""
    _, boards = resolve(plan.question.fleet)
    return max((board.device for board in boards), key=lambda device: compute_ms(device, 10**6))
