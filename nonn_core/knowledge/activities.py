"""What the teacher's last convolutional layer does on images: one average per image and filter."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nonn_core.data.dataset import Dataset, Images
from nonn_core.knowledge.link_kernel import Matrix
from nonn_core.learning.device import images_at_once
from nonn_core.modules import pooled
from nonn_core.progress import Progress, silent
from nonn_core.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Activities:
    """What the teacher's fconv does on validation images.

    `average` (images, filters) holds each filter's mean over height and width, >= 0; `labels`
    (images,) the right classes; `fc_weight` (classes, filters) and `fc_bias` (classes,) the
    teacher's last layer, which turns averages into logits.
    """

    average: Matrix
    labels: NDArray[np.int64]
    fc_weight: Matrix
    fc_bias: Matrix

    def logits(self) -> Matrix:
        """Teacher's logits, (images, classes)."""
        return self.average @ self.fc_weight.T + self.fc_bias

    def share(self, filters: Sequence[int]) -> Matrix:
        """Return what these filters add to the logits, (images, classes)."""
        chosen = list(filters)
        return self.average[:, chosen] @ self.fc_weight[:, chosen].T

    def accuracy_pct(self, logits: Matrix) -> float:
        """Share of the images for which these logits (images, classes) are right, in percent."""
        return float(100 * np.mean(logits.argmax(axis=1) == self.labels))


def average_activities(
    teacher: Teacher, dataset: Dataset, images: Images, progress: Progress = silent
) -> Activities:
    """Run the teacher over `images`; a_i is the mean of fconv's channel i (A, section 4.1).

    Teacher and images are on the same device.
    """
    at_once = images_at_once(dataset.image, images.pixels.device)
    averages = []
    with torch.no_grad():
        for pixels, _ in dataset.batches(images, at_once):
            averages.append(pooled(teacher(pixels)[1]).double().cpu())
            done = min(len(averages) * at_once, len(images))
            progress("reading the teacher's activities", done, len(images))
    weight, bias = teacher.classifier()
    return Activities(
        average=torch.cat(averages).numpy(),
        labels=images.labels.cpu().numpy(),
        fc_weight=weight.double().cpu().numpy(),
        fc_bias=bias.double().cpu().numpy(),
    )
