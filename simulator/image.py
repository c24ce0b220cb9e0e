"""An image under way, and the moments of its steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from simulator.clock import Moment

NOT_YET = math.nan
"""The time of what has not happened, and maybe never will."""


class Image:
    """One image: what each step still waits for, when it held its resources, when it ended.

    `under_way` counts the moments to come; with none left nothing more can happen to the image.
    """

    __slots__ = (
        "end_ms",
        "ends_ms",
        "frees_ms",
        "inference",
        "missing",
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
        self.under_way = 0
        self.settled = False


class Hop(Moment):
    """The end of one step of an image."""

    __slots__ = ("image", "step")

    def __init__(self, callbacks: Sequence[Callable[[Any], None]], image: Image, step: int) -> None:
        self.callbacks = callbacks  # type: ignore[assignment]
        self.image = image
        self.step = step
