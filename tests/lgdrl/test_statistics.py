"""Intervals against closed forms and scipy's own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lgdrl.statistics import Rate, bootstrap, median_interval, paired_difference, t_interval, wilson

Z95, Z90 = 1.959963984540054, 1.6448536269514722
"""Two-sided quantiles of the normal distribution, from tables."""


def closed_form(count, total, z):
    """Wilson's interval as it is written in textbooks."""
    share = count / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return middle - half, middle + half


@pytest.mark.parametrize(("level", "z"), [(0.95, Z95), (0.9, Z90)])
@pytest.mark.parametrize(("count", "total"), [(0, 10), (9, 10), (10, 10), (1, 1), (873, 1000)])
def test_wilson_is_the_closed_form(count, total, level, z):
    assert wilson(count, total, level) == pytest.approx(closed_form(count, total, z), abs=1e-12)


def test_wilson_knows_its_limits():
    assert np.isnan(wilson(0, 0)).all()
    for count, total in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="k"):
            wilson(count, total)


@given(total=st.integers(1, 500), data=st.data())
def test_a_wilson_interval_holds_the_share_and_stays_in_the_unit_interval(total, data):
    count = data.draw(st.integers(0, total))
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1


def test_a_rate_prints_and_stores_its_wilson_interval():
    rate = Rate(9, 10)
    low, high = closed_form(9, 10, Z95)
    assert str(rate) == f"90.0 [{100 * low:.1f}, {100 * high:.1f}]"
    assert rate.to_dict() == {"count": 9, "total": 10, "value": 0.9, "low": rate.interval[0], "high": rate.interval[1]}
    assert rate.interval == wilson(9, 10)
    empty = Rate(0, 0)
    assert math.isnan(empty.value)
    assert np.isnan(empty.interval).all()


def test_a_t_interval_is_students():
    values = [0.1, 0.4, 0.35]
    half = 4.302652729911275 * np.std(values, ddof=1) / np.sqrt(3)  # t(0.975, 2) from tables
    assert t_interval(values) == pytest.approx((np.mean(values), np.mean(values) - half, np.mean(values) + half))
    found = stats.ttest_1samp(values, 0).confidence_interval(0.8)
    assert t_interval(values, 0.8)[1:] == pytest.approx((found.low, found.high))


def test_a_t_interval_needs_two_seeds():
    assert t_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    one = t_interval([0.5])
    assert one.mean == 0.5
    assert np.isnan(one[1:]).all()
    assert np.isnan(t_interval([])).all()


def test_the_interval_of_a_median_covers_it_as_often_as_it_says():
    stream = np.random.default_rng(0)
    intervals = [median_interval(stream.exponential(size=20)) for _ in range(4000)]
    inside = np.mean([m.low <= np.log(2) <= m.high for m in intervals])
    assert 0.95 <= inside <= 0.97


def test_the_interval_of_a_median_is_made_of_the_values():
    """Of 12 values the 3rd smallest and largest: 2 P(Bin(12, 1/2) < 3) = 158 / 4096 < 5 % < 2 P(Bin(12, 1/2) < 4)."""
    found = median_interval(list(range(12)))
    assert (found.low, found.median, found.high) == (2, 5.5, 9)
    assert median_interval([7.0]).low == median_interval([7.0]).high == 7.0


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_a_paired_difference_is_the_paired_t_test(level):
    a, b = [0.91, 0.88, 0.95, 0.7], [0.85, 0.86, 0.9, 0.72]
    found, expected = paired_difference(a, b, level), stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(level)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(a) - np.mean(b), low, high))
    assert found.p_value == pytest.approx(expected.pvalue)
    back = paired_difference(b, a, level)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))
    assert back.p_value == pytest.approx(found.p_value)
    assert found.to_dict() == {"mean": found.mean, "low": found.low, "high": found.high, "p_value": found.p_value}


def test_pairing_removes_what_the_seeds_share():
    """The spread between seeds is large, the gain of each seed is nearly the same."""
    seeds = np.array([0.2, 0.5, 0.8])
    found = paired_difference(seeds + np.array([0.05, 0.06, 0.05]), seeds)
    assert found.p_value < 0.01 < stats.ttest_ind(seeds + 0.05, seeds).pvalue


def test_paired_differences_at_the_limits():
    assert paired_difference([1, 2], [1, 2]).to_dict() == {"mean": 0, "low": 0, "high": 0, "p_value": 1}
    assert paired_difference([2, 3], [1, 2]).to_dict() == {"mean": 1, "low": 1, "high": 1, "p_value": 0}
    one = paired_difference([2], [1])
    assert one.mean == 1
    assert np.isnan([one.low, one.high, one.p_value]).all()
    with pytest.raises(ValueError, match="2 and 1 values"):
        paired_difference([1, 2], [1])


def test_a_bootstrap_interval_is_scipys_percentile_bootstrap():
    sample = np.random.default_rng(3).gamma(2.0, 0.1, 200)

    def p95(drawn, axis):
        return np.percentile(drawn, 95, axis=axis)

    found = bootstrap(sample, p95, seed=5)
    expected = stats.bootstrap((sample,), p95, n_resamples=300, method="percentile", rng=np.random.default_rng(5))
    assert found == tuple(expected.confidence_interval)
    assert found == bootstrap(list(sample), p95, seed=5)
    assert found != bootstrap(sample, p95, seed=6)
    low, high = bootstrap(sample, p95, level=0.5, seed=5)
    assert found[0] < low < np.percentile(sample, 95) < high < found[1]


def test_a_bootstrapped_mean_agrees_with_the_t_interval():
    sample = np.random.default_rng(1).normal(5.0, 2.0, 400)
    assert bootstrap(sample, np.mean, resamples=5000) == pytest.approx(t_interval(sample)[1:], abs=0.03)


def test_a_sample_of_one_value_has_an_interval_without_width():
    assert bootstrap([0.25], np.mean) == (0.25, 0.25)
    assert bootstrap([3.0, 3.0, 3.0], np.var) == (0.0, 0.0)
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap([], np.mean)
