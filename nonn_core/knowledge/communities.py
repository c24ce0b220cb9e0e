"""Communities of a filter network: groups of filters with many links inside, few between.

Modularity (arXiv:1907.11804, Eq. 5; Newman 2006):
(1/2m) sum_ij [F_ij - (1/gamma) k_i k_j / 2m] delta(g_i, g_j), k the weighted degree, 2m the total
weight.  gamma is the reciprocal of what networkx and igraph call `resolution`; a larger gamma gives
fewer and larger communities.
"""

import math
from collections.abc import Sequence

import networkx
import numpy as np

from nonn_core.knowledge.filter_network import Matrix
from nonn_core.partition import Community
from profiles.errors import InputError


def find_communities(weights: Matrix, gamma: float, seed: int) -> tuple[Community, ...]:
    """Split the filters of a symmetric network (filters, filters) by Louvain's method.

    Filters without any link form one community, g0, marked as not linked.  Linked communities
    come first, largest first; the same network, gamma and seed give the same communities.
    """
    if not 0 < gamma < math.inf:
        raise InputError("gamma", found=gamma, allowed="a finite number above 0")
    if seed < 0:
        raise InputError("seed", found=seed, allowed="0 or more")
    # Scaled, so that weights near the smallest numbers still add up; modularity does not change.
    weights = weights / max(weights.max(), np.finfo(np.float64).tiny)
    linked = weights.sum(axis=1) > 0
    groups = sorted(_louvain(weights, gamma, seed), key=lambda group: (-len(group), group))
    found = [Community(id=k, filters=tuple(g), linked=True) for k, g in enumerate(groups)]
    alone = tuple(int(i) for i in np.flatnonzero(~linked))
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


def _louvain(weights: Matrix, gamma: float, seed: int) -> list[list[int]]:
    """Run networkx's Louvain on the linked filters.

    Nodes and links go in in ascending order, so that the result depends on nothing else.
    """
    graph: networkx.Graph[int] = networkx.Graph()
    rows, columns = (index.tolist() for index in np.nonzero(np.triu(weights, k=1)))
    graph.add_nodes_from(sorted({*rows, *columns}))
    graph.add_weighted_edges_from(
        (i, j, float(weights[i, j])) for i, j in zip(rows, columns, strict=True)
    )
    groups = networkx.community.louvain_communities(graph, resolution=1 / gamma, seed=seed)
    return [sorted(group) for group in groups]
