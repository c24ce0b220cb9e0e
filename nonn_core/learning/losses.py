"""What training minimises, as pure functions.  Equations of arXiv:1907.11804."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Knowledge distillation (Eq. 1), averaged over the batch.

    (1 - alpha) H(y, P_S) + alpha H(P_T^tau, P_S^tau), with H the cross entropy and P^tau the
    softmax of logits / tau.  Logits (N, classes), labels (N,); a scalar comes back.
    """
    hard = F.cross_entropy(student_logits, labels)
    soft_labels = F.softmax(teacher_logits / temperature, dim=1)
    soft = F.cross_entropy(student_logits / temperature, soft_labels)
    return (1 - alpha) * hard + alpha * soft


def activation_transfer(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Activation transfer (Eq. 6), averaged over the batch.

    sum over partitions p of || v_T(p) / ||v_T(p)|| - v_S(p) / ||v_S(p)|| ||^2 with v an image's
    flattened fconv activations of the partition.  Each entry (N, |P_p|, H, W); a scalar comes back.
    """
    per_partition = [
        (_unit(theirs) - _unit(own)).square().sum(dim=1).mean()
        for own, theirs in zip(student_maps, teacher_maps, strict=True)
    ]
    return torch.stack(per_partition).sum()


def _unit(maps: Tensor) -> Tensor:
    """Flatten each image's maps and scale them to length one; all-zero maps stay zero."""
    return F.normalize(maps.flatten(1), dim=1)
