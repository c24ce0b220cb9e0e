"""A trace: who did what when, as three tidy tables; every result is computed from it.

All times are ms since the simulation began.  Actors are the host (`job.HOST`) and the boards by
name.
"""

import math
from dataclasses import dataclass

from simulator.job import Activity as Activity


@dataclass(frozen=True, slots=True)
class InferenceRow:
    """One image: from the moment the host takes it up to the joined answer; NaN if it is lost."""

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
    these ("" if it needs none), `step` its index in the job.  `lost` marks a try that a failure
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
