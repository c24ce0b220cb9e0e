"""From a recipe to what is trained: the network, the objective, and what the teacher shows."""

from nonn_core.image import Image
from nonn_core.learning.lesson import Subject
from nonn_core.learning.loop import Objective
from nonn_core.learning.objectives import nonn_distillation, single_distillation
from nonn_core.modules import Classifier, build_classifier
from nonn_core.nonn import Nonn, StudentShape, build_nonn
from nonn_core.recipe import NonnRecipe, TrainingRecipe


def build_network(recipe: TrainingRecipe, classes: int) -> Nonn | Classifier:
    """Build the untrained network of a recipe; its weights depend on the recipe's seed alone."""
    channels = Image.parse(recipe.image).channels
    if isinstance(recipe.model, NonnRecipe):
        shapes = [StudentShape(s.spec, len(s.filters)) for s in recipe.model.students]
        shared = recipe.model.group0 != "separate"
        return build_nonn(shapes, channels, classes, recipe.seed, shared)
    return build_classifier(recipe.model.spec, channels, classes, recipe.seed)


def objective_of(network: Nonn | Classifier, recipe: TrainingRecipe) -> Objective:
    """Return what a recipe's network is trained towards."""
    if isinstance(network, Nonn):
        return nonn_distillation(network, recipe.distillation)
    return single_distillation(network, recipe.distillation)


def subject_of(recipe: TrainingRecipe) -> Subject:
    """Return what a recipe wants to see of its teacher."""
    if isinstance(recipe.model, NonnRecipe):
        return Subject(tuple(student.filters for student in recipe.model.students))
    return Subject()
