"""Results: what an image costs, as a whole and per board.

Latency has the two parts of Tables 6 and 7 of arXiv:1907.11804: compute_ms is the busy time of the
board that computes longest, communication_ms is all the rest (sending, waiting, replying, joining).
Energy is that of computing alone, as published; idle and radio stand beside it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from profiles.errors import SimulationError
from simulator.trace import InferenceRow, IntervalRow, MessageRow

if TYPE_CHECKING:
    from simulator.recording import Recording


_TOLD_APART = ("utilisation", "survivors", "recording")


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One board's share of an image; times are ms since the host took up the image.

    `queue_ms` is what its steps (and the host's sends to it) wait for busy resources or repair;
    `wait_ms` is the time in which nothing of the image concerns it, until the answer.  Energies
    are per image: computing (what failures broke off included), idle while it does not compute,
    radio while messages are on the wire that it sends, receives or passes on.  None is what is not
    known: a closed form has no queues, a profile may have no idle_w or radio_w.  `passes_on` marks
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
    passes_on: bool = False


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
        """Mean energy of the boards that work, in mJ per image (Table 7's figure); NaN of none."""
        working = [row.energy_mj for row in self.boards if not row.passes_on]
        return fmean(working) if working else math.nan

    @property
    def energy_total_mj(self) -> float:
        """Energy of all boards together, in mJ per image."""
        return sum(row.energy_mj for row in self.boards)

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON, energies included; None where a time never came."""
        return {
            **{name: _plain(getattr(self, name)) for name in self._told()},
            "energy_per_node_mj": _plain(self.energy_per_node_mj),
            "energy_total_mj": self.energy_total_mj,
        }

    def _told(self) -> tuple[str, ...]:
        return tuple(field.name for field in fields(self) if field.name not in _TOLD_APART)


@dataclass(frozen=True, slots=True)
class SimulationResult(Breakdown):
    """A breakdown computed from what was recorded, over all images of a run.

    `queue_ms` is the time per answer that was spent waiting for busy resources on the way that
    the answer took, `wait_ms` the mean of the boards that do more than pass on.  A percentile is
    exact, or off by at most `percentile_error_pct` of itself where only totals were kept; then the
    tables are empty.  `survivors` counts the images by the students whose features are in the
    answer; a lost image has none.
    """

    queue_ms: float
    wait_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    percentile_error_pct: float
    duration_ms: float
    throughput_per_s: float
    answered: int
    lost: int
    utilisation: Mapping[str, float]
    survivors: Mapping[frozenset[str], int]
    recording: "Recording | None"

    @property
    def intervals(self) -> tuple[IntervalRow, ...]:
        """Who did what when."""
        return self.recording.intervals if self.recording else ()

    @property
    def messages(self) -> tuple[MessageRow, ...]:
        """Who sent what to whom."""
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
        """Return the mean accuracy, given that of each set of students that answer, in per cent.

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
        """Return plain data for JSON, energies and tables included."""
        return {
            **Breakdown.to_dict(self),
            "utilisation": dict(self.utilisation),
            "idle_total_mj": self.idle_total_mj,
            "radio_total_mj": self.radio_total_mj,
            "survivors": [
                {"students": sorted(names), "images": count}
                for names, count in self.survivors.items()
            ],
            "intervals": _plain(self.intervals),
            "messages": _plain(self.messages),
        }


def _total(energies_mj: Sequence[float | None]) -> float | None:
    """Return the sum, or None if one is not known."""
    known = [each for each in energies_mj if each is not None]
    return sum(known) if len(known) == len(energies_mj) else None


def _plain(value: object) -> object:
    """Return rows as dictionaries, and None for a time that never came."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
