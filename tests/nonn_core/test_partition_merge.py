import pytest

from nonn_common.errors import InputError
from nonn_core.partition import Partition, merge_communities


def partition(sizes, drops=()):
    """Communities of these sizes, numbered in order; `drops` are (communities, delta_val)."""
    communities, start = [], 0
    for number, size in enumerate(sizes):
        filters = tuple(range(start, start + size))
        communities.append({"id": number, "filters": filters, "linked": True})
        start += size
    steps = [{"communities": (), "filters": 0, "accuracy_pct": 90, "delta_val_pct": 0}]
    steps += [
        {
            "communities": dropped,
            "filters": sum(sizes[c] for c in dropped),
            "accuracy_pct": None if delta is None else 90 + delta,
            "delta_val_pct": delta,
        }
        for dropped, delta in drops
    ]
    return Partition.check(
        {
            "teacher": None,
            "rule": "AH",
            "gamma": 1.0,
            "seed": 0,
            "filters": start,
            "images": 10,
            "modularity": 0.5,
            "communities": communities,
            "drop_steps": steps,
        },
        where="this test",
    )


def sizes(partitions):
    return sorted(map(len, partitions))


def test_the_example_of_the_publication():
    """{12, 14, 25, 30} into two (A, section 4.2): 25 + 14 and 12 + 30."""
    found = merge_communities(partition([12, 14, 25, 30]), 2, epsilon_pct=1.0)
    assert sizes(found) == [39, 42]
    assert sorted(found[0] + found[1]) == list(range(81))
    assert all(list(part) == sorted(part) for part in found)


def test_the_largest_harmless_union_is_dropped():
    drops = [((1,), -0.2), ((1, 2), -0.9), ((1, 2, 0), -1.0)]
    found = merge_communities(partition([5, 4, 9, 7, 6], drops), 2, epsilon_pct=1.0)
    assert sizes(found) == [7, 11]
    assert set(found[0] + found[1]).isdisjoint(range(5, 18))


def test_a_gain_counts_as_a_change_too():
    found = merge_communities(partition([5, 4, 9], [((0,), 1.5)]), 2, epsilon_pct=1.0)
    assert sizes(found) == [9, 9]


def test_nothing_unmeasured_is_dropped():
    assert sizes(merge_communities(partition([5, 4, 9], [((0,), None)]), 2, 1.0)) == [9, 9]


def test_a_community_is_left_for_each_student():
    found = merge_communities(partition([5, 4, 9], [((0,), 0.0), ((0, 1), 0.0)]), 2, 1.0)
    assert sizes(found) == [4, 9]


def test_fewer_communities_than_students():
    with pytest.raises(InputError, match="fewer communities than students"):
        merge_communities(partition([5, 4]), 3, 1.0)
