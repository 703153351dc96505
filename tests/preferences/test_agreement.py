import math

import pytest
from numpy.testing import assert_allclose
from scipy.stats import binomtest
from written_rankings import ranking

from imgalign.preferences.agreement import (
    agreement_with_others,
    annotator_ceiling,
    pair_agreement,
)
from imgalign.statistics import wilson_interval


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (7, 10), (10, 10), (523, 1000)])
def test_wilson_interval_equals_scipy(successes: int, count: int):
    expected = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert_allclose(wilson_interval(successes, count), (expected.low, expected.high), atol=1e-12)


def test_nothing_counted_is_nothing_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    nothing = pair_agreement([])
    assert math.isnan(nothing.rate)
    assert (nothing.low, nothing.high, nothing.count) == (0.0, 1.0, 0)


def test_pair_agreement_counts_each_pair_that_two_have_judged():
    found = pair_agreement([ranking("ann", "a>b>c"), ranking("bob", "a>c>b")])
    assert (found.count, found.num_tied) == (3, 0)
    assert_allclose(found.rate, 2 / 3)
    assert (found.low, found.high) == wilson_interval(2, 3)


def test_agreement_does_not_depend_on_how_candidates_are_numbered():
    found = pair_agreement([ranking("ann", "a>b>c"), ranking("bob", "a>b>c", images="cab")])
    assert (found.rate, found.count) == (1.0, 3)


def test_a_tie_is_counted_apart():
    found = pair_agreement([ranking("ann", "a>bc"), ranking("bob", "ab>c")])
    assert (found.rate, found.count, found.num_tied) == (1.0, 1, 2)


def test_pairs_of_other_prompts_or_of_one_annotator_are_not_compared():
    judged = [ranking("ann", "a>b"), ranking("bob", "a>b", prompt="q"), ranking("ann", "b>a")]
    assert pair_agreement(judged).count == 0


def test_three_annotators_make_three_comparisons():
    found = pair_agreement([ranking(name, text) for name, text in zip("xyz", ABB, strict=True)])
    assert (found.count, found.rate) == (3, 1 / 3)


ABB = ["a>b", "b>a", "b>a"]


def test_the_ceiling_is_against_the_majority_of_the_others():
    # Four say a>b, one says b>a: each of the four faces 3 to 1, the one faces 4 to 0.
    judged = [ranking(name, "a>b") for name in "wxyz"] + [ranking("odd", "b>a")]
    found = annotator_ceiling(judged)
    assert (found.count, found.num_tied) == (5, 0)
    assert_allclose(found.rate, 4 / 5)


def test_a_split_majority_is_no_consensus():
    # Each of the two in the majority faces one of each; the odd one faces two.
    found = annotator_ceiling([ranking(n, t) for n, t in zip("xyz", ABB, strict=True)])
    assert (found.rate, found.count, found.num_tied) == (0.0, 1, 2)


def test_the_ceiling_needs_enough_others():
    judged = [ranking("x", "a>b"), ranking("y", "a>b")]
    assert annotator_ceiling(judged).count == 0
    assert annotator_ceiling(judged, min_others=1).rate == 1.0


def test_an_annotator_who_wavers_has_the_opinion_given_more_often():
    wavering = [ranking("ann", text) for text in ("a>b", "b>a", "a>b")]
    assert pair_agreement([*wavering, ranking("bob", "a>b")]).rate == 1.0


def test_agreement_with_others_counts_each_other_annotator_once_per_pair():
    judged = [ranking("ann", "a>b>c"), ranking("bob", "a>b>c"), ranking("eve", "c>ab")]
    found = agreement_with_others(judged)
    # ann: with bob 3 of 3, with eve 0 of 2, where one of three pairs is eve's tie.
    assert (found["ann"].count, found["ann"].num_tied) == (5, 1)
    assert_allclose(found["ann"].rate, 3 / 5)
    assert found["bob"] == found["ann"]
    assert (found["eve"].rate, found["eve"].count, found["eve"].num_tied) == (0.0, 4, 2)


def test_agreement_with_others_is_not_with_those_who_are_left_out():
    judged = [ranking("ann", "a>b"), ranking("bob", "a>b"), ranking("eve", "b>a")]
    found = agreement_with_others(judged, without={"eve"})
    assert [(who, found[who].rate, found[who].count) for who in ("ann", "bob", "eve")] == [
        ("ann", 1.0, 1),
        ("bob", 1.0, 1),
        ("eve", 0.0, 2),
    ]
