"""A trace for Perfetto (ui.perfetto.dev): Chrome's JSON format, from a recording.

A process is an actor (the host, a board, a shared medium), a thread one of its resources; a step is
a slice on each resource that it holds.  Messages under way, and steps that need no resource, lie on
threads of their own, as many as it takes for none to overlap.  Arrows lead from each step to those
that began because of it; what takes no time has no slice, and arrows from it come from what set it
off.  Counters: how many steps wait for a resource, and what a board draws.

The format counts in microseconds.  Each moment is rounded once, to whole nanoseconds, and written
with three decimals; a duration is the difference of two such moments, so that what touches in the
simulation touches in the picture and never overlaps.  Same recording, same bytes.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import fsum
from pathlib import Path

from nonn_common.document import write_atomic
from simulator.results.breakdown import IntervalRow
from simulator.results.recording import Recording
from simulator.results.simulation_result import SimulationResult, power_draws, recorded
from simulator.results.timeline import actors, lanes, never_overlapping
from simulator.task_graph import Step

START = b'{"traceEvents"'
"""How the file of a trace begins."""
UNDER_WAY = "under way"
"""Title of the threads for messages between two resources and for steps without any."""

Key = tuple[int, int]
"""An image and a step."""

Thread = tuple[str, str]
"""An actor and one of its resources, or what else it does on a thread of its own."""


class Ns(int):
    """A moment, or a duration, in whole nanoseconds; written in microseconds."""

    def __str__(self) -> str:
        return f"{self // 1000}.{self % 1000:03d}"


@dataclass(frozen=True, slots=True)
class Slice:
    """One box of the picture.

    `key` names the step that it stands for, so that arrows may bind to it.
    """

    thread: Thread
    start: Ns
    end: Ns
    name: str
    kind: str
    args: Mapping[str, object]
    key: Key | None = None


def write_trace(result: SimulationResult, path: Path) -> None:
    """Write the trace of a recorded `result`; raises SimulationError where none was kept."""
    write_atomic(path, trace_json(result).encode())


def trace_json(result: SimulationResult) -> str:
    """Trace of a recorded `result` as JSON, one event per line."""
    recording = recorded(result)
    boxes = sorted(
        (box for box in chain(_held(recording), _under_way(recording)) if box.start < box.end),
        key=lambda box: (box.start, box.key or (-1, -1)),
    )
    numbers = _numbers(recording, boxes)
    timed = sorted(
        chain(
            _slices(boxes, numbers, _arrows(recording, boxes)),
            _images(recording, numbers),
            _queues(recording, numbers),
            _watts(result, numbers),
        ),
        key=lambda event: event[0],
    )
    lines = [*_names(recording, numbers), *(line for _, line in timed)]
    return '{"traceEvents": [\n' + ",\n".join(lines) + "\n]}\n"


def nanoseconds(time_ms: float) -> Ns:
    """Round a time in ms to whole nanoseconds."""
    return Ns(round(time_ms * 1e6))


TimedEvent = tuple[Ns, str]
Numbers = Mapping[str | Thread, int]
"""pid of each actor and tid of each thread: all different, none 0."""


def _held(recording: Recording) -> Iterator[Slice]:
    """Slices of each step, or try of a step, on its resources."""
    owners = {lane.resource: lane.owner for lane in lanes(recording.graph)}
    for row in recording.intervals:
        step = recording.graph.steps[row.step]
        for resource in step.resources:
            first = resource == row.resource and not row.lost
            key = (row.inference, row.step) if first else None
            yield _slice((owners[resource], resource), step, row, key)


def _slice(thread: Thread, step: Step, row: IntervalRow, key: Key | None) -> Slice:
    args: dict[str, object] = {"image": row.inference}
    if step.message is not None:
        args["size_bytes"] = step.message.size_bytes
    start, end = nanoseconds(row.start_ms), nanoseconds(row.end_ms)
    name = _name(step)
    if row.lost:
        return Slice(thread, start, end, f"{name} (lost)", "lost", {**args, "lost": True}, key)
    return Slice(thread, start, end, name, step.activity, args, key)


def _under_way(recording: Recording) -> Iterator[Slice]:
    """Yield a slice for each message between two resources, and each step without any."""
    delays: defaultdict[str, list[tuple[Ns, Ns, IntervalRow, bool]]] = defaultdict(list)
    came = {(row.inference, row.step): row.received_ms for row in recording.messages}
    for row in recording.intervals:
        start, free = nanoseconds(row.start_ms), nanoseconds(row.end_ms)
        if not row.resource:
            delays[row.actor].append((start, free, row, not row.lost))
        received_ms = came.get((row.inference, row.step))
        if received_ms is not None and not row.lost and received_ms > row.end_ms:
            delays[row.actor].append((free, nanoseconds(received_ms), row, start == free))
    for actor, delayed in delays.items():
        delayed.sort(key=lambda delay: delay[0])
        rows = never_overlapping((start, end) for start, end, _, _ in delayed)
        for (start, end, row, bound), number in zip(delayed, rows, strict=True):
            thread = actor, f"{UNDER_WAY} {number + 1}"
            step = recording.graph.steps[row.step]
            args = {"image": row.inference}
            key = (row.inference, row.step) if bound else None
            yield Slice(thread, start, end, _name(step), step.activity, args, key)


def _name(step: Step) -> str:
    if step.activity in ("send", "exchange") and step.message is not None:
        return f"{step.activity} to {step.message.receiver}"
    return step.activity


def _numbers(recording: Recording, boxes: Iterable[Slice]) -> Numbers:
    """Numbers of actors, then of threads: resources first, then what is under way."""
    names: list[str | Thread] = [*actors(recording.graph)]
    names += [(lane.owner, lane.resource) for lane in lanes(recording.graph)]
    names += sorted({box.thread for box in boxes})
    return {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}


def _names(recording: Recording, numbers: Numbers) -> Iterator[str]:
    devices = {node.name: node.device.title for node in recording.graph.nodes}
    titles = {lane.resource: lane.title for lane in lanes(recording.graph)}
    for name, number in numbers.items():
        if isinstance(name, str):
            kind, pid, title = "process", number, name
            if name in devices:
                labels = {"labels": devices[name]}
                yield _event("M", name="process_labels", pid=pid, tid=number, args=labels)
        else:
            kind, pid, title = "thread", numbers[name[0]], titles.get(name[1], name[1])
        for what, value in (("name", title), ("sort_index", number)):
            yield _event("M", name=f"{kind}_{what}", pid=pid, tid=number, args={what: value})


def _slices(
    boxes: Iterable[Slice], numbers: Numbers, arrows: Mapping[Key, list[tuple[str, int]]]
) -> Iterator[TimedEvent]:
    """Yield each slice, with the ends of arrows that bind to it right behind it."""
    for box in boxes:
        place = {"pid": numbers[box.thread[0]], "tid": numbers[box.thread]}
        yield (
            box.start,
            _event(
                "X",
                ts=box.start,
                dur=Ns(box.end - box.start),
                name=box.name,
                cat=box.kind,
                **place,
                args=box.args,
            ),
        )
        for phase, number in arrows.get(box.key, ()) if box.key else ():
            arrow = _event(phase, ts=box.start, id=number, name="then", cat="flow", **place)
            yield box.start, arrow.replace('"f",', '"f", "bp": "e",', 1)


def _arrows(recording: Recording, boxes: Iterable[Slice]) -> Mapping[Key, list[tuple[str, int]]]:
    """Ends of arrows at each step: `s` for the start, `f` for the finish."""
    batch, ready_ms = recording.batch, recording.ready_ms
    arrows: defaultdict[Key, list[tuple[str, int]]] = defaultdict(list)
    there = {box.key for box in boxes if box.key}
    number = 0
    for image, step in sorted(there):
        came = (
            _shown(recording, there, (image, earlier))
            for earlier in recording.graph.steps[step].after
            if batch.ends_ms[image, earlier] <= ready_ms[image, step]
        )
        for source in dict.fromkeys(came):
            if source is not None:
                number += 1
                arrows[source].append(("s", number))
                arrows[image, step].append(("f", number))
    return arrows


def _shown(recording: Recording, there: Collection[Key | None], key: Key) -> Key | None:
    """The nearest step with a slice: this one, or what set it off.

    None where nothing did.
    """
    image, step = key
    ends_ms, ready_ms = recording.batch.ends_ms, recording.ready_ms
    while (image, step) not in there:
        after = recording.graph.steps[step].after
        last = [each for each in after if ends_ms[image, each] == ready_ms[image, step]]
        if not last:
            return None
        step = last[0]
    return image, step


def _images(recording: Recording, numbers: Numbers) -> Iterator[TimedEvent]:
    """Yield each image from start to answer, as an asynchronous slice of the first actor."""
    place = {"pid": min(numbers.values()), "tid": min(numbers.values())}
    for row in recording.inferences:
        start, number = nanoseconds(row.start_ms), row.inference
        name = f"image {number}"
        if not row.answered:
            yield start, _event("i", ts=start, name=f"{name} lost", cat="image", **place, s="p")
            continue
        end = nanoseconds(row.end_ms)
        for phase, moment in (("b", start), ("e", end)):
            yield moment, _event(phase, ts=moment, id=f"{number}", name=name, cat="image", **place)


def _queues(recording: Recording, numbers: Numbers) -> Iterator[TimedEvent]:
    """Yield how many steps wait for each resource, or for a repair, whenever that changes."""
    changes: defaultdict[str, defaultdict[Ns, int]] = defaultdict(lambda: defaultdict(int))
    since: dict[Key, float] = {}
    for row in sorted(recording.intervals, key=lambda row: row.start_ms):
        key = row.inference, row.step
        waits, begins = nanoseconds(since.get(key, row.ready_ms)), nanoseconds(row.start_ms)
        if row.lost:
            since[key] = row.end_ms
        if row.resource and waits < begins:
            changes[row.resource][waits] += 1
            changes[row.resource][begins] -= 1
    owners = {lane.resource: lane.owner for lane in lanes(recording.graph)}
    for resource, steps in changes.items():
        waiting = 0
        for moment, change in sorted(steps.items()):
            waiting += change
            pid = numbers[owners[resource]]
            yield moment, _counter(moment, f"queue {resource}", pid, "waiting", waiting)


def _watts(result: SimulationResult, numbers: Numbers) -> Iterator[TimedEvent]:
    """Yield what each board draws whenever that changes; 0 once the simulation is over."""
    for board, drawn in power_draws(result).items():
        changes: defaultdict[Ns, list[tuple[int, float]]] = defaultdict(list)
        for number, draw in enumerate(drawn):
            start, end = nanoseconds(draw.start_ms), nanoseconds(draw.end_ms)
            if start < end:
                changes[start].append((number, draw.watts))
                changes[end].append((number, 0.0))
        active: dict[int, float] = {}
        for moment, changed in sorted(changes.items()):
            active.update(changed)
            active = {number: watts for number, watts in active.items() if watts}
            watts = fsum(active.values())
            yield moment, _counter(moment, "power", numbers[board], "W", watts)


def _counter(moment: Ns, name: str, pid: int, unit: str, value: float) -> str:
    return _event("C", ts=moment, name=name, pid=pid, tid=pid, args={unit: value})


def _event(phase: str, **members: object) -> str:
    parts = (f"{json.dumps(name)}: {_text(value)}" for name, value in members.items())
    return f'{{"ph": "{phase}", {", ".join(parts)}}}'


def _text(value: object) -> str:
    return str(value) if isinstance(value, Ns) else json.dumps(value)
