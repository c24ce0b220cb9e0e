"""Towards what a network is trained: plain classification, or what a teacher shows."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from nonn_core.learning.batches import Batch
from nonn_core.learning.lesson import Lesson
from nonn_core.learning.loop import Objective
from nonn_core.learning.losses import activation_transfer, distillation
from nonn_core.modules import Classifier
from nonn_core.nonn import Nonn
from nonn_core.recipe import DistillationRecipe


def classification(network: Classifier) -> Objective:
    """Cross entropy with the labels, as a teacher is trained."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": F.cross_entropy(network(batch.images)[0], batch.labels)}

    return losses


def single_distillation(network: Classifier, recipe: DistillationRecipe) -> Objective:
    """Knowledge distillation (Eq. 1) into one undivided student."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        logits, _ = network(batch.images)
        taught = _lesson(batch).logits
        loss = distillation(logits, taught, batch.labels, recipe.alpha, recipe.temperature)
        return {"loss": loss}

    return losses


def nonn_distillation(network: Nonn, recipe: DistillationRecipe) -> Objective:
    """Eq. 1 for the whole NoNN plus beta times Eq. 6 over the students' partitions."""

    def losses(batch: Batch) -> Mapping[str, Tensor]:
        logits, maps = network(batch.images)
        lesson = _lesson(batch)
        soft = distillation(logits, lesson.logits, batch.labels, recipe.alpha, recipe.temperature)
        transfer = activation_transfer(maps, lesson.maps)
        return {"loss": soft + recipe.beta * transfer, "kd": soft, "transfer": transfer}

    return losses


def _lesson(batch: Batch) -> Lesson:
    assert batch.lesson is not None  # noqa: S101  (batches of a taught run have one)
    return batch.lesson
