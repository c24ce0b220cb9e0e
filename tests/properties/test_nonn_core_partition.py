"""P0 and partitions for random activities, against sums in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nonn_core.communities.filter_network import Activities
from nonn_core.communities.removal import find_p0
from nonn_core.partition import Community, Partition

epsilons = st.sampled_from([0.0, 1e-3, 10.0, 20.0, 34.0, 51.0, 101.0])


@st.composite
def cases(draw):
    """Activities of a few images, and any partition of the filters into communities."""
    images, filters, classes = (draw(st.integers(*at)) for at in ((1, 6), (1, 6), (2, 4)))
    whole = st.integers(-4, 4).map(float)
    activities = Activities(
        average=np.abs(draw(arrays.arrays(np.float64, (images, filters), elements=whole))),
        labels=draw(arrays.arrays(np.int64, images, elements=st.integers(0, classes - 1))),
        fc_weight=draw(arrays.arrays(np.float64, (classes, filters), elements=whole)),
        fc_bias=draw(arrays.arrays(np.float64, classes, elements=whole)),
    )
    labels = draw(st.lists(st.integers(0, 3), min_size=filters, max_size=filters))
    groups = [tuple(i for i in range(filters) if labels[i] == k) for k in sorted(set(labels))]
    # The last may be g0.
    unlinked = draw(st.booleans())
    communities = [
        Community(id=k, filters=g, linked=not (unlinked and k == len(groups) - 1))
        for k, g in enumerate(groups)
    ]
    return activities, communities


def naive_logits(activities, dropped):
    return [
        [
            bias + sum(row[i] * a[i] for i in range(len(a)) if i not in dropped)
            for row, bias in zip(activities.fc_weight, activities.fc_bias, strict=True)
        ]
        for a in activities.average
    ]


def naive_accuracy(activities, dropped):
    """Percent right with the dropped filters' activities zero; the first of equal logits wins."""
    logits = naive_logits(activities, dropped)
    right = sum(
        row.index(max(row)) == label for row, label in zip(logits, activities.labels, strict=True)
    )
    return 100 * right / len(activities.labels)


def naive_rise(activities, dropped, i):
    """Second-order rise of the cross-entropy when filter i goes too, by gradient and Hessian."""
    total = 0.0
    logits = naive_logits(activities, dropped)
    for row, label, a in zip(logits, activities.labels, activities.average, strict=True):
        powers = [math.exp(x - max(row)) for x in row]
        p = [x / sum(powers) for x in powers]
        d = [-a[i] * weights[i] for weights in activities.fc_weight]
        classes = range(len(p))
        total += sum((p[c] - (c == label)) * d[c] for c in classes)
        total += 0.5 * sum(
            d[c] * ((c == e) * p[c] - p[c] * p[e]) * d[e] for c in classes for e in classes
        )
    return total / len(activities.labels)


@settings(max_examples=80, deadline=None)
@given(cases(), epsilons)
def test_p0_is_the_largest_prefix_of_a_nested_chain_below_epsilon(case, epsilon):
    activities, communities = case
    filters = activities.average.shape[1]
    whole = naive_accuracy(activities, set())
    found = find_p0(activities, communities, epsilon, confidence_pct=None)

    # The chain: nothing, g0 if it may go, then always the filter that is missed least.
    gone, below = set(), set()
    g0 = [one for one in communities if not one.linked and len(communities) > 1]
    may_go = [
        one
        for one in g0
        if abs(naive_accuracy(activities, set(one.filters)) - whole) < epsilon - 1e-9
    ]
    assert [p.removed for p in found.curve[1:] if len(p.removed) > 1] == [
        one.filters for one in may_go if len(one.filters) > 1
    ]
    for position, point in enumerate(found.curve):
        if position == 1 and may_go:
            assert point.removed == may_go[0].filters
        elif position > 0:
            (i,) = point.removed
            rises = {k: naive_rise(activities, gone, k) for k in range(filters) if k not in gone}
            assert rises[i] <= min(rises.values()) + 1e-9 * (1 + abs(rises[i]))
        gone |= set(point.removed)
        assert point.filters == len(gone)
        delta = naive_accuracy(activities, gone) - whole
        assert point.delta_val_pct == pytest.approx(delta, abs=1e-9)
        if abs(delta) < epsilon:
            below = set(gone)
    assert len(gone) == max(filters - 1, len(found.curve[0].removed))

    # P0, one of the drop steps, is that prefix.
    unions = [
        {i for c in step.communities for i in found.communities[c].filters} for step in found.steps
    ]
    assert below in unions
    for step, union in zip(found.steps, unions, strict=True):
        delta = naive_accuracy(activities, union) - whole
        assert step.delta_val_pct == pytest.approx(delta, abs=1e-9)
    # Beyond it, always the community that is missed least goes.
    for step, union in list(zip(found.steps, unions, strict=True))[unions.index(below) + 1 :]:
        before = set(step.communities[:-1])
        outcomes = {}
        for one in found.communities:
            if one.id not in before:
                dropped = (union - set(found.communities[step.communities[-1]].filters)) | set(
                    one.filters
                )
                outcomes[one.id] = round(abs(naive_accuracy(activities, dropped) - whole), 9)
        assert outcomes[step.communities[-1]] == min(outcomes.values())


@settings(max_examples=60, deadline=None)
@given(cases(), epsilons, st.sampled_from([None, 95.0]))
def test_only_single_filters_leave_their_communities(case, epsilon, confidence):
    activities, communities = case
    found = find_p0(activities, communities, epsilon, confidence_pct=confidence)
    *kept, last = found.communities
    unneeded = set(last.filters) if last.unneeded else set()
    assert not any(one.unneeded for one in kept)
    if not last.unneeded:
        kept.append(last)
    before = {(one.filters, one.linked) for one in communities}
    after = {(tuple(i for i in filters if i not in unneeded), linked) for filters, linked in before}
    assert {(one.filters, one.linked) for one in kept} == {each for each in after if each[0]}
    assert len(found.steps) == len(found.communities)


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from(["AH", "CA"]), st.integers(0, 10**6), epsilons)
def test_any_such_partition_is_valid_and_survives_json(case, rule, seed, epsilon):
    activities, communities = case
    found = find_p0(activities, communities, epsilon, confidence_pct=None)
    partition = Partition(
        teacher=None,
        rule=rule,
        gamma=1.0,
        seed=seed,
        restarts=3,
        filters=activities.average.shape[1],
        images=len(activities.labels),
        modularity=0.25,
        epsilon_pct=epsilon,
        communities=found.communities,
        drop_steps=found.steps,
        curve=found.curve,
    )
    assert Partition.model_validate_json(partition.model_dump_json()) == partition
    below = [p.filters for p in found.curve if abs(p.delta_val_pct) < epsilon]
    assert partition.p0(epsilon).filters >= max(below, default=0)
