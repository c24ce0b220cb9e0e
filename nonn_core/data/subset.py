"""A part of a data set's training images, for machines that cannot train on all of them."""

from dataclasses import replace

import torch

from nonn_core.data.dataset import Dataset
from profiles.errors import InputError


def first_of_each_class(dataset: Dataset, count: int) -> Dataset:
    """Keep the first `count` training images of each class, in their order; test images all stay.

    Mean and standard deviation stay those of the whole data set, so that what is trained here sees
    test images as it would without this.  Raises InputError when a class has fewer images.
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
