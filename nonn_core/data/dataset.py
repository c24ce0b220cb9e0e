"""Images and labels in memory: where they come from, how they are split, shifted and mirrored.

Two sources: `digits`, 1,797 handwritten digits that ship with scikit-learn (UCI, Alpaydin & Kaynak
1998), enlarged to 16 x 16; and `imagefolder:PATH`, a folder or tar file that holds `train/` and
`test/`, each with a folder per class.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from torch import Tensor

from nonn_core.data.imagefolder import read_image_folder
from nonn_core.image import Image
from nonn_core.progress import Progress, silent
from profiles.errors import InputError

SMALLEST = 8
"""Two halvings must leave maps that batch normalisation can work on."""
DIGITS_SIZE = 16
DIGITS_TEST_SHARE = 0.25
VALIDATION_SHARE = 0.1
_DIGITS_MAXIMUM = 16


@dataclass(frozen=True, slots=True)
class Images:
    """Images as uint8 (N, C, H, W) and their labels as int64 (N,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Tensor) -> "Images":
        """Return the images at these positions, (M,)."""
        return Images(self.pixels[positions], self.labels[positions])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Training and test images of one source, and the statistics that normalise them."""

    source: str
    class_names: tuple[str, ...]
    train: Images
    test: Images
    mirrored: bool
    """Whether a mirrored image still shows its class: true of photographs, false of digits."""
    mean: Tensor
    std: Tensor

    @property
    def image(self) -> Image:
        """The shape of every image."""
        _, channels, height, width = self.train.pixels.shape
        return Image(channels, height, width)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> str:
        """A digest of the training images and labels; another data set has another one."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.train.pixels.numpy().tobytes())
        digest.update(self.train.labels.numpy().tobytes())
        return digest.hexdigest()

    def split(self, seed: int) -> tuple[Images, Images]:
        """Split the training images 90 : 10 into training and validation images (A, 5.1)."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        held = max(1, round(len(order) * VALIDATION_SHARE))
        return self.train.take(order[held:].sort().values), self.train.take(
            order[:held].sort().values
        )

    def normalised(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (N, C, H, W) into float32 of zero mean and unit variance per channel."""
        return (pixels.float() / 255 - self.mean) / self.std

    def batches(self, images: Images, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels in order, without augmentation."""
        for start in range(0, len(images), size):
            yield (
                self.normalised(images.pixels[start : start + size]),
                images.labels[start : start + size],
            )

    def augmented_batches(
        self, images: Images, size: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one shuffled pass of shifted, and where allowed mirrored, normalised images."""
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(order), size):
            batch = images.take(order[start : start + size])
            pixels = shifted(batch.pixels, generator)
            if self.mirrored:
                pixels = randomly_mirrored(pixels, generator)
            yield self.normalised(pixels), batch.labels


def load_dataset(source: str, progress: Progress = silent) -> Dataset:
    """Load `digits` or `imagefolder:PATH`; raises InputError that says what is wrong where."""
    if source == "digits":
        return _digits()
    kind, _, path = source.partition(":")
    if kind == "imagefolder" and path:
        return _image_folder(source, path, progress)
    raise InputError(
        "not a data set",
        found=source,
        allowed="digits, or imagefolder:PATH of a folder or tar file with train/ and test/",
    )


def shifted(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image of (N, C, H, W) by up to an eighth of its size, zeros moving in."""
    count, _, height, width = pixels.shape
    tall, wide = max(1, height // 8), max(1, width // 8)
    padded = torch.nn.functional.pad(pixels, (wide, wide, tall, tall))
    down = torch.randint(0, 2 * tall + 1, (count, 1), generator=generator)
    right = torch.randint(0, 2 * wide + 1, (count, 1), generator=generator)
    rows = (down + torch.arange(height))[:, :, None]
    columns = (right + torch.arange(width))[:, None, :]
    # Indexing puts the image axes first: (N, H, W, C).
    return padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def randomly_mirrored(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of (N, C, H, W) left to right with probability one half."""
    chosen = torch.rand(len(pixels), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], pixels.flip(3), pixels)


def _digits() -> Dataset:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / _DIGITS_MAXIMUM)).astype(np.uint8)
    pixels = np.stack([_enlarged(each) for each in small])[:, None]
    train, test = train_test_split(
        np.arange(len(pixels)),
        test_size=DIGITS_TEST_SHARE,
        stratify=bunch.target,
        random_state=0,
    )
    labels = bunch.target.astype(np.int64)
    return _dataset(
        "digits",
        tuple(str(name) for name in bunch.target_names),
        (pixels[np.sort(train)], labels[np.sort(train)]),
        (pixels[np.sort(test)], labels[np.sort(test)]),
        mirrored=False,
    )


def _enlarged(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Picture.fromarray(digit).resize(
        (DIGITS_SIZE, DIGITS_SIZE), Picture.Resampling.BILINEAR
    )
    return np.asarray(picture)


def _image_folder(source: str, path: str, progress: Progress) -> Dataset:
    folder = read_image_folder(path, progress)
    return _dataset(source, folder.class_names, folder.train, folder.test, mirrored=True)


def _dataset(
    source: str,
    class_names: tuple[str, ...],
    train: tuple[NDArray[np.uint8], NDArray[np.int64]],
    test: tuple[NDArray[np.uint8], NDArray[np.int64]],
    mirrored: bool,
) -> Dataset:
    _, _, height, width = train[0].shape
    if min(height, width) < SMALLEST:
        raise InputError(
            "images are too small", where=source, found=f"{width}x{height}", allowed="8x8 or larger"
        )
    mean, std = _statistics(train[0])
    return Dataset(
        source=source,
        class_names=class_names,
        train=Images(torch.from_numpy(train[0]), torch.from_numpy(train[1])),
        test=Images(torch.from_numpy(test[0]), torch.from_numpy(test[1])),
        mirrored=mirrored,
        mean=mean[:, None, None],
        std=std[:, None, None],
    )


def _statistics(pixels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of (N, C, H, W), on a scale of 0 to 1.

    From the histogram of its 256 values, which needs no copy of the images.
    """
    values = np.arange(256) / 255
    shares = np.stack(
        [np.bincount(pixels[:, c].ravel(), minlength=256) for c in range(pixels.shape[1])]
    ) / (pixels.size / pixels.shape[1])
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(axis=1)
    # A channel that never changes would be divided by zero.
    std = np.maximum(np.sqrt(variance), 1e-3)
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
