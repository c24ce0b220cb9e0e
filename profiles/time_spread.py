"""Spread of computing times over boards and runs, and the slowest of several.

The time of a board for one image is a draw from a Gumbel distribution with a mean m and a
coefficient of variation c, the standard deviation over the mean (decision 0053)::

    F(x) = exp(-exp(-(x - l) / s))      s = c m sqrt(6) / pi      l = m - 0.5772 s

The largest of several independent draws of one scale is a Gumbel draw of that scale again, of
location s ln(sum exp(l / s)), so that its mean and its quantiles are exact; of K alike boards its
mean is m (1 + c sqrt(6) / pi ln K).  Of unlike scales the mean is one integral::

    E max = a + integral from a of (1 - product of F_b(x))      a: below it the product is 0

and a quantile is the root of a function that never falls.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SCALE_PER_DEVIATION = math.sqrt(6) / math.pi
"""Scale of a Gumbel distribution over its standard deviation."""

MEAN_BEYOND = 0.5772156649015329
"""Euler's constant: mean of a Gumbel distribution less its location, over its scale."""

MOST_CV = 0.3
"""Largest coefficient of variation: beyond it draws below zero would be more than 1e-17 of all."""

_LEAST_AT = -6.6
_MOST_AT = 40.0
"""Scales from the location beyond which F is 0 and 1 in double precision."""

_PANELS_AT = (_LEAST_AT, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 7.0, 12.0, 20.0, _MOST_AT)
_NODES = 16
_HALVINGS = 200


@dataclass(frozen=True, slots=True)
class SpreadTime:
    """A time as boards draw it: mean and scale in ms, constant at scale 0."""

    mean_ms: float
    scale_ms: float = 0.0

    @classmethod
    def of(cls, busy_ms: float, cv: float, beside_ms: float = 0.0) -> "SpreadTime":
        """Time of computing with this mean and coefficient of variation, and of the rest."""
        return cls(busy_ms + beside_ms, cv * busy_ms * SCALE_PER_DEVIATION)

    @property
    def location_ms(self) -> float:
        """The location of its Gumbel distribution."""
        return self.mean_ms - MEAN_BEYOND * self.scale_ms


def slowest_factor(cv: float, boards: int) -> float:
    """Expected maximum of so many alike boards, over their mean."""
    return 1.0 + cv * SCALE_PER_DEVIATION * math.log(max(1, boards))


def quantile_factor(cv: float, share: float) -> float:
    """Time that a board keeps in a `share` of its images, over its mean."""
    return 1.0 + cv * SCALE_PER_DEVIATION * (-math.log(-math.log(share)) - MEAN_BEYOND)


def expected_maximum_ms(times: Iterable[SpreadTime]) -> float:
    """Mean of the largest of independent `times`, in ms."""
    constant_ms, drawn = _merged(times)
    if not drawn:
        return constant_ms
    ((scale, location), *others) = drawn
    if not others and constant_ms < location + _LEAST_AT * scale:
        return location + MEAN_BEYOND * scale
    return _integrated_ms(constant_ms, drawn)


def maximum_quantile_ms(times: Iterable[SpreadTime], share: float) -> float:
    """Time that the largest of independent `times` keeps with probability `share`, in ms."""
    constant_ms, drawn = _merged(times)
    if not drawn:
        return constant_ms
    level = -math.log(share)
    alone = [location - scale * math.log(level) for scale, location in drawn]
    if len(drawn) == 1:
        return max(constant_ms, alone[0])
    low, high = max(alone), max(alone) + max(scale for scale, _ in drawn) * math.log(len(drawn))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if sum(math.exp(-(middle - location) / scale) for scale, location in drawn) > level:
            low = middle
        else:
            high = middle
    return max(constant_ms, high)


def _merged(times: Iterable[SpreadTime]) -> tuple[float, list[tuple[float, float]]]:
    """Largest constant, and one (scale, location) for all draws of each scale."""
    constant_ms = -math.inf
    locations: dict[float, list[float]] = {}
    for time in times:
        if time.scale_ms:
            locations.setdefault(time.scale_ms, []).append(time.location_ms)
        else:
            constant_ms = max(constant_ms, time.mean_ms)
    return constant_ms, [
        (scale, _location_of_largest(scale, found)) for scale, found in sorted(locations.items())
    ]


def _location_of_largest(scale: float, locations: Sequence[float]) -> float:
    most = max(locations)
    return most + scale * math.log(sum(math.exp((each - most) / scale) for each in locations))


def _integrated_ms(constant_ms: float, drawn: Sequence[tuple[float, float]]) -> float:
    """Mean of the largest, by Gauss-Legendre's rule between points that suit each scale."""
    import numpy as np

    low = max(constant_ms, *(location + _LEAST_AT * scale for scale, location in drawn))
    high = max(low, *(location + _MOST_AT * scale for scale, location in drawn))
    points = {location + at * scale for scale, location in drawn for at in _PANELS_AT}
    edges = np.array(sorted({low, high, *(each for each in points if low < each < high)}))
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    at = edges[:-1, None] + half * (1 + nodes)
    exponent = sum(np.exp(-(at - location) / scale) for scale, location in drawn)
    return low + float(((half * weights) * -np.expm1(-exponent)).sum())
