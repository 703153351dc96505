import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import choix
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from imgalign.errors import InputError
from imgalign.losses import (
    bradley_terry_loss,
    cardinal_loss,
    clipped_surrogate_loss,
    ipo_loss,
    kto_loss,
    plackett_luce_loss,
    value_loss,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- PPO


def test_ppo_loss_is_minus_the_advantage_before_the_first_update():
    log_prob, advantage = 1e4 * normal(3, 5), normal(3, 5, seed=1)
    assert torch.equal(
        clipped_surrogate_loss(log_prob, log_prob, advantage, clip_nats=0.2), -advantage
    )


def test_ppo_gradient_before_the_first_update_is_the_policy_gradient():
    log_prob = normal(3, 5).requires_grad_()
    advantage = normal(3, 5, seed=1)
    clipped_surrogate_loss(log_prob, log_prob.detach(), advantage, clip_nats=0.2).sum().backward()
    assert_close(log_prob.grad, -advantage)


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected"),
    [
        (0.5, 2.0, -2 * math.exp(0.2)),  # a good step that went far enough
        (-0.5, 2.0, -2 * math.exp(-0.5)),  # a good step that became less likely
        (0.5, -2.0, 2 * math.exp(0.5)),  # a bad step that became more likely
        (-0.5, -2.0, 2 * math.exp(-0.2)),  # a bad step that went far enough
        (0.1, -2.0, 2 * math.exp(0.1)),
        (0.5, 0.0, 0.0),
    ],
)
def test_ppo_loss_clips_the_log_ratio_only_where_it_helps(log_ratio, advantage, expected):
    loss = clipped_surrogate_loss(
        torch.tensor([[log_ratio - 7.0]], dtype=torch.float64),
        torch.tensor([[-7.0]], dtype=torch.float64),
        torch.tensor([[advantage]], dtype=torch.float64),
        clip_nats=0.2,
    )
    assert_close(loss.item(), expected)


def test_ppo_loss_is_the_published_minimum_of_two_products():
    old, new, advantage = normal(40, 5), normal(40, 5, seed=1), normal(40, 5, seed=2)
    ratio = (new - old).exp()
    clipped = ratio.clamp(math.exp(-0.3), math.exp(0.3))
    expected = -torch.minimum(ratio * advantage, clipped * advantage)
    assert_close(clipped_surrogate_loss(new, old, advantage, clip_nats=0.3), expected)


def test_ppo_gradient_matches_finite_differences():
    old, advantage = normal(4, 3), normal(4, 3, seed=1)
    new = (old + 0.5 * normal(4, 3, seed=2)).requires_grad_()
    assert gradcheck(lambda x: clipped_surrogate_loss(x, old, advantage, clip_nats=0.3), new)


def test_ppo_gradient_is_zero_and_not_nan_where_a_good_step_went_absurdly_far():
    log_prob = torch.tensor([[1000.0]], requires_grad=True)
    clipped_surrogate_loss(
        log_prob, torch.zeros(1, 1), torch.ones(1, 1), clip_nats=0.2
    ).sum().backward()
    assert torch.equal(log_prob.grad, torch.zeros(1, 1))


def test_ppo_loss_ignores_a_constant_added_to_both_log_probs():
    old, new, advantage = normal(4, 3), normal(4, 3, seed=1), normal(4, 3, seed=2)
    expected = clipped_surrogate_loss(new, old, advantage, clip_nats=0.3)
    assert_close(clipped_surrogate_loss(new + 8, old + 8, advantage, clip_nats=0.3), expected)


def test_ppo_loss_shares_one_advantage_among_the_steps_of_an_image():
    old, new, advantage = normal(4, 3), normal(4, 3, seed=1), normal(4, 1, seed=2)
    expected = clipped_surrogate_loss(new, old, advantage.expand(4, 3), clip_nats=0.3)
    assert torch.equal(clipped_surrogate_loss(new, old, advantage, clip_nats=0.3), expected)


def test_ppo_loss_of_each_step_is_its_own():
    old, new, advantage = normal(4, 3), normal(4, 3, seed=1), normal(4, 3, seed=2)
    loss = clipped_surrogate_loss(new, old, advantage, clip_nats=0.3)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(
        clipped_surrogate_loss(new[order], old[order], advantage[order], clip_nats=0.3), loss[order]
    )


# --- value


def test_value_loss_is_half_the_squared_error_inside_the_clip_and_a_line_outside():
    value, target = torch.tensor([1.0, 3.0, -4.0]), torch.tensor([0.5, 0.0, 0.0])
    # 0.5 * 0.5^2; then 2 * 3 - 2^2 / 2; then 2 * 4 - 2^2 / 2
    assert_close(value_loss(value, target, clip=2.0), torch.tensor([0.125, 4.0, 6.0]))


def test_value_loss_matches_the_librarys_huber_loss():
    value, target = 3 * normal(50), normal(50, seed=1)
    expected = torch.nn.functional.huber_loss(value, target, reduction="none", delta=0.7)
    assert_close(value_loss(value, target, clip=0.7), expected)


def test_value_loss_without_a_clip_is_half_the_squared_error_and_differentiable():
    value, target = normal(6).requires_grad_(), normal(6, seed=1)
    loss = value_loss(value, target, clip=math.inf)
    assert_close(loss, 0.5 * (value - target) ** 2)
    loss.sum().backward()
    assert_close(value.grad, (value - target).detach())


def test_value_gradient_matches_finite_differences_and_stays_within_the_clip():
    value, target = (3 * normal(20)).requires_grad_(), normal(20, seed=1)
    assert gradcheck(lambda x: value_loss(x, target, clip=0.7), value)
    value_loss(value, target, clip=0.7).sum().backward()
    assert value.grad.abs().max() <= 0.7


# --- Bradley-Terry


def test_bradley_terry_loss_is_log_2_for_equal_scores():
    scores = torch.tensor([-3.0, 50.0])
    assert_close(bradley_terry_loss(scores, scores), torch.full((2,), math.log(2)))


def test_bradley_terry_loss_is_minus_the_log_odds_probability():
    loss = bradley_terry_loss(torch.tensor([math.log(3.0)]), torch.tensor([0.0]))
    assert_close(loss, torch.tensor([-math.log(3 / 4)]))


def test_bradley_terry_loss_matches_choix():
    scores = normal(5).numpy()
    pairs = [(0, 1), (2, 1), (3, 4), (4, 0)]
    winners, losers = (torch.tensor(scores)[list(side)] for side in zip(*pairs, strict=True))
    ours = bradley_terry_loss(winners, losers).sum().item()
    assert_close(ours, -choix.log_likelihood_pairwise(pairs, scores))


def test_bradley_terry_loss_stays_finite_and_linear_for_absurd_scores():
    chosen = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = bradley_terry_loss(chosen, torch.zeros(2))
    assert_close(loss, torch.tensor([1e4, 0.0]))
    loss.sum().backward()
    assert_close(chosen.grad, torch.tensor([-1.0, 0.0]))


def test_smoothing_mixes_the_loss_of_the_label_and_of_its_opposite():
    chosen, rejected = normal(5), normal(5, seed=1)
    smoothed = bradley_terry_loss(chosen, rejected, label_smoothing=0.1)
    ahead, behind = bradley_terry_loss(chosen, rejected), bradley_terry_loss(rejected, chosen)
    assert_close(smoothed, 0.9 * ahead + 0.1 * behind)


def test_bradley_terry_gradient_matches_finite_differences():
    chosen, rejected = normal(5).requires_grad_(), normal(5, seed=1).requires_grad_()
    assert gradcheck(lambda c, r: bradley_terry_loss(c, r, label_smoothing=0.1), (chosen, rejected))


# --- IPO and KTO


def test_ipo_loss_is_the_squared_distance_of_the_margin_to_its_target():
    # beta 0.25 aims at a margin of 2 nats.
    loss = ipo_loss(torch.tensor([0.0, 3.0, 5.0]), torch.tensor([0.0, 1.0, 0.0]), beta=0.25)
    assert_close(loss, torch.tensor([4.0, 0.0, 9.0]))


def test_ipo_loss_grows_again_beyond_its_target_where_dpo_goes_on_to_fall():
    margins = torch.tensor([0.0, 2.0, 4.0])
    ipo, dpo = (
        ipo_loss(margins, torch.zeros(3), beta=0.25),
        bradley_terry_loss(margins, margins * 0),
    )
    assert ipo[2] > ipo[1] < ipo[0]
    assert dpo[0] > dpo[1] > dpo[2]


def test_ipo_gradient_matches_finite_differences():
    chosen, rejected = normal(5).requires_grad_(), normal(5, seed=1).requires_grad_()
    assert gradcheck(lambda c, r: ipo_loss(c, r, beta=0.3), (chosen, rejected))


def test_kto_loss_is_a_half_where_a_log_ratio_equals_the_baseline():
    log_ratio, liked = torch.tensor([1.5, 1.5]), torch.tensor([True, False])
    assert_close(kto_loss(log_ratio, liked, beta=0.7, baseline=1.5), torch.full((2,), 0.5))


def test_kto_loss_is_the_weight_less_the_value_of_the_paper():
    log_ratio = normal(6)
    liked = torch.tensor([True, False, True, False, True, False])
    value = torch.where(
        liked,
        2.0 / (1 + (-0.5 * (log_ratio - 0.3)).exp()),
        3.0 / (1 + (0.5 * (log_ratio - 0.3)).exp()),
    )
    loss = kto_loss(
        log_ratio, liked, beta=0.5, baseline=0.3, desirable_weight=2.0, undesirable_weight=3.0
    )
    assert_close(loss, torch.where(liked, 2.0, 3.0).double() - value)


def test_kto_pulls_towards_likes_and_away_from_dislikes_and_no_harder_than_its_slope():
    log_ratio = (5 * normal(40)).requires_grad_()
    liked = torch.arange(40) % 2 == 0
    kto_loss(log_ratio, liked, beta=0.5, baseline=0.0).sum().backward()
    assert (log_ratio.grad[liked] < 0).all()
    assert (log_ratio.grad[~liked] > 0).all()
    assert log_ratio.grad.abs().max() <= 0.5 / 4 + 1e-12


def test_kto_gradient_matches_finite_differences():
    log_ratio, liked = normal(4).requires_grad_(), torch.tensor([True, False, False, True])
    assert gradcheck(lambda x: kto_loss(x, liked, beta=0.4, baseline=0.2), log_ratio)


# --- regression on scores


def test_the_best_scores_of_the_cardinal_loss_are_proportional_to_the_advantages():
    # One of four is better than the others by far: its advantage is 3/4 and it is to get 2.
    advantage = torch.tensor([[0.75, -0.25, -0.25, -0.25]], dtype=torch.float64)
    present = torch.ones(1, 4, dtype=torch.bool)
    scores = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], line_search_fn="strong_wolfe", max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = cardinal_loss(scores, advantage, present, largest=2.0).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert_close(scores.detach(), advantage * 2 / 0.75, rtol=1e-5, atol=1e-5)


def test_the_cardinal_loss_starts_at_zero_with_the_advantages_as_its_gradient():
    advantage, present = normal(3, 4), torch.ones(3, 4, dtype=torch.bool)
    scores = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    loss = cardinal_loss(scores, advantage, present, largest=1.0)
    assert_close(loss, torch.zeros(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert_close(gradient, -advantage)


def test_the_cardinal_loss_ignores_what_is_not_there_whatever_it_holds():
    scores, advantage = normal(2, 3), normal(2, 3, seed=1)
    present = torch.ones(2, 3, dtype=torch.bool)
    expected = cardinal_loss(scores, advantage, present, largest=1.0)
    nothing = torch.full((2, 2), math.nan, dtype=torch.float64)
    wide, wider = (torch.cat([each, nothing], dim=1) for each in (scores, advantage))
    there = torch.cat([present, torch.zeros(2, 2, dtype=torch.bool)], dim=1)
    assert_close(cardinal_loss(wide, wider, there, largest=1.0), expected)


def test_the_cardinal_gradient_matches_finite_differences():
    scores, advantage = normal(2, 3).requires_grad_(), normal(2, 3, seed=1)
    present = torch.tensor([[True, True, True], [True, True, False]])
    assert gradcheck(lambda x: cardinal_loss(x, advantage, present, largest=0.7), scores)


# --- Plackett-Luce with ties


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


@pytest.mark.parametrize("largest", [1, 2, 3, 4])
def test_plackett_luce_matches_a_literal_enumeration_of_the_paper(largest):
    k, scores, log_tie = 4, 2 * normal(4), normal(largest - 1, seed=1)
    delta = {1: 1.0, **{size + 2: math.exp(value) for size, value in enumerate(log_tie.tolist())}}
    orders = list(weak_orders(range(k), largest))
    expected = [
        -math.log(davidson_luce_probability(scores.exp().tolist(), order, delta))
        for order in orders
    ]
    ranks = torch.tensor([as_ranks(order, k) for order in orders])
    loss = plackett_luce_loss(scores.expand(len(orders), k), ranks, log_tie=log_tie)
    assert_close(loss, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("k", "largest", "num_orders"), [(3, 3, 13), (4, 4, 75), (5, 2, 450)])
def test_the_probabilities_of_all_rankings_sum_to_one(k, largest, num_orders):
    ranks = torch.tensor([as_ranks(order, k) for order in weak_orders(range(k), largest)])
    assert len(ranks) == num_orders  # the ordered Bell numbers 13 and 75; 450 with pairs only
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


def test_a_ranking_that_the_scores_make_certain_has_no_loss():
    scores = torch.tensor([[300.0, 200.0, 100.0, 0.0]])
    loss = plackett_luce_loss(scores, torch.tensor([[0, 1, 2, 3]]), log_tie=torch.zeros(3))
    assert_close(loss, torch.zeros(1))


@pytest.mark.parametrize(("log_tie", "most"), [(None, 1), (torch.zeros(1), 2)])
def test_a_tie_that_is_not_modelled_is_an_error_that_says_how_to_model_it(log_tie, most):
    with pytest.raises(InputError, match=f"ties of at most {most} items, got 3; pass log_tie"):
        plackett_luce_loss(torch.zeros(2, 3), torch.tensor([[0, 1, 2], [0, 0, 0]]), log_tie=log_tie)
