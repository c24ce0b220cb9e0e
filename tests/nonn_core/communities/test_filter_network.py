import numpy as np
import pytest

from nonn_common.errors import InputError, PartitionError
from nonn_core.communities.filter_network import (
    LinkOptions,
    filter_network,
    read_filter_network,
    strong_links,
)

ACTIVITIES = np.array([[1.0, 0.5, 0.0], [0.2, 0.4, 0.8]])
EVERYTHING = LinkOptions(per_image_scale=False, top_filters=None, link_percentile=0)


def links(weights):
    return [weights[0, 1], weights[0, 2], weights[1, 2]]


def test_activation_hubs_by_hand():
    weights = filter_network(ACTIVITIES, "AH", EVERYTHING)
    expected = [
        1.0 * 0.5 * 0.5 + 0.2 * 0.4 * 0.2,
        0.0 + 0.2 * 0.8 * 0.6,
        0.0 + 0.4 * 0.8 * 0.4,
    ]
    assert links(weights) == pytest.approx(expected, rel=1e-12)


def test_co_activation_by_hand():
    weights = filter_network(ACTIVITIES, "CA", EVERYTHING)
    expected = [
        1.0 * 0.5 / 1.5 + 0.2 * 0.4 / 1.2,
        0.0 + 0.2 * 0.8 / 1.6,
        0.0 + 0.4 * 0.8 / 1.4,
    ]
    assert links(weights) == pytest.approx(expected, rel=1e-12)


def test_scaling_divides_by_each_image_s_largest():
    options = LinkOptions(per_image_scale=True, top_filters=None, link_percentile=0)
    # The second image becomes (1/4, 1/2, 1); the first is unchanged.
    expected = [0.25 + 0.25 * 0.5 * 0.25, 0.25 * 1 * 0.75, 0.5 * 1 * 0.5]
    assert links(filter_network(ACTIVITIES, "AH", options)) == pytest.approx(expected, rel=1e-12)
    assert links(filter_network(ACTIVITIES * 9, "AH", options)) == pytest.approx(expected)


def test_only_the_top_filters_of_an_image_count():
    options = LinkOptions(per_image_scale=False, top_filters=2, link_percentile=0)
    # The second image loses its filter 0, the first one its filter 2 (which is 0 anyway).
    expected = [1.0 * 0.5 * 0.5, 0.0, 0.4 * 0.8 * 0.4]
    assert links(filter_network(ACTIVITIES, "AH", options)) == pytest.approx(expected, rel=1e-12)


def test_ties_go_to_the_lower_filter():
    options = LinkOptions(per_image_scale=False, top_filters=2, link_percentile=0)
    weights = filter_network(np.array([[0.5, 0.5, 0.5]]), "CA", options)
    assert links(weights) == [0.25, 0.0, 0.0]


def test_the_activities_given_are_not_changed():
    activities = ACTIVITIES.copy()
    filter_network(activities, "AH", LinkOptions(True, 2, 0))
    assert np.array_equal(activities, ACTIVITIES)


@pytest.mark.parametrize("rule", ["AH", "CA"])
def test_the_network_is_symmetric_without_loops(rule):
    rng = np.random.default_rng(0)
    weights = filter_network(rng.random((20, 60)), rule, LinkOptions())
    assert np.array_equal(weights, weights.T)
    assert not weights.diagonal().any()
    assert (weights >= 0).all()
    # 99th percentile of 1770 links.
    assert 0 < np.count_nonzero(np.triu(weights)) <= 18


@pytest.mark.parametrize("rule", ["AH", "CA"])
def test_an_image_without_activity_adds_nothing(rule):
    options = LinkOptions(per_image_scale=True, top_filters=2, link_percentile=0)
    with_dead = np.vstack([ACTIVITIES, np.zeros((1, 3))])
    found = filter_network(with_dead, rule, options)
    assert np.array_equal(found, filter_network(ACTIVITIES, rule, options))


def test_no_activity_at_all_is_said():
    with pytest.raises(PartitionError, match="no link at all"):
        filter_network(np.zeros((2, 3)), "AH", EVERYTHING)


@pytest.mark.parametrize("percentile", [1, 50, 99])
def test_a_percentile_that_leaves_no_link_is_said(percentile):
    # All links weigh the same, so that none is above any percentile; `filter_network` promises
    # PartitionError when no link is left.
    with pytest.raises(PartitionError):
        filter_network(np.array([[0.5, 0.5, 0.5]]), "CA", LinkOptions(True, None, percentile))


def test_links_above_the_percentile_stay():
    weights = np.zeros((5, 5))
    weights[np.triu_indices(4, k=1)] = [1, 2, 3, 4, 5, 6]  # filter 4 has no link
    weights += weights.T
    # The median of 1..6 is 3.5: zeros do not count.
    kept = strong_links(weights, 50)
    assert np.array_equal(kept, np.where(weights > 3.5, weights, 0))
    assert np.array_equal(strong_links(weights, 0), weights)


def test_progress_ends_at_the_number_of_images():
    seen = []
    many = np.tile(ACTIVITIES, (200, 1))
    filter_network(many, "AH", EVERYTHING, lambda _, done, total: seen.append((done, total)))
    assert seen == [(128, 400), (256, 400), (384, 400), (400, 400)]


@pytest.mark.parametrize("filters", [3, 700])
@pytest.mark.parametrize("images", [1, 4, 131])
@pytest.mark.parametrize("rule", ["AH", "CA"])
def test_images_are_added_in_their_order_and_nothing_is_fused(rule, images, filters):
    """Bit for bit what IEEE 754 gives for one image after the other, over all edges of tiles."""
    rng = np.random.default_rng(images)
    activities = rng.random((images, filters)) * (rng.random((images, filters)) < 0.4)
    activities[0, :2] = 0.5, 0.25
    expected = np.zeros((filters, filters))
    for own in activities:
        gap = np.abs(own[:, None] - own)
        product = own[:, None] * own
        expected += product * gap if rule == "AH" else product / (gap + 1.0)
    np.fill_diagonal(expected, 0.0)
    assert np.array_equal(filter_network(activities, rule, EVERYTHING), expected)


def test_two_filters_of_nearly_one_activity_keep_their_digits():
    """sum a b |a - b| as a difference of larger sums would cancel here; 2^-40 is exact."""
    near = np.array([[1.0, 1.0 + 2.0**-40]])
    found = filter_network(near, "AH", EVERYTHING)
    assert found[0, 1] == (1.0 + 2.0**-40) * 2.0**-40


@pytest.mark.parametrize("value", [-0.5, np.nan, np.inf])
def test_what_is_no_activity_is_refused(value):
    wrong = ACTIVITIES.copy()
    wrong[1, 1] = value
    with pytest.raises(PartitionError, match=">= 0"):
        filter_network(wrong, "AH", EVERYTHING)


@pytest.mark.parametrize("value", [1, 0, -5])
def test_fewer_than_two_top_filters_are_refused(value):
    with pytest.raises(InputError, match="top filters"):
        LinkOptions(top_filters=value)


@pytest.mark.parametrize("value", [-1, 100, 1000, float("nan"), 0.99])
def test_other_percentiles_are_refused(value):
    with pytest.raises(InputError, match="percentile"):
        LinkOptions(link_percentile=value)


@pytest.fixture
def saved(tmp_path):
    """Write arrays under `filter_network` and return the file."""

    def write(array, name="filter_network"):
        path = tmp_path / "network.npz"
        np.savez_compressed(path, **{name: array})
        return path

    return write


def test_a_saved_network_loses_its_loops_only(saved):
    weights = np.array([[9.0, 1, 2], [1, 9, 3], [2, 3, 9]])
    found = read_filter_network(saved(weights))
    assert np.array_equal(found, np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]]))
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((2, 3)), "square"),
        (np.zeros(4), "square"),
        (np.zeros((1, 1)), "square"),
        (np.array([["a", "b"], ["c", "d"]]), "numbers"),
        (np.array([[0, -1.0], [-1.0, 0]]), "from 0"),
        (np.array([[0, np.nan], [np.nan, 0]]), "numbers from 0 to 1e"),
        (np.array([[0, np.inf], [np.inf, 0]]), "numbers from 0 to 1e"),
        (np.array([[0, 1e308], [1e308, 0]]), "numbers from 0 to 1e"),
        (np.array([[0, 1.0], [2.0, 0]]), "symmetric"),
        (np.zeros((3, 3)), "has no link.*before its weak links are cut"),
        (np.eye(3), "has no link"),
        (np.array([[0, 1j], [1j, 0]]), "number"),
    ],
)
def test_matrices_that_are_no_network_are_refused(saved, array, why):
    path = saved(array)
    with pytest.raises(InputError, match=why) as caught:
        read_filter_network(path)
    assert str(path) in str(caught.value)


def test_another_key_is_named(saved):
    with pytest.raises(InputError, match=r"no array `filter_network`.*weights"):
        read_filter_network(saved(np.zeros((2, 2)), name="weights"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.npz: no such file"):
        read_filter_network(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04", b"\x80\x04N."])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "network.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"network\.npz"):
        read_filter_network(path)


def test_a_bare_array_is_refused(tmp_path):
    path = tmp_path / "network.npy"
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"network\.npy"):
        read_filter_network(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "network.npz"
    np.savez(path, filter_network=np.array([[{}, {}], [{}, {}]], dtype=object))
    with pytest.raises(InputError, match=r"network\.npz"):
        read_filter_network(path)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_truncated_network_is_refused(saved, share):
    path = saved(np.ones((30, 30)))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"network\.npz"):
        read_filter_network(path)


def test_a_network_with_damaged_bytes_is_refused(saved):
    rng = np.random.default_rng(0)
    weights = rng.random((20, 20))
    path = saved(weights + weights.T)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"network\.npz"):
        read_filter_network(path)


def test_a_folder_is_no_network(tmp_path):
    with pytest.raises(InputError):
        read_filter_network(tmp_path)


def test_advice_on_options_is_for_who_has_them():
    never_together = np.eye(3)
    with pytest.raises(PartitionError, match="raise --top-filters"):
        filter_network(never_together, "AH", EVERYTHING)
    with pytest.raises(PartitionError, match="no link at all") as caught:
        strong_links(np.zeros((3, 3)), 0)
    assert "--top-filters" not in str(caught.value)
