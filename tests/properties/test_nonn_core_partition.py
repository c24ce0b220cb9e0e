"""Drop steps and partitions for random activities."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nonn_core.knowledge.partitioning import Activities, drop_steps
from nonn_core.partition import Community, Partition


@st.composite
def cases(draw):
    """Activities of a few images, and any partition of the filters into communities."""
    images, filters, classes = (draw(st.integers(*at)) for at in ((1, 6), (1, 7), (2, 4)))
    whole = st.integers(-4, 4).map(float)
    activities = Activities(
        average=np.abs(draw(arrays.arrays(np.float64, (images, filters), elements=whole))),
        labels=draw(arrays.arrays(np.int64, images, elements=st.integers(0, classes - 1))),
        fc_weight=draw(arrays.arrays(np.float64, (classes, filters), elements=whole)),
        fc_bias=draw(arrays.arrays(np.float64, classes, elements=whole)),
    )
    labels = draw(st.lists(st.integers(0, 3), min_size=filters, max_size=filters))
    groups = [tuple(i for i in range(filters) if labels[i] == k) for k in sorted(set(labels))]
    communities = [Community(id=k, filters=g, linked=True) for k, g in enumerate(groups)]
    return activities, communities


def naive_accuracy(activities, dropped):
    """Percent right with the dropped filters' activities zero; the first of equal logits wins."""
    right = 0
    for a, label in zip(activities.average, activities.labels, strict=True):
        logits = [
            bias + sum(row[i] * a[i] for i in range(len(a)) if i not in dropped)
            for row, bias in zip(activities.fc_weight, activities.fc_bias, strict=True)
        ]
        right += logits.index(max(logits)) == label
    return 100 * right / len(activities.labels)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_each_step_drops_the_community_that_is_missed_least(case):
    activities, communities = case
    steps = drop_steps(activities, communities)
    whole = naive_accuracy(activities, set())
    assert len(steps) == len(communities)
    assert steps[0].communities == ()
    for before, step in pairwise(steps):
        assert step.communities[:-1] == before.communities
        outcomes = {}
        for candidate in communities:
            if candidate.id not in before.communities:
                gone = [communities[c] for c in (*before.communities, candidate.id)]
                dropped = {i for c in gone for i in c.filters}
                # Rounded, so that an equal gain and loss are equal in floating point too.
                missed = round(abs(naive_accuracy(activities, dropped) - whole), 9)
                outcomes[candidate.id] = (missed, -len(candidate.filters))
        best = min(outcomes.values())
        chosen = outcomes[step.communities[-1]]
        assert chosen[0] == pytest.approx(best[0], abs=1e-9)
        assert chosen[1] == best[1]
    for step in steps:
        dropped = {i for c in step.communities for i in communities[c].filters}
        assert step.filters == len(dropped)
        assert step.accuracy_pct == pytest.approx(naive_accuracy(activities, dropped))
        assert step.delta_val_pct == pytest.approx(step.accuracy_pct - whole, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from(["AH", "CA"]), st.integers(0, 10**6))
def test_any_such_partition_is_valid_and_survives_json(case, rule, seed):
    activities, communities = case
    partition = Partition(
        teacher=None,
        rule=rule,
        gamma=1.0,
        seed=seed,
        filters=activities.average.shape[1],
        images=len(activities.labels),
        modularity=0.25,
        communities=tuple(communities),
        drop_steps=drop_steps(activities, communities),
    )
    assert Partition.model_validate_json(partition.model_dump_json()) == partition
