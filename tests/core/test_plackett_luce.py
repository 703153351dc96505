import math
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import choix
import pytest
import torch
from drawn import normal
from torch.autograd import gradcheck
from torch.testing import assert_close

from imgalign.errors import InputError
from imgalign.losses import (
    bradley_terry_loss,
    plackett_luce_loss,
)


def weak_orders(items: Sequence[int], largest: int) -> Iterator[list[tuple[int, ...]]]:
    """All ways to rank items, best first, with ties of at most `largest`."""
    if not items:
        yield []
    for size in range(1, min(largest, len(items)) + 1):
        for best in combinations(items, size):
            for rest in weak_orders([i for i in items if i not in best], largest):
                yield [best, *rest]


def as_ranks(order: Sequence[Sequence[int]], k: int) -> list[int]:
    ranks = [-1] * k
    for place, group in enumerate(order):
        for item in group:
            ranks[item] = place
    return ranks


def davidson_luce_probability(worth, order, delta):
    """The formula of the paper, literally: worths, not scores, and no logarithms."""

    def weight(group):
        return delta[len(group)] * math.prod(worth[i] for i in group) ** (1 / len(group))

    probability = 1.0
    for place in range(len(order)):
        remaining = [i for group in order[place:] for i in group]
        choices = [
            group
            for size in range(1, min(len(remaining), max(delta)) + 1)
            for group in combinations(remaining, size)
        ]
        probability *= weight(order[place]) / sum(weight(group) for group in choices)
    return probability


@pytest.mark.parametrize(
    ("k", "largest"), [(k, largest) for k in range(2, 6) for largest in range(1, k + 1)]
)
def test_plackett_luce_matches_a_literal_enumeration_of_the_paper(k, largest):
    # All orders of all candidates, and of every part of them: the others are not there.
    scores, log_tie = 2 * normal(k), normal(largest - 1, seed=1)
    delta = {1: 1.0, **{size + 2: math.exp(value) for size, value in enumerate(log_tie.tolist())}}
    orders = [
        order
        for size in range(1, k + 1)
        for present in combinations(range(k), size)
        for order in weak_orders(present, largest)
    ]
    expected = [
        -math.log(davidson_luce_probability(scores.exp().tolist(), order, delta))
        for order in orders
    ]
    ranks = torch.tensor([as_ranks(order, k) for order in orders])
    loss = plackett_luce_loss(scores.expand(len(orders), k), ranks, log_tie=log_tie)
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))


def test_a_ranking_of_some_is_as_likely_as_all_whole_orders_that_agree_with_it():
    # Luce's choice axiom: without ties, who else could have been chosen does not matter.
    k, scores = 5, 2 * normal(5)
    whole = list(permutations(range(k)))
    places = torch.tensor([as_ranks([(item,) for item in order], k) for order in whole])
    likely = plackett_luce_loss(scores.expand(len(whole), k), places).neg().exp()
    for some in (each for size in (2, 3, 4) for each in permutations(range(k), size)):
        agrees = (places[:, some].diff(dim=1) > 0).all(dim=1)
        ranks = torch.tensor([as_ranks([(item,) for item in some], k)])
        found = plackett_luce_loss(scores[None], ranks).neg().exp()
        assert_close(found[0], likely[agrees].sum())


@pytest.mark.parametrize(
    ("k", "largest", "num_orders"), [(3, 3, 13), (4, 4, 75), (5, 2, 450), (5, 5, 541)]
)
def test_the_probabilities_of_all_rankings_sum_to_one(k, largest, num_orders):
    ranks = torch.tensor([as_ranks(order, k) for order in weak_orders(range(k), largest)])
    assert len(ranks) == num_orders  # the ordered Bell numbers; 450 with pairs only
    scores = 2 * normal(k).expand(len(ranks), k)
    loss = plackett_luce_loss(scores, ranks, log_tie=normal(largest - 1, seed=1))
    assert_close(loss.neg().exp().sum().item(), 1.0)


def test_plackett_luce_without_ties_matches_choix():
    scores = normal(6).numpy()
    rankings = [(0, 1, 2, 3, 4, 5), (5, 3, 1), (2, 4), (3, 5, 0, 1)]
    ranks = torch.tensor([as_ranks([(i,) for i in ranking], 6) for ranking in rankings])
    ours = plackett_luce_loss(torch.tensor(scores).expand(4, 6), ranks).sum().item()
    assert_close(ours, -choix.log_likelihood_rankings(rankings, scores))


def test_plackett_luce_fits_the_same_scores_as_choix():
    truth = torch.tensor([1.0, 0.0, -1.0, 0.5])
    # Sorting by score plus Gumbel noise samples from Plackett-Luce.
    noise = -torch.rand(200, 4, generator=torch.Generator().manual_seed(0)).log().neg().log()
    rankings = (truth + noise).argsort(dim=1, descending=True)
    ranks = rankings.argsort(dim=1)
    scores = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = plackett_luce_loss(scores.expand(200, 4), ranks).mean()
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
    expected = choix.opt_rankings(4, [tuple(ranking) for ranking in rankings.tolist()], alpha=0.0)
    fitted = scores.detach() - scores.detach().mean()
    # choix stops at a tolerance of 1e-5 of its own.
    assert_close(fitted, torch.tensor(expected - expected.mean()), rtol=1e-3, atol=1e-3)


def test_plackett_luce_of_two_without_ties_is_bradley_terry():
    scores = normal(6, 2)
    first_wins = torch.tensor([[0, 1]]).expand(6, 2)
    expected = bradley_terry_loss(scores[:, 0], scores[:, 1])
    assert_close(plackett_luce_loss(scores, first_wins), expected)


def test_a_tie_of_two_equals_has_the_probability_of_davidson():
    # Davidson 1970: nu sqrt(a b) / (a + b + nu sqrt(a b)), here with a = b = 1 and nu = 1/2.
    loss = plackett_luce_loss(
        torch.zeros(1, 2), torch.tensor([[0, 0]]), log_tie=torch.tensor([math.log(0.5)])
    )
    assert_close(loss, torch.tensor([-math.log(0.2)]))


def test_ties_that_almost_never_happen_leave_plackett_luce():
    scores, ranks = normal(3, 4), normal(3, 4, seed=1).argsort(dim=1)
    almost_never = torch.full((3,), -60.0, dtype=torch.float64)
    loss = plackett_luce_loss(scores, ranks, log_tie=almost_never)
    assert_close(loss, plackett_luce_loss(scores, ranks))


RANKS = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1], [2, 0, 0, 0], [1, -1, 0, 0], [-1, 1, 0, -1]])
LOG_TIE = torch.tensor([-0.5, -1.5, -2.0], dtype=torch.float64)


def test_plackett_luce_gradients_match_finite_differences():
    scores, log_tie = normal(5, 4).requires_grad_(), LOG_TIE.clone().requires_grad_()
    assert gradcheck(lambda s, t: plackett_luce_loss(s, RANKS, log_tie=t), (scores, log_tie))


def test_plackett_luce_does_not_depend_on_the_order_of_candidates_or_rankings():
    scores = normal(5, 4)
    loss = plackett_luce_loss(scores, RANKS, log_tie=LOG_TIE)
    candidates, rankings = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 1, 0, 3, 2])
    mixed = plackett_luce_loss(
        scores[rankings][:, candidates], RANKS[rankings][:, candidates], log_tie=LOG_TIE
    )
    assert_close(mixed, loss[rankings])


def test_plackett_luce_ignores_a_constant_added_to_all_scores_of_a_ranking():
    scores, shift = normal(5, 4), 100 * normal(5, 1, seed=1)
    loss = plackett_luce_loss(scores, RANKS, log_tie=LOG_TIE)
    assert_close(plackett_luce_loss(scores + shift, RANKS, log_tie=LOG_TIE), loss)


@pytest.mark.parametrize("padding", [0.0, 1e30, math.inf, math.nan])
def test_padding_changes_neither_loss_nor_gradient_whatever_it_holds(padding):
    scores = normal(5, 4).requires_grad_()
    loss = plackett_luce_loss(scores, RANKS, log_tie=LOG_TIE)
    (expected,) = torch.autograd.grad(loss.sum(), scores)
    wide = torch.cat([torch.full((5, 2), padding, dtype=torch.float64), scores], dim=1)
    wide_ranks = torch.cat([torch.full((5, 2), -1), RANKS], dim=1)
    padded = plackett_luce_loss(wide, wide_ranks, log_tie=LOG_TIE)
    assert_close(padded, loss)
    (gradient,) = torch.autograd.grad(padded.sum(), scores)
    assert_close(gradient, expected)


def test_plackett_luce_has_the_type_of_the_scores_whatever_the_type_of_the_ties():
    scores = normal(5, 4)
    expected = plackett_luce_loss(scores, RANKS, log_tie=LOG_TIE)
    for own, ties in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        loss = plackett_luce_loss(scores.to(own), RANKS, log_tie=LOG_TIE.to(ties))
        assert_close(loss, expected.to(own))


def test_only_the_order_of_ranks_counts_and_not_their_values():
    gaps = torch.where(RANKS > 0, RANKS * 10 + 5, RANKS)
    loss = plackett_luce_loss(normal(5, 4), RANKS, log_tie=LOG_TIE)
    assert torch.equal(plackett_luce_loss(normal(5, 4), gaps, log_tie=LOG_TIE), loss)


def test_a_ranking_of_nothing_or_of_one_item_says_nothing():
    scores = normal(2, 3).requires_grad_()
    loss = plackett_luce_loss(scores, torch.tensor([[-1, -1, -1], [-1, 0, -1]]), log_tie=LOG_TIE)
    assert_close(loss, torch.zeros(2, dtype=torch.float64))
    loss.sum().backward()
    assert_close(scores.grad, torch.zeros(2, 3, dtype=torch.float64))


def test_nine_candidates_with_any_tie_stay_finite_for_absurd_scores():
    scores = (1e4 * normal(3, 9)).float().requires_grad_()
    ranks = torch.stack([torch.arange(9), torch.zeros(9).long(), torch.arange(9) // 4])
    loss = plackett_luce_loss(scores, ranks, log_tie=torch.full((8,), -50.0))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert scores.grad.isfinite().all()


def test_a_hundred_candidates_with_ties_need_no_list_of_all_groups():
    # For groups of up to two there is a closed form: the sum over pairs is half of a square.
    k, delta = 100, 0.3
    scores, ranks = normal(k)[None], torch.arange(k)
    ranks[41] = ranks[40]
    weights, expected = scores[0].exp(), torch.zeros((), dtype=torch.float64)
    for rank in ranks.unique().tolist():
        left, group = weights[ranks >= rank], weights[ranks == rank]
        pairs = delta * (left.sqrt().sum() ** 2 - left.sum()) / 2
        chosen = group.prod().sqrt() * delta if len(group) == 2 else group.prod()
        expected = expected - (chosen / (left.sum() + pairs)).log()
    two = torch.tensor([delta], dtype=torch.float64).log()
    assert_close(plackett_luce_loss(scores, ranks[None], log_tie=two), expected[None])
    any_size = torch.cat([two, torch.full((k - 2,), -150.0, dtype=torch.float64)])
    assert_close(plackett_luce_loss(scores, ranks[None], log_tie=any_size), expected[None])


def test_a_ranking_that_the_scores_make_certain_has_no_loss():
    scores = torch.tensor([[300.0, 200.0, 100.0, 0.0]])
    loss = plackett_luce_loss(scores, torch.tensor([[0, 1, 2, 3]]), log_tie=torch.zeros(3))
    assert_close(loss, torch.zeros(1))


@pytest.mark.parametrize(("log_tie", "most"), [(None, 1), (torch.zeros(1), 2)])
def test_a_tie_that_is_not_modelled_is_an_error_that_says_how_to_model_it(log_tie, most):
    with pytest.raises(InputError, match=f"ties of at most {most} items, got 3; pass log_tie"):
        plackett_luce_loss(torch.zeros(2, 3), torch.tensor([[0, 1, 2], [0, 0, 0]]), log_tie=log_tie)
