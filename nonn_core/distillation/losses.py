"""Losses: what training minimises, as pure functions, and combined for each kind of network.

Eq. 1 and Eq. 6 are those of arXiv:1907.11804; attention transfer is that of arXiv:1612.03928.
Each form of a recipe has a function for its soft labels and one for its activation transfer.
Logits and maps that come in half precision are widened first: norms and losses are never
computed in it, where squares of small activations vanish and squares of large ones overflow.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nonn_core.distillation.batches import Batch
from nonn_core.distillation.loop import Objective
from nonn_core.distillation.splitnet import SoftSplitNet, SplitNet
from nonn_core.networks.modules import Classifier, Nonn, attention_map, global_average_pool, upcast
from nonn_core.recipe import DistillationRecipe, LossForm, SplitNetRecipe
from nonn_core.teacher.teacher import TeacherOutputs

_DEAD = 1e-20
"""Maps whose largest value is smaller count as zero; a square of it is still a float32."""
_FLAT = 1e-12
"""Variance that is added to that of logits, so that equal logits have no direction."""


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Knowledge distillation as printed (arXiv:1907.11804, Eq. 1), averaged over the batch.

    (1 - alpha) H(y, P_S) + alpha H(P_T^tau, P_S^tau), with H the cross entropy and P^tau the
    softmax of logits / tau.  Logits (N, classes), labels (N,); a scalar comes back.
    """
    logits = upcast(student_logits)
    soft_labels = F.softmax(upcast(teacher_logits) / temperature, dim=1)
    soft = F.cross_entropy(logits / temperature, soft_labels)
    return _with_labels(logits, labels, alpha, alpha * soft)


def authors_distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Knowledge distillation as the paper's program computes it (SLDGroup/NoNN_framework).

    (1 - alpha) H(y, P_S) + 2 alpha tau^2 mean over images and classes of the terms of
    KL(P_T^tau || P_S^tau).  Logits (N, classes), labels (N,); a scalar comes back.
    """
    logits = upcast(student_logits)
    divergence = _divergence(logits / temperature, upcast(teacher_logits) / temperature).mean()
    return _with_labels(logits, labels, alpha, 2 * alpha * temperature**2 * divergence)


def hinton_distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Knowledge distillation whose soft labels weigh tau^2 (arXiv:1503.02531, section 2).

    (1 - alpha) H(y, P_S) + alpha tau^2 KL(P_T^tau || P_S^tau), averaged over the batch, so that
    gradients of the soft labels keep their size at any tau.  Logits (N, classes), labels (N,); a
    scalar comes back.
    """
    logits = upcast(student_logits)
    divergence = _divergence(logits / temperature, upcast(teacher_logits) / temperature)
    soft = temperature**2 * divergence.sum(dim=1).mean()
    return _with_labels(logits, labels, alpha, alpha * soft)


def standardised_distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Knowledge distillation of z-scores of logits (arXiv:2403.01427, Algorithm 1).

    As `hinton_distillation`, with each image's logits less their mean over their standard
    deviation (that of a population) in place of logits in the soft labels: a student need not
    have logits as large as its teacher's.  Logits (N, classes), labels (N,); a scalar comes back.
    """
    logits = upcast(student_logits)
    own, theirs = (_z_scores(each) / temperature for each in (logits, upcast(teacher_logits)))
    soft = temperature**2 * _divergence(own, theirs).sum(dim=1).mean()
    return _with_labels(logits, labels, alpha, alpha * soft)


def _with_labels(logits: Tensor, labels: Tensor, alpha: float, soft: Tensor) -> Tensor:
    return (1 - alpha) * F.cross_entropy(logits, labels) + soft


def _divergence(own: Tensor, theirs: Tensor) -> Tensor:
    """Terms of the Kullback-Leibler divergence from softmax of `own` to `theirs`, (N, classes)."""
    log_own, log_theirs = F.log_softmax(own, dim=1), F.log_softmax(theirs, dim=1)
    return F.kl_div(log_own, log_theirs, reduction="none", log_target=True)


def _z_scores(logits: Tensor) -> Tensor:
    """Logits of each image with mean 0 and standard deviation 1; equal ones become 0."""
    return F.layer_norm(logits, logits.shape[1:], eps=_FLAT)


def activation_transfer(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]) -> Tensor:
    """Activation transfer as printed (arXiv:1907.11804, Eq. 6), averaged over the batch.

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


def joint_activation_transfer(
    student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor]
) -> Tensor:
    """Activation transfer as the paper's program computes it (SLDGroup/NoNN_framework).

    mean over images and elements of (v_T / ||v_T|| - v_S / ||v_S||)^2, with v an image's flattened
    fconv activations of all partitions side by side, under one norm.  Of E elements an image it is
    1 / E of a squared distance.  Entries as in `activation_transfer`; a scalar comes back.
    """
    sides = zip(
        *(_same_size(own, theirs) for own, theirs in zip(student_maps, teacher_maps, strict=True)),
        strict=True,
    )
    own, theirs = (_unit(torch.cat([maps.flatten(1) for maps in side], dim=1)) for side in sides)
    return (theirs - own).square().mean()


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


def _squared_distance(own: Tensor, theirs: Tensor) -> Tensor:
    """Square the differences between directions, (N, values)."""
    own, theirs = _same_size(own, theirs)
    return (_unit(theirs) - _unit(own)).square()


def _same_size(own: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Average both to the smaller height and width."""
    size = min(own.shape[2], theirs.shape[2]), min(own.shape[3], theirs.shape[3])
    return _averaged(own, size), _averaged(theirs, size)


def _averaged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    wide = upcast(maps)
    return wide if tuple(maps.shape[2:]) == size else F.adaptive_avg_pool2d(wide, size)


def _unit(maps: Tensor) -> Tensor:
    """Flatten each image's maps and scale them to length one; all-zero maps stay zero."""
    flat = maps.flatten(1)
    # The direction does not depend on this scale; without it the norm of small maps underflows.
    peak = flat.detach().abs().amax(dim=1, keepdim=True)
    return F.normalize(flat / torch.where(peak > _DEAD, peak, 1.0), dim=1)


SOFT_LABELS: Mapping[LossForm, Callable[[Tensor, Tensor, Tensor, float, float], Tensor]] = {
    "printed": distillation,
    "authors": authors_distillation,
    "hinton": hinton_distillation,
    "logit-standardised": standardised_distillation,
}
"""Distillation of each form, from logits and labels, with alpha and temperature."""


def transfer_of(form: LossForm) -> Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]:
    """Activation transfer of a form."""
    return joint_activation_transfer if form == "authors" else activation_transfer


def classification(network: Classifier) -> Objective:
    """Cross entropy with the labels, as a teacher is trained."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": F.cross_entropy(network(batch.images)[0], batch.labels)}

    return losses


def single_distillation(network: Classifier | SplitNet, recipe: DistillationRecipe) -> Objective:
    """Knowledge distillation (Eq. 1) into one network."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": _distillation_loss(network(batch.images)[0], batch, recipe)}

    return losses


def attention_distillation(network: Classifier, recipe: DistillationRecipe) -> Objective:
    """Eq. 1 plus attention transfer from the teacher's groups: ATKD (arXiv:1612.03928)."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        logits, maps = network(batch.images)
        soft = _distillation_loss(logits, batch, recipe)
        attention = attention_transfer(maps, _teacher_outputs(batch).attention)
        return {"loss": soft + recipe.attention * attention, "kd": soft, "attention": attention}

    return losses


def nonn_distillation(network: Nonn, recipe: DistillationRecipe) -> Objective:
    """Eq. 1 for the whole NoNN, and transfer into each student.

    That is beta times Eq. 6 over the students' partitions, attention transfer over them, both, or
    neither.  With student dropout Eq. 1 sees each image without the vectors of some students.
    """

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        logits, maps = network(batch.images)
        if recipe.student_dropout:
            answering = students_answering(
                len(batch.labels), len(maps), recipe.student_dropout, batch.draw
            )
            logits = network.classify(_without_missing(maps, answering))
        found = {"kd": _distillation_loss(logits, batch, recipe)}
        loss = found["kd"]
        if recipe.beta:
            transfer = transfer_of(recipe.form)
            found["transfer"] = transfer(maps, _teacher_outputs(batch).maps)
            loss = loss + recipe.beta * found["transfer"]
        if recipe.attention:
            attention = [attention_map(theirs) for theirs in _teacher_outputs(batch).maps]
            found["attention"] = attention_transfer(maps, attention)
            loss = loss + recipe.attention * found["attention"]
        return {"loss": loss, **found}

    return losses


def group_assignment(network: SoftSplitNet, recipe: SplitNetRecipe) -> Objective:
    """Cross entropy plus SplitNet's losses, while channels and classes are assigned to groups.

    As published, from the labels alone: softened labels pull an order of magnitude less, and the
    group weights' constant pull then lets the network learn nothing.
    """

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        hard = F.cross_entropy(network(batch.images)[0], batch.labels)
        found = network.penalties()
        loss = (
            hard
            + recipe.gamma_weight * found.weight
            + recipe.gamma_overlap * found.overlap
            + recipe.gamma_balance * found.balance
        )
        return {
            "loss": loss,
            "cross_entropy": hard,
            "weight": found.weight,
            "overlap": found.overlap,
            "balance": found.balance,
        }

    return losses


def students_answering(images: int, students: int, dropout: float, draw: int) -> Tensor:
    """Draw who answers to which image: booleans (images, students), some in each row.

    Each is missing with probability `dropout`; of a row in which all would be, one answers, each
    with the same chance.  A function of its arguments alone.
    """
    generator = torch.Generator().manual_seed(draw)
    drawn = torch.rand(images, students, generator=generator)
    # The largest of a row answers in any case; it is below `dropout` only when all are.
    return drawn >= drawn.amax(dim=1, keepdim=True).clamp_max(dropout)


def _without_missing(maps: Sequence[Tensor], answering: Tensor) -> list[Tensor]:
    """Return the students' vectors (N, filters), zero where a student does not answer."""
    present = answering.to(maps[0].device)
    return [
        global_average_pool(each) * present[:, student : student + 1].to(each.dtype)
        for student, each in enumerate(maps)
    ]


def _distillation_loss(logits: Tensor, batch: Batch, recipe: DistillationRecipe) -> Tensor:
    teacher_logits = _teacher_outputs(batch).logits
    soft_labels = SOFT_LABELS[recipe.form]
    return soft_labels(logits, teacher_logits, batch.labels, recipe.alpha, recipe.temperature)


def _teacher_outputs(batch: Batch) -> TeacherOutputs:
    assert batch.teacher_outputs is not None  # noqa: S101  (batches with a teacher have them)
    return batch.teacher_outputs
