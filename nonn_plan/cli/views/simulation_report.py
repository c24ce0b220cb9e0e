"""Simulations as people see them: boards, one image in its parts, the critical path, sweeps."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

from nonn_common.units import format_flops
from nonn_plan.cli.output import Output, format_number, format_pct
from profiles.fleet import noisy_links

if TYPE_CHECKING:
    from nonn_plan.cli.parsers.workload import SimulationRequest
    from profiles.device import TimingMethod
    from simulator.results.breakdown import CriticalPathRow
    from simulator.results.simulation_result import SimulationResult
    from simulator.student_sweep import StudentSweep, SweepPoint
    from simulator.task_graph import TaskGraph

TIMING: Mapping["TimingMethod", str] = {
    "per-layer": "layer by layer",
    "flop-affine": "affine in the FLOPs",
}
LONGEST_AND_REST = (
    "longest board: for how long the board computes that does so longest; rest: the latency less "
    "that time, which Tables 6 and 7 call communication"
)


def show_simulation(
    output: Output,
    result: "SimulationResult",
    alone: "Mapping[str, SimulationResult]",
    request: "SimulationRequest",
    accuracy_pct: float | None = None,
) -> None:
    """Show what each board does with an image, and the teacher alone beside it."""
    _show_boards(output, result)
    output.table(
        "One image: ms; energy in mJ: compute per node and of the fleet, idle and radio apart",
        ("", "latency", "longest board", "rest", "queue", "per node", "fleet", "idle", "radio"),
        [
            _latency_row(request.title, result),
            *(_latency_row(f"teacher alone on {name}", one) for name, one in alone.items()),
        ],
    )
    output.say(LONGEST_AND_REST)
    _show_critical_path(output, result)
    for sentence in _sentences(result, request, accuracy_pct):
        output.say(sentence)


def _show_boards(output: Output, result: "SimulationResult") -> None:
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
                *_ms_cells(row.send_done_ms, row.busy_ms, row.done_ms, row.queue_ms, row.wait_ms),
                f"{100 * (row.utilisation or 0.0):.0f} %",
                *_mj_cells(row.energy_mj, row.idle_mj, row.radio_mj),
            )
            for row in result.boards
        ],
    )  # fmt: skip


def _show_critical_path(output: Output, result: "SimulationResult") -> None:
    """Show what the answer waited for, step after step: all rows together are the latency."""
    columns = list(zip(*map(_path_times, result.critical_path), strict=True))
    if not columns:
        return
    output.table(
        "Critical path, from the image to the answer, which waits for these: ms, mean of answers",
        ("", "compute", "messages", "join", "waiting", "together"),
        [
            *((row.actor, *_ms_cells(*_path_times(row))) for row in result.critical_path),
            ("all", *_ms_cells(*map(sum, columns))),
        ],
    )


def _path_times(row: "CriticalPathRow") -> tuple[float, ...]:
    return row.compute_ms, row.message_ms, row.join_ms, row.wait_ms, row.total_ms


def _latency_row(name: str, result: "SimulationResult") -> tuple[str, ...]:
    return (
        name,
        *_ms_cells(result.total_ms, result.compute_ms, result.communication_ms, result.queue_ms),
        *_mj_cells(result.energy_per_node_mj, result.energy_total_mj),
        *_mj_cells(result.idle_total_mj, result.radio_total_mj),
    )


def _sentences(
    result: "SimulationResult", request: "SimulationRequest", accuracy_pct: float | None
) -> Iterable[str]:
    if request.description:
        yield f"{request.title}: {request.description}"
    images = result.answered + result.lost
    if result.partial:
        students = dict.fromkeys(chain.from_iterable(request.graph().students.values()))
        yield from _partial_sentences(result, list(students))
    if images > 1:
        p50, p95, p99 = _ms_cells(result.p50_ms, result.p95_ms, result.p99_ms)
        error = result.percentile_error_pct
        yield (
            f"{images} images in {result.duration_ms / 1000:.4g} s, {result.lost} lost: "
            f"{result.throughput_per_s:.4g} answers per second; latency p50 {p50}, p95 {p95}, "
            f"p99 {p99} ms{f' (to {error:g} %)' if error else ''}"
        )
        drawn = [(row.board, row.average_w) for row in result.boards if row.average_w]
        if drawn:
            each = ", ".join(f"{board} {watts:.4g} W" for board, watts in drawn)
            yield f"average power: {each}; computing and idle, the radio not counted"
    busiest = sorted(result.utilisation.items(), key=lambda item: -item[1])[:3]
    yield "busiest: " + ", ".join(f"{name} {100 * part:.0f} %" for name, part in busiest)
    if accuracy_pct is not None:
        yield f"accuracy of what came in time: {format_pct(accuracy_pct)}"
    yield from noisy_links(request.reached)
    if spread := join_spread_of(request):
        yield (
            "boards and runs differ (compute_cv of their devices): one image alone takes "
            f"{format_number(spread['expected_ms'], 2)} ms in the mean, at most "
            f"{format_number(spread['p95_ms'], 2)} ms in 95 of 100; --spread draws this"
        )
    for how in dict.fromkeys(request.latency_model.values()):
        devices = ", ".join(name for name, other in request.latency_model.items() if other == how)
        yield f"compute time of {devices}: {TIMING[how]}"


def join_spread_of(request: "SimulationRequest") -> dict[str, float] | None:
    """Spread of the join of one image alone; None where no closed form tells it."""
    from simulator.workloads.closed_form import known_join_spread
    from simulator.workloads.fan_out import FanOut

    if not isinstance(request.workload, FanOut):
        return None
    spread = known_join_spread(request.workload)
    return None if spread is None else asdict(spread)


def unknown_energy(graph: "TaskGraph") -> Iterable[str]:
    """Warning where boards compute whose power is not known."""
    nodes = (node for node in graph.nodes if node.name in graph.computing)
    dark = dict.fromkeys(node.device.name for node in nodes if not node.device.power_known)
    if dark:
        yield f"energy is not known: no power is known of {', '.join(dark)}"


def unknown_spread(graph: "TaskGraph") -> Iterable[str]:
    """Warning of boards whose times are drawn as if they did not spread."""
    devices = [node.device for node in graph.nodes if node.name in graph.computing]
    unknown = dict.fromkeys(each.name for each in devices if each.compute_cv is None)
    if unknown:
        yield (
            f"no spread is known of {', '.join(unknown)}: these compute for their mean in each "
            "image; `calibrate` finds compute_cv in rows of one size on unlike numbers of boards"
        )


def _partial_sentences(result: "SimulationResult", students: Sequence[str]) -> Iterable[str]:
    """How many answers lack a student, and which students they lack most often."""
    whole, images = result.answered - result.partial, result.answered + result.lost
    yield (
        f"images answered by all students: {whole}, by some: {result.partial}, by none: "
        f"{result.lost}"
    )
    missing = Counter(dict.fromkeys(students, images))
    for names, count in result.survivors.items():
        missing.subtract(dict.fromkeys(names, count))
    often = ", ".join(f"{name} at {count} images" for name, count in (+missing).most_common(3))
    yield f"missing most often: {often}"


def _ms_cells(*times_ms: float | None) -> tuple[str, ...]:
    return tuple(map(_shown_ms, times_ms))


def _mj_cells(*energies_mj: float | None) -> tuple[str, ...]:
    return tuple(
        "" if each is None or math.isnan(each) else format_number(each, 1) for each in energies_mj
    )


def _shown_ms(time_ms: float | None) -> str:
    return "" if time_ms is None else "never" if math.isnan(time_ms) else format_number(time_ms, 2)


def show_sweep(
    output: Output, move: "StudentSweep", moved: "Sequence[SweepPoint]", least: int
) -> None:
    """Show each step of a sweep, and the one of least latency."""
    output.table(
        f"{move.students} students of {format_flops(move.macs)}, each on a {move.slow.name} or "
        f"together on one {move.fast.name}: ms; compute energy in mJ",
        (f"on {move.fast.name}", "total", "longest board", "rest", "per node", "fleet", ""),
        [
            (
                str(row.moved),
                format_number(row.total_ms, 2),
                format_number(row.compute_ms, 2),
                format_number(row.communication_ms, 2),
                format_number(row.energy_per_node_mj, 1),
                format_number(row.energy_per_fleet_mj, 1),
                "least latency" if row.moved == least else "",
            )
            for row in moved
        ],
    )
    output.say(LONGEST_AND_REST)
    for device, how in move.timing:
        output.say(f"compute time of {device.name}: {TIMING[how]}")
