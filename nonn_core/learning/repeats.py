"""The same recipe trained from several seeds, and what that says of it: mean and deviation."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from pydantic import Field

from nonn_core.data.dataset import Dataset, load_dataset
from nonn_core.evaluation import Evaluation, SubsetAccuracy, evaluate
from nonn_core.learning.checkpoint import EpochMetrics
from nonn_core.learning.run import load_run, train
from nonn_core.progress import Progress, silent
from nonn_core.recipe import TrainingRecipe
from profiles.document import Document, Record
from profiles.errors import InputError

EVALUATION = "evaluation.json"
_PREFIX = "seed-"


class SeedAccuracy(Record):
    """Accuracy of the run of one seed."""

    seed: int = Field(ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    accuracy_pct: float = Field(description="Test accuracy in percent.")


class RepeatedEvaluation(Document):
    """Test accuracy of one recipe over several seeds."""

    data: str = Field(description="Data set; its test images were used.")
    images: int = Field(gt=0, description="Number of test images.")
    accuracy_pct: float = Field(description="Mean test accuracy over the seeds, in percent.")
    deviation_pct: float | None = Field(
        description="Standard deviation over the seeds (n - 1), in percentage points; null for one."
    )
    seeds: tuple[SeedAccuracy, ...] = Field(min_length=1, description="Accuracy for each seed.")
    subsets: tuple[SubsetAccuracy, ...] = Field(
        description="Mean over the seeds for every non-empty subset of students; empty for an "
        "undivided network."
    )


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
    data = dataset or load_dataset(recipe.data, progress)
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


def summary(found: Sequence[tuple[int, Evaluation]]) -> RepeatedEvaluation:
    """Put together the evaluations of one recipe's seeds."""
    evaluations = [evaluation for _, evaluation in found]
    accuracies = [evaluation.accuracy_pct for evaluation in evaluations]
    by_subset = zip(*(evaluation.subsets for evaluation in evaluations), strict=True)
    return RepeatedEvaluation(
        data=evaluations[0].data,
        images=evaluations[0].images,
        accuracy_pct=mean(accuracies),
        deviation_pct=stdev(accuracies) if len(accuracies) > 1 else None,
        seeds=tuple(SeedAccuracy(seed=s, accuracy_pct=e.accuracy_pct) for s, e in found),
        subsets=tuple(
            SubsetAccuracy(
                students=same[0].students, accuracy_pct=mean(each.accuracy_pct for each in same)
            )
            for same in by_subset
        ),
    )


def _check_same_recipe(folder: Path, recipes: Sequence[TrainingRecipe]) -> None:
    without_seed = [recipe.model_copy(update={"seed": 0}) for recipe in recipes]
    if any(each != without_seed[0] for each in without_seed):
        raise InputError(
            "the runs in this folder are not of one recipe with several seeds", where=str(folder)
        )
