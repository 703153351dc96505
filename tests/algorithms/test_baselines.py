"""Claims: who gets which advantage, at which steps; a reward that is not finite teaches nothing and
changes nothing for the others."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from random_walk import RandomWalk
from torch.testing import assert_close
from walk_batches import algorithm_with, micros, sample

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.dealing import deal_steps
from imgalign.algorithms.kl import AdaptiveKLConfig, FixedKLConfig, Place, measure_kl
from imgalign.algorithms.policy_gradient import (
    GRPOConfig,
    PolicyGradient,
)
from imgalign.algorithms.surrogate import policy_gradient_loss
from imgalign.policy import Trajectory
from imgalign.runs.world import Alone


def clip_of(config: GRPOConfig) -> Callable[[int], float]:
    return partial(config.clip_in_nats, default=RandomWalk.default_clip_nats)


def test_only_credited_steps_learn_from_the_reward_and_all_pay_for_their_kl():
    def gradient(credited: int | None, coefficient: float) -> torch.Tensor:
        policy = RandomWalk(num_steps=4)
        with torch.no_grad():
            policy.shift.fill_(0.1)
        config = GRPOConfig(credited_steps=credited)
        (minibatch,) = micros(PolicyGradient(config, seed=0), policy)
        for micro in minibatch:
            policy_gradient_loss(policy, micro, clip=clip_of(config), kl_coefficient=coefficient)[
                0
            ].backward()
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
        config = GRPOConfig(credited_steps=1, kl_steps=kl_steps)
        algorithm = PolicyGradient(config, seed=0)
        rollout = sample(policy)
        assessment = algorithm.assess(policy, rollout, world=Alone())
        tally = assessment.tally()
        generator = torch.Generator().manual_seed(seed)
        (minibatch,) = algorithm.minibatches(policy, assessment, world=Alone(), generator=generator)
        for micro in minibatch:
            loss, stats = policy_gradient_loss(
                policy, micro, clip=clip_of(config), kl_coefficient=1.0
            )
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


def test_a_reference_that_is_asked_in_some_passes_gives_the_kl_of_all_on_average():
    def pull(reference_passes: int | None, seed: int) -> tuple[torch.Tensor, float, int]:
        policy = RandomWalk(num_steps=6)
        with torch.no_grad():
            policy.shift.copy_(
                0.1 * torch.arange(1.0, 7.0).view(6, *[1] * (policy.shift.dim() - 1))
            )
        config = GRPOConfig(reference_passes=reference_passes)
        algorithm = PolicyGradient(config, seed=0)
        assessment = algorithm.assess(policy, sample(policy), world=Alone())
        tally = assessment.tally()
        generator = torch.Generator().manual_seed(seed)
        (minibatch,) = algorithm.minibatches(policy, assessment, world=Alone(), generator=generator)
        policy.num_forwards = 0
        for micro in minibatch:
            loss, stats = policy_gradient_loss(
                policy, micro, clip=clip_of(config), kl_coefficient=1.0
            )
            loss.backward()
            tally.add(stats, micro)
        assert policy.shift.grad is not None
        return policy.shift.grad, tally.kl_nats, policy.num_forwards

    whole, whole_kl, forwards = pull(None, 0)
    assert forwards == 2 * 6 * 2  # two batches of images, six steps, policy and reference
    assert_close(pull(6, 0)[0], whole, rtol=0, atol=0)
    some = [pull(2, seed) for seed in range(60)]
    assert {forwards for _, _, forwards in some} == {2 * 6 + 2 * 2}
    mean = torch.stack([gradient for gradient, _, _ in some]).mean(dim=0)
    # The mean of 60 draws, each of which leaves out two steps in three.
    assert_close(mean, whole, rtol=0.3, atol=3e-3)
    assert sum(kl for _, kl, _ in some) / len(some) == pytest.approx(whole_kl, rel=0.15)


def learned_once(config: GRPOConfig) -> tuple[RandomWalk, PolicyGradient]:
    """A policy of four steps with the gradients of a batch; it counts the passes of learning."""
    policy = RandomWalk(num_steps=4)
    algorithm, rollout = PolicyGradient(config, seed=0), sample(policy)
    generator = torch.Generator().manual_seed(0)
    policy.num_forwards = 0
    for loss in algorithm.losses(policy, rollout, world=Alone(), generator=generator):
        assert loss.value is not None
        loss.value.backward()
    return policy, algorithm


def test_later_epochs_ask_the_pretrained_model_only_where_they_pay_for_its_kl():
    def forwards(kl: FixedKLConfig) -> int:
        policy, _ = learned_once(GRPOConfig(kl=kl, inner_epochs=3))
        return policy.num_forwards

    steps, batches, epochs = 4, 2, 3
    learned = epochs * batches * steps
    assert forwards(FixedKLConfig(coefficient=0.02)) == 2 * learned
    assert forwards(FixedKLConfig(coefficient=0.0)) == learned + batches * steps
    # For the log-ratios in the reward, and for the KL that is reported.
    in_reward = FixedKLConfig(coefficient=0.02, place="reward")
    assert forwards(in_reward) == learned + 2 * batches * steps


@pytest.mark.parametrize("place", ["loss", "reward"])
def test_a_reference_that_is_never_asked_leaves_the_update_as_it_is_where_the_kl_costs_nothing(
    place: Place,
):
    def update(reference_passes: int | None) -> tuple[torch.Tensor, int, set[str]]:
        kl = FixedKLConfig(coefficient=0.0, place=place)
        config = GRPOConfig(kl=kl, inner_epochs=2, reference_passes=reference_passes)
        policy, algorithm = learned_once(config)
        assert policy.shift.grad is not None
        return policy.shift.grad, policy.num_forwards, set(algorithm.metrics())

    steps, batches, epochs = 4, 2, 2
    gradient, forwards, metrics = update(0)
    whole, more_forwards, more_metrics = update(None)
    assert_close(gradient, whole, rtol=0, atol=0)
    assert forwards == epochs * batches * steps
    assert more_forwards == forwards + batches * steps
    assert more_metrics - metrics == {"kl", "kl_per_step"}


@pytest.mark.parametrize("kl", [FixedKLConfig(), AdaptiveKLConfig(target_nats=1.0)])
def test_a_kl_that_is_paid_for_is_measured(kl: FixedKLConfig | AdaptiveKLConfig):
    with pytest.raises(ValueError, match="reference_passes: 0 measures no KL"):
        GRPOConfig(kl=kl, reference_passes=0)


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
    rollout = sample(policy)
    config = GRPOConfig(credited_steps=1, advantage_clip=0.5)
    assessment = PolicyGradient(config, seed=0).assess(policy, rollout, world=Alone())
    used = torch.cat(assessment.advantages)
    assert not used[:, 1:].any()
    assert used.abs().max() <= 0.5
    size = assessment.metrics["advantage_abs_mean"]
    assert size == pytest.approx(used[:, 0].abs().mean().item())


def test_group_advantages_are_shared_by_all_steps_and_zero_in_the_mean_of_a_prompt():
    policy = RandomWalk(num_steps=3)
    rollout = sample(policy)
    advantages = torch.cat(
        PolicyGradient(GRPOConfig(), seed=0).assess(policy, rollout, world=Alone()).advantages
    )
    assert (advantages == advantages[:, :1]).all()
    for parity in (0, 1):  # images alternate between two prompts, across chunks
        group = advantages[parity::2, 0]
        assert_close(group.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
        assert_close(group.std(correction=0), torch.tensor(1.0))


@pytest.mark.parametrize("baseline", ["group", "running"])
def test_two_prompts_of_one_text_are_two_groups_because_only_the_ids_are_compared(baseline):
    # Two rewards lie one deviation either side of their mean; over all four it would be otherwise.
    policy, text = RandomWalk(num_steps=1), "a very long prompt " * 50
    batch = [policy.sample([text] * 4, seeds=range(4), prompt_ids=["1", "1", "2", "2"])]
    rollout = Rollout(batch=batch, rewards=torch.tensor([0.0, 1.0, 10.0, 30.0]))
    algorithm = algorithm_with(baseline, min_count=1)
    found = algorithm.assess(policy, rollout, world=Alone()).advantages[0][:, 0]
    assert_close(found, torch.tensor([-1.0, 1.0, -1.0, 1.0]), atol=1e-4, rtol=0)


def test_with_ranks_the_reward_may_have_any_unit_and_any_outlier():
    policy = RandomWalk()
    rollout = sample(policy)
    algorithm = algorithm_with("rank")
    expected = torch.cat(algorithm.assess(policy, rollout, world=Alone()).advantages)
    found = torch.cat(
        algorithm.assess(
            policy, replace(rollout, rewards=(20 * rollout.rewards).exp()), world=Alone()
        ).advantages
    )
    assert expected.any()
    assert torch.equal(found, expected)


def test_equal_rewards_teach_nothing():
    policy = RandomWalk()
    rollout = sample(policy)
    equal = replace(rollout, rewards=torch.full_like(rollout.rewards, 0.7))
    assessment = PolicyGradient(GRPOConfig(), seed=0).assess(policy, equal, world=Alone())
    assert not torch.cat(assessment.advantages).any()
    assert assessment.metrics["useless_group_fraction"] == 1.0


def test_advantages_are_cut_at_the_limit():
    policy = RandomWalk()
    rewards = torch.zeros(20)
    rewards[0] = 1.0  # sqrt(9) deviations above the nine others of its prompt
    rollout = replace(sample(policy, images=20, chunk=20), rewards=rewards)
    algorithm = PolicyGradient(GRPOConfig(advantage_clip=2.0), seed=0)
    assert algorithm.assess(policy, rollout, world=Alone()).advantages[0].max().item() == 2.0


@pytest.mark.parametrize("baseline", ["group", "rank", "running", "value"])
def test_a_reward_that_is_not_finite_changes_nothing_for_the_other_images(baseline):
    # Image 7 is dropped; without it the prompts have 4 and 3 images, as if it had not been.
    policy = RandomWalk(num_steps=3)
    rollout = sample(policy, images=8, chunk=8)
    rollout.rewards[7] = math.nan
    algorithm, alone = (algorithm_with(baseline, min_count=2) for _ in range(2))
    assessment = algorithm.assess(policy, rollout, world=Alone())
    expected = alone.assess(
        policy,
        Rollout(batch=[rollout.batch[0].select(range(7))], rewards=rollout.rewards[:7]),
        world=Alone(),
    )
    assert_close(assessment.advantages[0][:7], expected.advantages[0])
    assert not assessment.batch[0].mask[7].any()
    assert assessment.batch[0].mask[:7].all()
    for minibatch in algorithm.minibatches(
        policy, assessment, world=Alone(), generator=torch.Generator()
    ):
        for micro in minibatch:
            algorithm.loss(policy, micro)[0].backward()
    assert policy.shift.grad is not None
    assert policy.shift.grad.isfinite().all()


def test_a_dropped_image_leaves_gradient_kl_and_tally_as_without_it():
    # All images have the KL of the closed form, so one that is not masked would be seen.
    config = GRPOConfig(kl=FixedKLConfig(coefficient=2.0))
    found = []
    for dropped in (True, False):
        policy = RandomWalk(num_steps=3)
        with torch.no_grad():
            policy.shift.fill_(0.1)
        whole = sample(policy, images=8, chunk=8)
        (trajectory,), rewards = whole.batch, whole.rewards
        rewards = rewards.index_fill(0, torch.tensor([7]), math.nan)
        if not dropped:
            trajectory, rewards = trajectory.select(range(7)), rewards[:7]
        algorithm = PolicyGradient(config, seed=0)
        assessment = algorithm.assess(
            policy, Rollout(batch=[trajectory], rewards=rewards), world=Alone()
        )
        tally = assessment.tally()
        for minibatch in algorithm.minibatches(
            policy, assessment, world=Alone(), generator=torch.Generator().manual_seed(0)
        ):
            for micro in minibatch:
                loss, stats = algorithm.loss(policy, micro)
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
    (trajectory,) = sample(policy, images=2, chunk=2).batch
    trajectory.mask[1, 1] = False
    assert measure_kl(policy, [trajectory]) == pytest.approx(3 * 0.24 / 2, rel=1e-5)


def test_an_image_whose_own_numbers_broke_is_left_out_of_the_forward_pass():
    policy = RandomWalk(num_steps=2)
    rollout = sample(policy, images=4, chunk=4)
    (trajectory,) = rollout.batch
    latents = trajectory.replay["latents"].clone()
    latents[1] = math.nan
    broken = Trajectory(
        prompts=trajectory.prompts,
        prompt_ids=trajectory.prompt_ids,
        seeds=trajectory.seeds,
        log_probs=trajectory.log_probs.index_fill(0, torch.tensor([1]), math.nan),
        mask=trajectory.mask,
        replay={"latents": latents},
    )
    algorithm = PolicyGradient(GRPOConfig(), seed=0)
    assessment = algorithm.assess(policy, replace(rollout, batch=[broken]), world=Alone())
    assert assessment.batch[0].seeds == [0, 2, 3]
    (minibatch,) = algorithm.minibatches(
        policy, assessment, world=Alone(), generator=torch.Generator()
    )
    for micro in minibatch:
        algorithm.loss(policy, micro)[0].backward()
    assert policy.shift.grad is not None
    assert policy.shift.grad.isfinite().all()
