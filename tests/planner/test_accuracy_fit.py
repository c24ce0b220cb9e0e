from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
import pytest
from scipy.optimize import lsq_linear
from scipy.stats import t as student_t

from planner.accuracy.model import (
    LEAST_PCT,
    fit_rows,
    leave_one_out_errors,
    leave_teacher_out_errors,
    root_mean_square,
)
from planner.accuracy.rows import AccuracyRow, TeacherFacts, published_rows, size_index

FIRST = TeacherFacts("wrn40-4", "3x32x32", 10, 8e6, 1e9, title="first")
SECOND = TeacherFacts("wrn28-10", "3x32x32", 100, 36e6, 5e9, title="second")
OFFSETS = {FIRST: -2.5, SECOND: -3.0}
ERRORS = {FIRST: 5.0, SECOND: 20.0}
KD, SLOPE = 0.4, 0.7


def _row(teacher, method, params, macs, noise=0.0):
    missing = size_index(teacher.params, teacher.macs) - size_index(params, macs)
    centre = OFFSETS[teacher] + KD * (method == "kd") + SLOPE * missing + noise
    whole = 100 - ERRORS[teacher]
    accuracy = whole - ERRORS[teacher] * exp(centre)
    return AccuracyRow("made", "test", method, 2, teacher, whole, params, macs, accuracy)


def _exact(noise=(0.0,) * 8):
    made = [
        (FIRST, "nonn", 1e6, 1e8),
        (FIRST, "nonn", 2e6, 1.5e8),
        (FIRST, "kd", 1e6, 2e8),
        (FIRST, "atkd", 3e6, 4e8),
        (SECOND, "nonn", 2e6, 4e8),
        (SECOND, "nonn", 4e6, 3e8),
        (SECOND, "kd", 3e6, 5e8),
        (SECOND, "nonn", 9e6, 2e9),
    ]
    return [_row(*one, each) for one, each in zip(made, noise, strict=True)]


NOISY = (0.1, -0.2, 0.15, 0.05, -0.1, 0.2, -0.05, 0.12)


def _matrix(rows):
    """Build design and response again, in another way."""
    teachers = sorted({row.teacher.title for row in rows})
    lines = []
    for row in rows:
        ratio = (row.teacher.params * row.teacher.macs) / (row.params * row.macs)
        lines.append(
            [
                *(float(row.teacher.title == title) for title in teachers),
                float(row.method == "kd"),
                log(sqrt(ratio)),
            ]
        )
    drops = [
        (row.teacher_accuracy_pct - row.accuracy_pct) / (100 - row.teacher_accuracy_pct)
        for row in rows
    ]
    return np.array(lines), np.log(drops), teachers


def test_exact_rows_give_their_parameters_back():
    fit = fit_rows(_exact())
    assert dict(zip(fit.teachers, fit.offsets, strict=True)) == pytest.approx(OFFSETS)
    assert (fit.kd, fit.slope) == pytest.approx((KD, SLOPE))
    assert fit.variance == pytest.approx(0.0, abs=1e-20)
    assert fit.freedom == 4


def test_the_worked_line():
    # Two rows of each of two teachers; halving both sizes moves the index by ln 2, which multiplies
    # one teacher's drop by 2 and the other's by 8: the slope is log2 of their geometric mean, 2.
    rows = []
    for teacher, drops in ((FIRST, (0.5, 1.0)), (SECOND, (0.5, 4.0))):
        for halvings, drop in enumerate(drops, start=1):
            size = (teacher.params / 2**halvings, teacher.macs / 2**halvings)
            whole = 100 - ERRORS[teacher]
            rows.append(AccuracyRow("r", "t", "nonn", 2, teacher, whole, *size, whole - drop))
    kd = replace(rows[0], method="kd")
    assert fit_rows([*rows, kd]).slope == pytest.approx(2.0)


def test_noisy_rows_are_fitted_by_least_squares():
    rows = _exact(NOISY)
    design, wanted, _ = _matrix(rows)
    expected, left, *_ = np.linalg.lstsq(design, wanted, rcond=None)
    fit = fit_rows(rows)
    assert fit.values == pytest.approx(expected)
    assert fit.variance == pytest.approx(float(left[0]) / 4)


def test_a_falling_slope_is_held_at_zero():
    # The smaller, the better: no such thing is believed.
    rows = [
        replace(row, accuracy_pct=row.teacher_accuracy_pct - drop)
        for row, drop in zip(_exact(), (1, 2, 3, 4, 1, 1.5, 2, 5), strict=True)
    ]
    design, wanted, _ = _matrix(rows)
    assert np.linalg.lstsq(design, wanted, rcond=None)[0][-1] < 0
    lowest = [-np.inf] * 3 + [0.0]
    expected = lsq_linear(design, wanted, bounds=(lowest, np.inf), method="bvls").x
    fit = fit_rows(rows)
    assert fit.slope == 0
    assert fit.values == pytest.approx(expected, abs=1e-9)
    assert fit.freedom == 5
    assert not fit.covariance[-1].any()


def test_the_interval_is_that_of_a_new_observation():
    rows = _exact(NOISY)
    fit = fit_rows(rows)
    design, wanted, teachers = _matrix(rows)
    missing = 1.7
    line = np.array([*(float(title == "second") for title in teachers), 1.0, missing])
    left = wanted - design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    variance = left @ left / 4
    expected = student_t.ppf(0.975, 4) * sqrt(
        variance * (1 + line @ np.linalg.inv(design.T @ design) @ line)
    )
    spread = fit.spread(fit.known(SECOND), missing, "kd", 20.0)
    assert spread.half == pytest.approx(expected)
    assert spread.centre == pytest.approx(float(line @ fit.values) + log(20.0))


def test_an_unknown_teacher_has_the_mean_offset_and_their_scatter():
    fit = fit_rows(_exact())
    spread = fit.spread(None, 1.0, "nonn", 10.0)
    assert spread.centre == pytest.approx(-2.75 + SLOPE + log(10.0))
    # Offsets -2.5 and -3.0: variance 0.125, for a third teacher times 1.5; one degree of freedom.
    assert spread.half == pytest.approx(student_t.ppf(0.975, 1) * sqrt(0.125 * 1.5), rel=1e-6)


def test_without_a_teachers_accuracy_the_drops_in_points_scatter():
    fit = fit_rows(_exact())
    spread = fit.spread(None, 0.0, "nonn", None)
    points = np.array([-2.5 + log(5.0), -3.0 + log(20.0)])
    assert spread.centre == pytest.approx(points.mean())
    assert spread.half == pytest.approx(
        student_t.ppf(0.975, 1) * sqrt(points.var(ddof=1) * 1.5), rel=1e-6
    )


def test_a_known_teachers_own_error_scales_the_drop():
    fit = fit_rows(_exact())
    place = fit.known(FIRST)
    here = fit.spread(place, 1.0, "nonn", None)
    assert here.centre == pytest.approx(fit.spread(place, 1.0, "nonn", 5.0).centre)
    twice = fit.spread(place, 1.0, "nonn", 10.0)
    assert (twice.centre - here.centre, twice.half) == pytest.approx((log(2), here.half))


def test_rows_at_or_above_their_teacher_count_as_the_least_drop():
    rows = _exact()
    above = [*rows[:-1], replace(rows[-1], accuracy_pct=85.0)]
    least = [*rows[:-1], replace(rows[-1], accuracy_pct=80.0 - LEAST_PCT)]
    assert fit_rows(above).values == pytest.approx(fit_rows(least).values)


def test_a_teacher_without_errors_can_be_fitted():
    perfect = replace(FIRST, fingerprint="perfect")
    row = replace(_exact()[0], teacher=perfect, teacher_accuracy_pct=100.0, accuracy_pct=99.5)
    assert np.isfinite(fit_rows([*_exact(), row]).values).all()


def test_leaving_out_equals_explicit_refits_of_published_rows():
    rows = list(published_rows())
    design, wanted, _ = _matrix(rows)
    expected = []
    for place, row in enumerate(rows):
        others = [i for i in range(len(rows)) if i != place]
        values = np.linalg.lstsq(design[others], wanted[others], rcond=None)[0]
        assert values[-1] > 0
        drop = (100 - row.teacher_accuracy_pct) * exp(design[place] @ values)
        expected.append(row.teacher_accuracy_pct - drop - row.accuracy_pct)
    assert leave_one_out_errors(rows) == pytest.approx(tuple(expected))


def test_the_only_row_of_a_teacher_cannot_be_left_out():
    alone = replace(_exact()[0], teacher=replace(FIRST, network="wrn10-1"))
    errors = leave_one_out_errors([*_exact(), alone])
    assert errors[-1] is None
    assert all(error == pytest.approx(0.0, abs=1e-9) for error in errors[:-1])


def test_leaving_out_a_teacher_leaves_the_mean_of_the_others():
    third = replace(FIRST, network="wrn10-1", classes=5)
    rows = [*_exact(), *(replace(row, teacher=third) for row in _exact()[:4])]
    errors = leave_teacher_out_errors(rows)
    # For a row of the third one, whose offset is the first's, the others' mean is -2.75.
    row = rows[8]
    drop = 5.0 * exp(-2.75 + SLOPE * row.missing)
    assert errors[8] == pytest.approx(95.0 - drop - row.accuracy_pct)


def test_rows_of_a_like_teacher_are_left_out_with_it():
    again = replace(FIRST, fingerprint="again")
    third = replace(FIRST, network="wrn10-1")
    copies = [replace(row, teacher=t) for t in (again, third) for row in _exact()[:4]]
    errors = leave_teacher_out_errors([*_exact(), *copies])
    # Left without the first and its like: the second (-3.0) and the third (-2.5).
    row = copies[0]
    drop = 5.0 * exp(-2.75 + SLOPE * row.missing)
    assert errors[0] == errors[8] == pytest.approx(95.0 - drop - row.accuracy_pct)


def test_root_mean_square():
    assert root_mean_square([3.0, None, -4.0]) == pytest.approx(sqrt(12.5))
    assert root_mean_square([None]) is None


def test_published_figures_of_the_fit():
    rows = published_rows()
    fit = fit_rows(rows)
    errors = leave_one_out_errors(rows)
    near = [
        e for e, row in zip(errors, rows, strict=True) if row.teacher.network == "wrn40:64,128,256"
    ]
    assert (fit.slope, fit.kd) == pytest.approx((0.684, 0.312), abs=0.001)
    assert root_mean_square(near) == pytest.approx(0.199, abs=0.001)
    assert root_mean_square(errors) == pytest.approx(0.506, abs=0.001)
