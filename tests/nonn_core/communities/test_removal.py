import numpy as np
import pytest
import torch

from nonn_core.communities.filter_network import Activities
from nonn_core.communities.removal import cross_entropy_rises, find_p0
from nonn_core.evidence import PairedAnswers
from nonn_core.partition import Community


def published_p0(activities, found, epsilon, *progress):
    """P0 by the measured delta_val alone, as the NoNN paper does."""
    return find_p0(activities, found, epsilon, *progress, confidence_pct=None)


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


def communities(*groups, g0=()):
    found = [Community(id=k, filters=tuple(g), linked=True) for k, g in enumerate(groups)]
    return [*found, *([Community(id=len(found), filters=g0, linked=False)] if g0 else [])]


def random_activities(seed=0, images=40, filters=6, classes=3):
    rng = np.random.default_rng(seed)
    return Activities(
        average=rng.random((images, filters)),
        labels=rng.integers(0, classes, images),
        fc_weight=rng.normal(size=(classes, filters)),
        fc_bias=rng.normal(size=classes),
    )


def of_two_parts(parts):
    """Each part is (class, filter activities) of an image; filter i speaks for class i % 2.

    Where no filter speaks, a third class wins.
    """
    labels, average = zip(*parts, strict=True)
    filters = len(average[0])
    weight = np.array([[float(i % 2 == c) for i in range(filters)] for c in (0, 1, 2)])
    bias = np.array([0, 0, 0.5])
    return Activities(np.array(average, dtype=float), np.array(labels), weight, bias)


def test_accuracy_without_filters_by_hand(hand_made):
    def accuracy(*dropped):
        return hand_made.accuracy_pct(hand_made.logits() - hand_made.share(dropped))

    # Logits: (6, .5) (1, .5) (0, 3.5) (3, 6.5): all four right.
    assert accuracy() == 100
    # Without 0: (4, .5) (0, .5) (0, 3.5) (0, 6.5): the second is wrong.
    assert accuracy(0) == 75
    # Without 1: (2, .5) (1, .5) (0, 3.5) (3, 6.5).
    assert accuracy(1) == 100
    # Without 2: (6, .5) (1, .5) (0, .5) (3, .5): the last is wrong, and the third is not (0 < .5).
    assert accuracy(2) == 75
    # Without all: the bias says class 1.
    assert accuracy(0, 1, 2) == 50


def test_the_curve_and_p0_by_hand(hand_made):
    found = published_p0(hand_made, communities([0, 1], [2]), 1.0)
    # Filter 1 goes first: nothing is missed.  Then 0 or 2 costs a quarter or more.
    assert found.curve[1].removed == (1,)
    assert [point.filters for point in found.curve] == [0, 1, 2]
    assert [point.delta_val_pct for point in found.curve[:2]] == [0, 0]
    assert found.curve[2].delta_val_pct <= -25
    # P0 is {1}, which leaves {0} of its community.
    assert [(c.filters, c.unneeded) for c in found.communities] == [
        ((0,), False),
        ((2,), False),
        ((1,), True),
    ]
    assert [step.communities for step in found.steps] == [(), (2,), (2, 1)]
    assert [step.accuracy_pct for step in found.steps] == [100, 100, 75]
    assert [step.delta_val_pct for step in found.steps] == [0, 0, -25]
    assert [step.filters for step in found.steps] == [0, 1, 2]


def test_g0_goes_first_and_whole_where_it_may():
    # Filters 2 and 3 are silent; 0 and 1 decide.
    activities = of_two_parts([(0, [1, 0, 0, 0]), (1, [0, 1, 0, 0])])
    found = published_p0(activities, communities([0, 1], g0=(2, 3)), 1.0)
    assert found.curve[1].removed == (2, 3)
    assert [(c.filters, c.linked, c.unneeded) for c in found.communities] == [
        ((0, 1), True, False),
        ((2, 3), False, False),
    ]
    assert [step.communities for step in found.steps] == [(), (1,)]


def test_of_a_g0_that_is_missed_what_is_not_needed_goes():
    # g0 is 1, 2 and 3; only 1 decides anything, and the linked 4 is silent too.
    activities = of_two_parts([(0, [1, 0, 0, 0, 0]), (1, [0, 1, 0, 0, 0])] * 2)
    found = published_p0(activities, communities([0, 4], g0=(1, 2, 3)), 1.0)
    assert [(c.filters, c.linked, c.unneeded) for c in found.communities] == [
        ((0,), True, False),
        ((1,), False, False),
        ((2, 3, 4), True, True),
    ]
    assert found.steps[1].communities == (2,)
    assert [step.delta_val_pct for step in found.steps] == [0, 0, -50]


def test_unneeded_filters_of_g0_alone_are_without_a_link():
    activities = of_two_parts([(0, [1, 0, 0]), (1, [0, 1, 0])])
    found = published_p0(activities, communities([0], g0=(1, 2)), 1.0)
    assert (found.communities[-1].filters, found.communities[-1].linked) == ((2,), False)


def test_a_community_of_which_nothing_is_needed_is_gone():
    activities = of_two_parts([(0, [1, 0, 0, 0]), (1, [0, 1, 0, 0])] * 2)
    found = published_p0(activities, communities([0, 1], [2, 3]), 1.0)
    assert [c.filters for c in found.communities] == [(0, 1), (2, 3)]
    assert [c.unneeded for c in found.communities] == [False, True]


def test_p0_is_the_largest_set_below_epsilon_also_beyond_worse_ones():
    # Each class has images that its filter alone decides; whatever goes, some image errs, until
    # the errors of the two classes are the same again.
    activities = random_activities(4)
    for epsilon in (2.6, 5.1, 12.0, 60.0):
        found = published_p0(activities, communities([0, 1, 2], [3, 4, 5]), epsilon)
        below = [point.filters for point in found.curve if abs(point.delta_val_pct) < epsilon]
        p0 = next(
            step
            for step in found.steps
            if any(found.communities[c].unneeded for c in step.communities) or not max(below)
        )
        assert p0.filters == max(below)


def test_a_gain_counts_as_much_as_a_loss():
    # Without filter 0 the accuracy rises from 50 to 100; that is no P0 under 10 points.
    activities = Activities(
        np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([1, 1]), np.eye(2), np.zeros(2)
    )
    found = published_p0(activities, communities([0], [1]), 10.0)
    assert found.curve[1].removed == (0,)
    assert found.curve[1].delta_val_pct == 50
    assert [step.communities for step in found.steps] == [(), (0,)] or len(found.steps) == 2
    assert not any(c.unneeded for c in found.communities)


def test_among_equally_missed_communities_the_largest_goes_first():
    # Every filter speaks for both classes alike, so that the first class always wins.
    activities = Activities(np.ones((2, 4)), np.array([0, 1]), np.ones((2, 4)), np.zeros(2))
    found = published_p0(activities, communities([0], [1, 2, 3]), 1e-6)
    # All single filters but the last are unneeded; it is what is left.
    assert found.communities[-1].filters == (0, 1, 2)
    assert [c.filters for c in found.communities] == [(3,), (0, 1, 2)]


def test_the_last_filter_stays():
    activities = random_activities(filters=1)
    found = published_p0(activities, communities([0]), 5.0)
    assert len(found.curve) == len(found.steps) == 1
    only_g0 = published_p0(random_activities(filters=2), communities(g0=(0, 1)), 200.0)
    assert [c.filters for c in only_g0.communities] == [
        tuple({0, 1} - set(only_g0.curve[1].removed)),
        only_g0.curve[1].removed,
    ]


def test_rises_are_torch_s_second_order_of_the_cross_entropy():
    activities = random_activities(1)
    without = activities.logits() - activities.share([2])
    logits = torch.tensor(without)
    labels = torch.tensor(activities.labels)
    expected = []
    for i in range(6):
        step = -torch.tensor(activities.share([i]))

        def along(t, step=step):
            return torch.nn.functional.cross_entropy(logits + t * step, labels)

        zero = torch.zeros((), dtype=torch.float64)
        slope = torch.autograd.functional.jacobian(along, zero)
        bend = torch.autograd.functional.hessian(along, zero)
        expected.append(float(slope + bend / 2))
    found = cross_entropy_rises(activities, without, range(6))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_rise_of_a_small_share_is_what_removing_it_does():
    activities = random_activities(2, filters=70)
    labels = torch.tensor(activities.labels)

    def entropy(logits):
        return float(torch.nn.functional.cross_entropy(torch.tensor(logits), labels))

    small = Activities(
        activities.average / 100, activities.labels, activities.fc_weight, activities.fc_bias
    )
    found = cross_entropy_rises(small, small.logits(), range(70))
    whole = entropy(small.logits())
    removed = [entropy(small.logits() - small.share([i])) - whole for i in range(70)]
    np.testing.assert_allclose(found, removed, atol=5e-7)


def test_many_filters_are_ranked_only_now_and_then():
    # 600 filters in at most 256 rankings: three go at a time, in the order of one ranking.
    activities = random_activities(5, images=10, filters=600)
    seen = []
    found = published_p0(activities, communities(range(600)), 1.0, lambda *at: seen.append(at[1:]))
    assert [point.filters for point in found.curve] == list(range(600))
    assert len(seen) == 200
    assert seen[-1] == (599, 600)
    first = np.argsort(cross_entropy_rises(activities, activities.logits(), range(600)))
    assert [point.removed[0] for point in found.curve[1:4]] == first[:3].tolist()


def silent_but_two(images):
    """Images of two classes in turn; of six filters 0 and 1 decide, the others are silent.

    Where neither speaks, a third class wins.
    """
    labels = np.arange(images) % 2
    average = np.zeros((images, 6))
    average[np.arange(images), labels] = 1.0
    weight = np.array([[float(i % 2 == c) for i in range(6)] for c in (0, 1, 2)])
    return Activities(average, labels, weight, np.array([0, 0, 0.5]))


def test_135_images_allow_no_drop_and_268_would():
    # Four of six filters are silent, so that no image is lost: Wilson's bound of 0 of n.
    few = find_p0(silent_but_two(135), communities(range(6)), 1.0)
    assert [step.communities for step in few.steps] == [()]
    assert not any(one.unneeded for one in few.communities)
    assert (few.estimated_filters, few.images_needed) == (4, 268)
    assert [(point.lost, point.won) for point in few.curve[:5]] == [(0, 0)] * 5
    for images, dropped in ((267, ()), (268, (2, 3, 4, 5))):
        found = find_p0(silent_but_two(images), communities(range(6)), 1.0)
        unneeded = [one.filters for one in found.communities if one.unneeded]
        assert unneeded == [dropped] * bool(dropped), images
    assert found.images_needed is None
    assert found.steps[1].loss_bound_pct == pytest.approx(100 * 2.705543454 / 270.705543454)
    assert found.steps[0].loss_bound_pct == 0


def test_by_the_measured_values_alone_135_images_drop_what_the_publication_would():
    found = published_p0(silent_but_two(135), communities(range(6)), 1.0)
    assert found.communities[-1].filters == (2, 3, 4, 5)
    assert [step.loss_bound_pct for step in found.steps] == [None, None]
    assert (found.estimated_filters, found.images_needed) == (4, 268)


def test_one_image_allows_no_drop():
    found = find_p0(silent_but_two(1), communities([0, 1, 2], [3, 4, 5]), 1.0)
    assert [one.unneeded for one in found.communities] == [False, False]
    assert found.estimated_filters == 5
    assert found.images_needed == 268


def test_a_set_may_go_only_after_all_before_it():
    for seed in range(6):
        activities = random_activities(seed, images=4000)
        groups = communities([0, 1, 2], [3, 4, 5])
        curve = find_p0(activities, groups, 0.0).curve
        own = [PairedAnswers(4000, p.lost, p.won).loss_bound_pct() for p in curve[1:]]
        for k, point in enumerate(curve[1:], start=1):
            assert point.loss_bound_pct == pytest.approx(max(own[:k]))
        for epsilon in (6.0, 12.0, 25.0):
            found = find_p0(activities, groups, epsilon)
            first = next((k for k, bound in enumerate(own) if bound >= epsilon), len(own))
            small = [p.filters for p in curve[: first + 1] if abs(p.delta_val_pct) < epsilon]
            unneeded = [len(one.filters) for one in found.communities if one.unneeded]
            assert sum(unneeded) == max(small)
            bounds = [step.loss_bound_pct for step in found.steps]
            assert bounds == sorted(bounds)


def test_lost_and_won_images_add_up_to_delta_val():
    found = find_p0(random_activities(3, images=400), communities(range(6)), 5.0)
    for point in found.curve:
        assert point.delta_val_pct == pytest.approx(100 * (point.won - point.lost) / 400)
    assert any(point.lost and point.won for point in found.curve)
