"""Every state of every cause, one by one, gives the same; a further copy never makes it worse."""

from itertools import combinations, product
from math import prod

import pytest
from board_states import board_states
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.reliability import robustness
from planner.reliability.failures import BoardFailure, CommonCause, Failures, retained_share
from planner.reliability.robustness import RobustnessEvaluator, survives

BOARDS = tuple("abcde")

probabilities = st.sampled_from((0.0, 0.1, 0.5, 1.0)) | st.floats(0, 1)
board_sets = st.lists(st.sampled_from(BOARDS), min_size=1, unique=True).map(tuple)
plans = st.lists(st.frozensets(st.integers(0, len(BOARDS) - 1)), min_size=1, max_size=5)


@st.composite
def what_fails(draw):
    alone = draw(st.lists(st.sampled_from(BOARDS), unique=True))
    common = draw(st.lists(board_sets, max_size=3))
    inner = sorted(draw(st.lists(st.floats(0, 1), max_size=3)))
    return Failures(
        boards=tuple(BoardFailure(board=b, probability=draw(probabilities)) for b in alone),
        outages=tuple(
            CommonCause(name=f"o{i}", boards=boards, probability=draw(probabilities))
            for i, boards in enumerate(common)
        ),
        target_pct=draw(st.floats(1, 100)),
        retained=draw(st.sampled_from(((), (0, *inner, 1)))),
    )


def every_case(failures):
    """Yield the boards that are up and the probability, for all 2^n states of the causes."""
    rows = [({each.board}, each.probability) for each in failures.boards]
    rows += [(set(each.boards), each.probability) for each in failures.outages]
    for there in product((False, True), repeat=len(rows)):
        cases = list(zip(rows, there, strict=True))
        down = set().union(*(taken for (taken, _), is_there in cases if is_there))
        chance = prod(p if is_there else 1 - p for (_, p), is_there in cases)
        yield set(BOARDS) - down, chance


@given(what_fails())
def test_states_are_those_of_all_causes_one_by_one(failures):
    wanted = {}
    for up, chance in every_case(failures):
        wanted[frozenset(up)] = wanted.get(frozenset(up), 0) + chance
    found = board_states(failures, BOARDS)
    assert sum(state.probability for state in found) == pytest.approx(1)
    assert len({state.up for state in found}) == len(found)
    likely = [state.probability for state in found]
    assert likely == sorted(likely, reverse=True)
    by_set = {state.up: state.probability for state in found}
    for up in wanted.keys() | by_set.keys():
        assert by_set.get(up, 0) == pytest.approx(wanted.get(up, 0), abs=1e-12)


@settings(max_examples=200)
@pytest.mark.parametrize("at_once", [0, 12])  # by independent groups of boards, or all at once
@given(failures=what_fails(), homes=plans, accuracy_pct=st.floats(0, 100))
def test_value_is_that_of_all_causes_one_by_one(at_once, failures, homes, accuracy_pct):
    expected = reliable = doubtful = 0.0
    for up, chance in every_case(failures):
        answered = sum(any(BOARDS[place] in up for place in home) for home in homes)
        kept_pct = accuracy_pct * retained_share(failures, answered, len(homes))
        expected += chance * kept_pct
        reliable += chance * (kept_pct >= failures.target_pct)
        doubtful += chance * (abs(kept_pct - failures.target_pct) < 1e-8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "MOST_ENUMERATED", at_once)
        found = RobustnessEvaluator(failures, BOARDS).evaluate(accuracy_pct, homes)
    assert found.expected_accuracy_pct == pytest.approx(expected, abs=1e-9)
    assert found.reliability_pct == pytest.approx(100 * reliable, abs=1e-9 + 100 * doubtful)


@given(what_fails(), plans, st.data())
def test_a_further_copy_never_makes_it_worse(failures, homes, data):
    more = list(homes)
    student = data.draw(st.integers(0, len(homes) - 1))
    more[student] |= {data.draw(st.integers(0, len(BOARDS) - 1))}
    survival = RobustnessEvaluator(failures, BOARDS)
    before, after = survival.evaluate(90, homes), survival.evaluate(90, more)
    assert after.expected_accuracy_pct >= before.expected_accuracy_pct - 1e-9
    assert after.reliability_pct >= before.reliability_pct - 1e-9
    for failed in range(4):
        assert survives(more, failures, BOARDS, failed) or not survives(
            homes, failures, BOARDS, failed
        )


@given(what_fails(), plans, st.integers(0, 4))
def test_a_plan_survives_what_no_choice_of_failures_takes(failures, homes, failed):
    single = [*({b} for b in BOARDS), *(set(each.boards) for each in failures.outages)]
    lost = any(
        all(BOARDS[place] in set().union(*chosen) for place in home)
        for chosen in combinations(single, failed)
        for home in homes
    )
    assert survives(homes, failures, BOARDS, failed) is not lost
