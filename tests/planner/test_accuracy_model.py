from dataclasses import replace
from math import hypot, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from nonn_common.errors import InputError
from nonn_core.networks.blueprint import ImageShape
from planner.accuracy.model import fit_accuracy_model
from planner.accuracy.rows import AccuracyRow, TeacherFacts, published_rows

CIFAR = ImageShape(3, 32, 32)
WRN40 = TeacherFacts.of_network("wrn40-4", CIFAR, 10)
UNKNOWN = TeacherFacts.of_network("wrn16-2", CIFAR, 10)
PUBLISHED = fit_accuracy_model(WRN40)
SIZES = st.tuples(st.floats(1e3, 1e9), st.floats(1e4, 1e12))


def _own(accuracy_pct, teacher=UNKNOWN, params=60e3, macs=13e6, method="nonn"):
    return AccuracyRow(
        "run", "own run", method, 2, teacher, 90.0, params, macs, accuracy_pct=accuracy_pct
    )


@pytest.mark.parametrize(
    ("params", "macs"),
    [
        # Two students wrn16:32,64,88 (Table 2 in this program's closed form); and as published.
        (869_568, 170_482_688),
        (890_000, 168_831_169),
        # The least that two WRN16 of 350 K parameters would have.
        (700_000, 130_000_000),
    ],
)
def test_the_published_case_contains_94_32(params, macs):
    found = PUBLISHED.estimate(params, macs)
    assert found.low_pct < 94.32 < found.high_pct
    assert found.value_pct == pytest.approx(94.32, abs=0.35)
    assert found.high_pct < 95.49
    assert found.rows == 24
    assert found.own_rows == 0
    assert found.leave_one_out_pct == pytest.approx(0.199, abs=0.001)
    assert "12 of them of WRN40-4 on cifar-10" in found.basis


def test_published_rows_lie_in_their_own_intervals():
    inside = []
    for row in published_rows():
        model = fit_accuracy_model(row.teacher)
        found = model.estimate(row.params, row.macs, row.method)
        inside.append(found.low_pct <= row.accuracy_pct <= found.high_pct)
    # 95 % of 24 rows are 22.8; the one outside is NoNN-8S-XL, by 0.01.
    assert sum(inside) == 23


def test_eight_students_are_better_than_two_and_one_model_with_attention_is_no_worse():
    two, eight = (PUBLISHED.estimate(k * 434_784, k * 85_241_344) for k in (2, 8))
    assert eight.value_pct > two.value_pct
    alone = PUBLISHED.estimate(434_784, 85_241_344, "atkd")
    plain = PUBLISHED.estimate(434_784, 85_241_344, "kd")
    assert plain.value_pct < alone.value_pct < two.value_pct


@given(SIZES, SIZES)
def test_more_of_either_never_predicts_less(one, other):
    small = tuple(map(min, one, other))
    large = tuple(map(max, one, other))
    for model in (PUBLISHED, fit_accuracy_model(UNKNOWN, 90.0)):
        assert model.index(*small) <= model.index(*large)
        assert model.accuracy_pct(model.index(*small)) <= model.accuracy_pct(model.index(*large))


@given(SIZES)
def test_the_estimate_is_the_accuracy_of_the_index(size):
    found = PUBLISHED.estimate(*size)
    assert found.value_pct == pytest.approx(PUBLISHED.accuracy_pct(PUBLISHED.index(*size)))
    # Ten classes: chance is right on a tenth.
    assert 10 <= found.low_pct <= found.value_pct <= found.high_pct < 95.49
    assert found.drop_low_pct <= found.drop_pct <= found.drop_high_pct <= 85.49


@given(st.floats(50, 95.4), st.sampled_from(["nonn", "kd", "atkd"]))
def test_the_index_for_an_accuracy_gives_it(accuracy, method):
    index = PUBLISHED.index_for(accuracy, method)
    assert PUBLISHED.accuracy_pct(index, method) == pytest.approx(accuracy)
    assert PUBLISHED.accuracy_pct(index - 0.01, method) < accuracy


@pytest.mark.parametrize(("classes", "chance"), [(2, 50.0), (3, 100 / 3), (10, 10.0)])
def test_no_network_is_expected_to_be_worse_than_chance(classes, chance):
    teacher = TeacherFacts.of_network("wrn16-2", CIFAR, classes)
    for known in (90.0, 34.0):
        model = fit_accuracy_model(teacher, max(known, chance))
        found = model.estimate(1e3, 1e4)
        assert (found.value_pct, found.low_pct) == (chance, chance)
        assert chance <= found.high_pct <= max(known, chance)
        assert found.drop_high_pct == pytest.approx(max(known, chance) - chance)
        assert model.accuracy_pct(model.index(1e3, 1e4)) == chance
        # Whatever the size, chance is reached; a little more takes some.
        assert model.index_for(chance) == -inf
        assert model.index_for(chance + 0.01) > model.index(1e3, 1e4)


def test_a_teacher_worse_than_chance_is_the_least():
    found = fit_accuracy_model(UNKNOWN, 6.0).estimate(1e3, 1e4)
    assert (found.low_pct, found.value_pct, found.high_pct) == (6.0, 6.0, 6.0)


def test_a_teacher_of_one_wrong_image_is_not_taken_for_worse_than_chance():
    model = fit_accuracy_model(UNKNOWN, 0.0, teacher_images=1)
    found = model.estimate(UNKNOWN.params, UNKNOWN.macs)
    assert (found.low_pct, found.value_pct, found.drop_pct) == (10, 10, 0)
    # Wilson's 95 % interval of 0 of 1 ends at 3.8415 / 4.8415 = 79.3 %; a drop comes off.
    assert 50 < found.high_pct < 79.3
    assert "accuracy is of 1 validation image" in found.basis
    surely = fit_accuracy_model(UNKNOWN, 2.0, teacher_images=500).estimate(1e3, 1e4)
    assert 2 < surely.low_pct < 4


def test_of_an_unknown_teacher_no_drop_is_larger_than_from_all_to_chance():
    found = fit_accuracy_model(UNKNOWN).estimate(1e3, 1e4)
    assert found.drop_high_pct == 90.0


def test_a_teacher_measured_on_few_images_widens_the_interval():
    size = (869_568, 170_482_688)
    sure = fit_accuracy_model(WRN40, 95.49).estimate(*size)
    for images, correct in ((135, 129), (1, 1)):
        known = 100 * correct / images
        model = fit_accuracy_model(WRN40, known, teacher_images=images)
        found = model.estimate(*size)
        plain = fit_accuracy_model(WRN40, known).estimate(*size)
        interval = binomtest(correct, images).proportion_ci(0.95, method="wilson")
        below = hypot(known - 100 * interval.low, plain.value_pct - plain.low_pct)
        above = hypot(100 * interval.high - known, plain.high_pct - plain.value_pct)
        assert found.value_pct == plain.value_pct
        assert found.low_pct == pytest.approx(plain.value_pct - below)
        assert found.high_pct == pytest.approx(min(100, plain.value_pct + above))
        assert found.high_pct - found.low_pct > sure.high_pct - sure.low_pct
        assert f"accuracy is of {images} validation image" in found.basis


@pytest.mark.parametrize("accuracy", [95.49, 96.0, 100.0])
def test_no_size_reaches_the_teacher(accuracy):
    assert PUBLISHED.index_for(accuracy) == inf


def test_any_size_reaches_nothing():
    assert PUBLISHED.index_for(0.0) == -inf


def test_a_flat_fit_reaches_what_it_predicts_and_no_more():
    # Own runs that get worse with size, and many of them, take the slope to zero.
    worse = [_own(84 - i, params=3e4 * 2**i, macs=7e6 * 2**i) for i in range(12)]
    model = fit_accuracy_model(UNKNOWN, None, worse)
    assert model.slope == 0
    value = model.accuracy_pct(model.index(1e5, 1e7))
    assert model.index_for(value - 0.1) == -inf
    assert model.index_for(value + 0.1) == inf


def test_an_unknown_teacher_has_a_wider_interval_and_says_so():
    found = fit_accuracy_model(UNKNOWN, 95.49).estimate(869_568, 170_482_688)
    known = PUBLISHED.estimate(869_568, 170_482_688)
    assert "not among them" in found.basis
    assert found.drop_high_pct / found.drop_low_pct > 3 * known.drop_high_pct / known.drop_low_pct
    assert found.leave_one_out_pct > 5 * known.leave_one_out_pct


def test_without_a_teachers_accuracy_only_the_drop_is_told():
    model = fit_accuracy_model(UNKNOWN)
    found = model.estimate(60e3, 13e6)
    assert (found.value_pct, found.low_pct, found.high_pct) == (None, None, None)
    assert 0 < found.drop_low_pct < found.drop_pct < found.drop_high_pct
    for ask in (model.accuracy_pct, model.index_for):
        with pytest.raises(InputError, match="only the drop"):
            ask(10.0)


def test_a_teacher_of_its_own_accuracy_replaces_the_published_one():
    worse = fit_accuracy_model(WRN40, 93.49)
    found, published = (m.estimate(869_568, 170_482_688) for m in (worse, PUBLISHED))
    # Its error is 6.51 instead of 4.51, and so much larger is the drop.
    assert found.drop_pct == pytest.approx(published.drop_pct * 6.51 / 4.51)
    assert found.value_pct == pytest.approx(93.49 - found.drop_pct)


def test_one_own_run_gives_the_teacher_an_offset():
    # One row tells its teacher's offset, so that the fit goes through it.
    for accuracy in (80.0, 85.0):
        model = fit_accuracy_model(UNKNOWN, None, [_own(accuracy)])
        found = model.estimate(60e3, 13e6)
        assert found.value_pct == pytest.approx(accuracy)
        assert (found.own_rows, found.rows) == (1, 25)
        assert "1 own and 24 rows" in found.basis
        assert model.slope == pytest.approx(PUBLISHED.slope)


def test_own_runs_narrow_what_is_known_of_a_teacher():
    unknown = fit_accuracy_model(UNKNOWN, 90.0).estimate(60e3, 13e6)
    one = fit_accuracy_model(UNKNOWN, None, [_own(85.0)]).estimate(60e3, 13e6)
    three = fit_accuracy_model(UNKNOWN, None, [_own(a) for a in (84.8, 85.0, 85.2)])
    widths = [
        found.drop_high_pct / found.drop_low_pct
        for found in (unknown, one, three.estimate(60e3, 13e6))
    ]
    assert widths[0] > widths[1] > widths[2]


def test_the_error_of_own_runs_is_that_of_the_same_teacher():
    one = fit_accuracy_model(UNKNOWN, None, [_own(85.0)])
    two = fit_accuracy_model(UNKNOWN, None, [_own(85.0), _own(83.0)])
    # Alone, a run cannot be left out; two of one size predict each other.
    assert one.leave_one_out_pct > 2.0
    assert two.leave_one_out_pct == pytest.approx(2.0, abs=0.2)


def test_own_runs_come_before_published_ones_of_a_like_teacher():
    mine = replace(WRN40, fingerprint="mine", title="mine")
    rows = [_own(a, mine, 869_568, 170_482_688) for a in (85.0, 85.2)]
    found = fit_accuracy_model(mine, None, rows).estimate(869_568, 170_482_688)
    assert found.value_pct == pytest.approx(85.1, abs=0.01)
    assert "2 of them of mine" in found.basis
    assert "same network" not in found.basis
    # Published figures say nothing of 90 % otherwise.
    assert "same network, image and classes" in PUBLISHED.estimate(1e6, 1e8).basis


@pytest.mark.parametrize(("factor", "word"), [(1e-3, "smaller"), (10, "larger")])
def test_sizes_beyond_all_rows_are_said_to_be_extrapolated(factor, word):
    found = PUBLISHED.estimate(factor * WRN40.params, factor * WRN40.macs)
    assert f"{word} beside its teacher than any row" in found.basis
    assert "extrapolated" not in PUBLISHED.estimate(1e6, 1e8).basis
