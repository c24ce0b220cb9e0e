"""FC layer of the host, which imputes the features of students that do not answer.

With x the features of all students, m and C their mean and covariance over validation images, A
those that came and M those that did not, ridge regression has x_M near m_M + B (x_A - m_A) with
B = C_MA (C_AA + lambda I)^-1 (Hoerl and Kennard 1970).  The FC layer W x + b is then one smaller
layer of x_A alone: weight W_A + W_M B, bias b + W_M (m_M - B m_A).  Boards know nothing of it.
Torch-free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Matrix = NDArray[np.float64]
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of lambda that are tried, in parts of the mean variance of a feature."""
FEWEST_IMAGES = 4


@dataclass(frozen=True, slots=True)
class FeatureMoments:
    """Mean (D,) and covariance (D, D) of all features; lambda is on its diagonal."""

    mean: Values
    covariance: Values

    @classmethod
    def of(cls, features: Values, widths: Sequence[int]) -> Self:
        """Moments of features (N, D), of students of these widths, by validation images.

        Lambda is the one by which half of the students are best told from the others on the half
        of the images that it was not fitted to.  Raises ValueError for fewer than four images.
        """
        if len(features) < FEWEST_IMAGES:
            raise ValueError(f"moments of {len(features)} images; {FEWEST_IMAGES} are the fewest")
        student = np.repeat(np.arange(len(widths)), widths)
        halves = [features[0::2].astype(np.float64), features[1::2].astype(np.float64)]
        errors = {
            ridge: sum(
                _error(_moments(fitted, ridge), judged, student % 2 == came)
                for fitted, judged in (halves, halves[::-1])
                for came in (0, 1)
            )
            for ridge in _RIDGES
        }
        least = min(errors, key=errors.__getitem__)
        mean, covariance = _moments(features.astype(np.float64), least)
        return cls(mean.astype(np.float32), covariance.astype(np.float32))


@dataclass(frozen=True, slots=True)
class FeatureLayer:
    """Logits = weight (classes, D) x features + bias (classes,); moments are None if unknown."""

    weight: Values
    bias: Values
    moments: FeatureMoments | None = None

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Values]) -> Self:
        """Layer of what `tensors` gave."""
        known = "covariance" in tensors
        moments = FeatureMoments(tensors["mean"], tensors["covariance"]) if known else None
        return cls(tensors["weight"], tensors["bias"], moments)

    def tensors(self) -> dict[str, Values]:
        """Tensors of a file: weight and bias, mean and covariance of the features if known."""
        moments = {} if self.moments is None else asdict(self.moments)
        return {"weight": self.weight, "bias": self.bias, **moments}

    def of(self, came: NDArray[np.bool_]) -> Self:
        """Layer of the features that came, a mask (D,).

        The others are imputed, or zero where moments are unknown.
        """
        weight, bias = self.weight[:, came], self.bias
        if self.moments is not None and not came.all():
            mean = self.moments.mean.astype(np.float64)
            told = _regression(self.moments.covariance.astype(np.float64), came)
            absent = self.weight[:, ~came].astype(np.float64)
            bias = (bias + absent @ (mean[~came] - told @ mean[came])).astype(np.float32)
            weight = (weight + absent @ told).astype(np.float32)
        return type(self)(weight, bias)

    def logits(self, features: Values) -> Values:
        """Logits (N, classes) of features (N, D)."""
        found: Values = features @ self.weight.T + self.bias
        return found


def _moments(features: Matrix, ridge: float) -> tuple[Matrix, Matrix]:
    mean = features.mean(axis=0)
    centred = features - mean
    covariance = centred.T @ centred / len(features)
    # A dead network has no variance, and nothing to tell.
    level = float(np.trace(covariance)) / len(covariance) or 1.0
    return mean, covariance + ridge * level * np.eye(len(covariance))


def _regression(covariance: Matrix, came: NDArray[np.bool_]) -> Matrix:
    """B of the module's text, (absent, came)."""
    told = np.linalg.solve(covariance[np.ix_(came, came)], covariance[np.ix_(came, ~came)])
    return told.T.astype(np.float64)


def _error(moments: tuple[Matrix, Matrix], features: Matrix, came: NDArray[np.bool_]) -> float:
    """Mean squared error of the features that did not come, told from those that did."""
    mean, covariance = moments
    if came.all() or not came.any():
        return 0.0
    told = (features[:, came] - mean[came]) @ _regression(covariance, came).T
    return float(np.square(features[:, ~came] - mean[~came] - told).mean())
