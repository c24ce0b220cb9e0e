"""The sum over images behind a filter network, compiled (arXiv:1907.11804, Eq. 4 and section 4.1).

Each link adds its images one after the other, in their order, and nothing is fused or reordered
(no fast-math): the same activities give the same bits on every machine.  Rewritings by minimum and
maximum would save operations and lose digits.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nonn_core.partition import Rule

Matrix = NDArray[np.float64]
IMAGES = 128
"""Images to add at a time: with `_COLUMNS` columns of float64 they fit a second-level cache."""
_COLUMNS = 512
_TOGETHER = 4  # images that `_add` adds to a link each time it loads and stores it


def add_images(weights: Matrix, activities: Matrix, rule: Rule) -> None:
    """Add what these images give to the links (filters, filters) above the diagonal, in place.

    `activities` is (images, filters), all >= 0.
    """
    images, filters = activities.shape
    # Images without activity add nothing: they fill the last rows.
    block = np.zeros((-(-images // _TOGETHER) * _TOGETHER, filters))
    block[:images] = activities
    _add(weights, block, _activation_hubs if rule == "AH" else _co_activation)


# numpy's division goes on at a zero; Python's, which stops, would rule out vector instructions.
@njit(error_model="numpy")
def _activation_hubs(x, y):  # type: ignore[no-untyped-def]
    return x * y * abs(x - y)


@njit(error_model="numpy")
def _co_activation(x, y):  # type: ignore[no-untyped-def]
    return x * y / (abs(x - y) + 1.0)


@njit(error_model="numpy")
def _add(weights, block, link):  # type: ignore[no-untyped-def]
    images, filters = block.shape
    for left in range(0, filters, _COLUMNS):
        right = min(filters, left + _COLUMNS)
        for t in range(0, images, _TOGETHER):
            a, b, c, d = block[t], block[t + 1], block[t + 2], block[t + 3]
            for i in range(right):
                ai, bi, ci, di = a[i], b[i], c[i], d[i]
                if ai == 0 and bi == 0 and ci == 0 and di == 0:
                    continue
                first = max(left, i + 1)
                row = weights[i, first:right]
                aj, bj, cj, dj = a[first:right], b[first:right], c[first:right], d[first:right]
                for k in range(right - first):
                    total = row[k] + link(ai, aj[k])
                    total = total + link(bi, bj[k])
                    total = total + link(ci, cj[k])
                    row[k] = total + link(di, dj[k])
