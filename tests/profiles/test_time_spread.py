"""Spread of times: closed forms against a million draws, integrals against closed forms."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gumbel_r

from profiles.time_spread import (
    MOST_CV,
    SpreadTime,
    expected_maximum_ms,
    maximum_quantile_ms,
    quantile_factor,
    slowest_factor,
)

JOINS = 1_000_000


def draws(times, count=JOINS, seed=0):
    """Largest of `times`, `count` times, by scipy's Gumbel distribution."""
    generator = np.random.default_rng(seed)
    largest = np.full(count, -np.inf)
    for time in times:
        one = np.full(count, time.mean_ms)
        if time.scale_ms:
            one = gumbel_r.rvs(time.location_ms, time.scale_ms, count, random_state=generator)
        largest = np.maximum(largest, one)
    return largest


@pytest.mark.parametrize(
    "times",
    [
        [SpreadTime.of(99.7, 0.04)] * 8,
        [SpreadTime.of(99.7, 0.04, 5.0 * b) for b in range(8)],
        [SpreadTime.of(20, 0.1), SpreadTime.of(18, 0.25), SpreadTime.of(22, 0.01)],
        [SpreadTime.of(50, 0.2), SpreadTime.of(51, 0.2), SpreadTime(52.0)],
        [SpreadTime.of(50, 0.001), SpreadTime.of(49, MOST_CV), SpreadTime.of(10, 0.3, 40)],
    ],
)
def test_the_expected_maximum_is_that_of_a_million_joins(times):
    largest = draws(times)
    assert expected_maximum_ms(times) == pytest.approx(largest.mean(), rel=1e-3)
    for share in (0.5, 0.95, 0.99):
        found = maximum_quantile_ms(times, share)
        assert found == pytest.approx(np.quantile(largest, share), rel=2e-3)


def test_a_draw_has_its_mean_and_deviation():
    one = SpreadTime.of(80.0, 0.05)
    known = gumbel_r(one.location_ms, one.scale_ms)
    assert (known.mean(), known.std()) == pytest.approx((80, 4))
    assert known.cdf(0) < 1e-15
    widest = SpreadTime.of(80.0, MOST_CV)
    assert gumbel_r.cdf(0, widest.location_ms, widest.scale_ms) < 1e-17


def test_alike_boards_are_slower_by_the_logarithm_of_their_number():
    times = [SpreadTime.of(100.0, 0.05)]
    for boards in (1, 2, 8, 100):
        expected = 100 + 5 * math.sqrt(6) / math.pi * math.log(boards)
        assert expected_maximum_ms(times * boards) == pytest.approx(expected)
        assert 100 * slowest_factor(0.05, boards) == pytest.approx(expected)


def test_a_quantile_of_the_largest_is_each_ones_at_the_root_of_the_share():
    times = [SpreadTime.of(100.0, 0.05)] * 4
    found = 100 * quantile_factor(0.05, 0.95**0.25)
    assert maximum_quantile_ms(times, 0.95) == pytest.approx(found)
    unlike = [SpreadTime.of(100.0, 0.05), SpreadTime.of(90.0, 0.1)]
    each = [gumbel_r(one.location_ms, one.scale_ms).ppf(0.95**0.5) for one in unlike]
    assert min(each) < maximum_quantile_ms(unlike, 0.95) < max(each)


@pytest.mark.parametrize("apart", [0.0, 1e-4, 0.5, 8.0, 300.0])
@pytest.mark.parametrize("ratio", [1.0001, 3.0, 200.0])
def test_the_integral_is_that_of_another_library(apart, ratio):
    times = [SpreadTime(100.0, 1.0), SpreadTime(100.0 + apart, ratio), SpreadTime(99.5)]

    def above(x):
        inside = [math.exp(-math.exp(-(x - one.location_ms) / one.scale_ms)) for one in times[:2]]
        return 1 - math.prod(inside)

    middle = 100 + apart
    known = 99.5 + sum(
        quad(above, *ends, limit=500)[0]
        for ends in ((99.5, 101), (101, 110), (110, middle + 120), (middle + 120, 60 * ratio + 420))
    )
    assert expected_maximum_ms(times) == pytest.approx(known, rel=1e-8)


def test_without_spread_the_latest_is_known():
    assert expected_maximum_ms([SpreadTime(3.0), SpreadTime(5.0)]) == 5
    assert maximum_quantile_ms([SpreadTime(3.0), SpreadTime(5.0)], 0.95) == 5
