"""Training of table rows: teacher and partition once, then rows, seed by seed."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from nonn_common import Progress, silent
from nonn_core.accuracy_report import Evaluation
from nonn_core.communities.filter_network import LinkOptions
from nonn_core.communities.knowledge import partition_teacher, signed_maps_warning
from nonn_core.data.dataset import Dataset, first_of_each_class, load_dataset
from nonn_core.distillation.accelerator import select_device
from nonn_core.distillation.loop import EpochMetrics, accuracy_pct
from nonn_core.distillation.run import load_run, train_teacher
from nonn_core.distillation.run_evaluation import (
    EVALUATION,
    evaluate,
    evaluate_teacher,
    seed_folder,
    train_seeds,
    tune,
)
from nonn_core.evidence import partition_warnings
from nonn_core.experiments.table_results import (
    Experiment,
    Machine,
    RowResult,
    RunResult,
    axes_of,
    partition_path,
    row_recipe,
    row_result,
)
from nonn_core.experiments.table_rows import PARTITIONS, TableDesign, TableRow
from nonn_core.networks.blueprint import Filters
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import fingerprint
from nonn_core.partition import Partition, merge_communities
from nonn_core.recipe import (
    Axis,
    NonnRecipe,
    Setting,
    SingleRecipe,
    SplitNetRecipe,
    best_trial,
    setting_label,
    with_setting,
)
from nonn_core.teacher.teacher import Teacher


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Origin of an experiment's rows: data, teacher and its result, partitions.

    `warnings` are for people: of the teacher, and of what in the partition rests on too little.
    """

    design: TableDesign
    experiment: Experiment
    folder: Path
    dataset: Dataset
    teacher: RunResult
    teacher_fingerprint: str
    partitions: tuple[Filters, ...]
    warnings: tuple[str, ...]


def prepare(
    design: TableDesign, experiment: Experiment, folder: Path, progress: Progress = silent
) -> TrainingSetup:
    """Load the data, train or load the teacher, partition it if a row needs that.

    What is finished is not done again.  Raises InputError when the folder holds another
    experiment, or the teacher has fewer communities than partitions are needed.
    """
    dataset = load_dataset(experiment.data, progress)
    if experiment.images_per_class is not None:
        dataset = first_of_each_class(dataset, experiment.images_per_class)
    experiment.init_folder(folder)
    teacher = _teacher(experiment, folder, dataset, progress)
    partitions: tuple[Filters, ...] = ()
    warnings = teacher.warnings
    if any(row.is_nonn for row in design.rows):
        partition = _partition(experiment, folder, teacher, dataset, progress)
        partitions = merge_communities(partition, PARTITIONS, partition.bound_pct)
        if partition.teacher is not None and partition.teacher.signed_maps is not None:
            warnings += (signed_maps_warning(partition.teacher),)
        warnings += partition_warnings(partition)
    fitting = replace(design, image=dataset.image, classes=dataset.classes)
    result = _teacher_result(teacher, experiment, dataset)
    return TrainingSetup(
        fitting, experiment, folder, dataset, result, teacher.fingerprint, partitions, warnings
    )


def train_row(
    bench: TrainingSetup,
    row: TableRow,
    axes: Sequence[Axis],
    seeds: int,
    progress: Progress = silent,
) -> RowResult:
    """Tune a row by validation with the first seed, train the others, evaluate all.

    Raises InputError when a run of another recipe lies in its folder; TrainingError when training
    diverges.
    """
    accuracy_pct = bench.teacher.accuracy_pct
    if row.method == "teacher":
        return row_result(bench.design, row, (), (), {}, (bench.teacher,), accuracy_pct)
    dataset = bench.dataset
    recipe = row_recipe(row, bench.experiment, bench.folder, str(dataset.image), bench.partitions)

    def place(setting: Setting) -> Path:
        return bench.folder / row.name / setting_label(setting)

    def first_run(setting: Setting) -> Path:
        return seed_folder(place(setting), recipe.seed)

    trials = tune(recipe, axes_of(row, axes), first_run, dataset, progress)
    setting = best_trial(trials).setting
    folder = place(setting)
    histories = train_seeds(with_setting(recipe, setting), folder, seeds, dataset, progress)
    runs = [
        _run_result(bench, seed, history[-1], seed_folder(folder, seed), progress)
        for seed, history in histories.items()
    ]
    filters = _filters(recipe.model)
    return row_result(bench.design, row, filters, trials, setting, runs, accuracy_pct)


def _teacher(experiment: Experiment, folder: Path, dataset: Dataset, progress: Progress) -> Teacher:
    place, seed = experiment.teacher(folder), experiment.seed
    if experiment.given_teacher is not None:
        return Teacher.load(place, None, dataset, seed)
    network, how = parse_network(experiment.teacher_network), experiment.teacher_optimiser
    return train_teacher(network, dataset, how, seed, Path(place), progress, experiment.compute)


def _partition(
    experiment: Experiment, folder: Path, teacher: Teacher, dataset: Dataset, progress: Progress
) -> Partition:
    path = partition_path(folder)
    if path.exists():
        found = Partition.read(path)
        if found.teacher is not None:
            teacher.check_fingerprint(found.teacher.fingerprint)
        return found
    options = LinkOptions()
    # As published: the measured delta_val alone decides what is dropped.
    found = partition_teacher(
        teacher, dataset, "AH", 1.0, experiment.seed, options, progress, confidence_pct=None
    )
    found.write(path)
    return found


def _teacher_result(teacher: Teacher, experiment: Experiment, dataset: Dataset) -> RunResult:
    device = select_device(experiment.compute.device)
    moved = dataset.to(device)
    _, validation = teacher.split(moved)
    teacher.to(device)
    return RunResult(
        seed=teacher.seed,
        validation_accuracy_pct=accuracy_pct(teacher.network, moved, validation),
        accuracy_pct=evaluate_teacher(teacher, moved).accuracy_pct,
        subsets={},
    )


def _run_result(
    bench: TrainingSetup, seed: int, last: EpochMetrics, folder: Path, progress: Progress
) -> RunResult:
    """Evaluate a finished run, unless that has been done with these weights."""
    path = folder / EVALUATION
    recipe, network = load_run(folder, bench.dataset)
    if not path.exists() or Evaluation.read(path).weights != fingerprint(network):
        device = select_device(bench.experiment.compute.device)
        evaluate(network.to(device), recipe, bench.dataset.to(device), progress).write(path)
    found = Evaluation.read(path)
    return RunResult(
        seed=seed,
        validation_accuracy_pct=last.validation_accuracy_pct,
        accuracy_pct=found.accuracy_pct,
        subsets={" ".join(one.students): one.zero_filled for one in found.subsets},
        imputed={" ".join(one.students): one.accuracy_pct for one in found.subsets},
    )


def _filters(model: NonnRecipe | SingleRecipe | SplitNetRecipe) -> list[int]:
    """Return how many filters each student of a NoNN mimics."""
    students = model.students if isinstance(model, NonnRecipe) else ()
    return [len(student.filters) for student in students]


def describe_machine(device: str) -> Machine:
    """Describe this machine."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        threads=torch.get_num_threads(),
        accelerator=torch.cuda.get_device_name() if on_gpu else None,
    )


def software_versions() -> dict[str, str]:
    """Return the versions of what computes results."""
    names = ("nonn-plan", "torch", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _processor() -> str:
    """Name the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
