"""What a trained network knows: accuracy on the test images, also when boards are missing.

The only place that touches test images.
"""

from collections.abc import Iterator
from itertools import chain, combinations

import torch
from torch import Tensor

from nonn_core.data.dataset import Dataset
from nonn_core.evaluated import Evaluation as Evaluation
from nonn_core.evaluated import SubsetAccuracy as SubsetAccuracy
from nonn_core.learning.construction import Network
from nonn_core.learning.device import images_at_once, on_the_fastest_device
from nonn_core.learning.loop import accuracy_pct
from nonn_core.modules import pooled
from nonn_core.nonn import Nonn
from nonn_core.progress import Progress, silent
from nonn_core.recipe import NonnRecipe, TrainingRecipe
from nonn_core.teacher import Teacher
from nonn_core.weights import fingerprint

SUBSET_LIMIT = 12
"""Subsets are enumerated up to this many students: 4,095 of them."""


def evaluate(
    network: Network,
    recipe: TrainingRecipe,
    dataset: Dataset,
    progress: Progress = silent,
) -> Evaluation:
    """Measure a trained network on the test images, and a NoNN for every subset that answers."""
    with on_the_fastest_device(network, dataset) as data:
        if isinstance(network, Nonn) and isinstance(recipe.model, NonnRecipe):
            names = [student.name for student in recipe.model.students]
            subsets = _subset_accuracies(network, names, data, progress)
            whole = subsets[-1].accuracy_pct
        else:
            subsets, whole = (), accuracy_pct(network, data, data.test)
    return Evaluation(
        data=dataset.source,
        images=len(dataset.test),
        weights=fingerprint(network),
        accuracy_pct=whole,
        subsets=subsets,
    )


def evaluate_teacher(teacher: Teacher, dataset: Dataset) -> Evaluation:
    """Measure a teacher on the test images; raises InputError for data it is not made for."""
    teacher.check_data(dataset)
    with on_the_fastest_device(teacher.network, dataset) as data:
        whole = accuracy_pct(teacher.network, data, data.test)
    return Evaluation(
        data=dataset.source,
        images=len(dataset.test),
        weights=teacher.fingerprint,
        accuracy_pct=whole,
        subsets=(),
    )


def _subset_accuracies(
    network: Nonn, names: list[str], dataset: Dataset, progress: Progress
) -> tuple[SubsetAccuracy, ...]:
    """Run each student once, then classify from each subset's vectors; all students come last."""
    vectors = _vectors(network, dataset, progress)
    labels = dataset.test.labels
    found = []
    for subset in _subsets(len(names)):
        with torch.no_grad():
            right = network.classify(vectors, answering=subset).argmax(dim=1) == labels
        found.append(
            SubsetAccuracy(
                students=tuple(names[k] for k in subset),
                accuracy_pct=100 * int(right.sum()) / len(labels),
            )
        )
    return tuple(found)


def _vectors(network: Nonn, dataset: Dataset, progress: Progress) -> list[Tensor]:
    """Each student's answers to all test images, (images, filters) each."""
    network.eval()
    at_once = images_at_once(dataset.image, dataset.test.pixels.device)
    batches: list[list[Tensor]] = []
    with torch.inference_mode():
        for pixels, _ in dataset.batches(dataset.test, at_once):
            batches.append([pooled(maps) for maps in network(pixels)[1]])
            progress(
                "evaluating", min(len(batches) * at_once, len(dataset.test)), len(dataset.test)
            )
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


def _subsets(students: int) -> Iterator[tuple[int, ...]]:
    """Every non-empty subset, small ones first; only the whole set beyond the limit."""
    everyone = range(students)
    if students > SUBSET_LIMIT:
        return iter([tuple(everyone)])
    return chain.from_iterable(combinations(everyone, size) for size in range(1, students + 1))
