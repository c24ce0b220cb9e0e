"""A run folder: one recipe, its checkpoint, its metrics, and at the end its weights.

run/train.yaml               the recipe
run/versions.json            versions of what computes it
run/checkpoint.safetensors   weights, momentum and history after the last finished epoch
run/metrics.jsonl            a line for each finished epoch
run/model.safetensors        the weights, once training has finished
"""

import json
import platform
from importlib import metadata
from pathlib import Path

from nonn_core.data.dataset import Dataset, load_dataset
from nonn_core.learning.batches import LiveBatches
from nonn_core.learning.construction import build_network, objective_of, subject_of
from nonn_core.learning.loop import EpochMetrics, Task, fit
from nonn_core.modules import Classifier
from nonn_core.nonn import Nonn
from nonn_core.progress import Progress, silent
from nonn_core.recipe import NonnRecipe, TrainingRecipe
from nonn_core.teacher import Teacher
from nonn_core.weights import load_weights, read_tensors, write_tensors
from profiles.document import write_atomic
from profiles.errors import InputError

RECIPE, VERSIONS = "train.yaml", "versions.json"
CHECKPOINT, METRICS, MODEL = "checkpoint.safetensors", "metrics.jsonl", "model.safetensors"


def train(
    recipe: TrainingRecipe,
    folder: Path,
    dataset: Dataset | None = None,
    progress: Progress = silent,
) -> list[EpochMetrics]:
    """Train what the recipe says into `folder`, going on where a killed run stopped.

    `dataset` saves loading it again.  Raises InputError when the folder holds a run of another
    recipe, or when recipe, teacher and data do not fit; TrainingError when training diverges.
    """
    teacher = Teacher.load(Path(recipe.teacher))
    data = dataset or load_dataset(recipe.data, progress)
    _check_fit(recipe, teacher, data)
    _claim(folder, recipe)
    network = build_network(recipe, data.classes)
    subject = subject_of(recipe)
    training, validation = data.split(teacher.card.seed)
    task = Task(
        network=network,
        objective=objective_of(network, recipe),
        batches=LiveBatches(
            data,
            training,
            recipe.optimiser.batch_size,
            recipe.seed,
            lambda images: teacher.lesson(images, subject),
        ),
        dataset=data,
        validation=validation,
        optimiser=recipe.optimiser,
        checkpoint=folder / CHECKPOINT,
        metrics=folder / METRICS,
        identity={
            "recipe": recipe.model_dump(mode="json"),
            "teacher": teacher.fingerprint,
            "images": data.fingerprint,
        },
    )
    history = fit(task, progress)
    write_tensors(folder / MODEL, dict(network.state_dict()))
    return history


def load_run(folder: Path, dataset: Dataset) -> tuple[TrainingRecipe, Nonn | Classifier]:
    """Load a finished run's recipe and trained network, in evaluation mode.

    Raises InputError when the folder holds no finished run, or one for other classes.
    """
    recipe = TrainingRecipe.read(folder / RECIPE)
    if not (folder / MODEL).exists():
        raise InputError(
            "training has not finished",
            where=str(folder),
            fix=f"go on with: nonn-plan train {folder / RECIPE} -o {folder}",
        )
    if recipe.image != str(dataset.image):
        raise InputError(
            "the run is for images of another shape",
            where=str(folder),
            found=str(dataset.image),
            allowed=recipe.image,
        )
    tensors, _ = read_tensors(folder / MODEL)
    network = build_network(recipe, dataset.classes)
    load_weights(network, tensors, folder / MODEL)
    return recipe, network.eval()


def _check_fit(recipe: TrainingRecipe, teacher: Teacher, data: Dataset) -> None:
    """Refuse a recipe whose teacher, data and filters are not made for each other."""
    teacher.check_data(data)
    if recipe.image != teacher.card.image:
        raise InputError(
            "the teacher is for images of another shape than the recipe",
            where=recipe.teacher,
            found=teacher.card.image,
            allowed=recipe.image,
        )
    filters = teacher.network.fc.in_features
    named = (
        [max(student.filters) for student in recipe.model.students]
        if isinstance(recipe.model, NonnRecipe)
        else []
    )
    if max(named, default=0) >= filters:
        raise InputError(
            "the recipe names filters that the teacher's fconv does not have",
            where="model.students.filters",
            found=max(named),
            allowed=f"0..{filters - 1}",
            fix="partition this teacher, then plan and configure again",
        )


def _claim(folder: Path, recipe: TrainingRecipe) -> None:
    """Write the recipe into the folder, unless the run of another one lives there."""
    if (folder / RECIPE).exists() and TrainingRecipe.read(folder / RECIPE) != recipe:
        raise InputError(
            "this folder holds the run of another recipe",
            where=str(folder),
            fix="choose another output folder",
        )
    recipe.write(folder / RECIPE)
    names = ("nonn-plan", "torch", "numpy", "safetensors")
    versions = {name: metadata.version(name) for name in names}
    versions["python"] = platform.python_version()
    write_atomic(folder / VERSIONS, (json.dumps(versions, indent=2) + "\n").encode())
