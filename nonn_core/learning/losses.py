"""What training minimises, as pure functions.

Eq. 1 and Eq. 6 are those of arXiv:1907.11804 (A); attention transfer is that of arXiv:1612.03928;
the group losses are those of SplitNet (Kim et al. 2017, PMLR 70:1866-1874).  Logits and maps that
come in half precision are widened first: norms and losses are never computed in it, where squares
of small activations vanish and squares of large ones overflow.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

_DEAD = 1e-20
"""Maps whose largest value is smaller count as zero; a square of it is still a float32."""


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Knowledge distillation (A, Eq. 1), averaged over the batch.

    (1 - alpha) H(y, P_S) + alpha H(P_T^tau, P_S^tau), with H the cross entropy and P^tau the
    softmax of logits / tau.  Logits (N, classes), labels (N,); a scalar comes back.
    """
    logits = _widened(student_logits)
    hard = F.cross_entropy(logits, labels)
    soft_labels = F.softmax(_widened(teacher_logits) / temperature, dim=1)
    soft = F.cross_entropy(logits / temperature, soft_labels)
    return (1 - alpha) * hard + alpha * soft


def activation_transfer(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Activation transfer (A, Eq. 6), averaged over the batch.

    sum over partitions p of || v_T(p) / ||v_T(p)|| - v_S(p) / ||v_S(p)|| ||^2 with v an image's
    flattened fconv activations of the partition.  Each entry (N, |P_p|, H, W), where H and W may
    differ between student and teacher: both are then averaged to the smaller of the two, as a
    student may halve its maps more or less often than its teacher.  A scalar comes back.
    """
    per_partition = [
        _squared_distance(own, theirs).sum(dim=1).mean()
        for own, theirs in zip(student_maps, teacher_maps, strict=True)
    ]
    return torch.stack(per_partition).sum()


def attention_map(maps: Tensor) -> Tensor:
    """Attention of maps (N, C, H, W): their squares summed over channels, (N, H, W).

    F_sum^2 of arXiv:1612.03928, section 3.1, in single precision or better.
    """
    return _widened(maps).square().sum(dim=1)


def attention_transfer(
    student_maps: Sequence[Tensor], teacher_attention: Sequence[Tensor]
) -> Tensor:
    """Attention transfer (arXiv:1612.03928, Eq. 2, as its authors compute it).

    sum over pairs j of the mean over images and places of
    (Q_S(j) / ||Q_S(j)|| - Q_T(j) / ||Q_T(j)||)^2, with Q an image's attention map.  The mean makes
    the published weight 1000 for all sizes of maps.  `student_maps` holds (N, C, H, W),
    `teacher_attention` (N, H', W'); unequal sizes are averaged to the smaller.  Where there are
    more of one than of the other, pairs are made from the last backwards.  A scalar comes back.
    """
    pairs = zip(reversed(student_maps), reversed(teacher_attention), strict=False)
    per_pair = [
        _squared_distance(attention_map(own).unsqueeze(1), theirs.unsqueeze(1)).mean()
        for own, theirs in pairs
    ]
    return torch.stack(per_pair).sum()


def group_weight(weight: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
    """SplitNet's group weight regularisation R_W of one layer (Kim et al. 2017, section 3).

    sum over groups g of  sum_i || ((1 - P_g) W Q_g) of input i ||
                        + sum_j || (P_g W (1 - Q_g)) of output j ||,
    which is zero when no weight crosses from one group to another.  `weight` (K, D) or
    (K, D, h, w); the shares of the input channels in each group (G, D), of the outputs (G, K).
    """
    energy = weight.square().flatten(2).sum(dim=2) if weight.dim() > 2 else weight.square()
    into = _root(outputs.square() @ energy)
    out_of = _root(inputs.square() @ energy.T)
    return ((1 - inputs) * into).sum() + ((1 - outputs) * out_of).sum()


def group_overlap(shares: Tensor) -> Tensor:
    """SplitNet's disjointness R_D of one set of channels: sum over groups i < j of p_i . p_j.

    `shares` (G, D), columns adding up to one; zero when each channel is in one group only.
    """
    return (shares.sum(dim=0).square().sum() - shares.square().sum()) / 2


def group_balance(shares: Tensor) -> Tensor:
    """SplitNet's balance R_E of one set of channels: sum over groups g of (sum_i p_gi)^2.

    `shares` (G, D); smallest, D^2 / G, when all groups hold the same.
    """
    return shares.sum(dim=1).square().sum()


def _squared_distance(own: Tensor, theirs: Tensor) -> Tensor:
    """Square the differences between directions, (N, values); maps of unequal size are averaged."""
    size = min(own.shape[2], theirs.shape[2]), min(own.shape[3], theirs.shape[3])
    return (_unit(_averaged(theirs, size)) - _unit(_averaged(own, size))).square()


def _averaged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    wide = _widened(maps)
    return wide if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(wide, size)


def _unit(maps: Tensor) -> Tensor:
    """Flatten each image's maps and scale them to length one; all-zero maps stay zero."""
    flat = maps.flatten(1)
    # The direction does not depend on this scale; without it the norm of small maps underflows.
    peak = flat.detach().abs().amax(dim=1, keepdim=True)
    return F.normalize(flat / torch.where(peak > _DEAD, peak, 1.0), dim=1)


def _root(squares: Tensor) -> Tensor:
    """Return the square root, with a gradient of zero where there is nothing."""
    return squares.clamp_min(1e-30).sqrt()


def _widened(values: Tensor) -> Tensor:
    """Return half precision as single; single and double stay what they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
