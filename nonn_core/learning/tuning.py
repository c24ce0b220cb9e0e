"""A grid of recipes, each judged by its validation accuracy; test images are never looked at."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nonn_core.data.dataset import Dataset
from nonn_core.grid import Axis, Setting, Trial, settings, with_setting
from nonn_core.learning.run import train
from nonn_core.progress import Progress, silent
from nonn_core.recipe import TrainingRecipe
from profiles.errors import DivergedError


def tune(
    recipe: TrainingRecipe,
    axes: Sequence[Axis],
    place: Callable[[Setting], Path],
    dataset: Dataset,
    progress: Progress = silent,
) -> tuple[Trial, ...]:
    """Train the recipe once with every setting, each into the folder that `place` names.

    Finished runs are not trained again.  Raises InputError for a value that a recipe does not
    allow, before anything is trained.
    """
    recipes = [(setting, with_setting(recipe, setting)) for setting in settings(axes)]
    return tuple(
        Trial(setting, _validation_accuracy_pct(each, place(setting), dataset, progress))
        for setting, each in recipes
    )


def _validation_accuracy_pct(
    recipe: TrainingRecipe, folder: Path, dataset: Dataset, progress: Progress
) -> float | None:
    try:
        return train(recipe, folder, dataset, progress)[-1].validation_accuracy_pct
    except DivergedError:
        return None
