from itertools import chain, combinations
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonn_common.errors import InputError
from planner.reliability.failures import SurvivorAccuracy, missing_drop_pct

TABLE = {
    frozenset("a"): 40.0,
    frozenset("b"): 50.0,
    frozenset("c"): 60.0,
    frozenset("ab"): 70.0,
    frozenset("ac"): 72.0,
    frozenset("bc"): 80.0,
    frozenset("abc"): 90.0,
}


def test_the_published_facts_hold():
    all_pct = 95.02
    assert all_pct - missing_drop_pct(8, 4).drop_pct > 93
    assert all_pct - missing_drop_pct(8, 3).drop_pct >= 91 - 1e-9
    assert all_pct - missing_drop_pct(8, 1).drop_pct <= 82.82 + 1e-9
    assert missing_drop_pct(8, 8).drop_pct == 0


def test_the_curve_is_a_power_of_the_missing_share():
    # Between the bounds nothing is held back: 2 of 8 and 5 of 8.
    five, two = missing_drop_pct(8, 5).drop_pct, missing_drop_pct(8, 2).drop_pct
    assert two / five == pytest.approx((6 / 3) ** 3.22, rel=0.01)


@pytest.mark.parametrize(
    ("answered", "low", "high"),
    [(1, 12.2, None), (2, 0, None), (3, 0, 4.02), (4, 0, 2.02), (7, 0, 2.02), (8, 0, 0)],
)
def test_bounds_are_what_the_facts_say(answered, low, high):
    found = missing_drop_pct(8, answered)
    assert found.low_pct == pytest.approx(low)
    assert found.high_pct == (None if high is None else pytest.approx(high))
    assert "Figure 8" in found.basis


@given(st.integers(1, 64), st.data())
def test_more_answers_never_cost_more(students, data):
    answered = data.draw(st.integers(1, students))
    found = missing_drop_pct(students, answered)
    assert found.low_pct <= found.drop_pct <= (found.high_pct or 100)
    if answered > 1:
        assert missing_drop_pct(students, answered - 1).drop_pct >= found.drop_pct


@pytest.mark.parametrize("answered", [0, 9, -1])
def test_answers_that_cannot_be_are_refused(answered):
    with pytest.raises(InputError, match="allowed: 1 to 8"):
        missing_drop_pct(8, answered)


def test_a_table_gives_each_set_and_the_mean_of_each_number():
    found = SurvivorAccuracy.of_table(TABLE)
    assert found.students == 3
    assert found.by_number == pytest.approx((0, 50, 74, 90))
    assert found.of(("c", "b")) == 80
    assert [found.expected_pct(n, 3) for n in range(4)] == pytest.approx([0, 50, 74, 90])
    assert found.of(()) == 0


def test_a_table_of_another_number_counts_by_share():
    found = SurvivorAccuracy.of_table(TABLE)
    # 1 of 2 is 1.5 of 3, half-way between one and two; 2 of 6 is 1 of 3.
    assert found.expected_pct(1, 2) == pytest.approx(62)
    assert found.expected_pct(2, 6) == pytest.approx(50)
    assert found.expected_pct(6, 6) == pytest.approx(90)


@given(st.data())
def test_means_equal_enumeration(data):
    names = "abcd"
    sets = chain.from_iterable(combinations(names, size) for size in range(1, 5))
    table = {frozenset(one): data.draw(st.floats(0, 100)) for one in sets}
    found = SurvivorAccuracy.of_table(table)
    for number in range(1, 5):
        expected = mean(found.of(one) for one in combinations(names, number))
        assert found.expected_pct(number, 4) == pytest.approx(expected)


@pytest.mark.parametrize("gone", list(TABLE))
def test_a_table_with_a_missing_set_is_refused(gone):
    table = {names: accuracy for names, accuracy in TABLE.items() if names != gone}
    with pytest.raises(InputError, match="some sets of students is missing"):
        SurvivorAccuracy.of_table(table)


def test_an_empty_table_is_refused():
    with pytest.raises(InputError, match="nonn-plan evaluate"):
        SurvivorAccuracy.of_table({})


def test_students_that_the_table_does_not_know_are_refused():
    with pytest.raises(InputError, match="allowed: a, b, c"):
        SurvivorAccuracy.of_table(TABLE).of(("a", "z"))


def test_the_published_curve_lowers_a_share_of_the_accuracy():
    found = SurvivorAccuracy.published(95.02, 8)
    assert found.by_number[4] == pytest.approx(95.02 - missing_drop_pct(8, 4).drop_pct)
    half = SurvivorAccuracy.published(47.51, 8)
    assert half.by_number == pytest.approx([each / 2 for each in found.by_number])
    assert found.by_set is None
    assert found.of(("s1", "s2", "s3", "s4")) == found.expected_pct(4, 8)
    assert (found.by_number[0], found.by_number[8]) == (0, 95.02)


def test_more_answers_than_students_are_refused():
    with pytest.raises(InputError, match="students that answer"):
        SurvivorAccuracy.published(90.0, 4).expected_pct(5, 4)
