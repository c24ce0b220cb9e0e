from dataclasses import replace

import numpy as np
import pytest
import torch

from nonn_core.data.dataset import load_dataset
from nonn_core.knowledge.filter_network import LinkOptions, read_filter_network
from nonn_core.knowledge.partitioning import (
    Activities,
    average_activities,
    drop_steps,
    partition_saved_network,
    partition_teacher,
)
from nonn_core.partition import Community
from profiles.errors import InputError

ALL_LINKS = LinkOptions(top_filters=None, link_percentile=0)


def accuracy_with_zeroed_channels(teacher, tiny, images, dropped):
    """Teacher's accuracy in percent with channels of fconv really zeroed inside the network."""

    def zero(module, inputs, maps):
        maps = maps.clone()
        maps[:, list(dropped)] = 0
        return maps

    handle = teacher.network.trunk.register_forward_hook(zero)
    try:
        with torch.no_grad():
            logits, _ = teacher.network(tiny.normalised(images.pixels))
    finally:
        handle.remove()
    return 100 * (logits.argmax(dim=1) == images.labels).float().mean().item()


@pytest.fixture
def hand_made():
    """Four images of two classes, three filters; filter 1 decides, 0 helps, 2 only errs.

    Logits are (a_0 + 4 a_1, 3 a_2) with average activities a.
    """
    return Activities(
        average=np.array([[2.0, 1, 0], [1, 0, 0], [0, 0, 1], [3, 0, 2]]),
        labels=np.array([0, 0, 1, 1]),
        fc_weight=np.array([[1.0, 4, 0], [0, 0, 3]]),
        fc_bias=np.array([0.0, 0.5]),
    )


def communities(*groups):
    return [Community(id=k, filters=tuple(g), linked=True) for k, g in enumerate(groups)]


def test_accuracy_without_filters_by_hand(hand_made):
    # Logits: (6, .5) (1, .5) (0, 3.5) (3, 6.5): all four right.
    assert hand_made.accuracy_pct() == 100
    # Without 0: (4, .5) (0, .5) (0, 3.5) (0, 6.5): the second is wrong.
    assert hand_made.accuracy_pct([0]) == 75
    # Without 1: (2, .5) (1, .5) (0, 3.5) (3, 6.5).
    assert hand_made.accuracy_pct([1]) == 100
    # Without 2: (6, .5) (1, .5) (0, .5) (3, .5): the last is wrong.
    assert hand_made.accuracy_pct([2]) == 75
    # Without all: the bias says class 1.
    assert hand_made.accuracy_pct([0, 1, 2]) == 50


def test_drop_steps_by_hand(hand_made):
    steps = drop_steps(hand_made, communities([0], [1], [2]))
    # First 1 (nothing is missed).  Then 0: (0, .5) (0, .5) (0, 3.5) (0, 6.5) is 50 %, and
    # 2: (2, .5) (1, .5) (0, .5) (3, .5) is 75 %.  One community stays.
    assert [s.communities for s in steps] == [(), (1,), (1, 2)]
    assert [s.accuracy_pct for s in steps] == [100, 100, 75]
    assert [s.delta_val_pct for s in steps] == [0, 0, -25]
    assert [s.filters for s in steps] == [0, 1, 2]


def test_among_equally_missed_communities_the_largest_goes_first():
    nothing = Activities(np.zeros((2, 4)), np.array([0, 1]), np.ones((2, 4)), np.zeros(2))
    steps = drop_steps(nothing, communities([0], [1, 2], [3]))
    assert [s.communities for s in steps] == [(), (1,), (1, 0)]


def test_a_gain_counts_as_much_as_a_loss():
    # Whole: (1, 2), wrong, and (9, 0), right.  Without filter 0 (the second loses): one right
    # less; without filter 1: one right more; neither is smaller, so that the first goes.
    activities = Activities(
        np.array([[1.0, 2.0], [9.0, 0.0]]), np.array([0, 0]), np.eye(2), np.array([0.0, 0.25])
    )
    steps = drop_steps(activities, communities([0], [1]))
    assert [s.communities for s in steps] == [(), (0,)]
    assert steps[1].delta_val_pct == -50


def test_an_equal_gain_and_loss_are_equal():
    # Whole: five of six right, as the fifth image errs.  Without filter 1 the last one errs too;
    # without filter 0 all are right.  Both change the accuracy by a sixth, so the larger goes.
    average = np.array([[0.0, 0, 0]] * 4 + [[1, 0, 0], [1, 1, 0]])
    weight = np.array([[0.0, 0, 0], [1, -1, 0]])
    activities = Activities(average, np.zeros(6, dtype=np.int64), weight, np.zeros(2))
    steps = drop_steps(activities, communities([0], [1, 2]))
    assert [s.communities for s in steps] == [(), (1,)]


def test_the_only_community_stays(hand_made):
    assert len(drop_steps(hand_made, communities([0, 1, 2]))) == 1


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
        assert activities.accuracy_pct(dropped) == pytest.approx(expected, abs=1e-4), dropped


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
    whole = accuracy_with_zeroed_channels(teacher, tiny, validation, ())
    for step in found.drop_steps:
        filters = [i for c in step.communities for i in found.communities[c].filters]
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
        partition_saved_network(np.ones((3, 3)) - np.eye(3), gamma, seed, 0)


def test_without_a_teacher_only_filters_without_a_link_may_go():
    weights = np.zeros((6, 6))
    for i, j, weight in [(0, 1, 5.0), (2, 3, 4.0), (3, 4, 1.0)]:
        weights[i, j] = weights[j, i] = weight
    found = partition_saved_network(weights, 1.0, 0, link_percentile=10)
    # The lightest link is cut, which leaves 4 and 5 alone.
    assert [(c.filters, c.linked) for c in found.communities] == [
        ((0, 1), True),
        ((2, 3), True),
        ((4, 5), False),
    ]
    assert [(s.communities, s.filters) for s in found.drop_steps] == [((), 0), ((2,), 2)]
    assert all(s.accuracy_pct is None and s.delta_val_pct is None for s in found.drop_steps)
    assert (found.teacher, found.rule, found.images) == (None, None, None)
    # Two pairs of weights 5 and 4 (2m = 18): 1 - (10^2 + 8^2) / 18^2.
    assert found.modularity == pytest.approx(1 - (100 + 64) / 324)


def test_the_saved_network_of_a_published_teacher(shared_data):
    weights = read_filter_network(shared_data("wrn40-4-cifar10-filter-network.npz"))
    found = partition_saved_network(weights, 1.0, 0, LinkOptions().link_percentile)
    assert found.filters == 256
    assert sorted(i for c in found.communities for i in c.filters) == list(range(256))
    assert found.modularity > 0
    assert sum(c.linked for c in found.communities) >= 2
    # g0: what no link above the 99th percentile of all links touches.
    heavy = np.percentile(weights[np.triu(weights, k=1) > 0], 99)
    alone = [i for i in range(256) if weights[i].max() <= heavy]
    assert alone
    assert [c.filters for c in found.communities if not c.linked] == [tuple(alone)]
    assert partition_saved_network(weights, 1.0, 0, LinkOptions().link_percentile) == found
