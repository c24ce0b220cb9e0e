from dataclasses import replace

import numpy as np
import pytest
import torch

from nonn_common.errors import InputError
from nonn_core.communities.detection import find_communities, modularity
from nonn_core.communities.filter_network import (
    LinkOptions,
    average_activities,
    filter_network,
    read_filter_network,
)
from nonn_core.communities.knowledge import Knowledge, partition, partition_teacher
from nonn_core.data.dataset import load_dataset
from nonn_core.evidence import partition_warnings

ALL_LINKS = LinkOptions(top_filters=None, link_percentile=0)


def of_network(weights, link_percentile, gamma=1.0, seed=0):
    return partition(Knowledge.of_network(weights, link_percentile), gamma, seed)[0]


def accuracy_with_zeroed_channels(teacher, tiny, images, dropped):
    """Teacher's accuracy in percent with channels of fconv really zeroed inside the network."""

    def zero(module, inputs, maps):
        maps = maps.clone()
        maps[:, list(dropped)] = 0
        return maps

    handle = teacher.network.trunk[-1].register_forward_hook(zero)
    try:
        with torch.no_grad():
            logits, _ = teacher.network(tiny.normalised(images.pixels))
    finally:
        handle.remove()
    return 100 * (logits.argmax(dim=1) == images.labels).float().mean().item()


def test_activities_are_the_means_of_the_maps(teacher, tiny):
    activities = average_activities(teacher, tiny, tiny.test)
    _, maps = teacher(tiny.normalised(tiny.test.pixels))
    assert activities.average.shape == (24, 8)
    np.testing.assert_allclose(activities.average, maps.mean(dim=(2, 3)).numpy(), rtol=1e-5)
    assert (activities.average >= 0).all()
    assert np.array_equal(activities.labels, tiny.test.labels.numpy())


def test_activities_of_many_batches_are_those_of_one(teacher, tiny):
    many = tiny.train.take(torch.arange(600) % len(tiny.train))
    seen = []
    activities = average_activities(teacher, tiny, many, lambda *at: seen.append(at[1:]))
    np.testing.assert_allclose(activities.average[72:144], activities.average[:72], rtol=1e-5)
    assert [total for _, total in seen] == [600] * len(seen)
    assert all(0 < done <= total for done, total in seen), seen
    assert seen[-1][0] == 600


def test_dropping_filters_is_zeroing_channels(teacher, tiny):
    activities = average_activities(teacher, tiny, tiny.train)
    for dropped in [(), (0,), (3, 5), (0, 1, 2, 6), tuple(range(8))]:
        expected = accuracy_with_zeroed_channels(teacher, tiny, tiny.train, dropped)
        assert activities.accuracy_pct(
            activities.logits() - activities.share(dropped)
        ) == pytest.approx(expected, abs=1e-4), dropped


@pytest.mark.parametrize("rule", ["AH", "CA"])
def test_the_partition_of_a_teacher(teacher, tiny, rule, tmp_path):
    found = partition_teacher(teacher, tiny, rule, 1.0, 4, ALL_LINKS)
    _, validation = tiny.split(teacher.card.seed)
    assert (found.rule, found.gamma, found.seed) == (rule, 1.0, 4)
    assert found.filters == 8
    assert found.images == len(validation)
    assert found.teacher.path == str(teacher.path)
    assert found.teacher.network == "wrn10:4,6,8"
    assert (found.teacher.data, found.teacher.image) == (tiny.source, "3x8x8")
    assert found.teacher.classes == 3
    assert sorted(i for c in found.communities for i in c.filters) == list(range(8))
    assert len(found.drop_steps) == len(found.communities)
    assert (found.epsilon_pct, found.restarts, found.confidence_pct) == (1.0, 10, 95.0)
    assert found.fewest_class_images == 2
    assert found.curve[-1].filters == 7
    whole = accuracy_with_zeroed_channels(teacher, tiny, validation, ())
    removed = [
        [i for c in step.communities for i in found.communities[c].filters]
        for step in found.drop_steps
    ]
    removed += [
        [i for point in found.curve[: k + 1] for i in point.removed]
        for k in range(len(found.curve))
    ]
    for step, filters in zip((*found.drop_steps, *found.curve), removed, strict=True):
        assert step.filters == len(filters)
        without = accuracy_with_zeroed_channels(teacher, tiny, validation, filters)
        assert step.accuracy_pct == pytest.approx(without, abs=1e-4)
        assert step.delta_val_pct == pytest.approx(without - whole, abs=1e-4)
    assert partition_teacher(teacher, tiny, rule, 1.0, 4, ALL_LINKS) == found
    found.write(tmp_path / "partition.json")
    assert type(found).read(tmp_path / "partition.json") == found


def test_the_test_images_play_no_part(teacher, tiny):
    others = replace(tiny, test=tiny.test.take(torch.arange(3)))
    one = partition_teacher(teacher, tiny, "AH", 1.0, 0, ALL_LINKS)
    assert partition_teacher(teacher, others, "AH", 1.0, 0, ALL_LINKS) == one


def test_a_teacher_of_other_images_is_refused(teacher):
    with pytest.raises(InputError, match=r"1x16x16, 10 classes.*3x8x8, 3 classes"):
        partition_teacher(teacher, load_dataset("digits"), "AH", 1.0, 0, ALL_LINKS)


@pytest.mark.parametrize(("gamma", "seed"), [(0.0, 0), (float("nan"), 0), (1.0, -1)])
def test_a_bad_gamma_or_seed_is_an_input_error(gamma, seed):
    with pytest.raises(InputError):
        of_network(np.ones((3, 3)) - np.eye(3), 0, gamma, seed)


@pytest.mark.parametrize("epsilon", [-1.0, float("nan"), float("inf")])
def test_a_bad_epsilon_is_an_input_error(teacher, tiny, epsilon):
    with pytest.raises(InputError, match="epsilon"):
        partition_teacher(teacher, tiny, "AH", 1.0, 0, ALL_LINKS, epsilon_pct=epsilon)


def test_a_row_of_a_sweep_is_of_the_communities_as_found(teacher, tiny):
    knowledge = Knowledge.of_teacher(teacher, tiny, "AH", LinkOptions(link_percentile=60))
    _, validation = tiny.split(teacher.seed)
    activities = average_activities(teacher, tiny, validation)
    weights = filter_network(activities.average, "AH", LinkOptions(link_percentile=60))
    assert np.array_equal(knowledge.weights, weights)
    for gamma in (0.4, 1.0, 3.0):
        made, row = partition(knowledge, gamma, 0, epsilon_pct=30.0, confidence_pct=None)
        found = find_communities(weights, gamma, 0)
        sizes = [len(one.filters) for one in found if one.linked]
        assert (row.gamma, row.communities) == (gamma, len(sizes))
        assert (row.largest, row.smallest) == (max(sizes), min(sizes))
        assert row.g0_filters == 8 - sum(sizes)
        assert row.modularity == made.modularity == modularity(weights, found, gamma)
        assert row.plain_modularity == modularity(weights, found, 1.0)
        assert row.p0_filters == made.p0(30.0).filters
        small = [p.filters for p in made.curve if abs(p.delta_val_pct) < 30]
        assert row.p0_filters >= max(small) > 0


def test_without_a_teacher_only_filters_without_a_link_may_go():
    weights = np.zeros((6, 6))
    for i, j, weight in [(0, 1, 5.0), (2, 3, 4.0), (3, 4, 1.0)]:
        weights[i, j] = weights[j, i] = weight
    found = of_network(weights, 10)
    # The lightest link is cut, which leaves 4 and 5 alone.
    assert [(c.filters, c.linked) for c in found.communities] == [
        ((0, 1), True),
        ((2, 3), True),
        ((4, 5), False),
    ]
    assert [(s.communities, s.filters) for s in found.drop_steps] == [((), 0), ((2,), 2)]
    assert all(s.accuracy_pct is None and s.delta_val_pct is None for s in found.drop_steps)
    assert (found.teacher, found.rule, found.images) == (None, None, None)
    assert (found.epsilon_pct, found.curve, found.p0(1.0)) == (None, (), None)
    # Two pairs of weights 5 and 4 (2m = 18): 1 - (10^2 + 8^2) / 18^2.
    assert found.modularity == pytest.approx(1 - (100 + 64) / 324)


def test_the_saved_network_of_a_published_teacher(shared_data):
    weights = read_filter_network(shared_data("wrn40-4-cifar10-filter-network.npz"))
    found = of_network(weights, LinkOptions().link_percentile)
    assert found.filters == 256
    assert sorted(i for c in found.communities for i in c.filters) == list(range(256))
    assert found.modularity > 0
    assert sum(c.linked for c in found.communities) >= 2
    # g0: what no link above the 99th percentile of all links touches.
    heavy = np.percentile(weights[np.triu(weights, k=1) > 0], 99)
    alone = [i for i in range(256) if weights[i].max() <= heavy]
    assert alone
    assert [c.filters for c in found.communities if not c.linked] == [tuple(alone)]
    assert of_network(weights, LinkOptions().link_percentile) == found
    assert partition_warnings(found) == ()
