"""A breakdown of latency and energy: what an image costs, whole and per board.

Latency has the two parts of Tables 6 and 7 of arXiv:1907.11804: compute_ms is the busy time of the
board that computes longest, communication_ms is all the rest (sending, waiting, replying, joining).
Energy is that of computing alone, as published; idle and radio stand beside it.

Rows say who did what when; every result is computed from them.  Their times are ms since the
simulation began; actors are the host (`task_graph.HOST`) and the boards by name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from statistics import fmean

from simulator.task_graph import Activity as Activity


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """One image, from its start at the host to the joined answer.

    The end is NaN where the image is lost.
    """

    inference: int
    start_ms: float
    end_ms: float

    @property
    def latency_ms(self) -> float:
        """Time from image to answer, in ms."""
        return self.end_ms - self.start_ms

    @property
    def answered(self) -> bool:
        """Whether there was an answer."""
        return not math.isnan(self.end_ms)


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One activity of one actor for one image: while it holds its resources.

    `ready_ms` is when it could have begun had its resources been free; `resource` the first of
    these ("" if it needs none), `step` its index in the graph.  `lost` marks a try that a failure
    broke off.
    """

    inference: int
    actor: str
    activity: Activity
    start_ms: float
    end_ms: float
    ready_ms: float
    resource: str
    step: int
    lost: bool = False


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message that came: an image, maps or features; `tries` counts its transmissions."""

    inference: int
    sender: str
    receiver: str
    size_bytes: int
    sent_ms: float
    received_ms: float
    step: int
    tries: int = 1


_LEFT_OUT = ("utilisation", "survivors", "warnings", "recording")


@dataclass(frozen=True, slots=True)
class CriticalPathRow:
    """One actor's share of the critical path, as means over the answers.

    The path goes back from the answer, each time to the step whose end let the next one begin: all
    rows together are the latency.  `wait_ms` is the wait for busy resources or repair; at the host
    also that for its deadline.
    """

    actor: str
    compute_ms: float
    message_ms: float
    join_ms: float
    wait_ms: float

    @property
    def total_ms(self) -> float:
        """All of it, in ms."""
        return self.compute_ms + self.message_ms + self.join_ms + self.wait_ms


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One board's share of an image; times are ms since its start.

    `queue_ms` is what its steps (and the host's sends to it) wait for busy resources or repair;
    `wait_ms` is the time in which nothing of the image concerns it, until the answer.  Energies
    are per image: computing (what failures broke off included), idle while it does not compute,
    radio while messages are on the wire that it sends, receives or passes on; `average_w` is the
    mean power of computing and idle, of computing alone without idle_w.  None, and NaN of
    computing, is what is not known: a closed form has no queues, a profile may have no power,
    idle_w or radio_w.  `passes_on` marks
    a board that only passes on what is for others; what it passes on is all that concerns it.
    """

    board: str
    device: str
    students: int
    send_done_ms: float
    busy_ms: float
    done_ms: float
    energy_mj: float
    queue_ms: float | None = None
    wait_ms: float | None = None
    utilisation: float | None = None
    idle_mj: float | None = None
    radio_mj: float | None = None
    average_w: float | None = None
    passes_on: bool = False


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Latency in its parts (ms per image), by boards and by inferences."""

    total_ms: float
    compute_ms: float
    communication_ms: float
    boards: tuple[BoardRow, ...]
    inferences: Sequence[InferenceRow]

    @property
    def energy_per_node_mj(self) -> float:
        """Mean energy of the boards that work, in mJ per image.

        NaN of none.  This is the energy of arXiv:1907.11804, Table 7.
        """
        working = [row.energy_mj for row in self.boards if not row.passes_on]
        return fmean(working) if working else math.nan

    @property
    def energy_total_mj(self) -> float:
        """Energy of all boards together, in mJ per image; NaN where power is unknown."""
        return sum(row.energy_mj for row in self.boards)

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON, energies included; None where a time never came."""
        return {
            **{name: plain_rows(getattr(self, name)) for name in self._told()},
            "energy_per_node_mj": plain_rows(self.energy_per_node_mj),
            "energy_total_mj": plain_rows(self.energy_total_mj),
        }

    def _told(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self) if field.name not in _LEFT_OUT)


def plain_rows(value: object) -> object:
    """Rows as dictionaries, and None for a time that never came."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain_rows(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain_rows(getattr(value, field.name)) for field in fields(value)}
    return value
