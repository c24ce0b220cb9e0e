"""Evidence: what validation images can tell, and where they are too few.

The teacher answers n images with all its filters and without some: `lost` images are right only
with them, `won` only without.  The loss of accuracy is estimated as (lost - won) / n.  Its upper
confidence bound, one-sided, is the score bound for paired proportions (Tango 1998, Statistics in
Medicine 17, 891-908): the d at which

    (lost - won - n d) / sqrt(n (2 q + d (1 - d))) = -z
    q = (sqrt(B^2 + 8 n won d (1 - d)) - B) / (4 n),   B = (2 n - lost + won) d - lost - won

q is the likeliest share of won images where d is the loss, z the normal quantile of the confidence.
Where nothing was lost or won it is z^2 / (n + z^2), Wilson's bound of a share of 0 (1927, Journal
of the American Statistical Association 22, 209-212).  Torch-free.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil, cos, pi, sin, sqrt, tan
from statistics import NormalDist

from nonn_core.partition import CONFIDENCE_PCT, Partition

FEWEST_CLASS_IMAGES = 10
"""Validation images of a class below which delta_val says next to nothing of that class."""
FEWEST_FILTERS = 8
"""Filters of a student below which its answer is next to no knowledge."""
MOST_NEEDED = 10**9
"""Images beyond which more make no difference to anybody."""
_MOST_UNLINKED = 0.75
"""Share of filters without a link from which the communities are of too few to mean anything."""
_LEAST_SKILL = 0.1
"""Share of the way from chance to always right that a teacher has at least."""


@dataclass(frozen=True, slots=True)
class PairedAnswers:
    """Numbers of images: all, and those right only with, or only without, some filters."""

    images: float
    lost: float
    won: float

    def loss_bound_pct(self, confidence_pct: float = CONFIDENCE_PCT) -> float:
        """Upper confidence bound on the loss of accuracy, in percentage points."""
        n, lost, won = self.images, self.lost, self.won
        z = NormalDist().inv_cdf(confidence_pct / 100)
        if lost + won == 0:
            return 100 * z * z / (n + z * z)
        if lost >= n:
            return 100.0
        from scipy.optimize import brentq

        def score(loss: float) -> float:
            linear = (2 * n - lost + won) * loss - lost - won
            root = sqrt(max(0.0, linear * linear + 8 * n * won * loss * (1 - loss)))
            share_won = (root - linear) / (4 * n)
            variance = n * (2 * share_won + loss * (1 - loss))
            return lost - won - n * loss + z * sqrt(max(0.0, variance))

        return 100 * float(brentq(score, (lost - won) / n, 1.0))

    def images_needed(self, epsilon_pct: float, confidence_pct: float = CONFIDENCE_PCT) -> int:
        """Images that bring the bound below epsilon, at the same shares of lost and won.

        At most `MOST_NEEDED`, also where epsilon is hardly more than the estimated loss, or less.
        """

        def tells(images: int) -> bool:
            part = images / self.images
            answers = PairedAnswers(images, part * self.lost, part * self.won)
            return answers.loss_bound_pct(confidence_pct) < epsilon_pct

        enough = 1
        while not tells(enough):
            if enough > MOST_NEEDED:
                return MOST_NEEDED
            enough *= 2
        low = enough // 2
        while enough - low > 1:
            middle = (low + enough) // 2
            low, enough = (low, middle) if tells(middle) else (middle, enough)
        return enough


def wilson_bounds_pct(
    accuracy_pct: float, images: int, confidence_pct: float = CONFIDENCE_PCT
) -> tuple[float, float]:
    """Lower and upper confidence bound of an accuracy, each by itself (Wilson 1927)."""
    z = NormalDist().inv_cdf(confidence_pct / 100)
    share, weight = accuracy_pct / 100, z * z / images
    centre = share + weight / 2
    half = sqrt(weight * share * (1 - share) + weight * weight / 4)
    low, high = (centre - half) / (1 + weight), (centre + half) / (1 + weight)
    return 100 * max(0.0, low), 100 * min(1.0, high)


@cache
def student_t_quantile(freedom: int, confidence: float) -> float:
    """Deviations that |Student's t| stays below with this confidence, as a share.

    Its distribution is a finite sum in t = sqrt(freedom) tan(angle) (Abramowitz and Stegun, 26.7.3
    and 26.7.4), which is halved for its root.  scipy.special takes longer to load than a plan to
    find.
    """
    low, high = 0.0, pi / 2
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _within(freedom, middle) < confidence else (low, middle)
    return sqrt(freedom) * tan(low)


def _within(freedom: int, angle: float) -> float:
    """Chance that |t| is less than sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for step in range(1 + odd, freedom, 2):
        total += term
        term *= step / (step + 1) * cos(angle) ** 2
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def counted_images(count: int) -> str:
    """Number of validation images in words for people."""
    return f"{count:,} validation image{'s' * (count != 1)}"


def partition_warnings(partition: Partition, epsilon_pct: float | None = None) -> tuple[str, ...]:
    """Sentences on the parts of a partition that rest on too little.

    Under its own epsilon, where no other is given.
    """
    unproven = _unproven_drop(
        partition, partition.bound_pct if epsilon_pct is None else epsilon_pct
    )
    return (*_scarce_images(partition), *unproven, *_scarce_links(partition))


def student_warnings(filters: Mapping[str, int]) -> tuple[str, ...]:
    """Sentences on students, by name, that mimic too few filters."""
    few = {name: count for name, count in filters.items() if count < FEWEST_FILTERS}
    if not few:
        return ()
    listed = ", ".join(f"{name} {count}" for name, count in few.items())
    return (
        f"students of fewer than {FEWEST_FILTERS} filters know next to nothing: {listed}; plan "
        "fewer students, or partition again so that fewer filters are dropped",
    )


def _scarce_images(partition: Partition) -> Iterator[str]:
    """Warn of few images of a class, and of a teacher near chance."""
    fewest, images = partition.fewest_class_images, partition.images
    if fewest is not None and fewest < FEWEST_CLASS_IMAGES:
        yield (
            f"the rarest class has {counted_images(fewest)}, fewer than {FEWEST_CLASS_IMAGES}: "
            "delta_val says next to nothing of it; add training images, a tenth validates"
        )
    accuracy_pct = partition.drop_steps[0].accuracy_pct
    if partition.teacher is None or accuracy_pct is None or not images:
        return
    chance_pct = 100 / partition.teacher.classes
    surely_pct, _ = wilson_bounds_pct(accuracy_pct, images)
    if accuracy_pct < chance_pct + _LEAST_SKILL * (100 - chance_pct) or surely_pct <= chance_pct:
        yield (
            f"the teacher is right on {accuracy_pct:.1f} % of {counted_images(images)}, not "
            f"clearly above chance ({chance_pct:.1f} %): train it further, then partition it again"
        )


def _unproven_drop(partition: Partition, epsilon_pct: float) -> Iterator[str]:
    """Warn of a P0 that passes by its measured delta_val alone, on too few images."""
    p0, images = partition.p0(epsilon_pct), partition.images
    if not images or p0 is None or p0.loss_bound_pct is not None or not p0.communities:
        return
    # Which images differ is not known: as few as possible, which bounds the loss least.
    lost = max(0.0, -(p0.delta_val_pct or 0.0)) * images / 100
    least_pct = PairedAnswers(images, lost, 0).loss_bound_pct()
    if least_pct >= epsilon_pct:
        yield (
            f"{p0.filters} filters may go by the measured delta_val alone, but {images} images "
            f"leave a loss of {least_pct:.2g} points open (epsilon {epsilon_pct:g}); partition "
            "again without --by-estimate"
        )


def _scarce_links(partition: Partition) -> Iterator[str]:
    """Warn of a filter network in which most filters have no link."""
    linked = {filter_ for one, other, _ in partition.links for filter_ in (one, other)}
    if not linked:
        linked = {i for one in partition.communities if one.linked for i in one.filters}
    alone = partition.filters - len(linked)
    if alone >= ceil(_MOST_UNLINKED * partition.filters):
        yield (
            f"{alone} of {partition.filters} filters have no link, so that the communities are of "
            f"{len(linked)} filters alone; lower --link-percentile, as to 95"
        )
