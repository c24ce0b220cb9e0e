"""One real inference beside the simulated one, as a trace for Perfetto (ui.perfetto.dev).

The simulated processes stand as `simulate --trace` writes them; the measured ones, whose names say
so, below.  A board tells how long it computed, not when by the host's clock: its slice is put in
the middle of the time that is left for the wire.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from boards.host.inference import Answer, BoardTiming
from planner.plan import PlanDocument
from planner.workload import fan_out
from profiles.document import write_atomic
from simulator.engine import simulate
from simulator.perfetto import trace_json

_FIRST_PID = 100_000


def write_both(plan: PlanDocument, answer: Answer, path: Path) -> None:
    """Write the trace of a real answer beside the simulated one."""
    events = json.loads(trace_json(simulate(fan_out(plan))))["traceEvents"]
    events += _measured(answer)
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in events)
    write_atomic(path, ('{"traceEvents": [\n' + lines + "\n]}\n").encode())


def _measured(answer: Answer) -> Iterator[dict[str, object]]:
    """Yield the events of a real inference."""
    yield _name(_FIRST_PID, "measured: host")
    begun_ms = 0.0
    for timing in sorted(answer.timings, key=lambda each: each.sent_ms):
        yield _slice(_FIRST_PID, 1, f"send to {timing.board}", begun_ms, timing.sent_ms)
        begun_ms = timing.sent_ms
    last_ms = max(timing.replied_ms for timing in answer.timings)
    yield _slice(_FIRST_PID, 1, "join", last_ms, answer.total_ms)
    for number, timing in enumerate(answer.timings, start=1):
        yield from _board(_FIRST_PID + number, timing)


def _board(pid: int, timing: BoardTiming) -> Iterator[dict[str, object]]:
    yield _name(pid, f"measured: {timing.board}")
    if timing.waited_ms is not None and timing.computed_ms is not None:
        busy_ms = timing.waited_ms + timing.computed_ms
        wire_ms = timing.replied_ms - timing.sent_ms - busy_ms
        came_ms = timing.sent_ms + wire_ms / 2
        began_ms = came_ms + timing.waited_ms
        yield _slice(pid, 1, "wait", came_ms, began_ms)
        yield _slice(pid, 1, "compute", began_ms, began_ms + timing.computed_ms)
    yield _slice(pid, 2, "until its features were there", timing.sent_ms, timing.replied_ms)


def _name(pid: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def _slice(pid: int, tid: int, name: str, start_ms: float, end_ms: float) -> dict[str, object]:
    return {
        "ph": "X",
        "name": name,
        "pid": pid,
        "tid": tid,
        "ts": round(start_ms * 1e3, 3),
        "dur": round((end_ms - start_ms) * 1e3, 3),
    }
