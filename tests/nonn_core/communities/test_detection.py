import json
import os
import subprocess
import sys

import igraph
import networkx
import numpy as np
import pytest

from nonn_common.errors import InputError
from nonn_core.communities.detection import find_communities, modularity
from nonn_core.communities.filter_network import (
    LinkOptions,
    filter_network,
    read_filter_network,
    strong_links,
)
from nonn_core.partition import Community

PLANTS = [tuple(range(7)), tuple(range(7, 12)), tuple(range(12, 16))]


def planted(seed=0, alone=0):
    """Heavy links inside the plants, light ones between; the last filters have no link."""
    rng = np.random.default_rng(seed)
    size = 16
    weights = rng.uniform(0, 0.05, (size, size))
    for plant in PLANTS:
        weights[np.ix_(plant, plant)] = rng.uniform(0.8, 1.2, (len(plant), len(plant)))
    weights = np.triu(weights, k=1)
    return np.pad(weights + weights.T, (0, alone))


def as_communities(groups):
    return [Community(id=k, filters=tuple(g), linked=True) for k, g in enumerate(groups)]


def test_modularity_by_hand():
    # Two linked pairs of weights 2 and 1, joined by a link of weight 1.
    weights = np.zeros((4, 4))
    weights[0, 1], weights[2, 3], weights[1, 2] = 2, 1, 1
    weights += weights.T
    # 2m = 8, degrees 2, 3, 2, 1; sums of degrees of the pairs 5 and 3.
    inside = 2 * 2 + 2 * 1
    pairs = as_communities([(0, 1), (2, 3)])
    assert modularity(weights, pairs, 1.0) == pytest.approx((inside - (25 + 9) / 8) / 8)
    assert modularity(weights, pairs, 2.0) == pytest.approx((inside - (25 + 9) / 16) / 8)


def test_modularity_of_everything_and_of_nothing():
    weights = planted()
    assert modularity(weights, as_communities([range(16)]), 1.0) == pytest.approx(0)
    assert modularity(np.zeros((3, 3)), as_communities([(0, 1, 2)]), 1.0) == 0


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.7])
def test_modularity_is_that_of_networkx_and_igraph(gamma):
    weights = planted(seed=3, alone=2)
    groups = [(0, 3, 9, 16), (1, 2, 4, 5, 6, 7, 8, 10), (11, 12, 13, 14, 15, 17)]
    graph = networkx.from_numpy_array(weights)
    by_networkx = networkx.community.modularity(graph, groups, resolution=1 / gamma)
    membership = [next(k for k, g in enumerate(groups) if i in g) for i in range(18)]
    drawn = igraph.Graph.Weighted_Adjacency(weights, mode="undirected", attr="weight")
    by_igraph = drawn.modularity(membership, weights="weight", resolution=1 / gamma)
    found = modularity(weights, as_communities(groups), gamma)
    assert found == pytest.approx(by_networkx, rel=1e-9)
    assert found == pytest.approx(by_igraph, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_plants_are_found_largest_first(seed):
    found = find_communities(planted(seed), 1.0, seed)
    assert [c.filters for c in found] == PLANTS
    assert [c.id for c in found] == [0, 1, 2]
    assert all(c.linked for c in found)


def test_filters_without_links_are_g0_and_come_last():
    found = find_communities(planted(alone=30), 1.0, 0)
    assert [c.filters for c in found] == [*PLANTS, tuple(range(16, 46))]
    assert [c.linked for c in found] == [True, True, True, False]
    assert [c.id for c in found] == [0, 1, 2, 3]


def test_isolated_filters_anywhere_are_g0():
    weights = np.zeros((5, 5))
    weights[1, 3] = weights[3, 1] = 2.0
    found = find_communities(weights, 1.0, 0)
    assert [(c.filters, c.linked) for c in found] == [((1, 3), True), ((0, 2, 4), False)]


def test_found_communities_beat_random_ones():
    rng = np.random.default_rng(0)
    weights = rng.random((30, 30)) ** 3
    weights = np.triu(weights, k=1) + np.triu(weights, k=1).T
    found = modularity(weights, find_communities(weights, 1.0, 0), 1.0)
    for _ in range(50):
        labels = rng.integers(0, rng.integers(2, 8), 30)
        groups = [np.flatnonzero(labels == k).tolist() for k in np.unique(labels)]
        assert found > modularity(weights, as_communities(groups), 1.0)


def test_no_single_move_of_a_filter_would_be_better():
    weights = planted(seed=5)
    found = [set(c.filters) for c in find_communities(weights, 1.0, 0)]
    best = modularity(weights, as_communities(map(sorted, found)), 1.0)
    for node in range(16):
        for target in range(len(found)):
            moved = [g - {node} | ({node} if k == target else set()) for k, g in enumerate(found)]
            groups = [sorted(g) for g in moved if g]
            assert modularity(weights, as_communities(groups), 1.0) <= best + 1e-12


def test_a_huge_gamma_leaves_what_is_connected_and_a_tiny_one_single_filters():
    weights = np.zeros((7, 7))
    for i, j in [(0, 1), (1, 2), (2, 0), (3, 4), (5, 6)]:
        weights[i, j] = weights[j, i] = 1.0
    huge = find_communities(weights, 1e6, 0)
    assert sorted(c.filters for c in huge) == [(0, 1, 2), (3, 4), (5, 6)]
    tiny = find_communities(weights, 1e-6, 0)
    assert sorted(c.filters for c in tiny) == [(i,) for i in range(7)]


def test_the_same_seed_gives_the_same_communities_in_every_process():
    code = (
        "import json, numpy as np;"
        "from nonn_core.communities.detection import find_communities;"
        "rng = np.random.default_rng(1); w = np.triu(rng.random((40, 40)) ** 4, k=1); w += w.T;"
        "print(json.dumps([c.filters for c in find_communities(w, 1.0, 9)]))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "4242", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    weights = np.triu(np.random.default_rng(1).random((40, 40)) ** 4, k=1)
    weights += weights.T
    here = [list(c.filters) for c in find_communities(weights, 1.0, 9)]
    assert len(here) > 1
    assert json.loads(there) == here


def activity_network(filters, seed, percentile=99):
    """An AH network of filters that prefer some of 60 classes."""
    rng = np.random.default_rng(seed)
    prefer = rng.gamma(0.3, 1.0, (60, filters))
    images = prefer[rng.integers(0, 60, 400)] * rng.gamma(1.0, 1.0, (400, filters))
    options = LinkOptions(link_percentile=percentile)
    return filter_network(np.maximum(images - 0.3, 0), "AH", options)


def best_by_networkx(weights, gamma, runs=10):
    graph = networkx.from_numpy_array(weights)
    return max(
        networkx.community.modularity(
            graph,
            networkx.community.louvain_communities(graph, resolution=1 / gamma, seed=seed),
            resolution=1 / gamma,
        )
        for seed in range(runs)
    )


@pytest.mark.parametrize(
    ("filters", "percentile", "gamma"),
    [(256, 99, 1.0), (256, 95, 1.0), (256, 95, 0.5), (256, 95, 2.0), (128, 0, 1.0)],
)
def test_modularity_is_not_below_the_best_of_ten_runs_of_networkx(filters, percentile, gamma):
    weights = activity_network(filters, filters, percentile)
    found = modularity(weights, find_communities(weights, gamma, 0), gamma)
    assert found >= best_by_networkx(weights, gamma) - 1e-9


@pytest.mark.parametrize("percentile", [0, 90, 99])
def test_a_real_network_is_split_as_well_as_networkx_does(shared_data, percentile):
    weights = read_filter_network(shared_data("wrn40-4-cifar10-filter-network.npz"))
    weights = strong_links(weights, percentile)
    found = modularity(weights, find_communities(weights, 1.0, 0), 1.0)
    assert found >= best_by_networkx(weights, 1.0, runs=3 if percentile == 0 else 10) - 1e-9


def test_modularity_comes_near_igraph_s_leiden():
    weights = activity_network(256, 3)
    drawn = igraph.Graph.Weighted_Adjacency(weights, mode="undirected", attr="weight")
    leiden = drawn.community_leiden("modularity", weights="weight", n_iterations=-1)
    theirs = drawn.modularity(leiden.membership, weights="weight")
    assert modularity(weights, find_communities(weights, 1.0, 0), 1.0) > 0.99 * theirs


def test_small_networks_are_split_nearly_as_well_as_can_be():
    """Against all partitions of 7 filters; three of these four are split as well as can be."""

    def partitions(filters):
        if not filters:
            yield []
            return
        first, *rest = filters
        for groups in partitions(rest):
            yield [[first], *groups]
            for k in range(len(groups)):
                yield [*groups[:k], [first, *groups[k]], *groups[k + 1 :]]

    shares = []
    for seed, gamma in enumerate([0.5, 1.0, 1.0, 2.0]):
        weights = np.triu(np.random.default_rng(seed).random((7, 7)) ** 4, k=1)
        weights += weights.T
        best = max(
            modularity(weights, as_communities(map(sorted, groups)), gamma)
            for groups in partitions(list(range(7)))
        )
        found = modularity(weights, find_communities(weights, gamma, 0), gamma)
        shares.append(found / best)
    assert max(shares) <= 1 + 1e-12
    assert sorted(shares)[1:] == pytest.approx([1, 1, 1])
    assert min(shares) > 0.9


def test_more_restarts_are_never_worse_and_the_first_is_among_them():
    weights = activity_network(200, 8, 95)
    values = [
        modularity(weights, find_communities(weights, 1.0, 5, restarts), 1.0)
        for restarts in (1, 2, 5, 20)
    ]
    assert values == sorted(values)
    assert values[0] < values[-1]


@pytest.mark.parametrize("restarts", [0, -1])
def test_no_search_is_refused(restarts):
    with pytest.raises(InputError, match="restarts"):
        find_communities(planted(), 1.0, 0, restarts)


@pytest.mark.parametrize("gamma", [0.0, 1e-300, 1e300, -1.0, float("nan"), float("inf")])
def test_other_gammas_are_refused(gamma):
    with pytest.raises(InputError, match="gamma"):
        find_communities(planted(), gamma, 0)
