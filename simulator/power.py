"""Power: what each board draws over time, so that its integral is the energy of the result.

Three parts, as in the result: computing, idle while nothing holds the processor, and the radio
while a message is on the wire.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from simulator.job import Job, Node, Step, owner
from simulator.radio import on_wire, radio_part
from simulator.recording import Recording
from simulator.result import SimulationResult
from simulator.timeline import recorded
from simulator.trace import IntervalRow


@dataclass(frozen=True, slots=True)
class Draw:
    """Power that a board draws for a while, on top of its other draws."""

    start_ms: float
    end_ms: float
    watts: float


def draws(result: SimulationResult) -> Mapping[str, tuple[Draw, ...]]:
    """Return the draws of each board; raises SimulationError where no recording was kept."""
    recording = recorded(result)
    return {
        node.name: (
            *_computing(recording, node),
            *_idle(recording, node, result.duration_ms),
            *_radio(recording, node),
        )
        for node in recording.job.nodes
    }


def _computing(recording: Recording, node: Node) -> Iterator[Draw]:
    """Yield each computation at the power that makes its energy; failed tries in proportion."""
    steps = recording.job.steps
    own = {i for i, step in enumerate(steps) if _computes(step, node)}
    for row in _rows(recording, own):
        if not row.lost and row.end_ms > row.start_ms:
            watts = steps[row.step].energy_mj / (row.end_ms - row.start_ms)
            yield Draw(row.start_ms, row.end_ms, watts)
    for each in recording.breaks:
        if each.step in own and each.end_ms > each.start_ms:
            energy_mj = steps[each.step].energy_mj * each.done_ms / steps[each.step].duration_ms
            yield Draw(each.start_ms, each.end_ms, energy_mj / (each.end_ms - each.start_ms))


def _idle(recording: Recording, node: Node, duration_ms: float) -> Iterator[Draw]:
    """Yield the time in which no step holds the board's processor."""
    if node.device.idle_w is None:
        return
    watts = node.device.idle_w.value
    now_ms = 0.0
    holding = _rows(recording, _on_processor(recording.job, node))
    for row in sorted(holding, key=lambda row: row.start_ms):
        if row.start_ms > now_ms:
            yield Draw(now_ms, row.start_ms, watts)
        now_ms = max(now_ms, row.end_ms)
    if duration_ms > now_ms:
        yield Draw(now_ms, duration_ms, watts)


def _radio(recording: Recording, node: Node) -> Iterator[Draw]:
    """Yield each try of each message while it is on the wire, at the board's part of that."""
    if node.device.radio_w is None:
        return
    steps = recording.job.steps
    parts = {i: part for i, step in enumerate(steps) if (part := radio_part(step, node.name))}
    tries = {(row.inference, row.step): row.tries for row in recording.messages}
    for row in _rows(recording, parts):
        watts = parts[row.step] * node.device.radio_w.value
        number = 0 if row.lost else tries[row.inference, row.step]
        for begin_ms, end_ms in _on_wire(steps[row.step], row, number):
            yield Draw(row.start_ms + begin_ms, row.start_ms + end_ms, watts)


def _on_wire(step: Step, row: IntervalRow, tries: int) -> Iterable[tuple[float, float]]:
    """Return when a message was on the wire, in ms since its step began: `tries`, or until lost."""
    wire_ms = step.transit.wire_ms
    if row.lost or wire_ms is None:
        return on_wire(step, row.end_ms - row.start_ms)
    begin_ms = step.duration_ms - wire_ms
    again_ms = (begin_ms + number * step.transit.retry_ms for number in range(tries))
    return ((each, each + wire_ms) for each in again_ms)


def _rows(recording: Recording, steps: Collection[int]) -> Iterator[IntervalRow]:
    return (row for row in recording.intervals if row.step in steps)


def _computes(step: Step, node: Node) -> bool:
    return step.actor == node.name and step.activity == "compute"


def _on_processor(job: Job, node: Node) -> set[int]:
    cpu = f"{node.name}.cpu"
    return {
        index
        for index, step in enumerate(job.steps)
        if any(
            owner(each) == node.name and each.partition("/")[0] == cpu for each in step.resources
        )
    }
