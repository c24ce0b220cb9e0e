"""Boards that do not answer: accuracy by how they are filled in, and time of all subsets.

    nonn-plan config plan.json --students 8 -o train.yaml && nonn-plan train train.yaml -o run
    python benchmarks/missing_boards.py run

Of a finished run of a NoNN, for each number of students that answer: mean test accuracy over all
subsets with zeros, with the means of the validation images, and with imputed features (decision
0080), and the share of the accuracy lost with means that imputing recovers.  Then processor time of
`evaluate`, which runs each student once, beside one pass over the images for each subset; of those
`--passes` are made, spread over the sizes, and the rest counted as they are.
"""

import argparse
import json
import sys
import time
from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from nonn_common import silent
from nonn_common.errors import InputError
from nonn_core.data.dataset import Dataset, load_dataset
from nonn_core.distillation.loop import student_vectors
from nonn_core.distillation.run import load_run, recipe_of
from nonn_core.distillation.run_evaluation import evaluate
from nonn_core.feature_layer import FeatureLayer, FeatureMoments
from nonn_core.networks.modules import Nonn, global_average_pool

FILLINGS = ("zeros", "means", "imputed")


def accuracies(network: Nonn, dataset: Dataset) -> dict[int, dict[str, float]]:
    """Mean accuracy in percent over the subsets of each size, by filling."""
    vectors = student_vectors(network, dataset, dataset.test)
    features = torch.cat(vectors, dim=1).numpy()
    student = np.repeat(np.arange(len(vectors)), [each.shape[1] for each in vectors])
    imputing, moments = network.feature_layer, network.moments
    if moments is None:
        raise InputError("the run has no moments", fix="run `nonn-plan train` on it once more")
    # Features that say nothing of each other leave their means.
    alone = FeatureMoments(moments.mean, np.diag(np.diag(moments.covariance)))
    layers = (
        FeatureLayer(imputing.weight, imputing.bias),
        FeatureLayer(imputing.weight, imputing.bias, alone),
        imputing,
    )
    labels = dataset.test.labels.numpy()
    found = {}
    for size in range(1, len(vectors) + 1):
        masks = [np.isin(student, subset) for subset in combinations(range(len(vectors)), size)]
        found[size] = {
            name: 100
            * mean(
                float((layer.of(came).logits(features[:, came]).argmax(axis=1) == labels).mean())
                for came in masks
            )
            for name, layer in zip(FILLINGS, layers, strict=True)
        }
    return found


def seconds_of_passes(network: Nonn, dataset: Dataset, passes: int) -> float:
    """Processor time of a pass over the test images for each subset, by `passes` of them."""
    students = len(network.heads)
    subsets = [s for size in range(1, students + 1) for s in combinations(range(students), size)]
    chosen = subsets[:: max(1, len(subsets) // passes)]
    start = time.process_time()
    with torch.inference_mode():
        for subset in chosen:
            for pixels, _ in dataset.batches(dataset.test, 128):
                maps = network.student_maps(pixels)
                network.classify([global_average_pool(each) for each in maps], subset).argmax(dim=1)
    return (time.process_time() - start) * len(subsets) / len(chosen)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--passes", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = recipe_of(options.run)
    dataset = load_dataset(recipe.data, silent, recipe.reading)
    _, network = load_run(options.run, dataset)
    if not isinstance(network, Nonn):
        raise InputError("no run of a NoNN", where=str(options.run))
    by_size = accuracies(network, dataset)
    start = time.process_time()
    evaluate(network, recipe, dataset)
    once_s = time.process_time() - start
    passes_s = seconds_of_passes(network, dataset, options.passes)
    if options.json:
        times = {"evaluate_s": once_s, "passes_s": passes_s}
        sys.stdout.write(json.dumps({"accuracy_pct": by_size, **times}, indent=2) + "\n")
        return
    whole = by_size[len(by_size)]["zeros"]
    sys.stdout.write(
        f"{'answer':>6} {'zeros':>8} {'means':>8} {'imputed':>8}  recovered of means\n"
    )
    for size, row in by_size.items():
        lost = whole - row["means"]
        share = f"{(row['imputed'] - row['means']) / lost:8.0%}" if lost > 0 else "nothing lost"
        cells = " ".join(f"{row[name]:8.2f}" for name in FILLINGS)
        sys.stdout.write(f"{size:6} {cells}  {share}\n")
    sys.stdout.write(
        f"all subsets: evaluate {once_s:.1f} s, a pass for each {passes_s:.1f} s (processor), "
        f"{passes_s / once_s:.1f} times\n"
    )


if __name__ == "__main__":
    main()
