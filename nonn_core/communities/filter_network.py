"""Filter network: average activities of fconv filters, and the links between them.

arXiv:1907.11804, section 4.1.  Nodes are filters; a link's weight sums, over validation
images, what the rule makes of the two filters' average activities.  No self-loops.

The sum over images is compiled (Eq. 4).  Each link adds its images one after the other, in
their order, and nothing is fused or reordered (no fast-math): the same activities give the
same bits on every machine.  Rewritings by minimum and maximum would save operations and lose
digits.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from nonn_common import Progress, silent
from nonn_common.errors import InputError, PartitionError
from nonn_core.data.dataset import Dataset, Images
from nonn_core.distillation.accelerator import inference_batch_size
from nonn_core.networks.modules import global_average_pool
from nonn_core.partition import TOP_FILTERS, Rule
from nonn_core.teacher.teacher import Teacher

Matrix = NDArray[np.float64]
IMAGES_AT_ONCE = 128
"""Images to add at a time: with `_COLUMNS` columns of float64 they fit a second-level cache."""
_COLUMNS_AT_ONCE = 512
_UNROLLED = 4  # images that `_add` adds to a link each time it loads and stores it


def add_links(weights: Matrix, activities: Matrix, rule: Rule) -> None:
    """Add what these images give to the links (filters, filters) above the diagonal, in place.

    `activities` is (images, filters), all >= 0.
    """
    images, filters = activities.shape
    # Images without activity add nothing: they fill the last rows.
    block = np.zeros((-(-images // _UNROLLED) * _UNROLLED, filters))
    block[:images] = activities
    _add_links(weights, block, _activation_hubs if rule == "AH" else _co_activation)


# numpy's division goes on at a zero; Python's, which stops, would rule out vector instructions.
@njit(error_model="numpy")
def _activation_hubs(x, y):  # type: ignore[no-untyped-def]
    return x * y * abs(x - y)


@njit(error_model="numpy")
def _co_activation(x, y):  # type: ignore[no-untyped-def]
    return x * y / (abs(x - y) + 1.0)


@njit(error_model="numpy")
def _add_links(weights, block, link):  # type: ignore[no-untyped-def]
    images, filters = block.shape
    for left in range(0, filters, _COLUMNS_AT_ONCE):
        right = min(filters, left + _COLUMNS_AT_ONCE)
        for t in range(0, images, _UNROLLED):
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


@dataclass(frozen=True, slots=True)
class Activities:
    """Activities of the teacher's fconv on validation images.

    `average` (images, filters) holds each filter's mean over height and width, >= 0; `labels`
    (images,) the right classes; `fc_weight` (classes, filters) and `fc_bias` (classes,) the
    teacher's last layer, which turns features into logits.  `features` (images, filters) differ
    from the averages where fconv has negative values or a normalisation follows: None where they
    do not.  `negative_pct` is the share of fconv's absolute activity that is below 0.
    """

    average: Matrix
    labels: NDArray[np.int64]
    fc_weight: Matrix
    fc_bias: Matrix
    features: Matrix | None = None
    negative_pct: float = 0.0

    @property
    def read(self) -> Matrix:
        """Features that the last layer reads, (images, filters)."""
        return self.average if self.features is None else self.features

    def logits(self) -> Matrix:
        """Teacher's logits, (images, classes)."""
        return self.read @ self.fc_weight.T + self.fc_bias

    def share(self, filters: Sequence[int]) -> Matrix:
        """Share of these filters in the logits, (images, classes)."""
        chosen = list(filters)
        return self.read[:, chosen] @ self.fc_weight[:, chosen].T

    def accuracy_pct(self, logits: Matrix) -> float:
        """Share of the images for which these logits (images, classes) are right, in percent."""
        return float(100 * np.mean(self.right(logits)))

    def right(self, logits: Matrix) -> NDArray[np.bool_]:
        """Say of each image, (images,), whether these logits (images, classes) are right."""
        found: NDArray[np.bool_] = logits.argmax(axis=1) == self.labels
        return found

    @property
    def fewest_class_images(self) -> int:
        """Number of images of the class that has fewest."""
        return int(np.bincount(self.labels, minlength=len(self.fc_weight)).min())


def average_activities(
    teacher: Teacher, dataset: Dataset, images: Images, progress: Progress = silent
) -> Activities:
    """Average activities of the teacher over `images`.

    a_i is the mean of fconv's channel i (arXiv:1907.11804, section 4.1), made >= 0 place by place.
    Teacher and images are on the same device.
    """
    at_once = inference_batch_size(dataset.image, images.pixels.device)
    averages, features, below, total = [], [], 0.0, 0.0
    with torch.no_grad():
        for pixels, _ in dataset.batches(images, at_once):
            maps, read = teacher.maps_and_features(pixels)
            averages.append(global_average_pool(teacher.activations(maps)).double().cpu())
            features.append(read.double().cpu())
            below -= float(maps.clamp(max=0).sum(dtype=torch.float64))
            total += float(maps.abs().sum(dtype=torch.float64))
            done = min(len(averages) * at_once, len(images))
            progress("reading the teacher's activities", done, len(images))
    weight, bias = teacher.classifier()
    average, read = torch.cat(averages), torch.cat(features)
    return Activities(
        average=average.numpy(),
        labels=images.labels.cpu().numpy(),
        fc_weight=weight.double().cpu().numpy(),
        fc_bias=bias.double().cpu().numpy(),
        features=None if torch.equal(average, read) else read.numpy(),
        negative_pct=100 * below / total if below else 0.0,
    )


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
    """Options of the published implementation beside the formula.

    Its values are the defaults.  `per_image_scale` divides an image's activities by the image's
    largest; `top_filters` keeps each image's most active filters and zeroes the rest (None keeps
    all); `link_percentile` keeps links heavier than this percentile of the non-zero weights (0
    keeps all).
    """

    per_image_scale: bool = True
    top_filters: int | None = TOP_FILTERS
    link_percentile: float = 99.0

    def __post_init__(self) -> None:
        if self.top_filters is not None and self.top_filters < 2:
            raise InputError("top filters", found=self.top_filters, allowed="2 or more")
        if not 0 <= self.link_percentile < 100 or 0 < self.link_percentile < 1:
            raise InputError(
                "link percentile",
                found=self.link_percentile,
                allowed="0 for all links, or 1 to below 100: 99, not 0.99",
            )


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
    for start in range(0, images, IMAGES_AT_ONCE):
        block = activities[start : start + IMAGES_AT_ONCE]
        prepared = _top(_scaled(block) if options.per_image_scale else block, options)
        add_links(weights, prepared, rule)
        progress("building the filter network", min(start + IMAGES_AT_ONCE, images), images)
    if not np.triu(weights, k=1).any():
        raise PartitionError(
            "the filter network has no link at all: no two filters are active on the same image; "
            "raise --top-filters, or train the teacher further"
        )
    return strong_links(weights + weights.T, options.link_percentile)


def strong_links(weights: Matrix, percentile: float) -> Matrix:
    """Keep the links above this percentile of the non-zero weights; zero the rest.

    Raises PartitionError when no link is left.
    """
    present = weights[np.triu(weights, k=1) > 0]
    if present.size == 0:
        raise PartitionError(
            "the filter network has no link at all: all weights between two filters are 0"
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
    if not matrix.any():
        raise InputError(
            "has no link: all weights between two filters are 0",
            where=str(path),
            fix="save the filter network as it is before its weak links are cut",
        )
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
