from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from nonn_core.partition import reshuffle_filters


@st.composite
def partitions(draw):
    filters = draw(st.permutations(range(draw(st.integers(2, 30)))))
    cut = draw(st.integers(1, len(filters) - 1))
    middle = draw(st.integers(cut, len(filters)))
    parts = (filters[:cut], filters[cut:middle], filters[middle:])
    return tuple(tuple(sorted(part)) for part in parts if part)


@given(partitions(), st.integers(0, 12), st.integers(0, 2**31 - 1))
def test_every_group_of_students_divides_the_same_filters_into_the_same_sizes(parts, more, seed):
    students = len(parts) + more
    found = reshuffle_filters(parts, students, seed)
    assert len(found) == students
    assert found[: len(parts)] == parts
    assert found == reshuffle_filters(parts, students, seed)
    known = sorted(chain.from_iterable(parts))
    for start in range(0, students, len(parts)):
        group = found[start : start + len(parts)]
        mimicked = list(chain.from_iterable(group))
        assert len(set(mimicked)) == len(mimicked)
        assert set(mimicked) <= set(known)
        assert [len(one) for one in group] == [len(part) for part in parts][: len(group)]
        assert all(list(one) == sorted(one) for one in group)
        if len(group) == len(parts):
            assert sorted(mimicked) == known


@given(partitions(), st.integers(1, 12), st.integers(0, 2**31 - 1))
def test_more_students_leave_the_earlier_ones_as_they_are(parts, more, seed):
    students = len(parts) + more
    assert (
        reshuffle_filters(parts, students, seed)
        == reshuffle_filters(parts, students + 3, seed)[:students]
    )
