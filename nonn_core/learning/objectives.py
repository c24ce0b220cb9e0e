"""Towards what a network is trained: plain classification, or what a teacher knows."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from nonn_core.learning.loop import Objective
from nonn_core.learning.losses import activation_transfer, distillation
from nonn_core.nonn import Nonn
from nonn_core.partition import Filters
from nonn_core.recipe import DistillationRecipe
from nonn_core.teacher import Teacher
from nonn_core.wrn import WideResNet


def classification(network: WideResNet) -> Objective:
    """Cross entropy with the labels, as a teacher is trained."""

    def losses(images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        return {"loss": F.cross_entropy(network(images)[0], labels)}

    return losses


def single_distillation(
    network: WideResNet, teacher: Teacher, recipe: DistillationRecipe
) -> Objective:
    """Knowledge distillation (Eq. 1) into one undivided student."""

    def losses(images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        logits, _ = network(images)
        taught, _ = teacher(images)
        loss = distillation(logits, taught, labels, recipe.alpha, recipe.temperature)
        return {"loss": loss}

    return losses


def nonn_distillation(
    network: Nonn, partitions: list[Filters], teacher: Teacher, recipe: DistillationRecipe
) -> Objective:
    """Eq. 1 for the whole NoNN plus beta times Eq. 6 over the students' partitions.

    `partitions` holds the fconv filters of each student, in the order of the students.
    """
    chosen = [torch.tensor(filters) for filters in partitions]

    def losses(images: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        logits, maps = network(images)
        taught, teacher_maps = teacher(images)
        soft = distillation(logits, taught, labels, recipe.alpha, recipe.temperature)
        transfer = activation_transfer(maps, [teacher_maps[:, filters] for filters in chosen])
        return {"loss": soft + recipe.beta * transfer, "kd": soft, "transfer": transfer}

    return losses
