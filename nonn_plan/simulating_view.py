"""Simulations as people see them."""

import math
from collections.abc import Iterable, Mapping

from nonn_plan.output import Output, shown, shown_pct
from nonn_plan.typed_workload import Asked
from simulator.result import SimulationResult


def show_simulation(
    output: Output,
    found: SimulationResult,
    alone: Mapping[str, SimulationResult],
    asked: Asked,
    accuracy_pct: float | None = None,
) -> None:
    """Show what each board does with an image, and the teacher alone beside it."""
    _show_boards(output, found)
    output.table(
        "One image: ms; energy in mJ: compute per node and of the fleet, idle and radio apart",
        ("", "latency", "compute", "communication", "queue", "per node", "fleet", "idle", "radio"),
        [
            _latency_row(asked.title, found),
            *(_latency_row(f"teacher alone on {name}", one) for name, one in alone.items()),
        ],
    )
    for sentence in _sentences(found, asked, accuracy_pct):
        output.say(sentence)


def _show_boards(output: Output, found: SimulationResult) -> None:
    output.table(
        "Each board: ms since the host took up the image; energy in mJ per image",
        (
            "board", "device", "students", "image there", "busy", "done",
            "queue", "wait", "in use", "compute", "idle", "radio",
        ),
        [
            (
                row.board,
                row.device,
                str(row.students),
                *_ms(row.send_done_ms, row.busy_ms, row.done_ms, row.queue_ms, row.wait_ms),
                f"{100 * (row.utilisation or 0.0):.0f} %",
                *_mj(row.energy_mj, row.idle_mj, row.radio_mj),
            )
            for row in found.boards
        ],
    )  # fmt: skip


def _latency_row(name: str, found: SimulationResult) -> tuple[str, ...]:
    return (
        name,
        *_ms(found.total_ms, found.compute_ms, found.communication_ms, found.queue_ms),
        *_mj(found.energy_per_node_mj, found.energy_total_mj),
        *_mj(found.idle_total_mj, found.radio_total_mj),
    )


def _sentences(found: SimulationResult, asked: Asked, accuracy_pct: float | None) -> Iterable[str]:
    if asked.told:
        yield f"{asked.title}: {asked.told}"
    images = found.answered + found.lost
    if images > 1:
        p50, p95, p99 = _ms(found.p50_ms, found.p95_ms, found.p99_ms)
        error = found.percentile_error_pct
        yield (
            f"{images} images in {found.duration_ms / 1000:.4g} s, {found.lost} lost: "
            f"{found.throughput_per_s:.4g} answers per second; latency p50 {p50}, p95 {p95}, "
            f"p99 {p99} ms{f' (to {error:g} %)' if error else ''}"
        )
    busiest = sorted(found.utilisation.items(), key=lambda item: -item[1])[:3]
    yield "busiest: " + ", ".join(f"{name} {100 * part:.0f} %" for name, part in busiest)
    if accuracy_pct is not None:
        yield f"accuracy of what came in time: {shown_pct(accuracy_pct)}"
    for how in dict.fromkeys(asked.latency_model.values()):
        devices = ", ".join(name for name, other in asked.latency_model.items() if other == how)
        what = "layer by layer" if how == "per-layer" else "affine in the FLOPs"
        yield f"compute time of {devices}: {what}"


def _ms(*times_ms: float | None) -> tuple[str, ...]:
    return tuple(map(_shown_ms, times_ms))


def _mj(*energies_mj: float | None) -> tuple[str, ...]:
    return tuple("" if each is None else shown(each, 1) for each in energies_mj)


def _shown_ms(time_ms: float | None) -> str:
    return "" if time_ms is None else "never" if math.isnan(time_ms) else shown(time_ms, 2)
