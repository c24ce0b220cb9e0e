"""Noise: what makes one image different from the next.

Each purpose and step has a stream of random numbers of its own, all from one seed.  So a run is
the same whatever else is random in it, and the nth image draws the same numbers on every path
through the simulator on which the images keep their order.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Literal

import numpy as np

from simulator.job import Step

Purpose = Literal["arrivals", "failures", "service", "loss", "jitter"]
Draws = Iterator[tuple[float, float]]
"""Per image: how long a step holds its resources, and how long its message is then under way."""

_PURPOSES: tuple[Purpose, ...] = ("arrivals", "failures", "service", "loss", "jitter")
_BATCH = 1024


def stream(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """Return the random numbers of one purpose, for the step or failure of this index."""
    key = (_PURPOSES.index(purpose), index)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draws(step: Step, index: int, seed: int) -> Draws:
    """Yield the holding time and the delay of `step` for one image after the other, in ms."""
    if step.service == "constant" and not step.transit.loss_pct and not step.transit.jitter_ms:
        return repeat((step.duration_ms, step.transit.latency_ms))
    return _drawn(step, index, seed)


def _drawn(step: Step, index: int, seed: int) -> Draws:
    transit = step.transit
    service, loss, jitter = (stream(seed, name, index) for name in ("service", "loss", "jitter"))
    while True:
        holds = np.full(_BATCH, step.duration_ms)
        if step.service == "exponential":
            holds = service.exponential(step.duration_ms, _BATCH)
        if transit.loss_pct:
            tries = loss.geometric(1 - transit.loss_pct / 100, _BATCH)
            holds = holds + (tries - 1) * transit.retry_ms
        delays = np.full(_BATCH, transit.latency_ms)
        if transit.jitter_ms:
            delays = delays + jitter.exponential(transit.jitter_ms, _BATCH)
        yield from zip(holds.tolist(), delays.tolist(), strict=True)
