"""The value of a plan when boards fail, against closed forms."""

from itertools import product
from math import comb

import numpy as np
import pytest

from nonn_common.errors import InputError
from planner.reliability import robustness
from planner.reliability.failures import BoardFailure, CommonCause, Failures, retained_share
from planner.reliability.robustness import RobustnessEvaluator, survives


def each_fails(boards, probability, **others):
    rows = tuple(BoardFailure(board=b, probability=probability) for b in boards)
    return Failures(boards=rows, **others)


def homes(*places):
    return [frozenset(each) for each in places]


@pytest.mark.parametrize("count", [1, 5, 12, 13, 40, 70])
def test_students_on_boards_of_their_own_answer_by_the_binomial(count):
    boards = [f"b{i}" for i in range(count)]
    survival = RobustnessEvaluator(each_fails(boards, 0.2), boards)
    wanted = [comb(count, n) * 0.8**n * 0.2 ** (count - n) for n in range(count + 1)]
    found = survival.answer_distribution(homes(*([i] for i in range(count))))
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("count", [12, 13])
def test_value_is_that_of_all_states_of_so_many_boards(count):
    rng = np.random.default_rng(count)
    boards = [f"b{i}" for i in range(count)]
    hub = CommonCause(name="hub", boards=("b1", "b5", "b6"), probability=0.15)
    risks = (rng.random(count) / 2).tolist()
    rows = [BoardFailure(board=b, probability=p) for b, p in zip(boards, risks, strict=True)]
    failures = Failures(boards=tuple(rows), outages=(hub,), target_pct=85)
    # Each board has a student; some of them have a copy on the next board.
    plan = homes(*({i, (i + i % 2) % count} for i in range(count)))
    kept = [90 * retained_share(failures, n, count) for n in range(count + 1)]
    expected = reliable = 0.0
    for out in (False, True):
        for up in product((False, True), repeat=count):
            chance = 0.15 if out else 0.85
            for there, risk in zip(up, risks, strict=True):
                chance *= 1 - risk if there else risk
            alive = {i for i in range(count) if up[i] and not (out and i in (1, 5, 6))}
            answered = sum(not alive.isdisjoint(home) for home in plan)
            expected += chance * kept[answered]
            reliable += chance * (kept[answered] >= 85)
    found = RobustnessEvaluator(failures, boards).evaluate(90, plan)
    assert found.expected_accuracy_pct == pytest.approx(expected, rel=1e-12)
    assert found.reliability_pct == pytest.approx(100 * reliable, rel=1e-12)


def test_what_is_forgotten_is_found_again(monkeypatch):
    monkeypatch.setattr(robustness, "_MOST_REMEMBERED", 1)
    survival = RobustnessEvaluator(each_fails("abc", 0.1), "abc")
    for place in (0, 1, 0, 2):
        assert survival.answer_distribution(homes({place})) == pytest.approx([0.1, 0.9])


def test_rounding_makes_no_plan_worth_more_than_all():
    boards = [f"b{i}" for i in range(40)]
    for percent in range(1, 20):
        survival = RobustnessEvaluator(each_fails(boards, percent / 100, target_pct=1e-6), boards)
        found = survival.evaluate(93.7, homes(*([i] for i in range(40))))
        assert found.expected_accuracy_pct <= 93.7
        assert found.reliability_pct <= 100


def test_two_copies_of_each_student():
    failures = each_fails("abcd", 0.1, target_pct=80, retained=(0, 0.5, 1))
    found = RobustnessEvaluator(failures, "abcd").evaluate(80, homes({0, 1}, {2, 3}))
    # Each student answers with 1 - 0.01; what one alone keeps is half.
    assert found.expected_accuracy_pct == pytest.approx(80 * (0.99**2 + 0.99 * 0.01))
    assert found.reliability_pct == pytest.approx(100 * 0.99**2)


def test_a_common_cause_takes_both_copies():
    hub = CommonCause(name="hub", boards=("a", "b"), probability=0.3)
    survival = RobustnessEvaluator(Failures(outages=(hub,), target_pct=50), "abc")
    assert survival.evaluate(90, homes({0, 1})).reliability_pct == pytest.approx(70)
    assert survival.evaluate(90, homes({0, 2})).reliability_pct == pytest.approx(100)


def test_without_a_target_there_is_no_reliability():
    found = RobustnessEvaluator(Failures(), "a").evaluate(90, homes({0}))
    assert (found.expected_accuracy_pct, found.reliability_pct) == (90, None)


def test_a_student_without_a_board_never_answers():
    survival = RobustnessEvaluator(Failures(), "a")
    assert survival.answer_distribution(homes({0}, ())) == pytest.approx([0, 1, 0])
    assert survival.answer_distribution(homes(())) == pytest.approx([1, 0])


def test_more_boards_that_depend_on_each_other_than_can_be_enumerated():
    boards = [f"b{i}" for i in range(20)]
    hub = CommonCause(name="hub", boards=tuple(boards), probability=0.1)
    with pytest.raises(InputError, match="found 20; allowed: up to 16"):
        RobustnessEvaluator(Failures(outages=(hub,)), boards).answer_distribution(
            homes(*([i] for i in range(20)))
        )


def test_failures_that_a_plan_survives():
    hub = CommonCause(name="hub", boards=("a", "b"), probability=0)
    pair, spread = homes({0, 1}), homes({0, 2})
    assert survives(pair, Failures(), "abc", 1)
    assert not survives(pair, Failures(), "abc", 2)
    assert not survives(pair, Failures(outages=(hub,)), "abc", 1)
    assert survives(spread, Failures(outages=(hub,)), "abc", 1)
    assert not survives(homes({0, 1, 2}), Failures(outages=(hub,)), "abc", 2)
    assert survives(pair, Failures(), "abc", 0)
    assert not survives(homes({0}, ()), Failures(), "abc", 0)
    with pytest.raises(InputError, match="found -1; allowed: 0 or more"):
        survives(pair, Failures(), "abc", -1)
