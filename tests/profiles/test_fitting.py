"""Fits against known coefficients, a hand computation, and scipy's own standard errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from profiles import Quantity
from profiles.fitting import Observation, fit_observations, relative_fit


@given(
    fixed=st.floats(0.1, 100),
    slope=st.floats(0.01, 10),
    mmac=st.lists(st.integers(1, 2000), min_size=3, max_size=6, unique=True),
)
def test_an_exact_line_is_found_again(fixed, slope, mmac):
    observed = [fixed + slope * each for each in mmac]
    fit = relative_fit({"fixed": [1.0] * len(mmac), "slope": mmac}, observed)
    assert fit.unidentifiable == ()
    for each, value in zip(mmac, observed, strict=True):
        found = fit.coefficients["fixed"].value + fit.coefficients["slope"].value * each
        assert found == pytest.approx(value, rel=1e-4)
    assert fit.residual_pct <= 0.01


@given(
    st.lists(
        st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3), st.floats(0.1, 1e3)),
        min_size=3,
        max_size=8,
    )
)
def test_no_coefficient_is_negative_and_none_better_is_near(rows):
    first, second, observed = zip(*rows, strict=True)
    fit = relative_fit({"a": first, "b": second}, observed)
    found = np.array([fit.coefficients[name].value for name in fit.coefficients])
    assert (found >= 0).all()
    if fit.unidentifiable:
        return
    design = np.column_stack([first, second]) / np.array(observed)[:, None]
    least = np.sum((design @ found - 1) ** 2)
    for factor in (0.99, 1.01):
        for which in (0, 1):
            moved = found.copy()
            moved[which] *= factor
            # Six digits are kept of a coefficient.
            assert np.sum((design @ moved - 1) ** 2) >= least * (1 - 1e-6) - 1e-9


def test_a_line_that_would_begin_below_zero_begins_at_zero():
    # Through both points goes -1.1 + 2.1 x.
    fit = relative_fit({"fixed": [1.0, 1.0], "slope": [1.0, 10.0]}, [1.0, 20.0])
    assert fit.coefficients["fixed"].value == 0
    assert fit.coefficients["fixed"].standard_error is None
    assert fit.coefficients["slope"].value > 0


def test_residual_is_the_largest_relative_error():
    # One constant for 90 and 110: minimise (c/90 - 1)^2 + (c/110 - 1)^2 by hand.
    best = (1 / 90 + 1 / 110) / (1 / 90**2 + 1 / 110**2)
    fit = relative_fit({"c": [1.0, 1.0]}, [90.0, 110.0])
    assert fit.coefficients["c"].value == pytest.approx(best, rel=1e-5)
    assert fit.residual_pct == pytest.approx(100 * (1 - best / 110), abs=0.01)


def test_what_is_known_is_not_fitted():
    fit = relative_fit({"c": [1.0, 2.0]}, [5.0, 7.0], known=[3.0, 3.0])
    assert fit.coefficients["c"].value == pytest.approx(2.0)


def test_standard_errors_are_those_of_weighted_least_squares():
    mmac = np.array([100.0, 250.0, 400.0, 900.0, 1300.0])
    observed = np.array([140.0, 260.0, 430.0, 930.0, 1330.0])
    fit = relative_fit({"fixed": [1.0] * 5, "slope": list(mmac)}, list(observed))
    values, covariance = curve_fit(
        lambda x, fixed, slope: fixed + slope * x, mmac, observed, sigma=observed
    )
    for position, name in enumerate(("fixed", "slope")):
        assert fit.coefficients[name].value == pytest.approx(values[position], rel=1e-4)
        assert fit.coefficients[name].standard_error == pytest.approx(
            np.sqrt(covariance[position, position]), rel=1e-4
        )


def test_the_standard_error_of_one_constant_by_hand():
    # Rows 90 and 110 with one coefficient c: s^2 = RSS / 1 and var = s^2 / sum(1 / y^2).
    weight = 1 / 90**2 + 1 / 110**2
    best = (1 / 90 + 1 / 110) / weight
    rss = (best / 90 - 1) ** 2 + (best / 110 - 1) ** 2
    fit = relative_fit({"c": [1.0, 1.0]}, [90.0, 110.0])
    assert fit.coefficients["c"].standard_error == pytest.approx((rss / weight) ** 0.5, rel=1e-4)


def test_as_many_coefficients_as_rows_have_no_standard_error():
    fit = relative_fit({"fixed": [1.0, 1.0], "slope": [1.0, 2.0]}, [3.0, 4.0])
    assert [each.standard_error for each in fit.coefficients.values()] == [None, None]


def test_coefficients_that_the_rows_do_not_tell_apart_are_left_out():
    # Two rows of one size: a constant and a slope cannot be told apart, the third term can.
    fit = relative_fit(
        {"fixed": [1.0, 1.0, 0.0], "slope": [8.0, 8.0, 0.0], "own": [0.0, 0.0, 1.0]},
        [10.0, 10.0, 3.0],
    )
    assert fit.unidentifiable == ("fixed", "slope")
    assert fit.coefficients["own"].value == pytest.approx(3.0)


@given(scale=st.sampled_from([1e-9, 1e-3, 1.0, 1e6]))
def test_units_do_not_change_what_is_told(scale):
    columns = {"fixed": [1.0, 1.0, 1.0], "bytes": [1e5 * scale, 2e5 * scale, 4e5 * scale]}
    fit = relative_fit(columns, [10.0, 19.0, 37.0])
    assert fit.coefficients["fixed"].value == pytest.approx(1.0, rel=1e-4)
    assert fit.coefficients["bytes"].value == pytest.approx(9e-5 / scale, rel=1e-4)


def test_a_stated_figure_is_known_to_the_lines():
    stated = {"fixed": Quantity(value=2.0, provenance="assumed", source="this test"), "slope": None}
    lines = [
        Observation(12.0, {"fixed": 1.0, "slope": 5.0}),
        Observation(22.0, {"fixed": 1.0, "slope": 10.0}),
    ]
    found = fit_observations(lines, stated, "this test")
    assert set(found) == {"slope"}
    assert found["slope"].value == pytest.approx(2.0)
    assert found["slope"].provenance == "fitted"


def test_nothing_is_told_by_no_lines():
    assert fit_observations([], {}, "this test") == {}
    assert fit_observations([Observation(1.0, {"fixed": 0.0})], {}, "this test") == {}
