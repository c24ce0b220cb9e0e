"""Training runs: a recipe's run folder, and the training of a teacher.

run/train.yaml               the recipe
run/versions.json            versions of what computes it
run/checkpoint.safetensors   weights, momentum and history after the last finished epoch
run/metrics.jsonl            a line for each finished epoch
run/moments.safetensors      of a NoNN: moments of its features over the validation images
run/model.safetensors        the weights, once training has finished

A SplitNet's first phase keeps its checkpoint and metrics as assignment-checkpoint.safetensors
and assignment-metrics.jsonl.  With cached views, lessons-0.bin holds the teacher's
outputs until training has finished.
"""

import json
import platform
from contextlib import nullcontext
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from nonn_common import Progress, silent
from nonn_common.document import check_own_place, check_place, write_atomic
from nonn_common.errors import InputError
from nonn_core.class_accuracy import class_accuracies
from nonn_core.data.dataset import Dataset, Images, load_dataset
from nonn_core.distillation import accelerator
from nonn_core.distillation.accelerator import Compute
from nonn_core.distillation.batches import Batches, CachedBatches, LiveBatches
from nonn_core.distillation.construction import (
    AssignmentPhase,
    Network,
    build_network,
    fake_quantised,
    objective_of,
    target_spec_of,
)
from nonn_core.distillation.loop import (
    FIRST_BYTES,
    Checkpoint,
    EpochMetrics,
    Objective,
    TrainingTask,
    fit,
    predicted_classes,
    student_vectors,
)
from nonn_core.distillation.losses import classification
from nonn_core.distillation.output_cache import TeacherRunner, remove_cache
from nonn_core.distillation.splitnet import cut_groups
from nonn_core.feature_layer import FEWEST_IMAGES, FeatureMoments
from nonn_core.networks.blueprint import NetworkSpec
from nonn_core.networks.modules import (
    Nonn,
    build_classifier,
    fingerprint,
    load_weights,
    read_tensors,
    write_tensors,
)
from nonn_core.recipe import (
    ComputeRecipe,
    NonnRecipe,
    OptimiserRecipe,
    SplitNetRecipe,
    TrainingRecipe,
)
from nonn_core.teacher.teacher import DEFAULT_FCONV, SUFFIX, Teacher, TeacherCard, TrainedTeacher

RECIPE, VERSIONS = "train.yaml", "versions.json"
CHECKPOINT, METRICS, MODEL = "checkpoint.safetensors", "metrics.jsonl", "model.safetensors"
MOMENTS = "moments.safetensors"
ASSIGNMENT = "assignment-"
"""Begins the names of a SplitNet's checkpoint and metrics before its cut."""


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
    data = dataset or load_dataset(recipe.data, progress, recipe.reading)
    teacher = Teacher.load(recipe.teacher, recipe.fconv, data, recipe.seed, recipe.signed_maps)
    _check_fit(recipe, teacher, data)
    start = recipe.start and _finished_weights(Path(recipe.start))
    _init_run_dir(folder, recipe)
    identity = {
        "recipe": _without_device(recipe).model_dump(mode="json"),
        "teacher": teacher.fingerprint,
        "images": data.fingerprint,
    }
    data = data.to(compute.device)
    training, validation = teacher.split(data)
    run_teacher = TeacherRunner(teacher.to(compute.device), target_spec_of(recipe), compute)
    cache_path = folder / f"lessons-{accelerator.node_rank()}.bin"
    batches = _batches(recipe, data, training, run_teacher, cache_path, identity, progress)

    def fitted(
        network: nn.Module,
        objective: Objective,
        optimiser: OptimiserRecipe,
        batches: Batches,
        prefix: str = "",
    ) -> list[EpochMetrics]:
        """Train a network, from its checkpoint if there is one; metrics of its epochs."""
        checkpoint = Checkpoint(
            folder / f"{prefix}{CHECKPOINT}", folder / f"{prefix}{METRICS}", identity
        )
        task = TrainingTask(
            network, objective, batches, data, validation, optimiser, checkpoint, compute
        )
        with fake_quantised(network) if recipe.fake_quantised else nullcontext():
            return fit(task, progress)

    if isinstance(recipe.model, SplitNetRecipe) and recipe.start is None:
        phase = AssignmentPhase.of(recipe, recipe.model, data.classes, len(batches))
        labelled = LiveBatches(data, training, recipe.optimiser.batch_size, recipe.seed)
        fitted(phase.network, phase.objective, phase.optimiser, labelled, ASSIGNMENT)
        network: Network = cut_groups(phase.network)
        optimiser = phase.remaining
    else:
        network, optimiser = build_network(recipe, data.classes), recipe.optimiser
    if start:
        load_weights(network, start, Path(str(recipe.start)) / MODEL)
    history = fitted(network, objective_of(network, recipe), optimiser, batches)
    if accelerator.rank() == 0:
        if isinstance(network, Nonn):
            _write_moments(folder / MOMENTS, network, data, validation)
        write_tensors(folder / MODEL, dict(network.state_dict()))
    if accelerator.is_local_rank_zero():
        remove_cache(cache_path)
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
    if isinstance(network, Nonn):
        network.moments = _read_moments(folder / MOMENTS, network)
    return recipe, network.eval()


def _write_moments(path: Path, network: Nonn, data: Dataset, validation: Images) -> None:
    """Measure the features of a trained NoNN, and write their moments beside its weights."""
    if len(validation) < FEWEST_IMAGES:
        return
    network.to(validation.pixels.device)
    vectors = student_vectors(network, data, validation)
    network.cpu()
    features = torch.cat(vectors, dim=1).float().cpu().numpy()
    moments = FeatureMoments.of(features, [each.shape[1] for each in vectors])
    tensors = {name: torch.from_numpy(each) for name, each in asdict(moments).items()}
    write_tensors(path, tensors, fingerprint(network))


def _read_moments(path: Path, network: Nonn) -> FeatureMoments | None:
    """Read moments of this network.

    None of a run of an older version, or of other weights.
    """
    if not path.exists():
        return None
    tensors, weights = read_tensors(path)
    if weights != fingerprint(network):
        return None
    return FeatureMoments(**{name: each.numpy() for name, each in tensors.items()})


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
    run_teacher: TeacherRunner,
    cache_path: Path,
    identity: object,
    progress: Progress,
) -> Batches:
    size, views = recipe.optimiser.batch_size, recipe.compute.cached_views
    if not views:
        return LiveBatches(data, training, size, recipe.seed, run_teacher)
    # An image is shown once in an epoch: further views would never be.
    views = min(views, recipe.optimiser.epochs)
    return CachedBatches(
        data, training, size, recipe.seed, run_teacher, views, cache_path, identity, progress
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


def _init_run_dir(folder: Path, recipe: TrainingRecipe) -> None:
    """Write the recipe into the folder, unless the run of another one lives there."""
    if accelerator.rank() > 0:
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
    elif _without_device(TrainingRecipe.read(place)) != _without_device(recipe):
        raise InputError(
            "this folder holds the run of another recipe",
            where=str(folder),
            fix="choose another output folder",
        )
    names = ("nonn-plan", "torch", "numpy", "safetensors")
    versions = {name: metadata.version(name) for name in names}
    versions["python"] = platform.python_version()
    write_atomic(folder / VERSIONS, (json.dumps(versions, indent=2) + "\n").encode())


def _without_device(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return a recipe without the device: a run may go on on another one."""
    compute = recipe.compute.model_copy(update={"device": "auto"})
    return recipe.model_copy(update={"compute": compute})


def train_teacher(
    network: NetworkSpec,
    dataset: Dataset,
    optimiser: OptimiserRecipe,
    seed: int,
    path: Path,
    progress: Progress = silent,
    computing: ComputeRecipe = ComputeRecipe(),  # noqa: B008  (it is frozen)
) -> TrainedTeacher:
    """Train a teacher and save it as `path` and `.json`.

    90 % of the training images train it (arXiv:1907.11804, section 5.1).  A killed run goes on from
    `NAME.checkpoint.safetensors`; a finished teacher trained in the same way is returned as it is,
    wherever and however precisely that was computed.  Raises InputError when `path` holds another
    teacher.
    """
    compute = Compute.of(computing)
    if path.suffix != SUFFIX:
        raise InputError("teacher file", found=str(path), allowed=f"a name ending in {SUFFIX}")
    check_place(path)
    if path.exists():
        return _finished_teacher(path, network, dataset, optimiser, seed)
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
        "split_by_class": True,
    }
    checkpoint = Checkpoint(
        path.with_suffix(".checkpoint.safetensors"),
        metrics,
        {**how, "images": dataset.fingerprint, "precision": compute.precision},
    )
    data = dataset.to(compute.device)
    training, validation = data.split(seed)
    task = TrainingTask(
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
    with compute.autocast():
        predicted = predicted_classes(built.to(compute.device), data, validation)
    built.cpu()
    facts = {
        "fconv": DEFAULT_FCONV,
        "validation_accuracy_pct": history[-1].validation_accuracy_pct,
        "class_accuracy": class_accuracies(
            data.class_names, validation.labels.tolist(), predicted.tolist()
        ),
    }
    card = TeacherCard.check({**how, **facts}, where=str(path))
    teacher = TrainedTeacher(built, card, path)
    if accelerator.rank() == 0:
        teacher.save()
        checkpoint.path.unlink(missing_ok=True)
    return teacher


def _finished_teacher(
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
