"""Intervals over clusters, against closed forms, an independent library and simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from imgalign.statistics import clustered_mean, clustered_rate, expanded_tail, t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 11, 47, 400])
def test_t_quantile_agrees_with_scipy(degrees):
    # From 3 on by an expansion that is cut off: 0.12 % off there.
    assert t_quantile(0.975, degrees=degrees) == pytest.approx(
        stats.t.ppf(0.975, degrees), rel=2e-3
    )


def test_tail_of_many_clusters_is_two_and_a_half_percent():
    assert expanded_tail(100_000) == pytest.approx(0.025, abs=1e-5)
    assert expanded_tail(10) == pytest.approx(
        stats.norm.cdf(-math.sqrt(10 / 9) * stats.t.ppf(0.975, 9)), rel=1e-3
    )


def test_interval_of_normal_clusters_is_as_wide_as_a_t_interval():
    values = stats.norm.ppf((np.arange(24) + 0.5) / 24)
    found = clustered_mean(values, range(24), seed=0)
    half = stats.t.ppf(0.975, 23) * values.std(ddof=1) / math.sqrt(24)
    assert found.value == pytest.approx(0, abs=1e-12)
    # 4000 resamples leave a few percent of Monte-Carlo error in a quantile
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


def test_interval_of_few_clusters_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    clusters = [i // 4 for i in range(40)]
    covered = 0
    for _ in range(200):
        values = np.repeat(rng.normal(size=10), 4) + 0.5 * rng.normal(size=40)
        found = clustered_mean(values, clusters, seed=0)
        covered += found.low <= 0 <= found.high
    # 190 expected, with a standard deviation of 3; plain percentiles give 180
    assert 184 <= covered <= 197


def test_copies_of_an_observation_do_not_narrow_its_interval():
    values = [0.1, 0.9, 0.4, 0.7, 0.3]
    once = clustered_mean(values, range(5), seed=3)
    often = clustered_mean(np.repeat(values, 50), [i // 50 for i in range(250)], seed=3)
    assert often.value == pytest.approx(once.value)
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_mean_is_over_observations_and_not_over_clusters():
    assert clustered_mean([1, 1, 1, 0], ["a", "a", "a", "b"], seed=0).value == 0.75


def test_one_cluster_gives_no_interval():
    found = clustered_mean([1.0, 2.0], ["a", "a"], seed=0)
    assert (found.value, found.low, found.high) == (1.5, None, None)


def test_no_failure_in_ten_clusters_is_not_a_certainty():
    found = clustered_rate([1.0] * 40, [i // 4 for i in range(40)], seed=0)
    z = stats.norm.ppf(0.975)
    assert (found.value, found.high) == pytest.approx((1, 1))
    assert found.low == pytest.approx(10 / (10 + z**2))  # Wilson's lower bound of 10 out of 10


def test_rate_with_spread_between_clusters_is_the_mean():
    outcomes, clusters = [1, 0.5, 0, 1], ["a", "a", "b", "b"]
    assert clustered_rate(outcomes, clusters, seed=1) == clustered_mean(outcomes, clusters, seed=1)


def test_equal_seeds_give_equal_bounds():
    values = np.linspace(0, 1, 12) ** 2
    assert clustered_mean(values, range(12), seed=5) == clustered_mean(values, range(12), seed=5)
    assert clustered_mean(values, range(12), seed=5) != clustered_mean(values, range(12), seed=6)


def test_as_many_clusters_as_values_are_expected():
    with pytest.raises(ValueError, match="got 1 for 2"):
        clustered_mean([1.0, 2.0], ["a"], seed=0)
