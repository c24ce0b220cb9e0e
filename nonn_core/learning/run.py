"""A run folder: one recipe, its checkpoint, its metrics, and at the end its weights.

run/train.yaml               the recipe
run/versions.json            versions of what computes it
run/checkpoint.safetensors   weights, momentum and history after the last finished epoch
run/metrics.jsonl            a line for each finished epoch
run/model.safetensors        the weights, once training has finished

A run of several phases keeps the earlier ones' checkpoint and metrics under their names, e.g.
assignment-checkpoint.safetensors.  With cached views, lessons-0.bin holds what the teacher shows
until training has finished.
"""

import json
import platform
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path

from torch import Tensor

from nonn_core.data.dataset import Dataset, Images, load_dataset
from nonn_core.learning import processes
from nonn_core.learning.batches import Batches, LiveBatches
from nonn_core.learning.checkpoint import Checkpoint, EpochMetrics
from nonn_core.learning.construction import Network, build_network, phases, subject_of
from nonn_core.learning.device import Compute
from nonn_core.learning.lesson_file import remove_lessons
from nonn_core.learning.loop import Task, fit
from nonn_core.learning.quantised import fake_quantised
from nonn_core.learning.teaching import Teaching
from nonn_core.learning.views import CachedBatches
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
    compute = Compute.of(recipe.compute)
    data = dataset or load_dataset(recipe.data, progress)
    teacher = Teacher.load(recipe.teacher, recipe.fconv, data, recipe.seed)
    _check_fit(recipe, teacher, data)
    start = recipe.start and _finished_weights(Path(recipe.start))
    _claim(folder, recipe)
    identity = {
        "recipe": _wherever(recipe).model_dump(mode="json"),
        "teacher": teacher.fingerprint,
        "images": data.fingerprint,
    }
    data = data.to(compute.device)
    training, validation = data.split(teacher.seed)
    teach = Teaching(teacher.to(compute.device), subject_of(recipe), compute)
    lessons = folder / f"lessons-{processes.machine()}.bin"
    batches = _batches(recipe, data, training, teach, lessons, identity, progress)
    untaught = LiveBatches(data, training, recipe.optimiser.batch_size, recipe.seed)
    history: list[EpochMetrics] = []
    for phase in phases(recipe, data.classes, len(batches)):
        checkpoint = Checkpoint(
            folder / phase.file(CHECKPOINT), folder / phase.file(METRICS), identity
        )
        task = Task(
            network=phase.network,
            objective=phase.objective,
            batches=batches if phase.taught else untaught,
            dataset=data,
            validation=validation,
            optimiser=phase.optimiser,
            checkpoint=checkpoint,
            compute=compute,
        )
        if start:
            load_weights(phase.network, start, Path(str(recipe.start)) / MODEL)
        with fake_quantised(phase.network) if recipe.fake_quantised else nullcontext():
            history = fit(task, progress)
        network = phase.network
    if processes.rank() == 0:
        write_tensors(folder / MODEL, dict(network.state_dict()))
    if processes.first_on_machine():
        remove_lessons(lessons)
    return history


def recipe_of(folder: Path) -> TrainingRecipe:
    """Read a run's recipe; raises InputError, also for a folder of several seeds' runs."""
    seeds = sorted(folder.glob(f"seed-*/{RECIPE}"))
    if seeds and not (folder / RECIPE).exists():
        raise InputError(
            "is a folder of several runs",
            where=str(folder),
            fix=f"name one of them, such as {seeds[0].parent}",
        )
    return TrainingRecipe.read(folder / RECIPE)


def load_run(folder: Path, dataset: Dataset) -> tuple[TrainingRecipe, Network]:
    """Load a finished run's recipe and trained network, in evaluation mode.

    Raises InputError when the folder holds no finished run, or one for other classes.
    """
    recipe = recipe_of(folder)
    tensors = _finished_weights(folder)
    if recipe.image != str(dataset.image):
        raise InputError(
            "the run is for images of another shape",
            where=str(folder),
            found=str(dataset.image),
            allowed=recipe.image,
        )
    network = build_network(recipe, dataset.classes)
    load_weights(network, tensors, folder / MODEL)
    return recipe, network.eval()


def _finished_weights(folder: Path) -> dict[str, Tensor]:
    """Read what a finished run has learnt; raises InputError."""
    if not folder.is_dir():
        raise InputError("no such run", where=str(folder))
    if not (folder / MODEL).exists():
        raise InputError(
            "training has not finished",
            where=str(folder),
            fix=f"go on with: nonn-plan train {folder / RECIPE} -o {folder}",
        )
    tensors, _ = read_tensors(folder / MODEL)
    return tensors


def _batches(
    recipe: TrainingRecipe,
    data: Dataset,
    training: Images,
    teach: Teaching,
    lessons: Path,
    identity: object,
    progress: Progress,
) -> Batches:
    size, views = recipe.optimiser.batch_size, recipe.compute.cached_views
    if not views:
        return LiveBatches(data, training, size, recipe.seed, teach)
    # An image is shown once in an epoch: further views would never be.
    views = min(views, recipe.optimiser.epochs)
    return CachedBatches(
        data, training, size, recipe.seed, teach, views, lessons, identity, progress
    )


def _check_fit(recipe: TrainingRecipe, teacher: Teacher, data: Dataset) -> None:
    """Refuse a recipe whose teacher, data and filters are not made for each other."""
    teacher.check_data(data)
    teacher.check_fingerprint(recipe.teacher_fingerprint)
    if recipe.image != teacher.reference.image:
        raise InputError(
            "the teacher is for images of another shape than the recipe",
            where=recipe.teacher,
            found=teacher.reference.image,
            allowed=recipe.image,
        )
    named = (
        [max(student.filters) for student in recipe.model.students]
        if isinstance(recipe.model, NonnRecipe)
        else []
    )
    if max(named, default=0) >= teacher.filters:
        raise InputError(
            "the recipe names filters that the teacher's fconv does not have",
            where="model.students.filters",
            found=max(named),
            allowed=f"0..{teacher.filters - 1}",
            fix="partition this teacher, then plan and configure again",
        )


def _claim(folder: Path, recipe: TrainingRecipe) -> None:
    """Write the recipe into the folder, unless the run of another one lives there."""
    if processes.rank() > 0:
        return
    place = folder / RECIPE
    if not place.exists():
        found = [
            name for name in (MODEL, CHECKPOINT, METRICS, VERSIONS) if (folder / name).exists()
        ]
        if found:
            raise InputError(
                "this folder holds files of somebody else that a run would overwrite",
                where=str(folder),
                found=", ".join(found),
                fix="choose another output folder",
            )
        recipe.write(place)
    elif _wherever(TrainingRecipe.read(place)) != _wherever(recipe):
        raise InputError(
            "this folder holds the run of another recipe",
            where=str(folder),
            fix="choose another output folder",
        )
    names = ("nonn-plan", "torch", "numpy", "safetensors")
    versions = {name: metadata.version(name) for name in names}
    versions["python"] = platform.python_version()
    write_atomic(folder / VERSIONS, (json.dumps(versions, indent=2) + "\n").encode())


def _wherever(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return a recipe without the device: a run may go on on another one."""
    compute = recipe.compute.model_copy(update={"device": "auto"})
    return recipe.model_copy(update={"compute": compute})
