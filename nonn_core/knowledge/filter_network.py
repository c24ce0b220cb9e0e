"""The filter activation network: which fconv filters belong together (arXiv:1907.11804, 4.1).

Nodes are filters; a link's weight sums, over validation images, what the rule makes of the two
filters' average activities.  No self-loops.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nonn_core.knowledge.link_kernel import IMAGES, Matrix, add_images
from nonn_core.partition import TOP_FILTERS, Rule
from nonn_core.progress import Progress, silent
from profiles.errors import InputError, PartitionError

SAVED_KEY = "filter_network"
_HEAVIEST = 1e100
"""Sums over the links of any network of such weights still are numbers."""
# What numpy and zipfile raise, by trial, on damaged or foreign files.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    AttributeError,
    TypeError,
    RuntimeError,
    BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What the published implementation does beside the formula; its values are the defaults.

    `per_image_scale` divides an image's activities by the image's largest; `top_filters` keeps
    each image's most active filters and zeroes the rest (None keeps all); `link_percentile` keeps
    links heavier than this percentile of the non-zero weights (0 keeps all).
    """

    per_image_scale: bool = True
    top_filters: int | None = TOP_FILTERS
    link_percentile: float = 99.0

    def __post_init__(self) -> None:
        if self.top_filters is not None and self.top_filters < 2:
            raise InputError("top filters", found=self.top_filters, allowed="2 or more")
        if not 0 <= self.link_percentile < 100:
            raise InputError("link percentile", found=self.link_percentile, allowed="[0, 100)")


def filter_network(
    activities: Matrix, rule: Rule, options: LinkOptions, progress: Progress = silent
) -> Matrix:
    """Build the weights (filters, filters) from average activities (images, filters), all >= 0.

    AH: sum of a_i a_j |a_i - a_j|.  CA: sum of a_i a_j / (|a_i - a_j| + 1).  Then the weak links
    are cut.  Raises PartitionError when no link is left, or for activities that are none.
    """
    if not np.isfinite(activities).all() or (activities < 0).any():
        raise PartitionError(
            "the teacher's average activities must be finite and >= 0; take fconv after an "
            "activation such as ReLU (--fconv), and check that the teacher's training went well"
        )
    images, filters = activities.shape
    weights = np.zeros((filters, filters))
    for start in range(0, images, IMAGES):
        block = activities[start : start + IMAGES]
        prepared = _top(_scaled(block) if options.per_image_scale else block, options)
        add_images(weights, prepared, rule)
        progress("building the filter network", min(start + IMAGES, images), images)
    return strong_links(weights + weights.T, options.link_percentile)


def strong_links(weights: Matrix, percentile: float) -> Matrix:
    """Keep the links above this percentile of the non-zero weights; zero the rest.

    Raises PartitionError when no link is left.
    """
    present = weights[np.triu(weights, k=1) > 0]
    if present.size == 0:
        raise PartitionError(
            "the filter network has no link at all: no two filters are active on the same image; "
            "raise --top-filters, or train the teacher further"
        )
    if percentile == 0:
        return weights
    strong = np.where(weights > np.percentile(present, percentile), weights, 0.0)
    if not strong.any():
        raise PartitionError(
            f"no link of the filter network is above its percentile {percentile:g}: the heaviest "
            "ones weigh the same; lower --link-percentile"
        )
    return strong


def read_filter_network(path: Path) -> Matrix:
    """Read a saved network: `.npz` with the key `filter_network`, a symmetric matrix >= 0.

    Raises InputError that names the file and what is wrong with it.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if SAVED_KEY not in archive:
                raise InputError(
                    f"has no array `{SAVED_KEY}`", where=str(path), found=sorted(archive.files)
                )
            weights = np.asarray(archive[SAVED_KEY])
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except _UNREADABLE as error:
        raise InputError(f"is not a .npz file of arrays: {error}", where=str(path)) from None
    return _checked(weights, path)


def _checked(weights: NDArray[np.generic], path: Path) -> Matrix:
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or weights.shape[0] < 2:
        raise InputError(
            "must be a square matrix of two filters or more", where=str(path), found=weights.shape
        )
    if weights.dtype.kind not in "fiu":
        raise InputError("must hold real numbers", where=str(path), found=str(weights.dtype))
    matrix: Matrix = weights.astype(np.float64)
    if not ((matrix >= 0) & (matrix <= _HEAVIEST)).all():
        raise InputError(f"weights must be numbers from 0 to {_HEAVIEST:g}", where=str(path))
    if not np.allclose(matrix, matrix.T):
        raise InputError("must be symmetric", where=str(path))
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _scaled(activities: Matrix) -> Matrix:
    largest = activities.max(axis=1, keepdims=True)
    return activities / np.where(largest > 0, largest, 1.0)


def _top(activities: Matrix, options: LinkOptions) -> Matrix:
    """Keep each image's `top_filters` largest activities; ties go to the lower filter id."""
    kept = options.top_filters
    if kept is None or kept >= activities.shape[1]:
        return activities
    least = np.partition(activities, -kept, axis=1)[:, [-kept]]
    above, ties = activities > least, activities == least
    room = kept - above.sum(axis=1, keepdims=True)
    return np.where(above | (ties & (ties.cumsum(axis=1) <= room)), activities, 0.0)
