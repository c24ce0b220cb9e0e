"""Training speed of a NoNN beside a plain loop, in images per second, on this machine, in one run.

    python benchmarks/training.py --threads 1                      WRN40-4, as the claim has it
    python benchmarks/training.py --threads 1 --teacher wrn16-2    a quick look

A step trains two students (wrn16:32,64,88, mimicking 34 and 46 filters) on a batch of 3x32x32
images, with Eq. 1, Eq. 6 and a teacher.  Four ways to do the same take turns, so that whatever else
the machine does hits all of them; the ratio is the median of the rounds' ratios.

    plain loop      fp32, default layout, a DataLoader with 2 workers that crops and mirrors each
                    image, teacher forward in each step, losses read in each step
    live fp32       this program: data in memory as uint8, augmented batch by batch, channels-last,
                    the teacher in pieces that fit the cache
    live bf16       the same with `precision: bf16`
    cached bf16     the same with `cached_views`: the teacher has run before, its outputs are read
                    from disk

What the claim is: live bf16 at least 2 times, cached bf16 at least 5 times the plain loop, on a
processor that computes bf16 (AVX512-BF16, AMX; elsewhere use fp32).  Pixels are random: speed does
not depend on them.  On a machine that others use too, measure with one thread: several wait for
each other at each operation, and then the others' load is what is measured.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from nonn_core.data.dataset import Dataset, Images
from nonn_core.distillation.accelerator import Compute, select_device
from nonn_core.distillation.batches import Batches, CachedBatches, LiveBatches
from nonn_core.distillation.loop import Checkpoint, TrainingTask, fit
from nonn_core.distillation.losses import activation_transfer, distillation, nonn_distillation
from nonn_core.distillation.output_cache import TeacherRunner
from nonn_core.networks.family import parse_network
from nonn_core.networks.modules import Classifier, Nonn, StudentShape, build_classifier, build_nonn
from nonn_core.recipe import DistillationRecipe, OptimiserRecipe
from nonn_core.teacher.teacher import DEFAULT_FCONV, TargetSpec, TeacherCard, TrainedTeacher

STUDENT, FILTERS, CLASSES = "wrn16:32,64,88", (34, 46), 10
VIEWS = 2
LOSSES = DistillationRecipe(beta=100)
PLAIN = "plain loop"


class AugmentedImages(TorchDataset[tuple[Tensor, Tensor]]):
    """Data set of a plain loop: one image at a time, cropped, mirrored and normalised."""

    def __init__(self, images: Images, mean: Tensor, std: Tensor) -> None:
        self.images, self.mean, self.std = images, mean, std

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        padded = nn.functional.pad(self.images.pixels[index], (4, 4, 4, 4))
        down, right = torch.randint(9, (2,)).tolist()
        pixels = padded[:, down : down + 32, right : right + 32]
        if torch.rand(()) < 0.5:
            pixels = pixels.flip(2)
        return (pixels.float() / 255 - self.mean) / self.std, self.images.labels[index]


def plain_loop(
    dataset: Dataset, teacher: Classifier, targets: TargetSpec, size: int, device: torch.device
) -> float:
    """Train as one would at first; return the images per second after the first step."""
    network = students().to(device)
    teacher = teacher.to(device)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    images = AugmentedImages(dataset.train, dataset.mean, dataset.std)
    loader = DataLoader(images, size, shuffle=True, num_workers=2, pin_memory=device.type == "cuda")
    running, stamps = 0.0, []
    for pixels, labels in loader:
        pixels, labels = pixels.to(device), labels.to(device)
        with torch.no_grad():
            teacher_logits, maps = teacher(pixels)
        logits, own = network(pixels)
        theirs = [maps[-1][:, list(filters)] for filters in targets.partitions]
        loss = distillation(logits, teacher_logits, labels, LOSSES.alpha, LOSSES.temperature)
        loss = loss + LOSSES.beta * activation_transfer(own, theirs)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        running += loss.item()
        stamps.append(time.perf_counter())
    return rate(stamps, size)


def ours(dataset: Dataset, batches: Batches, compute: Compute, size: int, folder: Path) -> float:
    """Train with this program; return the images per second after the first step."""
    network = students()
    stamps: list[float] = []

    def progress(what: str, done: int, total: int) -> None:
        del done, total
        if what.startswith("epoch"):
            if compute.device.type == "cuda":
                torch.cuda.synchronize()
            stamps.append(time.perf_counter())

    with tempfile.TemporaryDirectory(dir=folder) as place:
        task = TrainingTask(
            network=network,
            objective=nonn_distillation(network, LOSSES),
            batches=batches,
            dataset=dataset,
            validation=dataset.test,
            optimiser=OptimiserRecipe(epochs=1, batch_size=size),
            checkpoint=Checkpoint(Path(place, "c.safetensors"), Path(place, "m.jsonl"), None),
            compute=compute,
        )
        fit(task, progress)
    return rate(stamps, size)


def rate(stamps: list[float], size: int) -> float:
    """Return the images per second between the first step's end and the last one's."""
    return size * (len(stamps) - 1) / (stamps[-1] - stamps[0])


def students() -> Nonn:
    """Build the two students, the same each time."""
    shapes = [StudentShape(parse_network(STUDENT), filters) for filters in FILTERS]
    return build_nonn(shapes, 3, CLASSES, seed=0)


def synthetic(images: int) -> Dataset:
    """Make images of CIFAR-10's shape."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(CLASSES, (images,), generator=generator)
    return Dataset(
        source="random",
        class_names=tuple(map(str, range(CLASSES))),
        train=Images(pixels, labels),
        test=Images(pixels[:1], labels[:1]),
        mirrored=True,
        mean=torch.full((3, 1, 1), 0.5),
        std=torch.full((3, 1, 1), 0.29),
    )


def measured(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Let all ways take turns; return the images per second of each round."""
    device = select_device(options.device)
    size = options.batch_size
    dataset = synthetic(size * (options.steps + 1))
    network = build_classifier(parse_network(options.teacher), 3, CLASSES, seed=0)
    card = TeacherCard(
        network=options.teacher,
        data="random",
        image="3x32x32",
        classes=CLASSES,
        fconv=DEFAULT_FCONV,
        optimiser=OptimiserRecipe(epochs=1),
        seed=0,
        validation_accuracy_pct=0,
    )
    filters = torch.randperm(
        network.fc.in_features, generator=torch.Generator().manual_seed(0)
    ).tolist()
    first, second = FILTERS
    targets = TargetSpec((tuple(filters[:first]), tuple(filters[first : first + second])))
    plain_teacher = build_classifier(parse_network(options.teacher), 3, CLASSES, seed=0)
    plain_teacher.eval().requires_grad_(False)
    teacher = TrainedTeacher(network, card, folder / "teacher.safetensors").to(device)
    data = dataset.to(device)

    def live(compute: Compute) -> Batches:
        return LiveBatches(data, data.train, size, 0, TeacherRunner(teacher, targets, compute))

    fp32, bf16 = Compute(device, "fp32"), Compute(device, "bf16")
    cached = CachedBatches(
        data,
        data.train,
        size,
        0,
        TeacherRunner(teacher, targets, bf16),
        VIEWS,
        folder / "l.bin",
        None,
    )
    ways: dict[str, Callable[[], float]] = {
        PLAIN: lambda: plain_loop(dataset, plain_teacher, targets, size, device),
        "live fp32": lambda: ours(data, live(fp32), fp32, size, folder),
        "live bf16": lambda: ours(data, live(bf16), bf16, size, folder),
        "cached bf16": lambda: ours(data, cached, bf16, size, folder),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def report(options: argparse.Namespace, found: dict[str, list[float]]) -> dict[str, object]:
    """Return medians, ratios to the plain loop, and what they were measured on."""
    device = select_device(options.device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "teacher": options.teacher,
        "students": [f"{STUDENT} + {filters}" for filters in FILTERS],
        "batch_size": options.batch_size,
        "steps": options.steps,
        "rounds": options.rounds,
        "machine": {
            "processor": processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load": os.getloadavg()[1],
            "gpu": gpu,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "images_per_s": {name: [round(each, 2) for each in rates] for name, rates in found.items()},
        "median_images_per_s": {name: round(median(rates), 2) for name, rates in found.items()},
        "ratio": {name: round(ratio(rates, found[PLAIN]), 2) for name, rates in found.items()},
    }


def ratio(rates: list[float], plain: list[float]) -> float:
    """Return the median over the rounds of how much faster a way was than the plain loop."""
    return median(each / beside for each, beside in zip(rates, plain, strict=True))


def processor() -> str:
    """Return the processor's name as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.exists() else ())
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", default="wrn40-4")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per round; one more runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = report(options, measured(options, Path(folder)))
    if options.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    medians, ratios = found["median_images_per_s"], found["ratio"]
    sys.stdout.write(f"{found['machine']}\n{found['versions']}\n")
    for name, value in cast(dict[str, float], medians).items():
        times = cast(dict[str, float], ratios)[name]
        sys.stdout.write(f"{name:12} {value:8.1f} images/s {times:6.2f} x\n")


if __name__ == "__main__":
    main()
