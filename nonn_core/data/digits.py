"""`digits`: 1,797 handwritten digits (UCI, Alpaydin & Kaynak 1998), which scikit-learn ships."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from nonn_core.data.raw import Labelled, RawDataset

SIZE = 16
TEST_SHARE = 0.25
_MAXIMUM = 16


def read_digits() -> RawDataset:
    """Return the digits enlarged to 1x16x16, a quarter of each class for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / _MAXIMUM)).astype(np.uint8)
    pixels = np.stack([_enlarged(each) for each in small])[:, None]
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(
        np.arange(len(pixels)), test_size=TEST_SHARE, stratify=labels, random_state=0
    )
    train, test = (Labelled(pixels[np.sort(part)], labels[np.sort(part)]) for part in parts)
    return RawDataset(tuple(map(str, bunch.target_names)), train, test, mirrored=False)


def _enlarged(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Picture.fromarray(digit).resize((SIZE, SIZE), Picture.Resampling.BILINEAR)
    return np.asarray(picture)
