import inspect
import math
from collections.abc import Callable

import choix
import pytest
import torch
from drawn import normal
from torch.autograd import gradcheck
from torch.testing import assert_close

from imgalign import advantages, losses
from imgalign.losses import (
    bradley_terry_loss,
    cardinal_loss,
    clipped_surrogate_loss,
    clipped_value_loss,
    ipo_loss,
    kto_loss,
    value_loss,
)

# --- all of them


def test_settings_of_losses_and_advantages_are_passed_by_name_only():
    functions: list[tuple[str, Callable[..., object]]] = [
        (name, each)
        for module in (losses, advantages)
        for name, each in vars(module).items()
        if inspect.isfunction(each) and each.__module__ == module.__name__
    ]
    functions += [("RunningPromptStatistics", advantages.RunningPromptStatistics.__init__)]
    wrong = [
        f"{name}: {parameter.name}"
        for name, function in functions
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is not parameter.empty or parameter.annotation in (int, float)
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    assert [each for each in wrong if not each.startswith("_")] == []


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


def test_ppo_loss_is_zero_and_not_nan_without_an_advantage_however_far_the_step_went():
    log_prob = torch.tensor([[1000.0, -1000.0]])
    loss = clipped_surrogate_loss(log_prob, torch.zeros(1, 2), torch.zeros(1, 1), clip_nats=0.2)
    assert_close(loss, torch.zeros(1, 2))


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


@pytest.mark.parametrize(
    ("value", "target", "expected", "slope"),
    [
        (1.5, 2.0, 0.125, -0.5),  # the old value is 1 and the clip 1: inside it
        (3.0, 5.0, 4.5, 0.0),  # towards the target, and far enough: as if it were at 2
        (-3.0, -4.0, 8.0, 0.0),  # and downwards
        (-1.0, 5.0, 18.0, -6.0),  # away from the target: nothing holds it back
        (9.0, 3.0, 18.0, 6.0),  # beyond the target and further from it than 2 is
        (1.0, 4.0, 4.5, -3.0),  # not moved yet
    ],
)
def test_the_clipped_value_loss_lets_a_value_move_only_so_far_towards_its_target(
    value, target, expected, slope
):
    moved = torch.tensor([value], requires_grad=True)
    loss = clipped_value_loss(moved, torch.tensor([1.0]), torch.tensor([target]), clip=1.0)
    assert_close(loss.item(), expected)
    loss.sum().backward()
    assert_close(moved.grad.item(), slope)


def test_the_clipped_value_loss_is_never_below_half_the_squared_error():
    value, old, target = 3 * normal(200), normal(200, seed=1), normal(200, seed=2)
    plain = (value - target) ** 2 / 2
    loss = clipped_value_loss(value, old, target, clip=0.5)
    assert (loss >= plain).all()
    assert (loss > plain).any()
    assert_close(clipped_value_loss(value, old, target, clip=math.inf), plain)


def test_the_gradient_of_the_clipped_value_loss_matches_finite_differences():
    value, old, target = 3 * normal(40), normal(40, seed=1), normal(40, seed=2)
    value.requires_grad_()
    assert gradcheck(lambda v: clipped_value_loss(v, old, target, clip=0.5), value)


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


def test_kto_loss_has_the_type_of_the_log_ratio_and_loses_no_digits_of_its_weights():
    liked = torch.tensor([True, False])
    weights = {"desirable_weight": 0.1, "undesirable_weight": 0.3}
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        loss = kto_loss(torch.zeros(2, dtype=dtype), liked, beta=1.0, baseline=0.0, **weights)
        assert_close(loss, torch.tensor([0.05, 0.15], dtype=dtype))


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


@pytest.mark.parametrize("k", [2, 3, 4, 9])
def test_the_best_score_of_the_largest_advantage_there_can_be_is_the_largest(k):
    # One candidate has the weight 1 and the others 0, of which 1 / k is the mean.
    advantage = torch.full((1, k), -1 / k, dtype=torch.float64)
    advantage[0, 0] += 1
    scores = (2.0 * advantage / (1 - 1 / k)).requires_grad_()
    loss = cardinal_loss(scores, advantage, torch.ones(1, k, dtype=torch.bool), largest=2.0)
    assert_close(scores[0, 0].item(), 2.0)
    assert_close(torch.autograd.grad(loss.sum(), scores)[0], torch.zeros_like(advantage))


def test_the_cardinal_loss_pulls_one_candidate_alone_to_zero_and_says_nothing_of_none():
    scores = torch.tensor([[3.0, 1.0], [-3.0, 1.0], [5.0, 5.0]], requires_grad=True)
    present = torch.tensor([[True, False], [True, False], [False, False]])
    loss = cardinal_loss(scores, torch.zeros(3, 2), present, largest=1.0)
    assert loss[2] == 0
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert gradient.sign().tolist() == [[1, 0], [-1, 0], [0, 0]]


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
