"""Towards what a network is trained: plain classification, or what a teacher shows."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nonn_core.learning.batches import Batch
from nonn_core.learning.lesson import Lesson
from nonn_core.learning.loop import Objective
from nonn_core.learning.losses import (
    activation_transfer,
    attention_map,
    attention_transfer,
    distillation,
)
from nonn_core.learning.splitting import Splitting
from nonn_core.modules import Classifier, pooled
from nonn_core.nonn import Nonn
from nonn_core.recipe import DistillationRecipe, SplitNetRecipe
from nonn_core.splitnet import SplitNet


def classification(network: Classifier) -> Objective:
    """Cross entropy with the labels, as a teacher is trained."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": F.cross_entropy(network(batch.images)[0], batch.labels)}

    return losses


def single_distillation(network: Classifier | SplitNet, recipe: DistillationRecipe) -> Objective:
    """Knowledge distillation (Eq. 1) into one network."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": _distilled(network(batch.images)[0], batch, recipe)}

    return losses


def attention_distillation(network: Classifier, recipe: DistillationRecipe) -> Objective:
    """Eq. 1 plus attention transfer from the teacher's groups: ATKD (arXiv:1612.03928)."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        logits, maps = network(batch.images)
        soft = _distilled(logits, batch, recipe)
        attention = attention_transfer(maps, _lesson(batch).attention)
        return {"loss": soft + recipe.attention * attention, "kd": soft, "attention": attention}

    return losses


def nonn_distillation(network: Nonn, recipe: DistillationRecipe) -> Objective:
    """Eq. 1 for the whole NoNN, and what is to be transferred into each of its students.

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
        found = {"kd": _distilled(logits, batch, recipe)}
        loss = found["kd"]
        if recipe.beta:
            found["transfer"] = activation_transfer(maps, _lesson(batch).maps)
            loss = loss + recipe.beta * found["transfer"]
        if recipe.attention:
            taught = [attention_map(theirs) for theirs in _lesson(batch).maps]
            found["attention"] = attention_transfer(maps, taught)
            loss = loss + recipe.attention * found["attention"]
        return {"loss": loss, **found}

    return losses


def group_assignment(network: Splitting, recipe: SplitNetRecipe) -> Objective:
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
        pooled(each) * present[:, student : student + 1].to(each.dtype)
        for student, each in enumerate(maps)
    ]


def _distilled(logits: Tensor, batch: Batch, recipe: DistillationRecipe) -> Tensor:
    taught = _lesson(batch).logits
    return distillation(logits, taught, batch.labels, recipe.alpha, recipe.temperature)


def _lesson(batch: Batch) -> Lesson:
    assert batch.lesson is not None  # noqa: S101  (batches of a taught run have one)
    return batch.lesson
