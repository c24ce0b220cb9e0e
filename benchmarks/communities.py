"""Communities of a filter network: ours against ten runs of networkx's Louvain, side by side.

    python benchmarks/communities.py                      2,048 filters, links as by default
    python benchmarks/communities.py --link-percentile 95   five times as many links

The network is an AH network of made activities: each filter prefers some of 100 classes (gamma
distributed, so that few are strong), and an image of a class shows what its filters prefer, times
noise.  Ours is one call of `find_communities` with its default restarts; the first call in a
process also compiles, which is timed apart.  networkx runs with seeds 0 to 9.
"""

import json
import platform
import time
from typing import Annotated

import networkx
import numba
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from nonn_core.communities.detection import find_communities, modularity
from nonn_core.communities.filter_network import LinkOptions, filter_network
from nonn_core.partition import RESTARTS

Matrix = NDArray[np.float64]
NETWORKX_RUNS = 10


def made_activities(images: int, filters: int, classes: int, seed: int) -> Matrix:
    """Make average activities (images, filters) of filters that prefer some classes."""
    rng = np.random.default_rng(seed)
    prefer = rng.gamma(0.3, 1.0, (classes, filters))
    shown = prefer[rng.integers(0, classes, images)]
    return np.maximum(shown * rng.gamma(1.0, 1.0, (images, filters)) - 0.3, 0.0)


def measure(weights: Matrix, gamma: float) -> dict[str, float]:
    """Time ours and networkx on one network; modularity is networkx's own figure for both."""
    start = time.perf_counter()
    find_communities(np.ones((4, 4)) - np.eye(4), gamma, 0)
    compile_s = time.perf_counter() - start
    start = time.perf_counter()
    found = find_communities(weights, gamma, 0)
    ours_s = time.perf_counter() - start

    graph = networkx.from_numpy_array(weights)
    runs, times = [], []
    for seed in range(NETWORKX_RUNS):
        start = time.perf_counter()
        runs.append(networkx.community.louvain_communities(graph, resolution=1 / gamma, seed=seed))
        times.append(time.perf_counter() - start)
    theirs = [networkx.community.modularity(graph, run, resolution=1 / gamma) for run in runs]
    ours = networkx.community.modularity(
        graph, [set(one.filters) for one in found], resolution=1 / gamma
    )
    np.testing.assert_allclose(ours, modularity(weights, found, gamma))
    return {
        "filters": len(weights),
        "links": int(np.count_nonzero(np.triu(weights))),
        "communities": sum(one.linked for one in found),
        "compile_s": compile_s,
        "ours_s": ours_s,
        "ours_modularity": ours,
        "networkx_s": sum(times),
        "networkx_best_modularity": max(theirs),
        "networkx_over_ours": sum(times) / ours_s,
    }


def main(
    filters: int = 2048,
    images: int = 5000,
    classes: int = 100,
    link_percentile: float = 99.0,
    gamma: float = 1.0,
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Split one network both ways, and compare seconds and modularity."""
    activities = made_activities(images, filters, classes, seed)
    weights = filter_network(activities, "AH", LinkOptions(link_percentile=link_percentile))
    row = measure(weights, gamma)
    machine = (
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"networkx {networkx.__version__}, numba {numba.__version__}"
    )
    console = Console()
    if as_json:
        console.print_json(json.dumps({"machine": machine, **row}))
        return
    table = Table(title=f"{row['filters']} filters, {row['links']:,} links, one core ({machine})")
    for name in ("", "seconds", "modularity"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row(
        f"ours, best of {RESTARTS} restarts",
        f"{row['ours_s']:.3f}",
        f"{row['ours_modularity']:.5f}",
    )
    table.add_row(
        f"networkx, best of {NETWORKX_RUNS} runs",
        f"{row['networkx_s']:.3f}",
        f"{row['networkx_best_modularity']:.5f}",
    )
    console.print(table)
    console.print(
        f"{row['networkx_over_ours']:.0f} times as fast; compiling took {row['compile_s']:.1f} s "
        "once"
    )


if __name__ == "__main__":
    typer.run(main)
