"""AH, CA, modularity and communities against naive sums, networkx and igraph."""

from itertools import pairwise

import igraph
import networkx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nonn_common.errors import PartitionError
from nonn_core.communities.detection import find_communities, modularity
from nonn_core.communities.filter_network import LinkOptions, filter_network, strong_links
from nonn_core.partition import Community

activities = st.tuples(st.integers(1, 5), st.integers(2, 7)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=st.integers(0, 8).map(lambda k: k / 8))
)
rules = st.sampled_from(["AH", "CA"])
gammas = st.sampled_from([0.4, 1.0, 1.5, 3.0])


@st.composite
def networks(draw):
    """A symmetric matrix >= 0 without loops, with at least one link."""
    size = draw(st.integers(2, 12))
    values = draw(
        arrays.arrays(np.float64, (size, size), elements=st.integers(0, 9).map(lambda k: k / 4))
    )
    weights = np.triu(values, k=1)
    assume(weights.any())
    return weights + weights.T


@st.composite
def grouped(draw):
    """A network and any partition of its filters."""
    weights = draw(networks())
    size = len(weights)
    labels = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    groups = [[i for i in range(size) if labels[i] == k] for k in sorted(set(labels))]
    return weights, groups


def as_communities(groups):
    return [Community(id=k, filters=tuple(g), linked=True) for k, g in enumerate(groups)]


def naive(table, rule, scale, top):
    """The formulas of A, section 4.1, filter by filter and image by image."""
    size = table.shape[1]
    weights = [[0.0] * size for _ in range(size)]
    for image in table:
        a = [float(x) for x in image]
        if scale and max(a) > 0:
            a = [x / max(a) for x in a]
        if top is not None:
            kept = sorted(range(size), key=lambda i: (-a[i], i))[:top]
            a = [x if i in kept else 0.0 for i, x in enumerate(a)]
        for i in range(size):
            for j in range(size):
                if i != j:
                    gap = abs(a[i] - a[j])
                    weights[i][j] += a[i] * a[j] * (gap if rule == "AH" else 1 / (gap + 1))
    return np.array(weights)


@given(activities, rules, st.booleans(), st.none() | st.integers(2, 6))
def test_the_network_is_the_sum_over_images(table, rule, scale, top):
    expected = naive(table, rule, scale, top)
    options = LinkOptions(per_image_scale=scale, top_filters=top, link_percentile=0)
    if not expected.any():
        with pytest.raises(PartitionError):
            filter_network(table, rule, options)
        return
    found = filter_network(table, rule, options)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()


@given(activities, rules, st.randoms(use_true_random=False))
def test_the_order_of_images_and_the_names_of_filters_do_not_matter(table, rule, random):
    options = LinkOptions(per_image_scale=True, top_filters=None, link_percentile=0)
    assume(naive(table, rule, True, None).any())
    found = filter_network(table, rule, options)
    images, filters = list(range(table.shape[0])), list(range(table.shape[1]))
    random.shuffle(images)
    random.shuffle(filters)
    moved = filter_network(table[images][:, filters], rule, options)
    np.testing.assert_allclose(moved, found[np.ix_(filters, filters)], rtol=1e-12)


@given(networks(), st.integers(0, 99))
def test_the_percentile_cuts_the_light_links_and_only_those(weights, percentile):
    links = weights[np.triu(weights, k=1) > 0]
    # With a percentile of 0 everything stays; otherwise what is above it, if anything is.
    border = np.percentile(links, percentile) if percentile else 0
    if not (links > border).any():
        with pytest.raises(PartitionError):
            strong_links(weights, percentile)
        return
    kept = strong_links(weights, percentile)
    assert np.array_equal(kept, np.where(weights > border, weights, 0))
    assert np.array_equal(kept, kept.T)
    assert np.count_nonzero(kept) <= max(1, 1 - percentile / 100) * np.count_nonzero(weights)


@given(grouped(), gammas)
def test_modularity_is_that_of_networkx_and_igraph(case, gamma):
    weights, groups = case
    found = modularity(weights, as_communities(groups), gamma)
    graph = networkx.from_numpy_array(weights)
    theirs = networkx.community.modularity(graph, groups, resolution=1 / gamma)
    assert found == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    drawn = igraph.Graph.Weighted_Adjacency(weights, mode="undirected", attr="weight")
    membership = [next(k for k, g in enumerate(groups) if i in g) for i in range(len(weights))]
    igraphs = drawn.modularity(membership, weights="weight", resolution=1 / gamma)
    assert found == pytest.approx(igraphs, rel=1e-9, abs=1e-12)


@given(grouped(), gammas)
def test_modularity_does_not_change_with_the_scale_of_the_weights(case, gamma):
    weights, groups = case
    communities = as_communities(groups)
    expected = modularity(weights, communities, gamma)
    assert modularity(weights * 8, communities, gamma) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(networks(), gammas, st.integers(0, 5))
def test_communities_hold_each_filter_once_and_keep_linked_filters_apart_from_g0(
    weights, gamma, seed
):
    found = find_communities(weights, gamma, seed)
    assert sorted(i for c in found for i in c.filters) == list(range(len(weights)))
    assert [c.id for c in found] == list(range(len(found)))
    for community in found:
        assert list(community.filters) == sorted(community.filters)
        has_links = [bool(weights[i].any()) for i in community.filters]
        assert all(has_links) if community.linked else not any(has_links)
    sizes = [len(c.filters) for c in found if c.linked]
    assert sizes == sorted(sizes, reverse=True)
    assert [c.linked for c in found] == [True] * len(sizes) + [False] * (len(found) - len(sizes))
    assert len(found) - len(sizes) <= 1


@settings(deadline=None)
@given(networks(), gammas, st.integers(0, 5))
def test_communities_are_repeatable_and_not_worse_than_single_filters(weights, gamma, seed):
    found = find_communities(weights, gamma, seed)
    assert find_communities(weights.copy(), gamma, seed) == found
    alone = as_communities([[i] for i in range(len(weights))])
    assert modularity(weights, found, gamma) >= modularity(weights, alone, gamma) - 1e-9


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(3, 6), min_size=2, max_size=4),
    st.integers(0, 3),
    st.integers(0, 100),
)
def test_cliques_that_barely_touch_are_found(sizes, alone, seed):
    total = sum(sizes)
    weights = np.full((total, total), 1e-3)
    bounds = np.cumsum([0, *sizes])
    plants = [tuple(range(a, b)) for a, b in pairwise(bounds)]
    for plant in plants:
        weights[np.ix_(plant, plant)] = 1.0
    np.fill_diagonal(weights, 0)
    weights = np.pad(weights, (0, alone))
    found = find_communities(weights, 1.0, seed)
    assert sorted(c.filters for c in found if c.linked) == sorted(plants)
    unlinked = [c.filters for c in found if not c.linked]
    assert unlinked == ([tuple(range(total, total + alone))] if alone else [])
