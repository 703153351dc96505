"""Claims: who gets which advantage, at which steps; a reward that is not finite teaches nothing and
changes nothing for the others."""

import math

import pytest
import torch
from ppo_batches import micros, sample
from random_walk import RandomWalk
from torch.testing import assert_close

from imgalign.algorithms.batches import deal_steps
from imgalign.algorithms.ppo import PPO, KLConfig, PPOConfig, measure_kl, ppo_loss
from imgalign.policy import Trajectory


def test_only_credited_steps_learn_from_the_reward_and_all_pay_for_their_kl():
    def gradient(credited: int | None, coefficient: float) -> torch.Tensor:
        policy = RandomWalk(num_steps=4)
        with torch.no_grad():
            policy.shift.fill_(0.1)
        config = PPOConfig(credited_steps=credited)
        (minibatch,) = micros(PPO(config, seed=0), policy)
        for micro in minibatch:
            ppo_loss(policy, micro, config=config, kl_coefficient=coefficient)[0].backward()
        assert policy.shift.grad is not None
        return policy.shift.grad

    whole, first_two = gradient(None, 0.0), gradient(2, 0.0)
    assert_close(first_two[:2], whole[:2])
    assert whole[2:].abs().min() > 0
    assert not first_two[2:].any()
    pull = gradient(None, 1.0) - whole
    assert_close(gradient(2, 1.0) - first_two, pull)
    assert pull[2:].abs().min() > 0


def test_the_kl_of_some_steps_stands_for_that_of_all_on_average():
    def pull(kl_steps: int | None, seed: int) -> tuple[torch.Tensor, float]:
        policy = RandomWalk(num_steps=6)
        with torch.no_grad():
            policy.shift.copy_(
                0.1 * torch.arange(1.0, 7.0).view(6, *[1] * (policy.shift.dim() - 1))
            )
        config = PPOConfig(credited_steps=1, kl_steps=kl_steps)
        ppo = PPO(config, seed=0)
        batch, rewards = sample(policy)
        assessment = ppo.assess(policy, batch, rewards)
        tally = assessment.tally()
        generator = torch.Generator().manual_seed(seed)
        (minibatch,) = ppo.minibatches(assessment, generator=generator)
        for micro in minibatch:
            loss, stats = ppo_loss(policy, micro, config=config, kl_coefficient=1.0)
            loss.backward()
            tally.add(stats, micro)
        assert policy.shift.grad is not None
        return policy.shift.grad, tally.kl_nats

    whole, whole_kl = pull(None, 0)
    everything, everything_kl = pull(5, 0)
    assert_close(everything, whole)
    assert everything_kl == pytest.approx(whole_kl)
    some = [pull(2, seed) for seed in range(60)]
    mean = torch.stack([gradient for gradient, _ in some]).mean(dim=0)
    # The mean of 60 draws, of which each leaves out one step in five.
    assert_close(mean, whole, rtol=0.2, atol=2e-3)
    assert sum(kl for _, kl in some) / len(some) == pytest.approx(whole_kl, rel=0.1)


def test_steps_are_dealt_out_such_that_none_comes_twice_before_all_have_come():
    each = [torch.arange(9)] * 4
    dealt = deal_steps(
        each, credited_steps=3, kl_steps=3, generator=torch.Generator().manual_seed(1)
    )
    for steps, weights in dealt:
        assert steps[:3].tolist() == [0, 1, 2]
        assert weights.tolist() == [1, 1, 1, 2, 2, 2]
    hands = [set(steps[3:].tolist()) for steps, _ in dealt]
    assert hands[0] | hands[1] == hands[2] | hands[3] == set(range(3, 9))
    generous = deal_steps(
        each, credited_steps=3, kl_steps=99, generator=torch.Generator().manual_seed(1)
    )
    assert all(steps.tolist() == list(range(9)) for steps, _ in generous)
    assert all(weights.tolist() == [1] * 9 for _, weights in generous)


def test_the_size_of_advantages_is_of_those_that_are_used():
    policy = RandomWalk(num_steps=4)
    batch, rewards = sample(policy)
    config = PPOConfig(credited_steps=1, advantage_clip=0.5)
    assessment = PPO(config, seed=0).assess(policy, batch, rewards)
    used = torch.cat(assessment.advantages)
    assert not used[:, 1:].any()
    assert used.abs().max() <= 0.5
    size = assessment.metrics["advantage_abs_mean"]
    assert size == pytest.approx(used[:, 0].abs().mean().item())


def test_group_advantages_are_shared_by_all_steps_and_zero_in_the_mean_of_a_prompt():
    policy = RandomWalk(num_steps=3)
    batch, rewards = sample(policy)
    advantages = torch.cat(PPO(PPOConfig(), seed=0).assess(policy, batch, rewards).advantages)
    assert (advantages == advantages[:, :1]).all()
    for parity in (0, 1):  # images alternate between two prompts, across chunks
        group = advantages[parity::2, 0]
        assert_close(group.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
        assert_close(group.std(correction=0), torch.tensor(1.0))


@pytest.mark.parametrize("advantages", ["group", "running"])
def test_two_prompts_of_one_text_are_two_groups_because_only_the_ids_are_compared(advantages):
    # Two rewards lie one deviation either side of their mean; over all four it would be otherwise.
    policy, text = RandomWalk(num_steps=1), "a very long prompt " * 50
    batch = [policy.sample([text] * 4, seeds=range(4), prompt_ids=["1", "1", "2", "2"])]
    config = PPOConfig(advantages=advantages, running_min_count=1)
    rewards = torch.tensor([0.0, 1.0, 10.0, 30.0])
    found = PPO(config, seed=0).assess(policy, batch, rewards).advantages[0][:, 0]
    assert_close(found, torch.tensor([-1.0, 1.0, -1.0, 1.0]), atol=1e-4, rtol=0)


def test_with_wins_the_reward_may_have_any_unit_and_any_outlier():
    policy = RandomWalk()
    batch, rewards = sample(policy)
    ppo = PPO(PPOConfig(advantages="wins"), seed=0)
    expected = torch.cat(ppo.assess(policy, batch, rewards).advantages)
    found = torch.cat(ppo.assess(policy, batch, (20 * rewards).exp()).advantages)
    assert expected.any()
    assert torch.equal(found, expected)


def test_equal_rewards_teach_nothing():
    policy = RandomWalk()
    batch, rewards = sample(policy)
    assessment = PPO(PPOConfig(), seed=0).assess(policy, batch, torch.full_like(rewards, 0.7))
    assert not torch.cat(assessment.advantages).any()
    assert assessment.metrics["useless_group_fraction"] == 1.0


def test_advantages_are_cut_at_the_limit():
    policy = RandomWalk()
    batch, _ = sample(policy, images=20, chunk=20)
    rewards = torch.zeros(20)
    rewards[0] = 1.0  # sqrt(9) deviations above the nine others of its prompt
    ppo = PPO(PPOConfig(advantage_clip=2.0), seed=0)
    assert ppo.assess(policy, batch, rewards).advantages[0].max().item() == 2.0


@pytest.mark.parametrize("advantages", ["group", "wins", "running", "value"])
def test_a_reward_that_is_not_finite_changes_nothing_for_the_other_images(advantages):
    # Image 7 is quarantined; without it the prompts have 4 and 3 images, as if it had not been.
    policy = RandomWalk(num_steps=3)
    config = PPOConfig(advantages=advantages, running_min_count=2)
    batch, rewards = sample(policy, images=8, chunk=8)
    rewards[7] = math.nan
    ppo, alone = PPO(config, seed=0), PPO(config, seed=0)
    assessment = ppo.assess(policy, batch, rewards)
    expected = alone.assess(policy, [batch[0].select(range(7))], rewards[:7])
    assert_close(assessment.advantages[0][:7], expected.advantages[0])
    assert not assessment.batch[0].mask[7].any()
    assert assessment.batch[0].mask[:7].all()
    for minibatch in ppo.minibatches(assessment, generator=torch.Generator()):
        for micro in minibatch:
            ppo.loss(policy, micro)[0].backward()
    assert policy.shift.grad is not None
    assert policy.shift.grad.isfinite().all()


def test_a_quarantined_image_leaves_gradient_kl_and_tally_as_without_it():
    # All images have the KL of the closed form, so one that is not masked would be seen.
    config = PPOConfig(kl=KLConfig(coefficient=2.0))
    found = []
    for quarantined in (True, False):
        policy = RandomWalk(num_steps=3)
        with torch.no_grad():
            policy.shift.fill_(0.1)
        (trajectory,), rewards = sample(policy, images=8, chunk=8)
        rewards = rewards.index_fill(0, torch.tensor([7]), math.nan)
        if not quarantined:
            trajectory, rewards = trajectory.select(range(7)), rewards[:7]
        ppo = PPO(config, seed=0)
        assessment = ppo.assess(policy, [trajectory], rewards)
        tally = assessment.tally()
        for minibatch in ppo.minibatches(assessment, generator=torch.Generator().manual_seed(0)):
            for micro in minibatch:
                loss, stats = ppo.loss(policy, micro)
                loss.backward()
                tally.add(stats, micro)
        found.append((policy.shift.grad, tally.metrics()))
    assert_close(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5, abs=1e-6)


def test_the_kl_of_a_whole_trajectory_leaves_out_what_is_masked():
    # sigma 0.5, 12 elements moved by 0.1: 12 * 0.02 nats a step. Three of four steps count.
    policy = RandomWalk(num_steps=2)
    policy.sigma.fill_(0.5)
    with torch.no_grad():
        policy.shift.fill_(0.1)
    (trajectory,), _ = sample(policy, images=2, chunk=2)
    trajectory.mask[1, 1] = False
    assert measure_kl(policy, [trajectory]) == pytest.approx(3 * 0.24 / 2, rel=1e-5)


def test_an_image_whose_own_numbers_broke_is_left_out_of_the_forward_pass():
    policy = RandomWalk(num_steps=2)
    (trajectory,), rewards = sample(policy, images=4, chunk=4)
    latents = trajectory.replay["latents"].clone()
    latents[1] = math.nan
    broken = Trajectory(
        prompts=trajectory.prompts,
        prompt_ids=trajectory.prompt_ids,
        seeds=trajectory.seeds,
        samples=trajectory.samples,
        log_probs=trajectory.log_probs.index_fill(0, torch.tensor([1]), math.nan),
        mask=trajectory.mask,
        replay={"latents": latents},
    )
    ppo = PPO(PPOConfig(), seed=0)
    assessment = ppo.assess(policy, [broken], rewards)
    assert assessment.batch[0].seeds == [0, 2, 3]
    (minibatch,) = ppo.minibatches(assessment, generator=torch.Generator())
    for micro in minibatch:
        ppo.loss(policy, micro)[0].backward()
    assert policy.shift.grad is not None
    assert policy.shift.grad.isfinite().all()
