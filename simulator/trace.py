"""A trace: who did what when, as three tidy tables; every result is computed from it.

All times are ms since the simulation began.  Actors are the host (`workload.HOST`) and the boards
by name.
"""

from dataclasses import dataclass, field
from typing import Literal

Activity = Literal["send", "compute", "reply", "join"]


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """One image: from the moment the host takes it up to the joined answer."""

    inference: int
    start_ms: float
    end_ms: float

    @property
    def latency_ms(self) -> float:
        """Time from image to answer, in ms."""
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """One activity of one actor for one image."""

    inference: int
    actor: str
    activity: Activity
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message: an image on its way to a board, or the features on their way back."""

    inference: int
    sender: str
    receiver: str
    size_bytes: int
    sent_ms: float
    received_ms: float


@dataclass(slots=True)
class Trace:
    """The rows recorded so far, in the order in which they ended."""

    inferences: list[InferenceRow] = field(default_factory=list)
    intervals: list[IntervalRow] = field(default_factory=list)
    messages: list[MessageRow] = field(default_factory=list)
