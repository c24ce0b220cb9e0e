"""Plans and simulations as people see them."""

from collections.abc import Mapping

from nonn_plan.output import Output
from planner.plan import PlanDocument, StageResult
from profiles.units import format_bytes, format_count, format_flops
from simulator.result import SimulationResult


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
                one.board,
                one.network,
                str(len(one.filters)),
                format_count(one.params),
                format_flops(one.macs),
                format_bytes(one.memory_bytes),
            )
            for one in answer.students
        ],
    )
    _show_budgets(output, answer)
    cost = answer.predicted
    output.say(
        f"latency {cost.total_ms:.1f} ms (compute {cost.compute_ms:.1f}, communication "
        f"{cost.communication_ms:.1f}); energy per node {cost.energy_per_node_mj:.1f} mJ; "
        f"dropped {answer.dropped_filters} filters"
    )


def show_simulation(
    output: Output, found: SimulationResult, alone: Mapping[str, SimulationResult]
) -> None:
    """Show what each board does with an image, and the teacher alone beside it."""
    output.table(
        "Each board, ms since the host took up the image",
        ("board", "device", "students", "image there", "busy", "reply there", "energy"),
        [
            (
                row.board,
                row.device,
                str(row.students),
                f"{row.send_done_ms:.2f}",
                f"{row.busy_ms:.2f}",
                f"{row.done_ms:.2f}",
                f"{row.energy_mj:.1f} mJ",
            )
            for row in found.boards
        ],
    )
    output.table(
        "One image",
        ("", "latency", "compute", "communication", "energy per node"),
        [
            _latency_row("the plan", found),
            *(_latency_row(f"teacher alone on {name}", one) for name, one in alone.items()),
        ],
    )


def _show_budgets(output: Output, answer: PlanDocument) -> None:
    rows = []
    for row in answer.budgets:
        show = format_flops if row.budget == "macs" else format_bytes
        if row.limit is not None and row.slack is not None:
            noun = "FLOPs" if row.budget == "macs" else "memory"
            rows.append((row.board, noun, show(row.used), show(row.limit), show(row.slack)))
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


def _latency_row(name: str, found: SimulationResult) -> tuple[str, ...]:
    return (
        name,
        f"{found.total_ms:.1f} ms",
        f"{found.compute_ms:.1f} ms",
        f"{found.communication_ms:.1f} ms",
        f"{found.energy_per_node_mj:.1f} mJ",
    )
