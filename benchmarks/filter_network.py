"""How fast the AH filter network is built, against a double loop over filters for each image.

    python benchmarks/filter_network.py            256 filters
    python benchmarks/filter_network.py --large    and 2,048

All three ways sum a_i a_j |a_i - a_j| over the same 5,000 images in float64 on one core.  The
double loop is Eq. 4 of arXiv:1907.11804 read aloud, in plain Python; it runs on a few images only,
and its time is multiplied up, as every image costs it the same.  numpy takes one filter at a time
against all others.  The results are compared before any time is shown.
"""

import json
import platform
import time
from collections.abc import Callable
from typing import Annotated

import numba
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nonn_core.communities.filter_network import LinkOptions, filter_network

Matrix = NDArray[np.float64]
IMAGES = 5000
EVERYTHING = LinkOptions(per_image_scale=False, top_filters=None, link_percentile=0)


def double_loop(activities: Matrix) -> Matrix:
    """Sum over images, one pair of filters after the other."""
    filters = activities.shape[1]
    weights = [[0.0] * filters for _ in range(filters)]
    for image in activities.tolist():
        for i in range(filters):
            for j in range(i + 1, filters):
                weights[i][j] += image[i] * image[j] * abs(image[i] - image[j])
    above: Matrix = np.array(weights)
    return above + above.T


def one_filter_at_a_time(activities: Matrix) -> Matrix:
    """Sum with numpy: each filter against all that follow, over all images at once."""
    filters = activities.shape[1]
    above = np.zeros((filters, filters))
    for i in range(filters):
        own, others = activities[:, i : i + 1], activities[:, i + 1 :]
        above[i, i + 1 :] = (own * others * np.abs(own - others)).sum(axis=0)
    return above + above.T


def compiled(activities: Matrix) -> Matrix:
    """Build it as `nonn-plan partition` does."""
    return filter_network(activities, "AH", EVERYTHING)


def seconds(build: Callable[[Matrix], Matrix], activities: Matrix, repeats: int) -> float:
    """Return the least time of `repeats` runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        build(activities)
        times.append(time.perf_counter() - start)
    return min(times)


def measure(filters: int, seed: int) -> dict[str, float]:
    """Time the three ways on random activities of this many filters."""
    activities = np.random.default_rng(seed).random((IMAGES, filters))
    few = activities[: max(2, 20 * 256**2 // filters**2)]
    np.testing.assert_allclose(compiled(few), double_loop(few), rtol=1e-12)
    np.testing.assert_allclose(compiled(few), one_filter_at_a_time(few), rtol=1e-12)
    loop_s = seconds(double_loop, few, 3) * IMAGES / len(few)
    numpy_s = seconds(one_filter_at_a_time, activities, 1 if filters > 256 else 3)
    ours_s = seconds(compiled, activities, 3 if filters > 256 else 10)
    return {
        "filters": filters,
        "images": IMAGES,
        "double_loop_images": len(few),
        "double_loop_s": loop_s,
        "numpy_s": numpy_s,
        "ours_s": ours_s,
        "double_loop_over_ours": loop_s / ours_s,
        "numpy_over_ours": numpy_s / ours_s,
    }


def main(
    large: Annotated[bool, typer.Option("--large", help="Also 2,048 filters; a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    seed: int = 0,
) -> None:
    """Build the AH network of 5,000 images in three ways, and compare."""
    rows = [measure(filters, seed) for filters in ((256, 2048) if large else (256,))]
    machine = (
        f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, "
        f"numba {numba.__version__}"
    )
    console = Console()
    if as_json:
        console.print_json(json.dumps({"machine": machine, "rows": rows}))
        return
    table = Table(title=f"AH network of {IMAGES} images, seconds on one core ({machine})")
    for name in ("filters", "double loop*", "numpy", "ours", "loop / ours", "numpy / ours"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            f"{row['filters']}",
            f"{row['double_loop_s']:.1f}",
            f"{row['numpy_s']:.2f}",
            f"{row['ours_s']:.4f}",
            f"{row['double_loop_over_ours']:,.0f}",
            f"{row['numpy_over_ours']:.1f}",
        )
    console.print(table)
    counts = ", ".join(f"{row['double_loop_images']}" for row in rows)
    console.print(f"* timed on {counts} of the images and multiplied up")


if __name__ == "__main__":
    typer.run(main)
