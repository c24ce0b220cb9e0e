import pytest

from nonn_common.errors import InputError
from nonn_core.partition import reshuffle_filters

TWO = ((0, 3, 8), (1, 2, 5, 9))


def test_as_many_students_as_partitions_change_nothing():
    assert reshuffle_filters(TWO, 2, seed=1) == TWO


def test_five_students_of_two_partitions():
    found = reshuffle_filters(TWO, 5, seed=1)
    assert found[:2] == TWO
    assert [len(filters) for filters in found] == [3, 4, 3, 4, 3]
    assert sorted(found[2] + found[3]) == [0, 1, 2, 3, 5, 8, 9]
    assert set(found[4]) < {0, 1, 2, 3, 5, 8, 9}


@pytest.mark.parametrize(
    ("partitions", "students", "told"),
    [(TWO, 1, "2 or more"), (((0, 1), (1, 2)), 4, "share")],
)
def test_what_cannot_be_reshuffled(partitions, students, told):
    with pytest.raises(InputError, match=told):
        reshuffle_filters(partitions, students, seed=0)
