import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from imgalign.preferences.accuracy import (
    accuracy_gain,
    calibration,
    fit_log_odds,
    pair_accuracy,
    sigmoid,
)
from imgalign.statistics import clustered_mean, clustered_rate, wilson_interval


def test_micro_counts_pairs_and_macro_counts_prompts():
    margins = np.array([1.0, 2.0, -1.0, 3.0, -2.0])
    accuracy = pair_accuracy(margins, ["a", "a", "a", "a", "b"], seed=0)
    assert accuracy.micro == 3 / 5
    assert accuracy.macro == (3 / 4 + 0) / 2
    assert (accuracy.num_pairs, accuracy.num_prompts) == (5, 2)


def test_a_constant_reward_scores_exactly_chance():
    assert pair_accuracy(np.zeros(7), list("abcdefg"), seed=0).micro == 0.5


def test_intervals_of_one_prompt_do_not_pretend_to_know_other_prompts():
    assert pair_accuracy(np.ones(5), ["a"] * 5, seed=0).by_prompt is None


def test_a_clustered_interval_is_wider_when_pairs_of_a_prompt_agree():
    generator = np.random.default_rng(0)
    by_prompt = np.repeat(generator.choice([-1.0, 1.0], size=50, p=[0.2, 0.8]), 10)
    together = pair_accuracy(by_prompt, [str(i // 10) for i in range(500)], seed=0)
    apart = pair_accuracy(by_prompt, [str(i) for i in range(500)], seed=0)
    width = np.diff(together.by_prompt)[0] / np.diff(apart.by_prompt)[0]
    assert width == pytest.approx(math.sqrt(10), rel=0.15)  # 500 effective pairs become 50
    assert apart.by_prompt == pytest.approx(wilson_interval(500 * apart.micro, 500), abs=0.01)


def test_a_clustered_interval_covers_the_truth_95_times_of_100():
    generator = np.random.default_rng(1)
    hits = 0
    for repeat in range(100):
        rates = generator.beta(7, 3, size=40)  # mean 0.7, pairs of a prompt alike
        values = (generator.random((40, 6)) < rates[:, None]).astype(float).ravel()
        prompts = [str(number // 6) for number in range(240)]
        low, high = pair_accuracy(2 * values - 1, prompts, seed=repeat).by_prompt
        hits += low <= 0.7 <= high
    assert hits / 100 == pytest.approx(0.95, abs=0.065)  # binomial, three standard errors


def test_intervals_are_those_of_every_other_number_of_imgalign():
    generator = np.random.default_rng(2)
    margins, other = generator.normal(size=60), generator.normal(size=60)
    prompts = [str(number % 7) for number in range(60)]
    rate = clustered_rate((margins > 0).astype(float), prompts, seed=3)
    assert pair_accuracy(margins, prompts, seed=3).by_prompt == (rate.low, rate.high)
    gain = clustered_mean((margins > 0).astype(float) - (other > 0), prompts, seed=3)
    assert accuracy_gain(margins, other, prompts, seed=3).by_prompt == (gain.low, gain.high)


def test_a_few_prompts_without_a_mistake_are_no_certainty():
    low, high = pair_accuracy(np.ones(30), list("abcdefghij") * 3, seed=0).by_prompt
    assert (low, high) == pytest.approx((10 / (10 + 1.959964**2), 1.0))


def test_the_gain_over_a_baseline_is_the_difference_of_accuracies():
    own, other = np.array([1.0, 1.0, -1.0, 1.0]), np.array([1.0, -1.0, -1.0, -1.0])
    gain = accuracy_gain(own, other, ["a", "a", "b", "b"], seed=0)
    assert gain.value == 3 / 4 - 1 / 4
    assert accuracy_gain(own, own, ["a", "a", "b", "b"], seed=0).by_prompt == (0.0, 0.0)


def test_log_odds_equal_the_maximum_likelihood_found_by_another_optimiser():
    generator = np.random.default_rng(0)
    difference = generator.normal(size=400)
    margins = np.where(generator.random(400) < sigmoid(2.5 * difference), 1, -1) * difference
    win = 401 / 402

    def loss(slope):
        up, down = np.logaddexp(0, -slope * margins), np.logaddexp(0, slope * margins)
        return (win * up + (1 - win) * down).mean()

    expected = minimize_scalar(loss, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-9}).x
    assert fit_log_odds(margins) == pytest.approx(expected, rel=1e-4)
    assert expected == pytest.approx(2.5, rel=0.2)


def test_pairs_that_are_all_right_do_not_promise_certainty():
    # Each counts as won with probability 4 / 5 - exactly what one unit of margin then means.
    assert sigmoid(np.array(fit_log_odds(np.ones(3)))) == pytest.approx(4 / 5)


def test_pairs_that_are_all_wrong_promise_nothing():
    assert fit_log_odds(-np.ones(10)) == pytest.approx(1e-3)


def test_calibration_error_is_the_gap_between_confidence_and_truth():
    # Predicted 3/4 each time; right in half of the cases.
    margins = math.log(3) * np.array([1.0, -1.0] * 10)
    result = calibration(margins, log_odds=1.0)
    assert result.ece == pytest.approx(0.25)
    assert result.log_loss == pytest.approx(-(math.log(3 / 4) + math.log(1 / 4)) / 2)
    (only,) = result.bins
    assert (only.num_pairs, only.confidence, only.accuracy) == (20, pytest.approx(0.75), 0.5)


def test_true_probabilities_are_calibrated_and_overconfident_ones_are_not():
    generator = np.random.default_rng(0)
    difference = generator.normal(size=20000)
    margins = np.where(generator.random(20000) < sigmoid(2 * difference), 1, -1) * difference
    assert calibration(margins, log_odds=2.0).ece < 0.015
    assert calibration(margins, log_odds=8.0).ece > 0.1


def test_a_coin_has_log_loss_log_2_and_no_calibration_error():
    result = calibration(np.zeros(10), log_odds=1.0)
    assert result.log_loss == pytest.approx(math.log(2))
    assert result.ece == pytest.approx(0.0)


def test_huge_margins_do_not_overflow():
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
