"""Evaluation of runs: test accuracy, also with boards missing; several seeds and settings.

`evaluate` and `evaluate_teacher` are the only places that touch test images; a grid of
recipes is judged by validation accuracy.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonn_common import Progress, silent
from nonn_common.errors import DivergedError, InputError
from nonn_core.accuracy_report import Evaluation as Evaluation
from nonn_core.accuracy_report import RepeatedEvaluation, summary
from nonn_core.accuracy_report import SubsetAccuracy as SubsetAccuracy
from nonn_core.class_accuracy import class_accuracies
from nonn_core.data.dataset import Dataset, load_dataset
from nonn_core.distillation.accelerator import on_fastest_device
from nonn_core.distillation.construction import Network
from nonn_core.distillation.loop import EpochMetrics, predicted_classes, student_vectors
from nonn_core.distillation.run import load_run, train
from nonn_core.networks.modules import Nonn, fingerprint
from nonn_core.recipe import (
    Axis,
    NonnRecipe,
    Setting,
    TrainingRecipe,
    Trial,
    grid_settings,
    with_setting,
)
from nonn_core.teacher.teacher import Teacher

SUBSET_LIMIT = 12
"""Subsets are enumerated up to this many students: 4,095 of them."""


def evaluate(
    network: Network,
    recipe: TrainingRecipe,
    dataset: Dataset,
    progress: Progress = silent,
) -> Evaluation:
    """Test accuracy of a network, and of every subset of a NoNN's students."""
    with on_fastest_device(network, dataset) as data:
        if isinstance(network, Nonn) and isinstance(recipe.model, NonnRecipe):
            names = [student.name for student in recipe.model.students]
            subsets, predicted = _subset_accuracies(network, names, data, progress)
        else:
            subsets, predicted = (), predicted_classes(network, data, data.test)
    return _evaluation(dataset, predicted, fingerprint(network), subsets)


def evaluate_teacher(teacher: Teacher, dataset: Dataset) -> Evaluation:
    """Test accuracy of a teacher.

    Raises InputError for data it is not made for.
    """
    teacher.check_data(dataset)
    with on_fastest_device(teacher.network, dataset) as data:
        predicted = predicted_classes(teacher.network, data, data.test)
    return _evaluation(dataset, predicted, teacher.fingerprint)


def _evaluation(
    dataset: Dataset, predicted: Tensor, weights: str, subsets: tuple[SubsetAccuracy, ...] = ()
) -> Evaluation:
    """Evaluation by the predicted classes of the test images, int64 (N,)."""
    labels, answers = dataset.test.labels.tolist(), predicted.tolist()
    right = sum(label == answer for label, answer in zip(labels, answers, strict=True))
    return Evaluation(
        data=dataset.source,
        images=len(labels),
        weights=weights,
        accuracy_pct=100 * right / len(labels),
        subsets=subsets,
        class_accuracy=class_accuracies(dataset.class_names, labels, answers),
    )


def _subset_accuracies(
    network: Nonn, names: list[str], dataset: Dataset, progress: Progress
) -> tuple[tuple[SubsetAccuracy, ...], Tensor]:
    """Run each student once, then classify from each subset's vectors; all students come last.

    What is missing is imputed if the run has moments.  Returns also the classes (N,) that all
    students predict.
    """
    vectors = student_vectors(network, dataset, dataset.test, progress)
    features = torch.cat(vectors, dim=1).cpu().numpy()
    student = np.repeat(np.arange(len(vectors)), [each.shape[1] for each in vectors])
    labels = dataset.test.labels
    layer, answered = network.feature_layer, labels.cpu().numpy()
    found = []
    predicted = labels
    for subset in _subsets(len(names)):
        with torch.no_grad():
            predicted = network.classify(vectors, answering=subset).argmax(dim=1)
        zero_filled_pct = imputed_pct = 100 * int((predicted == labels).sum()) / len(labels)
        if layer.moments is not None and len(subset) < len(names):
            came = np.isin(student, subset)
            named = layer.of(came).logits(features[:, came]).argmax(axis=1)
            imputed_pct = 100 * int((named == answered).sum()) / len(answered)
        found.append(
            SubsetAccuracy(
                students=tuple(names[k] for k in subset),
                accuracy_pct=imputed_pct,
                zero_filled_pct=zero_filled_pct,
            )
        )
    return tuple(found), predicted


def _subsets(students: int) -> Iterator[tuple[int, ...]]:
    """Every non-empty subset, small ones first; only the whole set beyond the limit."""
    everyone = range(students)
    if students > SUBSET_LIMIT:
        return iter([tuple(everyone)])
    return chain.from_iterable(combinations(everyone, size) for size in range(1, students + 1))


EVALUATION = "evaluation.json"
_PREFIX = "seed-"


def train_seeds(
    recipe: TrainingRecipe,
    folder: Path,
    seeds: int,
    dataset: Dataset | None = None,
    progress: Progress = silent,
) -> dict[int, list[EpochMetrics]]:
    """Train the recipe from its own seed and the following ones, `seeds` in all.

    Each in `folder`/seed-S; finished ones are not trained again.  Returns each seed's metrics.
    Raises as `train` does.
    """
    data = dataset or load_dataset(recipe.data, progress, recipe.reading)
    found = {}
    for seed in range(recipe.seed, recipe.seed + seeds):
        each = recipe.model_copy(update={"seed": seed % 2**31})
        found[each.seed] = train(each, seed_folder(folder, each.seed), data, progress)
    return found


def seed_folder(folder: Path, seed: int) -> Path:
    """Return where the run of a seed lies."""
    return folder / f"{_PREFIX}{seed}"


def seed_folders(folder: Path) -> list[Path]:
    """Return the folders of all seeds, in the seeds' order; none where there are none."""
    found = [
        (int(digits), path)
        for path in folder.glob(f"{_PREFIX}*")
        if (digits := path.name.removeprefix(_PREFIX)).isdecimal()
        and path == seed_folder(folder, int(digits))
        and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def evaluate_seeds(
    folder: Path, dataset: Dataset, progress: Progress = silent
) -> RepeatedEvaluation:
    """Evaluate the runs of all seeds; each one's own evaluation.json is written into its folder.

    Raises InputError when one has not finished, or when they are not of one recipe.
    """
    runs = [(path, *load_run(path, dataset)) for path in seed_folders(folder)]
    _check_same_recipe(folder, [recipe for _, recipe, _ in runs])
    found = []
    for path, recipe, network in runs:
        found.append((recipe.seed, evaluate(network, recipe, dataset, progress)))
        found[-1][1].write(path / EVALUATION)
    return summary(found)


def _check_same_recipe(folder: Path, recipes: Sequence[TrainingRecipe]) -> None:
    without_seed = [recipe.model_copy(update={"seed": 0}) for recipe in recipes]
    if any(each != without_seed[0] for each in without_seed):
        raise InputError(
            "the runs in this folder are not of one recipe with several seeds", where=str(folder)
        )


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
    recipes = [(setting, with_setting(recipe, setting)) for setting in grid_settings(axes)]
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
