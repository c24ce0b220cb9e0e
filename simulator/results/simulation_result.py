"""The result of a simulation: latency, queueing, energy and power of boards.

Means, energy and how busy each resource was follow from the statistics of a run.  The power of a
board over time has three parts, as its energy has: computing, idle while nothing holds the
processor, and the radio while a message is on the wire.  Its integral is the energy.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean

from nonn_common.errors import SimulationError
from profiles import Quantity
from simulator.results.breakdown import (
    BoardRow,
    Breakdown,
    CriticalPathRow,
    IntervalRow,
    MessageRow,
    plain_rows,
)
from simulator.results.recording import InferenceRows, Recording, on_wire, radio_part
from simulator.results.statistics import BoardStatistics, Statistics
from simulator.task_graph import HOST, Node, Step, TaskGraph, owner_of


@dataclass(frozen=True, slots=True)
class SimulationResult(Breakdown):
    """A breakdown computed from what was recorded, over all images of a run.

    `critical_path` is the way that the answers took: its rows add up to the latency.  `queue_ms` is
    the time per answer that was spent waiting for busy resources on that way, `wait_ms` the mean of
    the boards that do more than pass on.  A percentile is exact, or off by at most
    `percentile_error_pct` of itself where only totals were kept; then the tables are empty.
    `survivors` counts the images by the students whose features are in the answer; a lost image has
    none.  `partial` counts the answers that lack a student.  `warnings` say what makes the result
    doubtful.
    """

    critical_path: tuple[CriticalPathRow, ...]
    queue_ms: float
    wait_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    percentile_error_pct: float
    duration_ms: float
    throughput_per_s: float
    answered: int
    partial: int
    lost: int
    utilisation: Mapping[str, float]
    survivors: Mapping[frozenset[str], int]
    recording: "Recording | None"
    warnings: tuple[str, ...] = ()

    @property
    def intervals(self) -> tuple[IntervalRow, ...]:
        """Activities of all actors, as rows."""
        return self.recording.intervals if self.recording else ()

    @property
    def messages(self) -> tuple[MessageRow, ...]:
        """Messages of all actors, as rows."""
        return self.recording.messages if self.recording else ()

    @property
    def idle_total_mj(self) -> float | None:
        """Energy of all boards while they do not compute, in mJ per image, if known."""
        return _total([row.idle_mj for row in self.boards])

    @property
    def radio_total_mj(self) -> float | None:
        """Energy of all boards' messages, in mJ per image, if known."""
        return _total([row.radio_mj for row in self.boards])

    def accuracy_pct(self, by_survivors: Mapping[frozenset[str], float]) -> float:
        """Mean accuracy, given that of each set of surviving students, in per cent.

        An image without an answer is not right.  Raises SimulationError for a set that is missing.
        """
        missing = [sorted(each) for each in self.survivors if each and each not in by_survivors]
        if missing or not self.survivors:
            raise SimulationError(
                "no accuracy is known for these students alone: "
                + ("; ".join(map(", ".join, sorted(missing))) or "the workload names no students")
            )
        right = sum(count * by_survivors[names] for names, count in self.survivors.items() if names)
        return right / sum(self.survivors.values())

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON, energies and tables included."""
        return {
            **Breakdown.to_dict(self),
            "utilisation": dict(self.utilisation),
            "idle_total_mj": self.idle_total_mj,
            "radio_total_mj": self.radio_total_mj,
            "survivors": [
                {"students": sorted(names), "images": count}
                for names, count in self.survivors.items()
            ],
            "intervals": plain_rows(self.intervals),
            "messages": plain_rows(self.messages),
        }


def _total(energies_mj: Sequence[float | None]) -> float | None:
    """The sum, or None if one is not known."""
    known = [each for each in energies_mj if each is not None]
    return sum(known) if len(known) == len(energies_mj) else None


def summarise(statistics: Statistics, recording: Recording | None) -> SimulationResult:
    """Result of a finished run of at least one image."""
    busy = resource_busy_ms(statistics)
    nodes = statistics.graph.nodes
    boards = tuple(
        _board_row(node, board, statistics, busy)
        for node, board in zip(nodes, statistics.boards, strict=True)
    )
    total_ms, compute_ms = statistics.latency_ms, statistics.compute_ms
    p50_ms, p95_ms, p99_ms = statistics.percentiles()
    seconds = statistics.last_ms / 1000
    return SimulationResult(
        total_ms=total_ms,
        compute_ms=compute_ms,
        communication_ms=total_ms - compute_ms,
        boards=boards,
        inferences=InferenceRows(recording) if recording else (),
        critical_path=_critical_path(statistics),
        queue_ms=_per_answer(statistics, sum(statistics.path_waits_ms.tolist())),
        wait_ms=_mean_wait_ms(statistics.boards),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        percentile_error_pct=statistics.percentile_error_pct,
        duration_ms=statistics.last_ms,
        throughput_per_s=statistics.answered / seconds if seconds else 0.0,
        answered=statistics.answered,
        partial=_partial(statistics),
        lost=statistics.images - statistics.answered,
        utilisation={name: _part(each, statistics.last_ms) for name, each in busy.items()},
        survivors=dict(statistics.survivors),
        recording=recording,
    )


def _critical_path(statistics: Statistics) -> tuple[CriticalPathRow, ...]:
    """Rows of the critical path: the host, then the boards that are on it."""
    if not statistics.answered:
        return ()
    graph = statistics.graph
    names = (HOST, *(node.name for node in graph.nodes), *(step.actor for step in graph.steps))
    times_ms = {name: defaultdict[str, float](float) for name in names}
    for step, wait_ms, step_ms in zip(
        graph.steps,
        statistics.path_waits_ms.tolist(),
        statistics.path_steps_ms.tolist(),
        strict=True,
    ):
        kind = step.activity if step.activity in ("compute", "join") else "message"
        times_ms[step.actor][kind] += step_ms
        times_ms[step.actor]["wait"] += wait_ms
    times_ms[HOST]["wait"] += statistics.path_due_ms
    return tuple(
        CriticalPathRow(
            name,
            *(
                _per_answer(statistics, times[kind])
                for kind in ("compute", "message", "join", "wait")
            ),
        )
        for name, times in times_ms.items()
        if any(times.values())
    )


def _per_answer(statistics: Statistics, total: float) -> float:
    return total / statistics.answered if statistics.answered else math.nan


def _partial(statistics: Statistics) -> int:
    """Number of answers without every student."""
    everybody = frozenset(chain.from_iterable(statistics.graph.students.values()))
    answers = statistics.survivors.items()
    return sum(count for names, count in answers if names and names != everybody)


def resource_busy_ms(statistics: Statistics) -> dict[str, float]:
    """Time that each resource was at work during the run, in ms.

    Queues count as their processor.
    """
    graph = statistics.graph
    busy = {name: 0.0 for name in graph.resources if name not in graph.processors}
    used_ms = (statistics.held_ms + statistics.wasted_ms).tolist()
    for step, step_ms in zip(graph.steps, used_ms, strict=True):
        for name in step.resources:
            if name in busy:
                busy[name] += step_ms
    return busy | statistics.shared_busy_ms


def _mean_wait_ms(boards: Iterable[BoardStatistics]) -> float:
    waits_ms = [board.mean_ms("wait") for board in boards if not board.steps.passes_on]
    return fmean(waits_ms) if waits_ms else 0.0


def _board_row(
    node: Node, board: BoardStatistics, statistics: Statistics, busy: dict[str, float]
) -> BoardRow:
    images = statistics.images
    computing_ms = busy.get(f"{node.name}.cpu", 0.0)
    idle_ms = max(0.0, statistics.last_ms - computing_ms)
    idle_mj = _spent_mj(node.device.idle_w, idle_ms, images)
    told = node.device.power_known or not board.steps.computing
    energy_mj = _computing_mj(statistics, board.steps.computing) if told else math.nan
    drawn_mj = images * (energy_mj + (idle_mj or 0.0))
    return BoardRow(
        board=node.name,
        device=node.device.name,
        students=node.students,
        send_done_ms=board.mean_ms("send_done") if board.steps.receiving else 0.0,
        busy_ms=board.mean_ms("busy") if board.steps.computing else 0.0,
        done_ms=board.mean_ms("done"),
        energy_mj=energy_mj,
        queue_ms=board.mean_ms("queue"),
        wait_ms=board.mean_ms("wait"),
        utilisation=_part(computing_ms, statistics.last_ms),
        idle_mj=idle_mj,
        average_w=drawn_mj / statistics.last_ms if statistics.last_ms and told else None,
        radio_mj=_spent_mj(
            node.device.radio_w, _on_air_ms(statistics, node.name, board.steps.carrying), images
        ),
        passes_on=board.steps.passes_on,
    )


def _computing_mj(statistics: Statistics, computing: Iterable[int]) -> float:
    """Energy of computing per image, tries that failures broke off included."""
    energy_mj = 0.0
    for index in computing:
        step = statistics.graph.steps[index]
        times = float(statistics.done(index))
        if step.duration_ms:
            times += float(statistics.wasted_work_ms[index]) / step.duration_ms
        energy_mj += step.energy_mj * (times / statistics.images)
    return energy_mj


def _on_air_ms(statistics: Statistics, board: str, carried: Iterable[int]) -> float:
    """Time of these messages on the board's hops, each try of them."""
    steps = statistics.graph.steps
    return sum(
        radio_part(steps[index], board)
        * (_came_on_wire_ms(statistics, index) + float(statistics.wasted_wire_ms[index]))
        for index in carried
    )


def _came_on_wire_ms(statistics: Statistics, index: int) -> float:
    """Time on the wire of a step's messages that came, tries included."""
    step = statistics.graph.steps[index]
    held_ms, tries = statistics.done_ms(index), float(statistics.done(index))
    if step.transit.wire_ms is None:
        return held_ms
    if step.transit.retry_ms and step.service == "constant":
        tries += (held_ms - tries * step.duration_ms) / step.transit.retry_ms
    return tries * step.transit.wire_ms


def _spent_mj(power: Quantity | None, time_ms: float, images: int) -> float | None:
    return None if power is None else power.value * time_ms / images


def _part(time_ms: float, of_ms: float) -> float:
    return time_ms / of_ms if of_ms else 0.0


def recorded(result: SimulationResult) -> Recording:
    """Recording behind `result`; raises SimulationError where it was not kept."""
    if result.recording is None:
        raise SimulationError("only totals of this run were kept; simulate with keep=all")
    return result.recording


@dataclass(frozen=True, slots=True)
class PowerDraw:
    """Power that a board draws for a while, on top of its other draws."""

    start_ms: float
    end_ms: float
    watts: float


def power_draws(result: SimulationResult) -> Mapping[str, tuple[PowerDraw, ...]]:
    """Power draws of each board; raises SimulationError without a recording."""
    recording = recorded(result)
    return {
        node.name: (
            *_computing(recording, node),
            *_idle(recording, node, result.duration_ms),
            *_radio(recording, node),
        )
        for node in recording.graph.nodes
    }


def _computing(recording: Recording, node: Node) -> Iterator[PowerDraw]:
    """Draws of each computation, whose integral is its energy; failed tries in proportion."""
    steps = recording.graph.steps
    own = {i for i, step in enumerate(steps) if _computes(step, node)}
    for row in _rows_of(recording, own):
        if not row.lost and row.end_ms > row.start_ms:
            watts = steps[row.step].energy_mj / (row.end_ms - row.start_ms)
            yield PowerDraw(row.start_ms, row.end_ms, watts)
    for each in recording.breaks:
        if each.step in own and each.end_ms > each.start_ms:
            energy_mj = steps[each.step].energy_mj * each.done_ms / steps[each.step].duration_ms
            yield PowerDraw(each.start_ms, each.end_ms, energy_mj / (each.end_ms - each.start_ms))


def _idle(recording: Recording, node: Node, duration_ms: float) -> Iterator[PowerDraw]:
    """Draws of the time in which no step holds the board's processor."""
    if node.device.idle_w is None:
        return
    watts = node.device.idle_w.value
    now_ms = 0.0
    holding = _rows_of(recording, _on_processor(recording.graph, node))
    for row in sorted(holding, key=lambda row: row.start_ms):
        if row.start_ms > now_ms:
            yield PowerDraw(now_ms, row.start_ms, watts)
        now_ms = max(now_ms, row.end_ms)
    if duration_ms > now_ms:
        yield PowerDraw(now_ms, duration_ms, watts)


def _radio(recording: Recording, node: Node) -> Iterator[PowerDraw]:
    """Draws of each try of each message, at the board's part."""
    if node.device.radio_w is None:
        return
    steps = recording.graph.steps
    parts = {i: part for i, step in enumerate(steps) if (part := radio_part(step, node.name))}
    tries = {(row.inference, row.step): row.tries for row in recording.messages}
    for row in _rows_of(recording, parts):
        watts = parts[row.step] * node.device.radio_w.value
        number = 0 if row.lost else tries[row.inference, row.step]
        for begin_ms, end_ms in _on_wire(steps[row.step], row, number):
            yield PowerDraw(row.start_ms + begin_ms, row.start_ms + end_ms, watts)


def _on_wire(step: Step, row: IntervalRow, tries: int) -> Iterable[tuple[float, float]]:
    """Times of a message on the wire, in ms since its step began.

    They are those of `tries`, or those until it was lost.
    """
    wire_ms = step.transit.wire_ms
    if row.lost or wire_ms is None:
        return on_wire(step, row.end_ms - row.start_ms)
    begin_ms = step.duration_ms - wire_ms
    again_ms = (begin_ms + number * step.transit.retry_ms for number in range(tries))
    return ((each, each + wire_ms) for each in again_ms)


def _rows_of(recording: Recording, steps: Collection[int]) -> Iterator[IntervalRow]:
    return (row for row in recording.intervals if row.step in steps)


def _computes(step: Step, node: Node) -> bool:
    return step.actor == node.name and step.activity == "compute"


def _on_processor(graph: TaskGraph, node: Node) -> set[int]:
    cpu = f"{node.name}.cpu"
    return {
        index
        for index, step in enumerate(graph.steps)
        if any(
            owner_of(each) == node.name and each.partition("/")[0] == cpu for each in step.resources
        )
    }
