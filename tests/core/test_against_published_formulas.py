"""Claims: the losses, advantages and rewards of PPO have the values and gradients of TRL 1.12,
OpenRLHF 0.11.2 and verl 0.9.1, and IPO those of its public implementations. Where they disagree
with each other, a test says how, and with whom we agree.

None of these can be installed beside the project: TRL 1.13 removed PPO, and the others need Ray and
CUDA. So their formulas are written out here, after these sources:

- TRL: trl/experimental/ppo/ppo_trainer.py, `PPOTrainer.train` and `masked_whiten`
- OpenRLHF: openrlhf/models/loss.py, `PolicyLoss`, `ValueLoss` and `DPOLoss`;
  openrlhf/models/utils.py, `compute_reward`; openrlhf/trainer/ppo_utils/experience_maker.py,
  `get_advantages_and_returns`
- verl: verl/trainer/ppo/core_algos.py, `compute_policy_loss_vanilla`, `compute_value_loss` and
  `compute_gae_advantage_return`; verl/trainer/ppo/ray_trainer.py, `apply_kl_penalty`;
  verl/utils/torch_functional.py, `masked_whiten`
- OpenAI: lm-human-preferences, lm_human_preferences/utils/core.py, `whiten`
- torchtune 0.6.1: torchtune/rlhf/rewards.py, `whiten`
- HALOs: train/trainers.py, `IPOTrainer` and `get_sequence_rewards`
"""

import math

import pytest
import torch
from drawn import normal
from torch import Tensor
from torch.testing import assert_close

from imgalign.advantages import (
    generalized_advantages,
    kl_penalised_rewards,
    scaled_about_mean,
    whitened,
)
from imgalign.losses import clipped_surrogate_loss, clipped_value_loss, ipo_loss

ENDS = torch.arange(7) < torch.tensor([[7], [4], [1], [6]])
"""The steps of four texts, padded on the right."""

GAPS = torch.tensor(
    [
        [True, True, False, False, True, True, False],
        [False, True, True, False, True, False, False],
        [True, False, False, False, False, False, True],
        [True, True, True, True, True, True, True],
    ]
)
"""Steps with those of somebody else in between, as in a conversation."""


def same(ours: Tensor, theirs: Tensor, variable: Tensor) -> None:
    """Equal values and gradients, element by element."""
    assert_close(ours, theirs)
    gradients = [torch.autograd.grad(each.sum(), variable)[0] for each in (ours, theirs)]
    assert gradients[0].any()
    assert_close(*gradients)


# --- the policy's loss


def ratio_clipped(log_ratio: Tensor, advantage: Tensor, *, low: float, high: float) -> Tensor:
    """TRL has one clip for both, low = high; OpenRLHF and verl have both.

    Left out: the latter two limit log-ratios to +- 20 nats.
    """
    ratio = log_ratio.exp()
    return torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))


def test_the_policy_loss_is_that_of_openrlhf_and_verl_with_clips_of_one_factor_up_and_down():
    log_prob, old = normal(50, 3).requires_grad_(), normal(50, 3, seed=1)
    advantage, nats = normal(50, 3, seed=2), 0.2
    clips = {"low": 1 - math.exp(-nats), "high": math.exp(nats) - 1}
    ours = clipped_surrogate_loss(log_prob, old, advantage, clip_nats=nats)
    same(ours, ratio_clipped(log_prob - old, advantage, **clips), log_prob)


@pytest.mark.parametrize("sign", [1, -1])
def test_trls_single_clip_is_ours_for_advantages_of_one_sign(sign):
    # Only the upper end matters to good steps and only the lower one to bad steps. 1 - clip is
    # further down than 1 + clip is up, in nats; ours are as far.
    log_prob, old = normal(50, 3).requires_grad_(), normal(50, 3, seed=1)
    advantage, clip = sign * normal(50, 3, seed=2).abs(), 0.2
    nats = math.log(1 + clip) if sign > 0 else -math.log(1 - clip)
    ours = clipped_surrogate_loss(log_prob, old, advantage, clip_nats=nats)
    same(ours, ratio_clipped(log_prob - old, advantage, low=clip, high=clip), log_prob)


def test_verl_stops_at_three_times_a_bad_advantage_where_ours_and_the_others_go_on():
    # Its "dual clip" of 3 (arXiv:1912.09729) is on unless it is set aside: a bad step that became
    # more than three times as likely has no gradient there. PPO's paper and we push it back.
    log_prob, advantage = torch.tensor([[1.0, 1.2]], dtype=torch.float64), torch.tensor([[-2.0]])
    log_prob.requires_grad_()
    clips = {"low": 1 - math.exp(-0.2), "high": math.exp(0.2) - 1}
    verl = torch.min(ratio_clipped(log_prob, advantage, **clips), -3.0 * advantage)
    ours = clipped_surrogate_loss(log_prob, 0 * log_prob.detach(), advantage, clip_nats=0.2)
    (of_verl,), (of_ours,) = (torch.autograd.grad(each.sum(), log_prob) for each in (verl, ours))
    assert_close(of_verl, torch.tensor([[2 * math.e, 0.0]], dtype=torch.float64))
    assert_close(of_ours, 2 * log_prob.detach().exp())


# --- the critic's loss


@pytest.mark.parametrize("clip", [0.2, 1.0])
def test_the_clipped_value_loss_is_that_of_trl_openrlhf_and_verl(clip):
    value, old, target = 2 * normal(80), normal(80, seed=1), 2 * normal(80, seed=2)
    value.requires_grad_()
    ours = clipped_value_loss(value, old, target, clip=clip)
    # TRL and verl clip the value to an interval around the old one, OpenRLHF the difference.
    near = torch.max(torch.min(value, old + clip), old - clip)
    same(ours, 0.5 * torch.max((value - target) ** 2, (near - target) ** 2), value)
    near = old + (value - old).clamp(-clip, clip)
    ours = clipped_value_loss(value, old, target, clip=clip)
    same(ours, 0.5 * torch.max((near - target) ** 2, (value - target) ** 2), value)


# --- advantages of each step


def with_zeros(rewards: Tensor, values: Tensor, mask: Tensor, *, decay: float) -> Tensor:
    """Advantages where what does not count is set to 0, and is a step all the same. Undiscounted.

    So do TRL, where only padding is meant, and OpenRLHF with whatever its mask leaves out.
    """
    reward, value = rewards * mask, values * mask
    following = torch.cat([value[:, 1:], torch.zeros(len(value), 1).to(value)], dim=1)
    errors = reward + following - value
    steps = torch.arange(mask.shape[1])
    distance = steps[None, :] - steps[:, None]
    weights = torch.where(distance >= 0, decay ** distance.clamp(min=0).double(), 0.0)
    return errors @ weights.T


def passing_over(rewards: Tensor, values: Tensor, mask: Tensor, *, decay: float) -> Tensor:
    """Advantages where what does not count is passed over, which is verl's rule. Undiscounted."""
    found = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        value, advantage = 0.0, 0.0
        for step in range(mask.shape[1] - 1, -1, -1):
            if mask[row, step]:
                error = float(rewards[row, step] + value - values[row, step])
                value, advantage = float(values[row, step]), error + decay * advantage
            found[row, step] = advantage  # outside the mask too, where it is ignored later
    return found


@pytest.mark.parametrize("smoothing", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("theirs", [with_zeros, passing_over])
def test_advantages_of_padded_texts_are_those_of_all_libraries(theirs, smoothing):
    rewards, values = normal(4, 7), normal(4, 7, seed=1)
    expected = theirs(rewards, values, ENDS, decay=smoothing)
    advantages, returns = generalized_advantages(rewards, values, ENDS, smoothing=smoothing)
    assert_close(advantages[ENDS], expected[ENDS])
    assert_close(returns[ENDS], (expected + values)[ENDS])  # before any whitening, as in all


def test_advantages_across_gaps_are_verls_and_not_openrlhfs_whose_gaps_are_zeros():
    # Zeros make a gap a state of no worth: with smoothing below 1 the steps before it are blamed.
    rewards, values = normal(4, 7), normal(4, 7, seed=1)
    ours, _ = generalized_advantages(rewards, values, GAPS, smoothing=0.9)
    assert_close(ours[GAPS], passing_over(rewards, values, GAPS, decay=0.9)[GAPS])
    zeros = with_zeros(rewards, values, GAPS, decay=0.9)
    assert not torch.allclose(ours[GAPS], zeros[GAPS], atol=0.1)


# --- whitening


def standardised(values: Tensor, mask: Tensor, *, unbiased: bool) -> Tensor:
    counted = values[mask]
    return (values - counted.mean()) * (counted.var(correction=int(unbiased)) + 1e-8).rsqrt()


def test_whitening_is_openais_and_that_of_trl_and_verl_up_to_bessels_factor():
    values, count = 3 * normal(4, 7) + 2, int(ENDS.sum())
    ours, kept = whitened(values, ENDS)[ENDS], scaled_about_mean(values, ENDS)[ENDS]
    mean = values[ENDS].mean()
    openai = standardised(values, ENDS, unbiased=False)[ENDS]
    assert_close(ours, openai)
    assert_close(kept, openai + mean)  # shift_mean=False
    trl = standardised(values, ENDS, unbiased=True)[ENDS]
    bessel = math.sqrt(count / (count - 1))
    assert_close(ours, bessel * trl)
    assert_close(kept, bessel * trl + mean)


def test_torchtunes_whitening_has_its_two_cases_exchanged():
    # It adds the mean where `shift_mean` is true, so that advantages are not centred. Its own test
    # expects that too. OpenAI, TRL and verl add it where it is false.
    values, everything = 3 * normal(4, 7) + 2, torch.ones(4, 7, dtype=torch.bool)
    scaled = standardised(values, everything, unbiased=False)
    torchtune = {True: scaled + values.mean(), False: scaled}
    assert_close(torchtune[True], scaled_about_mean(values, everything))
    assert_close(torchtune[False], whitened(values, everything))


# --- the KL in the reward


def at_last(score: Tensor, mask: Tensor) -> Tensor:
    """The score at the last step that counts."""
    found = torch.zeros_like(mask, dtype=score.dtype)
    for row, steps in enumerate(mask):
        if steps.any():
            found[row, steps.nonzero().max()] = score[row]
    return found


def test_rewards_of_steps_are_those_of_openrlhf_and_verl():
    # OpenRLHF: the score at the last action, and log-ratios that are 0 outside of the actions.
    # verl: token_level_scores, where reward functions put the score at the last token of the text.
    score, log_ratio = normal(4), normal(4, 7, seed=1)
    for mask in (ENDS, GAPS):
        expected = at_last(score, mask) - 0.05 * (log_ratio * mask)
        assert_close(kl_penalised_rewards(score, log_ratio, mask, coefficient=0.05), expected)


def test_trl_gives_the_score_one_step_after_the_end_and_nothing_of_it_is_lost():
    # At the first token of padding, where there is room, with a value of its own, V_end. Without
    # smoothing over steps less than 1 advantages are the same. Else V_end takes a share of the
    # credit: the critic has to learn a state after the end. Ours is at the end.
    score, log_ratio, values = normal(4), normal(4, 7, seed=1), normal(4, 7, seed=2)
    longer = torch.arange(7) < ENDS.sum(dim=1, keepdim=True) + 1
    trl = at_last(score, longer) - 0.05 * (log_ratio * ENDS)
    ours = kl_penalised_rewards(score, log_ratio, ENDS, coefficient=0.05)
    assert_close(ours.sum(dim=1), trl.sum(dim=1))
    for smoothing, equal in ((1.0, True), (0.9, False)):
        advantages, _ = generalized_advantages(ours, values, ENDS, smoothing=smoothing)
        theirs = with_zeros(trl, values, longer, decay=smoothing)
        assert torch.allclose(advantages[ENDS], theirs[ENDS]) == equal


def test_a_text_without_steps_has_no_reward_where_openrlhf_rewards_its_padding():
    # The position of its last action is found by an argmax, which of nothing is the first: the
    # score then stands at the last position of all.
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    place = 2 - nothing.long().flip(1).argmax(dim=1)
    assert place.item() == 2
    rewards = kl_penalised_rewards(torch.tensor([5.0]), torch.ones(1, 3), nothing, coefficient=0.1)
    assert torch.equal(rewards, torch.zeros(1, 3))


# --- IPO

CHOSEN, REJECTED = [0, 3, 2], [1, 4, 5]


def test_ipo_is_summed_in_openrlhf_and_the_dpo_authors_code_and_their_beta_is_another():
    # Their target, 1 / (2 beta), is of sums over tokens, so that a long pair reaches it sooner.
    log_ratio, lengths = normal(6), torch.tensor([2.0, 9.0, 4.0, 4.0, 1.0, 7.0])
    summed = (log_ratio[CHOSEN] - log_ratio[REJECTED] - 1 / (2 * 0.3)) ** 2
    assert_close(ipo_loss(log_ratio[CHOSEN], log_ratio[REJECTED], beta=0.3), summed)
    mean = log_ratio / lengths
    averaged = ipo_loss(mean[CHOSEN], mean[REJECTED], beta=0.3)
    assert not torch.allclose(averaged, summed, rtol=0.1)
    # Of one length n, they are the same loss but for a factor: beta is n times as large.
    one = ipo_loss(log_ratio[CHOSEN] / 8, log_ratio[REJECTED] / 8, beta=8 * 0.3)
    assert_close(64 * one, summed)


def test_ipo_starts_at_its_target_where_that_of_halos_is_not_a_number():
    # HALOs divides by the number of tokens whose log-ratio is not 0, of which there is none while
    # policy and reference agree: 0 / 0. It also leaves out any token that has not changed yet.
    log_ratios = torch.zeros(2, 5)
    halos = log_ratios.sum(dim=1) / (log_ratios != 0).sum(dim=1)
    assert halos.isnan().all()
    mean = log_ratios.sum(dim=1) / 5
    assert_close(ipo_loss(mean[:1], mean[1:], beta=0.25), torch.tensor([4.0]))
