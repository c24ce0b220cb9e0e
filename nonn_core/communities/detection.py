"""Community detection: groups of filters with many links inside and few between.

Modularity (arXiv:1907.11804, Eq. 5; Newman 2006):
(1/2m) sum_ij [F_ij - (1/gamma) k_i k_j / 2m] delta(g_i, g_j), k the weighted degree, 2m the
total weight.  gamma is the reciprocal of what networkx and igraph call `resolution`; a larger
gamma gives fewer and larger communities.

It is raised by Louvain's method, compiled, in float64 and in an order that only the seed
decides: Blondel, Guillaume, Lambiotte and Lefebvre 2008 (arXiv:0803.0476), with the queue by
which Traag, Waltman and van Eck 2019 (arXiv:1810.08473) visit only nodes whose surroundings
changed.  A search that has ended begins again from what it found, until that gains nothing.
Nothing is fused or reordered (no fast-math), so that every machine makes the same moves.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from nonn_common.errors import InputError
from nonn_core.communities.filter_network import Matrix
from nonn_core.partition import RESTARTS, Community

SMALLEST_GAMMA, LARGEST_GAMMA = 1e-6, 1e6


def find_communities(
    weights: Matrix, gamma: float, seed: int, restarts: int = RESTARTS
) -> tuple[Community, ...]:
    """Split the filters of a symmetric network (filters, filters) so that modularity is high.

    The best of `restarts` searches by Louvain's method, the first among equals.  Filters without
    any link form one community, g0, marked as not linked.  Linked communities come first, largest
    first; the same network, gamma, seed and restarts give the same communities on every machine.
    """
    if not SMALLEST_GAMMA <= gamma <= LARGEST_GAMMA:
        raise InputError("gamma", found=gamma, allowed=f"{SMALLEST_GAMMA:g} to {LARGEST_GAMMA:g}")
    if seed < 0:
        raise InputError("seed", found=seed, allowed="0 or more")
    if restarts < 1:
        raise InputError("restarts", found=restarts, allowed="1 or more")
    # Scaled, so that weights near the smallest numbers still add up; modularity does not change.
    weights = weights / max(weights.max(), np.finfo(np.float64).tiny)
    linked = weights.sum(axis=1) > 0
    groups = _best_search(weights, np.flatnonzero(linked), gamma, seed, restarts)
    groups.sort(key=lambda group: (-len(group), group))
    found = [Community(id=k, filters=tuple(g), linked=True) for k, g in enumerate(groups)]
    alone = tuple(np.flatnonzero(~linked).tolist())
    if alone:
        found.append(Community(id=len(found), filters=alone, linked=False))
    return tuple(found)


def modularity(weights: Matrix, communities: Sequence[Community], gamma: float) -> float:
    """Eq. 5 for these communities; 0 for a network without links."""
    degree = weights.sum(axis=1)
    total = degree.sum()
    if total == 0:
        return 0.0
    value = 0.0
    for community in communities:
        members = list(community.filters)
        inside = weights[np.ix_(members, members)].sum()
        value += inside - degree[members].sum() ** 2 / (gamma * total)
    return float(value / total)


def _best_search(
    weights: Matrix, linked: NDArray[np.intp], gamma: float, seed: int, restarts: int
) -> list[list[int]]:
    """Return the filters of each community of the best search."""
    if not len(linked):
        return []
    graph = sparse.csr_array(weights[np.ix_(linked, linked)])
    rng = np.random.default_rng(seed)
    searches = [louvain(graph, 1 / gamma, rng) for _ in range(restarts)]
    labels, _ = max(searches, key=lambda search: search[1])
    return [linked[labels == label].tolist() for label in range(labels.max() + 1)]


Labels = NDArray[np.int64]
Values = NDArray[np.float64]
Graph = sparse.csr_array[np.float64, tuple[int, int]]
_ROUNDING = 1e-10
"""A gain below this share may be rounding; to follow it could go in circles."""


def louvain(graph: Graph, resolution: float, rng: np.random.Generator) -> tuple[Labels, float]:
    """Search for labels (nodes,) of high modularity; return them and their modularity.

    `graph` is symmetric with weights above 0; `resolution` is 1 / gamma of Eq. 5.
    """
    labels, value = _climb(graph, resolution, rng, np.arange(graph.shape[0]))
    while True:
        again, better = _climb(graph, resolution, rng, labels)
        if better <= value + _ROUNDING:
            return labels, value
        labels, value = again, better


def _climb(
    graph: Graph, resolution: float, rng: np.random.Generator, labels: Labels
) -> tuple[Labels, float]:
    """Move nodes, then communities as nodes, until all stay."""
    degree: Values = graph.sum(axis=1)
    total = degree.sum()
    _, labels = np.unique(
        _move_nodes(graph, degree, labels, resolution / total, rng), return_inverse=True
    )
    count = int(labels.max()) + 1
    if count == len(labels):
        inside = graph.diagonal().sum() / total
        return labels, float(inside - resolution * ((degree / total) ** 2).sum())
    upper, value = _climb(_merge_nodes(graph, labels, count), resolution, rng, np.arange(count))
    return upper[labels], value


def _move_nodes(
    graph: Graph, degree: Values, labels: Labels, pull: float, rng: np.random.Generator
) -> Labels:
    """Labels from which no node gains by a move.

    Nodes are visited in random order.  Label n + i is kept for node i alone, so that a node may
    also leave for nowhere.
    """
    nodes, labels = len(labels), labels.copy()
    # One integer type, so that the moves are compiled once; and no array is made in compiled code,
    # which would compile twice as long.
    indptr, indices = (index.astype(np.int32) for index in (graph.indptr, graph.indices))
    members = (
        np.bincount(labels, weights=degree, minlength=2 * nodes),
        np.bincount(labels, minlength=2 * nodes),
    )
    near = (np.zeros(2 * nodes), np.empty(nodes, dtype=np.int64))
    queue = (rng.permutation(nodes), np.ones(nodes, dtype=np.bool_))
    _move_queued((indptr, indices, graph.data, degree), labels, members, near, queue, pull)
    return labels


def _merge_nodes(graph: Graph, labels: Labels, count: int) -> Graph:
    """Make each community a node; what it holds inside becomes its link to itself."""
    member = sparse.csr_array(
        (np.ones(len(labels)), labels, np.arange(len(labels) + 1)), shape=(len(labels), count)
    )
    merged = (member.T @ graph @ member).tocsr()
    merged.sort_indices()
    return cast(Graph, merged)


@njit(error_model="numpy")
def _move_queued(graph, labels, members, near, queue, pull):  # type: ignore[no-untyped-def]
    """Move each queued node, in place, to where modularity gains most.

    Ends when the queue is empty.  Per community: `members` holds weight and number of its nodes.
    `near` is (links, ids): a node's links per community, and which communities they lead to.
    """
    degree, (weight, size), (links, ids), (nodes, queued) = graph[3], members, near, queue
    head, waiting = 0, len(nodes)
    while waiting > 0:
        i = nodes[head]
        head = (head + 1) % len(nodes)
        waiting -= 1
        queued[i] = False
        old = labels[i]
        count = _links_to_communities(graph, i, labels, near)
        weight[old] -= degree[i]
        size[old] -= 1
        new = _best_community(i, degree[i], old, members, near, count, pull)
        for c in range(count):
            links[ids[c]] = 0
        weight[new] += degree[i]
        size[new] += 1
        if new != old:
            labels[i] = new
            waiting = _queue_neighbours(graph, i, labels, queue, head, waiting)


@njit(error_model="numpy")
def _links_to_communities(graph, i, labels, near):  # type: ignore[no-untyped-def]
    """Sum node i's links per community; return how many communities they lead to."""
    (indptr, indices, data, _), (links, ids) = graph, near
    count = 0
    for p in range(indptr[i], indptr[i + 1]):
        if indices[p] != i:
            community = labels[indices[p]]
            if links[community] == 0:
                ids[count] = community
                count += 1
            links[community] += data[p]
    return count


@njit(error_model="numpy")
def _best_community(i, degree, old, members, near, count, pull):  # type: ignore[no-untyped-def]
    """Community where node i, which is in none now, gains most, or `old`."""
    (weight, size), (links, ids) = members, near
    pull = pull * degree
    alone = len(size) // 2 + i
    push = pull * weight[old]
    best, most = old, links[old] - push + _ROUNDING * (degree + push)
    if most < 0 and size[old] > 0 and size[alone] == 0:
        best, most = alone, 0.0
    for c in range(count):
        gain = links[ids[c]] - pull * weight[ids[c]]
        if ids[c] != old and gain > most:
            best, most = ids[c], gain
    return best


@njit(error_model="numpy")
def _queue_neighbours(graph, i, labels, queue, head, waiting):  # type: ignore[no-untyped-def]
    """Queue the neighbours of node i outside its community; return how many nodes wait."""
    (indptr, indices, _, _), (nodes, queued) = graph, queue
    for p in range(indptr[i], indptr[i + 1]):
        j = indices[p]
        if labels[j] != labels[i] and not queued[j]:
            queued[j] = True
            nodes[(head + waiting) % len(nodes)] = j
            waiting += 1
    return waiting
