"""Failures of boards: what a file may say, which boards are then up, and what is kept."""

import pytest
from board_states import BoardState, board_states

from nonn_common.errors import InputError
from planner.reliability.failures import (
    BoardFailure,
    CommonCause,
    Failures,
    check_boards,
    retained_share,
)
from planner.reliability.robustness import MOST_DEPENDENT_BOARDS
from profiles.fleet import parse_fleet


def alone(**probabilities):
    return tuple(BoardFailure(board=b, probability=p) for b, p in probabilities.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"boards": [{"board": "a", "probability": 1.5}]}, r"boards\.0\.probability.*found 1.5"),
        ({"boards": [{"board": "a", "probability": 0.1}] * 2}, "board is named once; repeated: a"),
        ({"outages": [{"name": "o", "boards": ["a"], "probability": 0}] * 2}, "outage is named"),
        ({"outages": [{"name": "o", "boards": ["a", "a"], "probability": 0}]}, "repeated: a"),
        ({"outages": [{"name": "o", "boards": [], "probability": 0}]}, "at least 1 item"),
        ({"target_pct": 101}, "less than or equal to 100"),
        ({"retained": [0, 0.5, 0.4, 1]}, "rise from 0.*found 0, 0.5, 0.4, 1"),
        ({"retained": [0.1, 1]}, "rise from 0"),
        ({"retained": [0, 0.9]}, "rise from 0"),
        ({"retained": [0]}, "rise from 0"),
    ],
)
def test_what_makes_no_sense_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        Failures.check(content, "this test")


def test_unknown_boards_are_told():
    fleet = parse_fleet("rpi-3b*2")
    check_boards(Failures(boards=alone(**{"rpi-3b-1": 0.1})), fleet)
    with pytest.raises(InputError, match="found 'x'; allowed: rpi-3b-1, rpi-3b-2"):
        check_boards(Failures(boards=alone(x=0.1)), fleet)
    hub = CommonCause(name="hub", boards=("rpi-3b-1", "y"), probability=0.1)
    with pytest.raises(InputError, match=r"outage hub.*found 'y'"):
        check_boards(Failures(outages=(hub,)), fleet)


def test_states_by_hand():
    hub = CommonCause(name="hub", boards=("a", "b"), probability=0.5)
    found = board_states(Failures(boards=alone(a=0.2, z=0.9), outages=(hub,)), ("a", "b"))
    # None up by the hub alone, or with a; b alone where a fails without the hub.
    assert [state.up for state in found] == [frozenset(), frozenset("ab"), frozenset("b")]
    assert [state.probability for state in found] == pytest.approx([0.5, 0.4, 0.1])


def test_what_cannot_be_is_no_state_and_ties_have_an_order():
    assert board_states(Failures(), ("a", "b")) == (BoardState(frozenset("ab"), 1.0),)
    assert board_states(Failures(boards=alone(a=1)), ("a",)) == (BoardState(frozenset(), 1.0),)
    found = board_states(Failures(boards=alone(a=0.5, b=0.5)), ("a", "b"))
    assert [sorted(state.up) for state in found] == [["a", "b"], ["b"], ["a"], []]


def test_too_many_boards_at_once_are_refused():
    boards = [f"b{i}" for i in range(MOST_DEPENDENT_BOARDS + 1)]
    with pytest.raises(InputError, match="found 17; allowed: up to 16"):
        board_states(Failures(), boards)


@pytest.mark.parametrize("students", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("retained", [(), (0, 0.5, 0.75, 1)])
def test_kept_accuracy_rises_from_none_to_all(students, retained):
    failures = Failures(retained=retained)
    kept = [retained_share(failures, n, students) for n in range(students + 1)]
    assert (kept[0], kept[-1]) == (0, 1)
    assert kept == sorted(kept)


def test_measured_shares_count_by_the_part_that_answers():
    failures = Failures(retained=(0, 0.5, 1))
    assert retained_share(failures, 1, 2) == 0.5
    assert retained_share(failures, 1, 4) == 0.25
    with pytest.raises(InputError, match="found 3; allowed: 1 to 2"):
        retained_share(failures, 3, 2)
