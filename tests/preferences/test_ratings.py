import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import choix
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.optimize import approx_fprime

from imgalign.errors import InputError
from imgalign.preferences import choice
from imgalign.preferences.choice import Choices
from imgalign.preferences.judged import Ordering
from imgalign.preferences.ratings import (
    Ratings,
    _features,
    _subsets,
    bradley_terry,
    elo,
    plackett_luce,
    wins_of,
)

Rate = Callable[..., Ratings]


def ordering(text: str, cluster: str = "p") -> Ordering:
    """ "a>bc" is a best, then b and c tied."""
    return Ordering(tuple(tuple(group) for group in text.split(">")), cluster)


def wins(num: dict[str, int]) -> list[Ordering]:
    """Each judgement in a cluster of its own."""
    texts = [text for text, count in num.items() for _ in range(count)]
    return [ordering(text, str(index)) for index, text in enumerate(texts)]


def random_rankings(num: int, num_items: int, *, size: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=num_items)
    found = []
    for _ in range(num):
        shown = rng.choice(num_items, size, replace=False)
        noisy = worth[shown] + rng.gumbel(size=size)
        found.append(tuple(int(i) for i in shown[np.argsort(-noisy)]))
    return found


def as_orderings(found: list[tuple[int, ...]]) -> list[Ordering]:
    return [
        Ordering(tuple((f"{i:02d}",) for i in ranking), f"prompt {index % 17}")
        for index, ranking in enumerate(found)
    ]


def random_choices(seed: int, *, tie_orders: tuple[int, ...] = (2, 3)) -> list[Choices]:
    rng = np.random.default_rng(seed)
    blocks = []
    for size in (4, 3, 2):
        subsets = _subsets(size, tie_orders)
        index = np.concatenate([rng.choice(4, size), 4 + np.arange(len(tie_orders))])
        blocks.append(
            Choices(
                _features(subsets, size, tie_orders),
                index.astype(np.int64),
                rng.integers(len(subsets), size=5),
                rng.uniform(0.5, 2, 5),
                rng.integers(3, size=5),
            )
        )
    return blocks


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_two_items_score_the_log_odds_of_winning(rate: Rate):
    ratings = rate(wins({"a>b": 30, "b>a": 10}))
    assert ratings.items == ("a", "b")
    assert_allclose(ratings.score[0] - ratings.score[1], math.log(3), rtol=1e-9)
    assert_allclose(sum(ratings.score), 0, atol=1e-12)
    assert ratings.num_comparisons == (40, 40)


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_the_interval_of_two_items_is_that_of_a_binomial(rate: Rate):
    # Independent games: var(log odds) = 1 / (n p q), the sandwich adds n / (n - 1); each score is
    # half the log odds away from the mean.
    ratings = rate(wins({"a>b": 30, "b>a": 10}))
    half = stats.t.ppf(0.975, 39) * math.sqrt(40 / 39 / (40 * 0.75 * 0.25)) / 2
    assert_allclose(ratings.high[0] - ratings.score[0], half, rtol=1e-4)
    assert_allclose(ratings.score[0] - ratings.low[0], half, rtol=1e-4)


def test_repeating_each_judgement_within_its_prompt_leaves_the_interval_alone():
    judgements = as_orderings(random_rankings(60, 4, size=2, seed=3))
    once, thrice = bradley_terry(judgements), bradley_terry(judgements * 3)
    assert_allclose(once.score, thrice.score, atol=1e-9)
    assert_allclose(once.low, thrice.low, atol=1e-9)
    assert once.num_clusters == thrice.num_clusters == 17


def test_one_prompt_says_nothing_about_the_spread_between_prompts():
    for rate in (bradley_terry, plackett_luce, elo):
        ratings = rate([ordering("a>b"), ordering("a>b"), ordering("b>a")])
        assert ratings.low == (-math.inf, -math.inf)
        assert ratings.high == (math.inf, math.inf)


def test_bradley_terry_equals_choix():
    found = random_rankings(200, 8, size=2, seed=0)
    expected = choix.opt_pairwise(8, found, method="Newton-CG", tol=1e-12)
    assert_allclose(bradley_terry(as_orderings(found)).score, expected, atol=1e-6)


def test_bradley_terry_with_a_prior_equals_choix():
    found = random_rankings(60, 8, size=2, seed=1)
    # choix penalises alpha |theta|^2, twice the precision's half.
    expected = choix.opt_pairwise(8, found, alpha=0.35, method="Newton-CG", tol=1e-12)
    assert_allclose(bradley_terry(as_orderings(found), ridge=0.7).score, expected, atol=1e-6)


def test_bradley_terry_of_rankings_equals_choix_on_their_pairs():
    found = random_rankings(50, 6, size=4, seed=2)
    pairs = [(r[i], r[j]) for r in found for i in range(4) for j in range(i + 1, 4)]
    expected = choix.opt_pairwise(6, pairs, method="Newton-CG", tol=1e-12)
    # choix stops where its line search does, up to 1e-5 from the maximum.
    assert_allclose(bradley_terry(as_orderings(found)).score, expected, atol=1e-5)


def test_plackett_luce_equals_choix():
    found = random_rankings(80, 8, size=5, seed=4)
    expected = choix.opt_rankings(8, found, method="Newton-CG", tol=1e-12)
    assert_allclose(plackett_luce(as_orderings(found)).score, expected, atol=1e-6)


def test_plackett_luce_of_two_items_with_ties_is_davidsons_model():
    # Davidson (1970): P(tie) / sqrt(P(a>b) P(b>a)) = nu; its maximum fits the counts exactly.
    ratings = plackett_luce(wins({"a>b": 24, "b>a": 6, "ab": 36}))
    assert_allclose(ratings.score[0] - ratings.score[1], math.log(24 / 6), rtol=1e-9)
    assert_allclose(ratings.log_tie[2], math.log(36 / math.sqrt(24 * 6)), rtol=1e-9)


def test_plackett_luce_with_ties_matches_a_likelihood_written_out_by_hand():
    judgements = [ordering("a>bc", "0"), ordering("b>a>c", "1"), ordering("c>ab", "2")]
    judgements += [ordering("abc", "3"), ordering("c>b>a", "4")]

    def log_likelihood(parameters: np.ndarray) -> float:
        worth = dict(zip("abc", np.exp(parameters[:3]), strict=True))
        delta = {1: 1.0, 2: math.exp(parameters[3]), 3: math.exp(parameters[4])}

        def weight(group: str) -> float:
            return delta[len(group)] * math.prod(worth[i] for i in group) ** (1 / len(group))

        def stage(group: str, remaining: str) -> float:
            subsets = {"abc": ["a", "b", "c", "ab", "ac", "bc", "abc"]}.get(
                remaining, [*remaining, remaining]
            )
            return math.log(weight(group) / sum(weight(subset) for subset in subsets))

        return (
            (stage("a", "abc") + stage("bc", "bc"))
            + (stage("b", "abc") + stage("a", "ac"))
            + (stage("c", "abc") + stage("ab", "ab"))
            + stage("abc", "abc")
            + (stage("c", "abc") + stage("b", "ab"))
        )

    ratings = plackett_luce(judgements)
    best = np.array([*ratings.score, ratings.log_tie[2], ratings.log_tie[3]])
    assert_allclose(approx_fprime(best, log_likelihood, 1e-6), 0, atol=1e-5)


def test_plackett_luce_recovers_worths_and_covers_them():
    covered = 0
    truth = np.random.default_rng(5).normal(size=8)
    truth -= truth.mean()
    rng = np.random.default_rng(6)
    for _ in range(12):
        judgements = []
        for prompt in range(60):
            shown = rng.choice(8, 4, replace=False)
            ranked = shown[np.argsort(-(truth[shown] + rng.gumbel(size=4)))]
            judgements.append(Ordering(tuple((f"{i}",) for i in ranked), str(prompt)))
        ratings = plackett_luce(judgements)
        covered += sum(np.array(ratings.low) < truth) - sum(np.array(ratings.high) < truth)
    # 96 intervals at 95 %: below 82 would happen once in ten thousand times.
    assert 82 <= covered <= 96


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_matches_finite_differences(seed: int):
    choices = random_choices(seed)
    theta = np.random.default_rng(seed).normal(size=6)
    numeric = [
        (
            choice.log_likelihood(theta + step, choices, ridge=0.3)
            - choice.log_likelihood(theta - step, choices, ridge=0.3)
        )
        / 2e-6
        for step in 1e-6 * np.eye(6)
    ]
    # Central differences in float64 with steps of 1e-6 are good to about 1e-9.
    assert_allclose(choice.gradient(theta, choices, ridge=0.3), numeric, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_the_information_matches_finite_differences_of_the_gradient(seed: int):
    choices = random_choices(seed)
    theta = np.random.default_rng(seed).normal(size=6)
    numeric = [
        -(choice.gradient(theta + step, choices) - choice.gradient(theta - step, choices)) / 2e-6
        for step in 1e-6 * np.eye(6)
    ]
    assert_allclose(choice.information(theta, choices), numeric, atol=1e-7)


def test_scores_of_clusters_add_up_to_the_gradient():
    choices = random_choices(7)
    theta = np.random.default_rng(7).normal(size=6)
    scores = choice.cluster_scores(theta, choices, 3)
    assert_allclose(scores.sum(axis=0), choice.gradient(theta, choices), atol=1e-12)
    assert np.abs(scores).min(axis=1).max() > 0


def clustered_variance(won: Any, clusters: Any) -> float:
    """Of the log-odds of winning, clustered: the sandwich of a logistic regression by hand."""
    rate = won.mean()
    sums = np.array([(won - rate)[clusters == cluster].sum() for cluster in np.unique(clusters)])
    inflation = len(sums) / (len(sums) - 1)
    return float(inflation * (sums**2).sum() / (len(won) * rate * (1 - rate)) ** 2)


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_intervals_are_clustered_by_prompt_and_by_annotator(rate: Rate):
    rng = np.random.default_rng(3)
    num = 400
    prompts, people = rng.integers(20, size=num), rng.integers(8, size=num)
    fondness = 0.5 + 0.2 * np.cos(people) + 0.25 * np.sin(prompts)
    won = (rng.uniform(size=num) < fondness).astype(float)
    judged = [
        Ordering((("a",), ("b",)) if a_won else (("b",), ("a",)), f"prompt {prompt}", f"{person}")
        for a_won, prompt, person in zip(won, prompts, people, strict=True)
    ]
    variance = (
        clustered_variance(won, prompts)
        + clustered_variance(won, people)
        - clustered_variance(won, 100 * prompts + people)
    )
    assert variance > max(clustered_variance(won, prompts), clustered_variance(won, people))
    ratings = rate(judged)
    assert (ratings.num_clusters, ratings.num_annotators) == (20, 8)
    # A score is half of the log-odds, because the two scores sum to 0.
    half = stats.t(df=7).ppf(0.975) * math.sqrt(variance) / 2
    assert_allclose(ratings.high[0] - ratings.score[0], half, rtol=5e-3)  # as exact as t is here


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_intervals_of_one_annotator_are_over_prompts(rate: Rate):
    judged = wins({"a>b": 12, "b>a": 8})
    alone = rate([Ordering(j.groups, j.cluster, "ann") for j in judged])
    assert alone == rate(judged)


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_scores_do_not_depend_on_names_or_on_the_order_of_judgements(rate: Rate):
    judgements = wins({"a>b>c": 3, "b>c>a": 2, "c>a>b": 2, "ab>c": 1})
    renamed = [
        Ordering(
            tuple(tuple({"a": "z"}.get(name, name) for name in group) for group in j.groups),
            j.cluster,
        )
        for j in reversed(judgements)
    ]
    ratings, other = rate(judgements), rate(renamed)
    assert_allclose(np.roll(ratings.score, -1), other.score, atol=1e-9)
    assert_allclose(np.roll(ratings.low, -1), other.low, atol=1e-9)


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce, elo])
def test_disconnected_comparisons_name_their_components(rate: Rate):
    judgements = wins({"a>b": 1, "b>a": 1, "c>de": 1, "d>e>c": 1})
    with pytest.raises(
        InputError, match=r"2 groups of items were never compared .*: \{a, b\}; \{c, d, e\}"
    ):
        rate(judgements)


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_an_undefeated_item_has_no_finite_score_without_a_prior(rate: Rate):
    judgements = wins({"a>b": 1, "b>a": 1, "c>a": 2})
    with pytest.raises(InputError, match=r"\{c\} never lose to \{a, b\}"):
        rate(judgements)
    with pytest.raises(InputError, match=r"\{c\} never win against \{a, b\}"):
        rate([Ordering(j.groups[::-1], j.cluster) for j in judgements])
    best = rate(judgements, ridge=0.1)
    assert best.score[2] == max(best.score)


def test_items_that_always_tie_have_no_finite_tie_prevalence():
    with pytest.raises(InputError, match="no finite maximum"):
        plackett_luce(wins({"ab": 5}))


def test_nothing_to_compare_is_said_so():
    for rate in (bradley_terry, plackett_luce, elo):
        with pytest.raises(InputError, match="at least 2 items"):
            rate([])


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
@pytest.mark.parametrize("names", ["abcd", "dbca"])
def test_the_ends_of_a_chain_are_the_least_certain_pair(rate: Rate, names: str):
    # Variances of differences add up along a chain, like resistances: 4 / n for each of its links
    # of n comparisons between equals.
    links = list(pairwise(names))
    ratings = rate(
        wins({f"{i}>{j}": 5 for one, other in links for i, j in ((one, other), (other, one))})
    )
    found = ratings.least_certain
    assert found is not None
    assert {found.one, found.other} == {names[0], names[-1]}
    assert_allclose(found.error, math.sqrt(3 * 4 / 10), rtol=1e-9)


@pytest.mark.parametrize("rate", [bradley_terry, plackett_luce])
def test_the_pair_that_was_compared_least_is_the_least_certain_one(rate: Rate):
    # A triangle of links with variances 4/2, 4/10, 4/10: the first in parallel with the others.
    pairs = {("a", "b"): 1, ("b", "c"): 5, ("c", "a"): 5}
    ratings = rate(
        wins({f"{i}>{j}": n for (a, b), n in pairs.items() for i, j in ((a, b), (b, a))})
    )
    found = ratings.least_certain
    assert found is not None
    assert (found.one, found.other) == ("a", "b")
    assert_allclose(found.error**2, 1 / (2 / 4 + 1 / (4 / 10 + 4 / 10)), rtol=1e-9)


def test_one_comparison_leaves_a_pair_uncertain_although_it_has_no_residual():
    """Its tie is what equal scores predict, so that the sandwich would call it certain."""
    judgements = wins({"a>b": 20, "b>a": 20, "bc": 1})
    found = bradley_terry(judgements).least_certain
    assert found is not None
    assert (found.one, found.other) == ("a", "c")


def test_elo_tells_no_least_certain_pair():
    assert elo(wins({"a>b": 2, "b>c": 2})).least_certain is None


def test_two_candidates_of_one_model_do_not_play_each_other():
    alone = bradley_terry(wins({"a>b": 2, "b>a": 1}))
    doubled = bradley_terry([Ordering((("a",), ("a",), ("b",)), "0"), ordering("b>a", "1")])
    assert_allclose(alone.score, doubled.score, atol=1e-9)


def test_two_candidates_of_one_model_double_its_chance_to_be_picked():
    # With w the odds of a over b the slope is 1/(2w+1) + (2-w)/(1+w), zero at w = 1 + sqrt(10)/2.
    ratings = plackett_luce(wins({"a>a>b": 1, "b>a": 1, "a>b": 1}))
    assert_allclose(ratings.score[0] - ratings.score[1], math.log(1 + math.sqrt(10) / 2), rtol=1e-9)


def test_elo_of_one_game_moves_both_by_half_of_k():
    ratings = elo([ordering("a>b")], k=32)
    assert ratings.score == (1016.0, 984.0)


def test_elo_matches_the_textbook_over_a_sequence():
    expected = {"a": 1000.0, "b": 1000.0, "c": 1000.0}
    texts = ["a>b", "bc", "c>a", "a>b", "ab"]
    for text in texts:
        tied = ">" not in text
        i, j = text[0], text[-1]
        probability = 1 / (1 + 10 ** ((expected[j] - expected[i]) / 400))
        change = 24 * ((0.5 if tied else 1.0) - probability)
        expected[i] += change
        expected[j] -= change
    ratings = elo([ordering(text) for text in texts], k=24)
    assert_allclose(ratings.score, list(expected.values()), rtol=1e-12)


def test_elo_keeps_the_mean_and_its_interval_repeats_with_the_seed():
    judgements = as_orderings(random_rankings(100, 5, size=3, seed=8))
    ratings, again = elo(judgements, seed=1), elo(judgements, seed=1)
    assert_allclose(np.mean(ratings.score), 1000, rtol=1e-12)
    assert ratings == again
    assert all(low < high for low, high in zip(ratings.low, ratings.high, strict=True))


def test_wins_count_each_pair_once_and_ties_half():
    found = wins_of(
        [
            Ordering((("a",), ("b", "c")), "p", "ann"),
            Ordering((("b",), ("a",)), "q", "ann"),
            Ordering((("a", "a"), ("c",)), "r", "bob"),
        ]
    )
    assert found.items == ("a", "b", "c")
    assert found.won == ((0, 1, 3), (1, 0, 0.5), (0, 0.5, 0))
    assert found.pairs == ((0, 2, 3), (2, 0, 1), (3, 1, 0))
