"""A teacher at work: what it shows of images that are on a device, in a recipe's precision."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nonn_core.image import Image
from nonn_core.learning.device import Compute, images_at_once
from nonn_core.learning.lesson import Lesson, Subject
from nonn_core.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Teaching:
    """Shows a teacher's lessons on a subject; the teacher is on the device of `compute`."""

    teacher: Teacher
    subject: Subject
    compute: Compute

    def __call__(self, images: Tensor) -> Lesson:
        """Show the lesson of normalised images (N, C, H, W)."""
        at_once = images_at_once(Image(*images.shape[1:]), images.device)
        with self.compute.autocast():
            parts = [
                self.teacher.lesson(part, self.subject) for part in torch.split(images, at_once)
            ]
        return parts[0] if len(parts) == 1 else joined(parts)


def joined(parts: Sequence[Lesson]) -> Lesson:
    """Put the lessons of neighbouring images together."""
    return Lesson(
        torch.cat([part.logits for part in parts]),
        [torch.cat(maps) for maps in zip(*(part.maps for part in parts), strict=True)],
        [torch.cat(maps) for maps in zip(*(part.attention for part in parts), strict=True)],
    )
