"""Communities of a filter network: groups of filters with many links inside, few between.

Modularity (arXiv:1907.11804, Eq. 5; Newman 2006):
(1/2m) sum_ij [F_ij - (1/gamma) k_i k_j / 2m] delta(g_i, g_j), k the weighted degree, 2m the total
weight.  gamma is the reciprocal of what networkx and igraph call `resolution`; a larger gamma gives
fewer and larger communities.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nonn_core.knowledge.link_kernel import Matrix
from nonn_core.knowledge.louvain import louvain
from nonn_core.partition import RESTARTS, Community
from profiles.errors import InputError

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
    groups = _search(weights, np.flatnonzero(linked), gamma, seed, restarts)
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


def _search(
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
