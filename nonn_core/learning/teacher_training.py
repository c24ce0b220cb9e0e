"""How a teacher comes to be."""

from pathlib import Path

from nonn_core.data.dataset import Dataset
from nonn_core.family import NetworkSpec
from nonn_core.learning import processes
from nonn_core.learning.batches import LiveBatches
from nonn_core.learning.checkpoint import FIRST_BYTES, Checkpoint
from nonn_core.learning.device import Compute
from nonn_core.learning.loop import Task, fit
from nonn_core.learning.objectives import classification
from nonn_core.modules import build_classifier
from nonn_core.progress import Progress, silent
from nonn_core.recipe import ComputeRecipe, OptimiserRecipe
from nonn_core.teacher import DEFAULT_FCONV, SUFFIX, TeacherCard, TrainedTeacher
from profiles.document import check_own_place, check_place
from profiles.errors import InputError


def train_teacher(
    network: NetworkSpec,
    dataset: Dataset,
    optimiser: OptimiserRecipe,
    seed: int,
    path: Path,
    progress: Progress = silent,
    computing: ComputeRecipe = ComputeRecipe(),  # noqa: B008  (it is frozen)
) -> TrainedTeacher:
    """Train a teacher on 90 % of the training images (A, 5.1) and save it as `path` and `.json`.

    A killed run goes on from `NAME.checkpoint.safetensors`; a finished teacher trained in the same
    way is returned as it is, wherever and however precisely that was computed.  Raises InputError
    when `path` holds another teacher.
    """
    compute = Compute.of(computing)
    if path.suffix != SUFFIX:
        raise InputError("teacher file", found=str(path), allowed=f"a name ending in {SUFFIX}")
    check_place(path)
    if path.exists():
        return _finished(path, network, dataset, optimiser, seed)
    TeacherCard.check_target(path.with_suffix(".json"))
    metrics = path.with_suffix(".metrics.jsonl")
    check_own_place(metrics, FIRST_BYTES)
    built = build_classifier(network, dataset.image.channels, dataset.classes, seed)
    how = {
        "network": str(network),
        "data": dataset.source,
        "image": str(dataset.image),
        "classes": dataset.classes,
        "optimiser": optimiser.model_dump(mode="json"),
        "seed": seed,
    }
    checkpoint = Checkpoint(
        path.with_suffix(".checkpoint.safetensors"),
        metrics,
        {**how, "images": dataset.fingerprint, "precision": compute.precision},
    )
    data = dataset.to(compute.device)
    training, validation = data.split(seed)
    task = Task(
        network=built,
        objective=classification(built),
        batches=LiveBatches(data, training, optimiser.batch_size, seed),
        dataset=data,
        validation=validation,
        optimiser=optimiser,
        checkpoint=checkpoint,
        compute=compute,
    )
    history = fit(task, progress)
    accuracy = history[-1].validation_accuracy_pct
    card = TeacherCard.check(
        {**how, "fconv": DEFAULT_FCONV, "validation_accuracy_pct": accuracy}, where=str(path)
    )
    teacher = TrainedTeacher(built, card, path)
    if processes.rank() == 0:
        teacher.save()
        checkpoint.path.unlink(missing_ok=True)
    return teacher


def _finished(
    path: Path, network: NetworkSpec, dataset: Dataset, optimiser: OptimiserRecipe, seed: int
) -> TrainedTeacher:
    """Load the teacher that is there already, if it is the one asked for."""
    teacher = TrainedTeacher.read(path)
    asked = (str(network), dataset.source, optimiser, seed)
    card, epochs = teacher.card, teacher.card.optimiser.epochs
    found = (card.network, card.data, card.optimiser, card.seed)
    if found != asked:
        raise InputError(
            "there is another teacher already",
            where=str(path),
            found=f"{card.network} on {card.data}, {epochs} epochs, seed {card.seed}",
            fix="choose another output or remove the file",
        )
    return teacher
