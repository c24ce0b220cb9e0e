"""Data set in memory: images and labels, split, normalised, reduced and augmented.

What is random in augmentation is drawn first, on the CPU, and then applied where the images
are: the draws are the same on every device.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nonn_common import Progress, silent
from nonn_common.errors import InputError
from nonn_core.data.files import LabelledImages, RawDataset
from nonn_core.data.picture import AS_THEY_ARE, PictureReading
from nonn_core.data.sources import read_source
from nonn_core.networks.blueprint import ImageShape

SMALLEST = 8
"""Two halvings must leave maps that batch normalisation can work on."""
VALIDATION_SHARE = 0.1


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

    def to(self, device: torch.device) -> "Images":
        """Return the same images on a device."""
        return Images(self.pixels.to(device), self.labels.to(device))


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
    reading: PictureReading | None = None
    """How its pictures were read; None where images were read as they were published."""
    warnings: tuple[str, ...] = ()
    """Sentences on files that were left out and pictures that were changed."""

    @property
    def image(self) -> ImageShape:
        """The shape of every image."""
        _, channels, height, width = self.train.pixels.shape
        return ImageShape(channels, height, width)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def to(self, device: torch.device) -> "Dataset":
        """Return the same images on a device."""
        train, test = self.train.to(device), self.test.to(device)
        return replace(
            self, train=train, test=test, mean=self.mean.to(device), std=self.std.to(device)
        )

    @property
    def fingerprint(self) -> str:
        """A digest of the training images and labels; another data set has another one."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.train.pixels.cpu().numpy().tobytes())
        digest.update(self.train.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def split(self, seed: int, by_class: bool = True) -> tuple[Images, Images]:
        """Split the training images 90 : 10 into training and validation images.

        Each class gives its share, rounded as seats are by Sainte-Lague; without `by_class` chance
        decides, as it did for teachers whose card does not say `split_by_class`.
        """
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        held = max(1, round(len(order) * VALIDATION_SHARE))
        if by_class:
            order = order[_class_shares(self.train.labels[order].cpu()).argsort(stable=True)]
        return self.train.take(order[held:].sort().values), self.train.take(
            order[:held].sort().values
        )

    def normalised(self, pixels: Tensor) -> Tensor:
        """Normalise uint8 (N, C, H, W) to float32 per channel.

        The mean becomes 0 and the variance 1.
        """
        return (pixels.float() / 255 - self.mean) / self.std

    def batches(self, images: Images, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and labels in order, without augmentation."""
        for start in range(0, len(images), size):
            yield (
                self.normalised(images.pixels[start : start + size]),
                images.labels[start : start + size],
            )


def _class_shares(labels: Tensor) -> Tensor:
    """Share of its class, (N,), that comes before each image and with half of it."""
    sorted_labels, order = labels.sort(stable=True)
    counts = torch.bincount(labels)
    before = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[sorted_labels]
    shares = torch.empty(len(labels), dtype=torch.float64)
    shares[order] = (before.double() + 0.5) / counts[sorted_labels]
    return shares


def load_dataset(
    source: str, progress: Progress = silent, usual: PictureReading = AS_THEY_ARE
) -> Dataset:
    """Load a data set by its source, as `nonn_core.data.sources` names it.

    `usual` is how whoever uses it was made to read pictures; options of the source come first.
    Never downloads anything.  Raises InputError that says what is wrong where.
    """
    raw = read_source(source, progress, usual)
    _, _, height, width = raw.train.pixels.shape
    if min(height, width) < SMALLEST:
        raise InputError(
            "images are too small", where=source, found=f"{width}x{height}", allowed="8x8 or larger"
        )
    _check_not_alike(source, raw)
    train = _images(raw.train)
    mean, std = _statistics(train.pixels)
    return Dataset(
        source=source,
        class_names=raw.class_names,
        train=train,
        test=_images(raw.test),
        mirrored=raw.mirrored,
        mean=mean[:, None, None],
        std=std[:, None, None],
        reading=raw.reading,
        warnings=raw.warnings,
    )


def _check_not_alike(source: str, raw: RawDataset) -> None:
    """Refuse images that are all one and the same: nothing can be learnt from them."""
    for part, (pixels, _) in (("training", raw.train), ("test", raw.test)):
        first = pixels[0]
        if len(pixels) > 1 and all(np.array_equal(each, first) for each in pixels):
            raise InputError(
                "; ".join((f"all {part} images are alike, pixel by pixel", *raw.warnings)),
                where=source,
                found=f"{len(pixels)} images with values {first.min()} to {first.max()}",
                fix="look at the files"
                + ("; ink of the paper's colour needs another --paper" if raw.reading else ""),
            )


def _images(part: LabelledImages) -> Images:
    return Images(torch.from_numpy(part.pixels), torch.from_numpy(part.labels))


def _statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, on a scale of 0 to 1.

    `pixels` are (N, C, H, W).  From the histogram of its 256 values, which needs no wider copy of
    the images.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = [torch.bincount(each.flatten(), minlength=256) for each in pixels.unbind(1)]
    shares = torch.stack(counts).double() / (pixels.numel() / pixels.shape[1])
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(dim=1)
    # A channel that never changes would be divided by zero.
    return mean.float(), variance.sqrt().clamp(min=1e-3).float()


def first_of_each_class(dataset: Dataset, count: int) -> Dataset:
    """Keep the first `count` training images of each class, in their order.

    Test images all stay.  Mean and standard deviation stay those of the whole data set, so that
    what is trained here sees test images as it would without this.  Raises InputError when a class
    has fewer images.
    """
    labels = dataset.train.labels
    kept = []
    for label, name in enumerate(dataset.class_names):
        positions = (labels == label).nonzero().flatten()
        if len(positions) < count:
            raise InputError(
                "a class has fewer training images than are to be kept",
                where=f"{dataset.source}: {name}",
                found=len(positions),
                allowed=f"{count} or more",
            )
        kept.append(positions[:count])
    return replace(dataset, train=dataset.train.take(torch.cat(kept).sort().values))


def draw_shifts(
    count: int, image: ImageShape, mirrored: bool, generator: torch.Generator
) -> Tensor:
    """Draw how each of `count` images is moved, int16 (count, 3).

    Columns: the row and the column at which it is cut out of its padded self, and whether it is
    then mirrored, which only happens where `mirrored` allows it.
    """
    down = torch.randint(2 * _reach(image.height) + 1, (count,), generator=generator)
    right = torch.randint(2 * _reach(image.width) + 1, (count,), generator=generator)
    flips = torch.randint(2, (count,), generator=generator) * mirrored
    return torch.stack([down, right, flips], dim=1).to(torch.int16)


def shift_and_mirror(pixels: Tensor, moves: Tensor) -> Tensor:
    """Shift images (N, C, H, W) by up to an eighth, and mirror them.

    Zeros move in.  `moves` (N, 3) are those of `drawn_moves`, on the images' device.  The result is
    laid out channels-last.
    """
    count, _, height, width = pixels.shape
    tall, wide = _reach(height), _reach(width)
    padded = F.pad(pixels, (wide, wide, tall, tall))
    down, right, flipped = moves.long()[:, :, None].unbind(1)
    along = torch.arange(width, device=pixels.device)
    rows = down + torch.arange(height, device=pixels.device)
    columns = right + torch.where(flipped.bool(), along.flip(0), along)
    images = torch.arange(count, device=pixels.device)[:, None, None]
    # Indexing puts the image axes first: (N, H, W, C).
    found = padded[images, :, rows[:, :, None], columns[:, None, :]]
    return found.permute(0, 3, 1, 2)


def _reach(side: int) -> int:
    return max(1, side // 8)
