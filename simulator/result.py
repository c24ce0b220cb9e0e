"""Results: what an image costs, as a whole and per board.

Latency has the two parts of Tables 6 and 7 of arXiv:1907.11804: compute_ms is the busy time of the
board that computes longest, communication_ms is all the rest (sending, waiting, replying, joining).
Energy is that of computing alone, as published: no idle time and no radio.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from simulator.trace import InferenceRow, IntervalRow, MessageRow, Trace


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One board's share of an image; times are ms since the host took up the image."""

    board: str
    device: str
    students: int
    send_done_ms: float
    busy_ms: float
    done_ms: float
    energy_mj: float


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Latency in its parts (ms per image), each board's share, and the inferences one by one."""

    total_ms: float
    compute_ms: float
    communication_ms: float
    boards: tuple[BoardRow, ...]
    inferences: tuple[InferenceRow, ...]

    @property
    def energy_per_node_mj(self) -> float:
        """Mean energy of the boards that work, in mJ per image (Table 7's figure)."""
        return fmean(row.energy_mj for row in self.boards)

    @property
    def energy_total_mj(self) -> float:
        """Energy of all boards together, in mJ per image."""
        return sum(row.energy_mj for row in self.boards)

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON, energies included."""
        return {
            **asdict(self),
            "energy_per_node_mj": self.energy_per_node_mj,
            "energy_total_mj": self.energy_total_mj,
        }


@dataclass(frozen=True, slots=True)
class SimulationResult(Breakdown):
    """A breakdown computed from a trace, with the trace's other tables."""

    intervals: tuple[IntervalRow, ...]
    messages: tuple[MessageRow, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What no trace tells about a board: what it is, and the energy of one image on it, in mJ."""

    board: str
    device: str
    students: int
    energy_mj: float


def summarise(trace: Trace, shares: Sequence[Share]) -> SimulationResult:
    """Compute the result of a finished `trace` (at least one inference) of the boards `shares`.

    Each time is the mean over the inferences.
    """
    total_ms = fmean(row.latency_ms for row in trace.inferences)
    compute_ms = _longest_compute_ms(trace.intervals)
    return SimulationResult(
        total_ms=total_ms,
        compute_ms=compute_ms,
        communication_ms=total_ms - compute_ms,
        boards=_board_rows(trace, shares),
        inferences=tuple(trace.inferences),
        intervals=tuple(trace.intervals),
        messages=tuple(trace.messages),
    )


def _longest_compute_ms(intervals: Iterable[IntervalRow]) -> float:
    """Return the busy time of the board that computes longest, in ms, mean over inferences."""
    longest: defaultdict[int, float] = defaultdict(float)
    for row in intervals:
        if row.activity == "compute":
            longest[row.inference] = max(longest[row.inference], row.end_ms - row.start_ms)
    return fmean(longest.values())


def _board_rows(trace: Trace, shares: Sequence[Share]) -> tuple[BoardRow, ...]:
    """Return each board's row; a board that nobody sends to has its image from the start."""
    began = {row.inference: row.start_ms for row in trace.inferences}
    sent, busy = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    ended: defaultdict[str, dict[int, float]] = defaultdict(dict)
    for message in trace.messages:
        sent[message.receiver].append(message.received_ms - began[message.inference])
    for row in trace.intervals:
        ended[row.actor][row.inference] = row.end_ms - began[row.inference]
        if row.activity == "compute":
            busy[row.actor].append(row.end_ms - row.start_ms)
    return tuple(
        BoardRow(
            board=share.board,
            device=share.device,
            students=share.students,
            send_done_ms=fmean(sent[share.board]) if sent[share.board] else 0.0,
            busy_ms=fmean(busy[share.board]),
            done_ms=fmean(ended[share.board].values()),
            energy_mj=share.energy_mj,
        )
        for share in shares
    )
