"""What a teacher shows for a batch of images, and which part of it a student wants to see."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nonn_core.partition import Filters


@dataclass(frozen=True, slots=True)
class Subject:
    """What is wanted of a teacher beside its logits.

    `partitions` are sets of fconv filters, one for each student; `attention` asks for the attention
    maps of the teacher's groups.
    """

    partitions: tuple[Filters, ...] = ()
    attention: bool = False


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher shows for N images.

    `logits` (N, classes); `maps` one (N, |P_p|, H, W) for each partition of the subject, fconv's
    activations >= 0; `attention` one (N, H_g, W_g) for each group of the teacher, its squared
    activations summed over channels.
    """

    logits: Tensor
    maps: Sequence[Tensor] = ()
    attention: Sequence[Tensor] = ()
