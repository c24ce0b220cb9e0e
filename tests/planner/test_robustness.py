"""The value of a plan when boards fail, against closed forms."""

from math import comb

import pytest

from planner.failures import BoardFailure, Failures, Outage
from planner.robustness import Survival, survives
from profiles.errors import InputError


def each_fails(boards, probability, **others):
    rows = tuple(BoardFailure(board=b, probability=probability) for b in boards)
    return Failures(boards=rows, **others)


def homes(*places):
    return [frozenset(each) for each in places]


@pytest.mark.parametrize("count", [1, 5, 12, 13, 40, 70])
def test_students_on_boards_of_their_own_answer_by_the_binomial(count):
    boards = [f"b{i}" for i in range(count)]
    survival = Survival(each_fails(boards, 0.2), boards)
    wanted = [comb(count, n) * 0.8**n * 0.2 ** (count - n) for n in range(count + 1)]
    found = survival.answered(homes(*([i] for i in range(count))))
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_two_copies_of_each_student():
    failures = each_fails("abcd", 0.1, target_pct=80, retained=(0, 0.5, 1))
    found = Survival(failures, "abcd").value(80, homes({0, 1}, {2, 3}))
    # Each student answers with 1 - 0.01; what one alone keeps is half.
    assert found.expected_accuracy_pct == pytest.approx(80 * (0.99**2 + 0.99 * 0.01))
    assert found.reliability_pct == pytest.approx(100 * 0.99**2)


def test_a_common_cause_takes_both_copies():
    hub = Outage(name="hub", boards=("a", "b"), probability=0.3)
    survival = Survival(Failures(outages=(hub,), target_pct=50), "abc")
    assert survival.value(90, homes({0, 1})).reliability_pct == pytest.approx(70)
    assert survival.value(90, homes({0, 2})).reliability_pct == pytest.approx(100)


def test_without_a_target_there_is_no_reliability():
    found = Survival(Failures(), "a").value(90, homes({0}))
    assert (found.expected_accuracy_pct, found.reliability_pct) == (90, None)


def test_a_student_without_a_board_never_answers():
    survival = Survival(Failures(), "a")
    assert survival.answered(homes({0}, ())) == pytest.approx([0, 1, 0])
    assert survival.answered(homes(())) == pytest.approx([1, 0])


def test_more_boards_that_depend_on_each_other_than_can_be_enumerated():
    boards = [f"b{i}" for i in range(20)]
    hub = Outage(name="hub", boards=tuple(boards), probability=0.1)
    with pytest.raises(InputError, match="found 20; allowed: up to 16"):
        Survival(Failures(outages=(hub,)), boards).answered(homes(*([i] for i in range(20))))


def test_failures_that_a_plan_survives():
    hub = Outage(name="hub", boards=("a", "b"), probability=0)
    pair, spread = homes({0, 1}), homes({0, 2})
    assert survives(pair, Failures(), "abc", 1)
    assert not survives(pair, Failures(), "abc", 2)
    assert not survives(pair, Failures(outages=(hub,)), "abc", 1)
    assert survives(spread, Failures(outages=(hub,)), "abc", 1)
    assert not survives(homes({0, 1, 2}), Failures(outages=(hub,)), "abc", 2)
    assert survives(pair, Failures(), "abc", 0)
    assert not survives(homes({0}, ()), Failures(), "abc", 0)
