"""Intervals over clusters, against closed forms, an independent library and simulation."""

import inspect
import math
from dataclasses import FrozenInstanceError, astuple, fields

import numpy as np
import pytest
from scipy import stats

from imgalign.statistics import (
    GRID,
    LEVEL,
    Estimate,
    TwoWay,
    betting_wealth,
    clustered_mean,
    clustered_rate,
    confidence_sequence,
    distinct,
    expanded_tail,
    resamples,
    t_quantile,
    two_way_rate,
    wilson_interval,
)


def test_settings_are_passed_by_name_only_and_an_estimate_cannot_be_changed():
    for function in (clustered_mean, clustered_rate, t_quantile, wilson_interval, Estimate):
        parameters = inspect.signature(function).parameters
        for name in {"seed", "degrees", "z", "low", "high"} & set(parameters):
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, (function, name)
    for field in fields(Estimate):
        with pytest.raises(FrozenInstanceError):
            setattr(Estimate(value=0.5), field.name, 0.4)


def test_estimates_are_plain_floats_that_any_format_writes():
    values = np.random.default_rng(0).random(40)
    clusters = [i // 4 for i in range(40)]
    for found in (
        clustered_mean(values, clusters, seed=0),
        clustered_mean(values, [0] * 40, seed=0),
        clustered_rate(values, clusters, seed=0),
        clustered_rate([0.25] * 40, clusters, seed=0),
        two_way_rate(values, TwoWay.of(clusters, [i % 5 for i in range(40)])),
        two_way_rate(values, TwoWay.of([0] * 40, clusters)),
        confidence_sequence(values),
        confidence_sequence(np.tile([0.4, 0.605], 20_000)),
    ):
        assert {type(each) for each in (found.value, found.low, found.high)} <= {float, type(None)}


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 11, 47, 400])
def test_t_quantile_agrees_with_scipy(degrees):
    # From 3 on by an expansion that is cut off: 0.12 % off there.
    assert t_quantile(0.975, degrees=degrees) == pytest.approx(
        stats.t.ppf(0.975, degrees), rel=2e-3
    )


def test_t_quantile_is_wrong_by_a_fifth_power_of_the_degrees_and_infinite_without_any():
    # An expansion to the fourth power of 1 / degrees with all its terms right has such an error.
    scaled = [
        abs(t_quantile(0.975, degrees=n) - stats.t.ppf(0.975, n)) * n**5 for n in (20, 40, 80)
    ]
    assert max(scaled) < 1.25 * min(scaled)
    assert t_quantile(0.975, degrees=0) == math.inf


@pytest.mark.parametrize(("successes", "count"), [(0, 7), (3, 7), (7, 7), (1, 1), (40, 100)])
def test_wilsons_interval_is_scipys_and_all_rates_where_nothing_was_counted(successes, count):
    expected = stats.binomtest(successes, count).proportion_ci(method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high))
    assert wilson_interval(0.0, 0.0) == (0.0, 1.0)


def test_wilsons_interval_of_any_rate_lies_between_0_and_1_exactly():
    for count in range(1, 200):
        low, high = wilson_interval(0, count)[0], wilson_interval(count, count)[1]
        assert low >= 0
        assert high <= 1


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


def test_two_clusters_give_an_interval():
    found = clustered_mean([0.0, 1.0], ["a", "b"], seed=0)
    assert (found.low, found.value, found.high) == (0.0, 0.5, 1.0)


def test_one_cluster_of_outcomes_that_agree_gives_no_interval():
    found = clustered_rate([1.0, 1.0], ["a", "a"], seed=0)
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_no_failure_in_ten_clusters_is_not_a_certainty():
    found = clustered_rate([1.0] * 40, [i // 4 for i in range(40)], seed=0)
    z = stats.norm.ppf(0.975)
    assert (found.value, found.high) == pytest.approx((1, 1))
    assert found.low == pytest.approx(10 / (10 + z**2))  # Wilson's lower bound of 10 out of 10


def test_two_clusters_that_agree_are_two_observations():
    found = clustered_rate([1.0, 0.0, 0.0, 1.0], ["a", "a", "b", "b"], seed=0)
    assert found.value == 0.5
    assert (found.low, found.high) == wilson_interval(1, 2)


def test_rate_with_spread_between_clusters_is_the_mean():
    outcomes, clusters = [1, 0.5, 0, 1], ["a", "a", "b", "b"]
    assert clustered_rate(outcomes, clusters, seed=1) == clustered_mean(outcomes, clusters, seed=1)


def test_equal_seeds_give_equal_bounds():
    values = np.linspace(0, 1, 12) ** 2
    found = clustered_mean(values, range(12), seed=5)
    assert found != clustered_mean(values, range(12), seed=6)
    resamples.cache_clear()  # as in another process
    assert found == clustered_mean(values, range(12), seed=5)


def test_as_many_clusters_as_values_are_expected():
    with pytest.raises(ValueError, match="got 1 for 2"):
        clustered_mean([1.0, 2.0], ["a"], seed=0)
    with pytest.raises(ValueError, match="got 0 for 0"):
        clustered_mean([], [], seed=0)


# --- two ways


def judged_twice(rng, num_one, num_other, *, spread_one, spread_other, chance=0.7):
    """Votes of every pair of clusters, and their names; clusters shift the log-odds."""
    log_odds = np.log(chance / (1 - chance))
    shift = spread_one * rng.normal(size=(num_one, 1)) + spread_other * rng.normal(size=num_other)
    wins = rng.random((num_one, num_other)) < 1 / (1 + np.exp(-(log_odds + shift)))
    one, other = np.indices(wins.shape)
    return wins.ravel().astype(float), one.ravel().tolist(), other.ravel().tolist()


def test_a_rate_of_independent_votes_of_one_annotator_has_wilsons_interval_with_students_t():
    votes = [1.0] * 14 + [0.0] * 7
    found = two_way_rate(votes, TwoWay.of(range(21), ["ann"] * 21))
    # The unbiased variance of a mean of n zeros and ones is p (1 - p) / (n - 1).
    expected = wilson_interval(2 / 3 * 20, 20, z=stats.t.ppf(0.975, 20))
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-3)


def test_two_way_variance_is_the_sum_of_both_ways_less_their_intersection():
    values = np.array([0.9, 0.2, 0.8, 0.1, 1.0, 0.4])
    one, other = [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]

    def variance(clusters):
        sums = {key: 0.0 for key in clusters}
        for value, key in zip(values - values.mean(), clusters, strict=True):
            sums[key] += value
        return np.array(sum(each**2 for each in sums.values()))

    found, degrees = TwoWay.of(one, other).variance(
        [values - values.mean()], lambda sums: np.asarray((sums**2).sum())
    )
    both = variance(list(zip(one, other, strict=True)))
    assert degrees == 1
    assert found == pytest.approx(
        max(variance(one), variance(other), variance(one) + variance(other) - both)
    )
    assert found > variance(one)


@pytest.mark.parametrize("as_they_are", [list, np.array])
def test_two_clusters_on_each_side_give_the_interval_of_one_degree_of_freedom(as_they_are):
    # The margins are 3/4 and 1/4 one way and 1/2 the other, of 16 votes: p is 1/2. Clustered the
    # first way the variance of p is (2 / 1) (2^2 + 2^2) / 16^2, the other way 0, in cells less.
    votes = ([1.0] * 3 + [0.0]) * 2 + ([1.0] + [0.0] * 3) * 2
    one, other = as_they_are([9] * 8 + [3] * 8), as_they_are(([1] * 4 + [0] * 4) * 2)
    rate = two_way_rate(votes, TwoWay.of(one, other))
    z = math.tan(math.pi * 0.475)  # Student's t of one degree is Cauchy's distribution
    effective = 0.25 / (2 * (4 + 4) / 256)
    expected = wilson_interval(0.5 * effective, effective, z=z)
    assert (rate.low, rate.high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("one", "other", "sign", "expected"),
    [
        ([7, 7, 7, 8, 8, 9, 9], [5, 4, 6, 6, 5, 5, 6], -1, (1.0, 2)),  # -3 - 3 + 7 cells
        ([0, 1, 0, 1], [5, 5, 6, 6], 1, (2.0, 1)),  # 2 + 2 - 4 cells is less than either
        ([0, 1, 0], [5, 6, 7], 1, (3.0, 1)),
        ([0, 1, 2], [5, 5, 5], 1, (3.0, 2)),  # the first side alone
        ([5, 5, 5], [0, 1, 2], 1, (1.0, 0)),
    ],
)
@pytest.mark.parametrize("as_they_are", [list, np.array])
def test_the_largest_of_both_one_way_variances_and_the_two_way_one_is_kept(
    one, other, sign, expected, as_they_are
):
    """Of a variance that is the number of clusters, or less than 0 by it."""
    found, degrees = TwoWay.of(as_they_are(one), as_they_are(other)).variance(
        [np.ones(len(one))], lambda sums: np.array(sign * float(len(sums)))
    )
    assert (float(found), degrees) == expected


def test_a_two_way_rate_is_the_same_whichever_way_is_named_first_and_mirrors_with_its_votes():
    votes, one, other = judged_twice(
        np.random.default_rng(1), 12, 5, spread_one=1.0, spread_other=0.5
    )
    found = two_way_rate(votes, TwoWay.of(one, other))
    turned = two_way_rate(votes, TwoWay.of(other, one))
    assert (found.low, found.high) == pytest.approx((turned.low, turned.high))
    mirrored = two_way_rate(1 - votes, TwoWay.of(one, other))
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low))


def test_a_two_way_rate_covers_the_truth_where_prompts_and_annotators_differ():
    rng = np.random.default_rng(0)
    covered = prompts_alone = 0
    for _ in range(300):
        # With log-odds of 0 on average and symmetric shifts, the truth is one half.
        votes, one, other = judged_twice(rng, 30, 6, spread_one=0.7, spread_other=0.7, chance=0.5)
        found = two_way_rate(votes, TwoWay.of(one, other))
        covered += found.low <= 0.5 <= found.high
        alone = clustered_rate(votes, one, seed=0)
        prompts_alone += alone.low <= 0.5 <= alone.high
    assert covered >= 279  # 285 are 95 %, with a standard deviation of 4
    assert prompts_alone < 240  # other annotators would have said otherwise


def test_a_rate_without_a_doubt_counts_each_cluster_once():
    votes = np.ones(40)
    one, other = [i // 4 for i in range(40)], [i % 4 for i in range(40)]
    found = two_way_rate(votes, TwoWay.of(one, other))
    # Four annotators agree: Wilson's bound of 4 of 4, with Student's t of 3 degrees.
    t = stats.t.ppf(0.975, 3)
    assert (found.low, found.high) == pytest.approx((4 / (4 + t**2), 1), rel=3e-3)


def test_a_rate_of_one_prompt_has_no_interval():
    for prompts in (["a"] * 3, np.array([4, 4, 4])):
        found = two_way_rate([1, 0, 1], TwoWay.of(prompts, ["x", "y", "z"]))
        assert (found.low, found.high) == (None, None)
        assert found.value == pytest.approx(2 / 3)
    assert two_way_rate([1], TwoWay.of(np.array([4]), ["x"])) == Estimate(value=1.0)


def test_a_rate_of_two_prompts_has_an_interval_whichever_number_comes_first():
    expected = two_way_rate([1, 0, 1], TwoWay.of(["b", "a", "b"], ["x"] * 3))
    assert expected.low is not None
    for numbers in ([1, 0, 1], [0, 1, 0]):
        assert two_way_rate([1, 0, 1], TwoWay.of(np.array(numbers), ["x"] * 3)) == expected


def test_the_wealth_of_a_bet_is_what_it_is_by_hand():
    # One win at the mean 1/2: shares f of the stake become 1 + f or 1 - f, which is 1 on average.
    assert betting_wealth(np.array([1.0]), np.array([0.5]))[0, 0] == pytest.approx(1.0)
    shares = np.arange(1, 21) / 21
    by_hand = (np.prod(1 + shares * np.array([[1], [0], [1]]), axis=0).mean() + 0) / 2
    by_hand += np.prod(1 - shares * np.array([[1], [0], [1]]), axis=0).mean() / 2
    found = betting_wealth(np.array([1.0, 0.5, 1.0]), np.array([0.5]))
    assert found[-1, 0] == pytest.approx(by_hand)
    # At another mean the stakes are scaled, so that nobody can lose more than there is.
    above = np.prod([1 + shares * (x - 0.25) / 0.25 for x in (0.0, 1.0)], axis=0).mean()
    below = np.prod([1 - shares * (x - 0.25) / 0.75 for x in (0.0, 1.0)], axis=0).mean()
    found = betting_wealth(np.array([0.0, 1.0]), np.array([0.25]))
    assert found[-1, 0] == pytest.approx((above + below) / 2)


def test_looking_after_every_vote_is_wrong_as_seldom_as_promised():
    rng = np.random.default_rng(0)
    wrong = careless = 0
    for _ in range(400):
        votes = rng.choice([0.0, 0.5, 1.0], p=[0.4, 0.2, 0.4], size=200)
        wrong += int(betting_wealth(votes, np.array([0.5])).max() >= 20)
        n = np.arange(1, 201)
        spread = np.sqrt(np.cumsum((votes - 0.5) ** 2) / n)
        careless += int((np.abs(np.cumsum(votes) / n - 0.5) * np.sqrt(n) > 1.96 * spread)[9:].any())
    assert wrong <= 0.05 * 400
    assert careless > 0.25 * 400  # the control: an interval for a fixed number, looked at each time


def test_a_clear_winner_is_known_after_few_votes_and_the_interval_holds_its_rate():
    rng = np.random.default_rng(0)
    when, held = [], 0
    for _ in range(60):
        votes = (rng.random(100) < 0.85).astype(float)
        when.append(int((betting_wealth(votes, np.array([0.5])) >= 20).argmax()) + 1)
        found = confidence_sequence(votes)
        held += found.low <= 0.85 <= found.high
    assert np.median(when) <= 20
    assert held >= 56


def test_an_interval_of_few_values_is_wide_and_never_beyond_a_rate():
    assert confidence_sequence([1.0]).low < 0.1
    assert confidence_sequence([1.0]).high == 1.0
    assert confidence_sequence([0.0] * 8).high <= 0.5
    assert confidence_sequence([0.0] * 7).high > 0.5
    found = confidence_sequence([0.5] * 400)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    assert found.low in {0.0, *(GRID - (GRID[1] - GRID[0]))}
    for outside in ([0.2, 1.5], [-0.5, 0.2]):
        with pytest.raises(ValueError, match="in \\[0, 1\\]"):
            confidence_sequence(outside)
    with pytest.raises(ValueError, match="one value"):
        confidence_sequence([])


def sequence_by_all_wealth(values: np.ndarray) -> tuple[float, float]:
    """The bounds from the wealth against every mean after every value."""
    left = GRID[betting_wealth(values, GRID).max(axis=0) < 1 / (1 - LEVEL)]
    step = GRID[1] - GRID[0]
    return max(0.0, left.min() - step), min(1.0, left.max() + step)


@pytest.mark.parametrize("seed", range(12))
def test_the_search_from_both_ends_finds_the_interval_of_all_wealth_exactly(seed: int):
    rng = np.random.default_rng(seed)
    num, rate = int(rng.integers(1, 700)), rng.random()
    if seed % 2:
        values = rng.binomial(3, rate, num) / 3
    else:
        values = rng.beta(2 * rate + 0.1, 2 - 2 * rate + 0.1, num)
    found = confidence_sequence(values)
    assert (found.low, found.high) == sequence_by_all_wealth(values)


@pytest.mark.parametrize("num", [1, 63, 64, 65, 192, 193])
def test_the_interval_is_that_of_all_wealth_where_a_portion_of_values_ends(num: int):
    values = np.arange(num) % 4 / 4 + 0.125
    found = confidence_sequence(values)
    assert (found.low, found.high) == sequence_by_all_wealth(values)


def test_so_many_values_that_no_mean_of_the_grid_is_left_leave_its_two_neighbours():
    values = np.tile([0.4, 0.605], 20_000)  # the mean 0.5025 is between two of the grid
    found = confidence_sequence(values)
    assert (found.low, found.high) == pytest.approx((0.5, 0.505))
    edge = confidence_sequence(np.full(30_000, 0.001))
    assert (edge.low, edge.high) == pytest.approx((0.0, 0.005))
    edge = confidence_sequence(np.full(30_000, 0.999))
    assert (edge.low, edge.high) == pytest.approx((0.995, 1.0))


def test_values_that_drift_past_every_mean_tell_nothing():
    found = confidence_sequence(np.repeat([0.95, 0.05], 2_000))
    assert (found.low, found.high) == (0.0, 1.0)
    found = confidence_sequence(np.repeat([0.05, 0.95], 2_000))
    assert (found.low, found.high) == (0.0, 1.0)
    # Up to 3/4 ruled out by the first values, and again, the other way, before the first look.
    there_and_back = np.repeat([1.0, 0.0], [20, 44])
    found = confidence_sequence(np.concatenate([there_and_back, np.tile([0.4, 0.615], 20_000)]))
    assert (found.low, found.high) == (0.0, 1.0)


def test_numbers_in_an_array_cluster_as_names_do():
    rng = np.random.default_rng(0)
    for most in (3, 40, 10**4):  # with a table of all numbers, and without
        votes = rng.choice([0.0, 1 / 3, 0.5, 1.0], 500)
        one, other = rng.integers(0, most, 500), rng.integers(0, 7, 500)
        names = [f"p{n}" for n in one], [f"a{n}" for n in other]
        found, named = (two_way_rate(votes, TwoWay.of(*each)) for each in ((one, other), names))
        assert astuple(found) == pytest.approx(astuple(named), rel=1e-12)
        chosen = np.flatnonzero(rng.random(500) < 0.1)
        some = two_way_rate(votes[chosen], TwoWay.of(one, other).at(chosen))
        alone = two_way_rate(votes[chosen], TwoWay.of(one[chosen], other[chosen]))
        assert some == alone
        numbers, places = distinct(one)
        assert np.array_equal(numbers, np.unique(one))
        assert np.array_equal(numbers[places], one)
    numbers, places = distinct(np.array([5, 2, 5, 0]))
    assert (numbers.tolist(), places.tolist()) == ([0, 2, 5], [2, 1, 2, 0])
    for each in distinct(np.array([], dtype=np.int64)):
        assert len(each) == 0


def test_without_observations_there_are_no_clusters():
    none = np.array([], dtype=np.int64)
    for clusters in (
        TwoWay.of([], []),
        TwoWay.of(none, none),
        TwoWay.of(["a", "b"], ["x", "x"]).at(none),
    ):
        assert (clusters.num_one, clusters.num_other) == (0, 0)
