"""From a recipe to what is trained: the networks, the objectives, and what the teacher shows."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from nonn_core.image import Image
from nonn_core.learning.lesson import Subject
from nonn_core.learning.loop import Objective, learning_rate
from nonn_core.learning.objectives import (
    attention_distillation,
    group_assignment,
    nonn_distillation,
    single_distillation,
)
from nonn_core.learning.splitting import Splitting, cut
from nonn_core.modules import Classifier, build_classifier
from nonn_core.nonn import Nonn, StudentShape, build_nonn
from nonn_core.recipe import NonnRecipe, OptimiserRecipe, SplitNetRecipe, TrainingRecipe
from nonn_core.split_layout import split_layout
from nonn_core.splitnet import SplitNet, build_splitnet

Network = Nonn | Classifier | SplitNet
"""What a finished run leaves."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a run that trains one network; `name` is empty for the last or only one.

    Without `taught` its objective looks at no lesson.
    """

    name: str
    network: nn.Module
    objective: Objective
    optimiser: OptimiserRecipe
    taught: bool = True

    def file(self, name: str) -> str:
        """Return the name of this phase's file of a kind."""
        return f"{self.name}-{name}" if self.name else name


def phases(recipe: TrainingRecipe, classes: int, batches: int) -> Iterator[Phase]:
    """Yield what is trained one after another, on epochs of so many batches.

    Train each before asking for the next.
    The last phase's network is the one that `build_network` builds.
    """
    if recipe.start is not None or not isinstance(recipe.model, SplitNetRecipe):
        network = build_network(recipe, classes)
        yield Phase("", network, objective_of(network, recipe), recipe.optimiser)
        return
    model, channels = recipe.model, Image.parse(recipe.image).channels
    before, after = _parted(recipe.optimiser, model.assignment_share)
    splitting = Splitting(
        build_classifier(model.spec, channels, classes, recipe.seed),
        split_layout(model.spec, channels, classes, model.groups),
        _travel(before, batches),
        recipe.seed,
    )
    objective = group_assignment(splitting, model)
    yield Phase("assignment", splitting, objective, before, taught=False)
    network = cut(splitting)
    yield Phase("", network, objective_of(network, recipe), after)


def build_network(recipe: TrainingRecipe, classes: int) -> Network:
    """Build the untrained network of a recipe; its weights depend on the recipe's seed alone."""
    channels, seed = Image.parse(recipe.image).channels, recipe.seed
    match recipe.model:
        case NonnRecipe() as model:
            shapes = [StudentShape(s.spec, len(s.filters)) for s in model.students]
            return build_nonn(shapes, channels, classes, seed, model.group0 != "separate")
        case SplitNetRecipe() as model:
            return build_splitnet(model.spec, channels, classes, model.groups, seed)
        case model:
            return build_classifier(model.spec, channels, classes, seed)


def objective_of(network: Network, recipe: TrainingRecipe) -> Objective:
    """Return what a recipe's network is trained towards."""
    losses = recipe.distillation
    if isinstance(network, Nonn):
        return nonn_distillation(network, losses)
    if isinstance(network, Classifier) and losses.attention:
        return attention_distillation(network, losses)
    return single_distillation(network, losses)


def subject_of(recipe: TrainingRecipe) -> Subject:
    """Return what a recipe wants to see of its teacher; nothing that no loss will look at."""
    losses = recipe.distillation
    if isinstance(recipe.model, NonnRecipe):
        transferred = losses.beta or losses.attention
        students = recipe.model.students if transferred else ()
        return Subject(tuple(student.filters for student in students))
    return Subject(attention=losses.attention > 0)


def _parted(optimiser: OptimiserRecipe, share: float) -> tuple[OptimiserRecipe, OptimiserRecipe]:
    """Part the epochs in two, at least one each."""
    first = min(max(1, round(optimiser.epochs * share)), optimiser.epochs - 1)
    return (
        optimiser.model_copy(update={"epochs": first}),
        optimiser.model_copy(update={"epochs": optimiser.epochs - first}),
    )


def _travel(optimiser: OptimiserRecipe, batches: int) -> float:
    """Return how far all steps together can carry a weight under a gradient of one."""
    steps = optimiser.epochs * batches
    rates = (learning_rate(optimiser, step, steps) for step in range(steps))
    return sum(rates) / (1 - optimiser.momentum)
