"""From statistics to a result: means, energy, and how busy each resource was."""

from collections.abc import Iterable
from statistics import fmean

from profiles.figure import Figure
from simulator.job import Node
from simulator.radio import radio_part
from simulator.recording import Recording
from simulator.result import BoardRow, SimulationResult
from simulator.statistics import BoardStatistics, Statistics


def summarise(statistics: Statistics, recording: Recording | None) -> SimulationResult:
    """Return the result of a finished run of at least one image."""
    busy = busy_ms(statistics)
    nodes = statistics.job.nodes
    boards = tuple(
        _board_row(node, board, statistics, busy)
        for node, board in zip(nodes, statistics.boards, strict=True)
    )
    total_ms, compute_ms = statistics.latency.value, statistics.compute.value
    p50_ms, p95_ms, p99_ms = statistics.percentiles()
    seconds = statistics.last_ms / 1000
    return SimulationResult(
        total_ms=total_ms,
        compute_ms=compute_ms,
        communication_ms=total_ms - compute_ms,
        boards=boards,
        inferences=recording.inferences if recording else (),
        queue_ms=statistics.queue.value,
        wait_ms=_mean_wait_ms(statistics.boards),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        percentile_error_pct=statistics.percentile_error_pct,
        duration_ms=statistics.last_ms,
        throughput_per_s=statistics.answered / seconds if seconds else 0.0,
        answered=statistics.answered,
        lost=statistics.images - statistics.answered,
        utilisation={name: _part(each, statistics.last_ms) for name, each in busy.items()},
        survivors=dict(statistics.survivors),
        recording=recording,
    )


def busy_ms(statistics: Statistics) -> dict[str, float]:
    """Return how long each resource was at work during the run; lanes count as their processor."""
    job = statistics.job
    busy = {name: 0.0 for name in job.resources if name not in job.processors}
    used_ms = (statistics.held_ms + statistics.wasted_ms).tolist()
    for step, step_ms in zip(job.steps, used_ms, strict=True):
        for name in step.resources:
            if name in busy:
                busy[name] += step_ms
    return busy | statistics.shared_busy_ms


def _mean_wait_ms(boards: Iterable[BoardStatistics]) -> float:
    waits_ms = [board.wait.value for board in boards if not board.steps.passes_on]
    return fmean(waits_ms) if waits_ms else 0.0


def _board_row(
    node: Node, board: BoardStatistics, statistics: Statistics, busy: dict[str, float]
) -> BoardRow:
    images = statistics.images
    computing_ms = busy.get(f"{node.name}.cpu", 0.0)
    idle_ms = max(0.0, statistics.last_ms - computing_ms)
    return BoardRow(
        board=node.name,
        device=node.device.name,
        students=node.students,
        send_done_ms=board.send_done.value if board.steps.receiving else 0.0,
        busy_ms=board.busy.value if board.steps.computing else 0.0,
        done_ms=board.done.value,
        energy_mj=_computing_mj(statistics, board.steps.computing),
        queue_ms=board.queue.value,
        wait_ms=board.wait.value,
        utilisation=_part(computing_ms, statistics.last_ms),
        idle_mj=_spent_mj(node.device.idle_w, idle_ms, images),
        radio_mj=_spent_mj(
            node.device.radio_w, _on_air_ms(statistics, node.name, board.steps.carrying), images
        ),
        passes_on=board.steps.passes_on,
    )


def _computing_mj(statistics: Statistics, computing: Iterable[int]) -> float:
    """Return the energy of computing per image, tries that failures broke off included."""
    energy_mj = 0.0
    for index in computing:
        step = statistics.job.steps[index]
        times = float(statistics.done[index])
        if step.duration_ms:
            times += float(statistics.wasted_work_ms[index]) / step.duration_ms
        energy_mj += step.energy_mj * (times / statistics.images)
    return energy_mj


def _on_air_ms(statistics: Statistics, board: str, carried: Iterable[int]) -> float:
    """Return how long these messages were on the board's hops, each try of them."""
    steps = statistics.job.steps
    return sum(
        radio_part(steps[index], board)
        * (_came_on_wire_ms(statistics, index) + float(statistics.wasted_wire_ms[index]))
        for index in carried
    )


def _came_on_wire_ms(statistics: Statistics, index: int) -> float:
    """Return how long the messages of a step that came were on the wire, each try of them."""
    step = statistics.job.steps[index]
    held_ms, tries = float(statistics.held_ms[index]), float(statistics.done[index])
    if step.transit.wire_ms is None:
        return held_ms
    if step.transit.retry_ms and step.service == "constant":
        tries += (held_ms - tries * step.duration_ms) / step.transit.retry_ms
    return tries * step.transit.wire_ms


def _spent_mj(power: Figure | None, time_ms: float, images: int) -> float | None:
    return None if power is None else power.value * time_ms / images


def _part(time_ms: float, of_ms: float) -> float:
    return time_ms / of_ms if of_ms else 0.0
