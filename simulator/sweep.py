"""Sweeps: the closed form of a fan-out for many configurations at once, on numpy arrays."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fan_out_ms(
    send_ms: ArrayLike,
    busy_ms: ArrayLike,
    reply_ms: ArrayLike,
    join_ms: ArrayLike,
    latency_ms: ArrayLike = 0.0,
) -> NDArray[np.float64]:
    """Return the latency of one image for each configuration, in ms.

    The first three and `latency_ms` (of a board's link, one way) have the boards, in send order,
    as their last axis; the axes before it are configurations, and shapes broadcast.  `join_ms`
    has one value per configuration, or one for all.  For any of them::

        total = max_b (send_1 + ... + send_b + latency_b + busy_b + reply_b + latency_b) + join

    No two boards share a medium: there replies wait for each other, and `closed_form.fan_out`
    counts it.  A configuration with fewer boards than others has a busy time of -inf on those that
    it lacks.
    """
    sent_ms = np.cumsum(np.asarray(send_ms, dtype=float), axis=-1)
    latency = np.asarray(latency_ms, dtype=float)
    done_ms = sent_ms + latency + busy_ms + reply_ms + latency
    total: NDArray[np.float64] = done_ms.max(axis=-1) + join_ms
    return total
