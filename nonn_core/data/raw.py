"""What every reader of images hands over: pixels, labels and class names as they were read."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Labelled(NamedTuple):
    """Pixels uint8 (N, C, H, W) and labels int64 (N,)."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RawDataset:
    """Training and test images of one source; label k is the class `class_names[k]`."""

    class_names: tuple[str, ...]
    train: Labelled
    test: Labelled
    mirrored: bool
    """Whether a mirrored image still shows its class: true of photographs, false of digits."""
