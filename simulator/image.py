"""An image under way, and the moments of its steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from simulator.clock import Moment
from simulator.job import Job

NOT_YET = math.nan
"""The time of what has not happened, and maybe never will."""


class Image:
    """One image: what each step still waits for, when it held its resources, when it ended.

    `under_way` counts the moments to come; with none left nothing more can happen to the image.
    `repairs_ms` holds, for each step that a failure lost, when its boards are up again.
    """

    __slots__ = (
        "end_ms",
        "ends_ms",
        "frees_ms",
        "inference",
        "missing",
        "repairs_ms",
        "settled",
        "start_ms",
        "starts_ms",
        "under_way",
    )

    def __init__(self, inference: int, start_ms: float, missing: list[int]) -> None:
        self.inference = inference
        self.start_ms = start_ms
        self.end_ms = NOT_YET
        self.missing = missing
        self.starts_ms = [NOT_YET] * len(missing)
        self.frees_ms = self.starts_ms[:]
        self.ends_ms = self.starts_ms[:]
        self.repairs_ms: dict[int, float] = {}
        self.under_way = 0
        self.settled = False


def answerable_ms(job: Job, image: Image) -> float:
    """Return when enough of what lost `image` is up again for an answer; infinity if never.

    A step that was lost can be done from its repair on, a step that never began when as many of
    those before it as it needs can be done; nothing hinders the others.
    """
    can_ms: list[float] = []
    for index, step in enumerate(job.steps):
        if index in image.repairs_ms:
            can_ms.append(image.repairs_ms[index])
        elif image.missing[index] > 0:
            can_ms.append(sorted(can_ms[earlier] for earlier in step.after)[step.needed - 1])
        else:
            can_ms.append(0.0)
    return can_ms[job.answer]


class Hop(Moment):
    """The end of one step of an image."""

    __slots__ = ("image", "step")

    def __init__(self, callbacks: Sequence[Callable[[Any], None]], image: Image, step: int) -> None:
        self.callbacks = callbacks  # type: ignore[assignment]
        self.image = image
        self.step = step


class Retry(Hop):
    """The repair after which a step queues again, for the times drawn for it at first."""

    __slots__ = ("drawn_ms", "tries")

    def __init__(
        self,
        callbacks: Sequence[Callable[[Any], None]],
        image: Image,
        step: int,
        drawn_ms: tuple[float, float],
        tries: int,
    ) -> None:
        super().__init__(callbacks, image, step)
        self.drawn_ms = drawn_ms
        self.tries = tries
