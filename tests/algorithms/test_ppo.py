"""Claims: before the first update the ratio is exactly 1 and the loss is the plain policy gradient;
the KL is the closed form, with a gradient; what is masked or quarantined teaches nothing."""

import math

import pytest
import torch
from random_walk import Brightness, RandomWalk
from torch.testing import assert_close

from imgalign.algorithms.batches import MicroBatch
from imgalign.algorithms.ppo import PPO, KLConfig, PPOConfig, measure_kl, ppo_loss
from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError
from imgalign.policy import Policy, Trajectory

PROMPTS = ["a red fox", "a blue boat"]


def sample(policy: RandomWalk, *, images: int = 8, chunk: int = 4, first: int = 0):
    seeds = range(first, first + images)
    prompts = [PROMPTS[seed % 2] for seed in seeds]
    batch = [
        policy.sample(prompts[start : start + chunk], seeds=seeds[start : start + chunk])
        for start in range(0, images, chunk)
    ]
    score = Brightness().score
    rewards = torch.cat([score(prompts=each.prompts, samples=each.samples) for each in batch])
    return batch, rewards


def micros(ppo: PPO, policy: RandomWalk, **kwargs) -> list[list[MicroBatch]]:
    batch, rewards = sample(policy, **kwargs)
    assessment = ppo.assess(policy, batch, rewards)
    return list(ppo.minibatches(assessment, generator=torch.Generator().manual_seed(0)))


def run_update(ppo: PPO, policy: RandomWalk, optimizer, *, first: int):
    batch, rewards = sample(policy, first=first, images=32, chunk=16)
    assessment = ppo.assess(policy, batch, rewards)
    tally = assessment.tally()
    for minibatch in ppo.minibatches(assessment, generator=torch.Generator().manual_seed(first)):
        optimizer.zero_grad()
        for micro in minibatch:
            loss, stats = ppo.loss(policy, micro)
            loss.backward()
            tally.add(stats, micro)
        optimizer.step()
    return rewards.mean().item(), tally


def test_the_random_walk_is_a_policy():
    assert isinstance(RandomWalk(), Policy)


def test_the_ratio_is_exactly_1_before_the_first_update():
    policy = RandomWalk(num_steps=5, last_step_is_sure=True)
    for micro in micros(PPO(PPOConfig(), seed=0), policy)[0]:
        _, stats = ppo_loss(policy, micro, config=PPOConfig(), kl_coefficient=0.0)
        assert stats["log_ratio_max"].item() == 0.0
        assert stats["approx_kl"].item() == 0.0
        assert stats["clip_fraction"].item() == 0.0


def test_the_sampler_is_the_anchor_and_nothing_is_computed_twice():
    policy = RandomWalk(num_steps=3)
    batch, rewards = sample(policy, images=8, chunk=4)
    ppo = PPO(PPOConfig(), seed=0)
    policy.num_forwards = 0
    assessment = ppo.assess(policy, batch, rewards)
    assert policy.num_forwards == 0
    for minibatch in ppo.minibatches(assessment, generator=torch.Generator()):
        for micro in minibatch:
            ppo.loss(policy, micro)
    # two chunks of images, three steps each, once under the policy and once under the reference
    assert policy.num_forwards == 2 * 3 * 2


def test_the_first_gradient_is_the_plain_policy_gradient():
    # At ratio 1 the gradient of -A r is -A grad log p, and for a Gaussian step
    # d log p / d shift[k] = (next - mean) / sigma[k]^2.
    policy = RandomWalk(num_steps=3)
    config = PPOConfig(minibatches=1, steps_per_pass=2)
    ppo = PPO(config, seed=0)
    batch, rewards = sample(policy)
    assessment = ppo.assess(policy, batch, rewards)
    (minibatch,) = ppo.minibatches(assessment, generator=torch.Generator())
    for micro in minibatch:
        ppo_loss(policy, micro, config=config, kl_coefficient=0.0)[0].backward()
    latents = torch.cat([each.replay["latents"] for each in batch])
    noise = latents[:, 1:] - latents[:, :-1] - policy.base
    advantage = torch.cat(assessment.advantages)[:, :, None, None, None]
    score = noise / policy.sigma[:, None, None, None] ** 2
    num_transitions, num_elements = 8 * 3, 12
    expected = -(advantage * score).sum(dim=0) / (num_transitions * num_elements)
    assert policy.shift.grad is not None
    assert_close(policy.shift.grad, expected)


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


def test_micro_batches_of_any_shape_add_up_to_the_same_gradient():
    gradients = []
    for chunk, steps_per_pass in [(8, 4), (4, 1), (2, 3)]:
        policy = RandomWalk(num_steps=4, last_step_is_sure=True)
        with torch.no_grad():
            policy.shift.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
        ppo = PPO(PPOConfig(steps_per_pass=steps_per_pass), seed=0)
        (minibatch,) = micros(ppo, policy, chunk=chunk)
        for micro in minibatch:
            ppo.loss(policy, micro)[0].backward()
        gradients.append(policy.shift.grad)
    assert_close(gradients[1], gradients[0])
    assert_close(gradients[2], gradients[0])


def test_the_kl_is_zero_at_first_and_the_closed_form_once_weights_moved():
    policy = RandomWalk(num_steps=3)
    batch, _ = sample(policy)
    assert measure_kl(policy, batch) == 0.0
    with torch.no_grad():
        policy.shift.normal_(generator=torch.Generator().manual_seed(1))
    variance = policy.sigma[:, None, None, None] ** 2
    expected = (policy.shift.detach() ** 2 / (2 * variance)).sum().item()
    assert measure_kl(policy, batch) == pytest.approx(expected, rel=1e-5)


def test_the_kl_has_a_gradient_once_weights_moved():
    # d/d shift of coefficient * |shift|^2 / (2 sigma^2), averaged over steps and elements.
    policy = RandomWalk(num_steps=2)
    with torch.no_grad():
        policy.shift.fill_(0.1)
    ppo = PPO(PPOConfig(), seed=0)
    (minibatch,) = micros(ppo, policy)
    for micro in minibatch:
        silent = MicroBatch(
            trajectory=micro.trajectory,
            steps=micro.steps,
            advantages=torch.zeros_like(micro.advantages),
            mask=micro.mask,
            num_transitions=micro.num_transitions,
            epoch=0,
        )
        ppo_loss(policy, silent, config=PPOConfig(), kl_coefficient=3.0)[0].backward()
    num_steps, num_elements = 2, 12
    variance = policy.sigma[:, None, None, None] ** 2
    expected = 3.0 * policy.shift.detach() / variance / (num_steps * num_elements)
    assert policy.shift.grad is not None
    assert_close(policy.shift.grad, expected)


@pytest.mark.parametrize("num_steps", [None, 2])
def test_the_tallied_kl_is_that_of_a_whole_trajectory_even_from_some_steps(num_steps):
    policy = RandomWalk(num_steps=5, last_step_is_sure=True)
    policy.sigma.fill_(0.5)
    with torch.no_grad():
        policy.shift.fill_(0.1)
    ppo = PPO(PPOConfig(num_steps=num_steps), seed=0)
    batch, rewards = sample(policy)
    assessment = ppo.assess(policy, batch, rewards)
    tally = assessment.tally()
    seen = 0
    for minibatch in ppo.minibatches(assessment, generator=torch.Generator().manual_seed(0)):
        for micro in minibatch:
            tally.add(ppo.loss(policy, micro)[1], micro)
            seen += micro.mask.numel()
    assert seen == 8 * (num_steps or 4)
    # four steps with a density, 12 elements each, (0.1 / 0.5)^2 / 2 nats per element
    assert tally.kl_nats == pytest.approx(4 * 12 * 0.02, rel=1e-5)


def test_a_step_without_density_is_never_scored():
    policy = RandomWalk(num_steps=3, last_step_is_sure=True)
    (minibatch,) = micros(PPO(PPOConfig(), seed=0), policy)
    assert {step for micro in minibatch for step in micro.steps.tolist()} == {0, 1}


def test_every_pair_of_images_and_step_comes_once_per_epoch():
    policy = RandomWalk(num_steps=5)
    ppo = PPO(PPOConfig(inner_epochs=2, minibatches=3, steps_per_pass=2), seed=0)
    minibatches = micros(ppo, policy, images=8, chunk=4)
    assert len(minibatches) == 2 * 3
    for epoch in (0, 1):
        seen = [
            (micro.trajectory.seeds[0], step)
            for minibatch in minibatches
            for micro in minibatch
            if micro.epoch == epoch
            for step in micro.steps.tolist()
        ]
        assert sorted(seen) == [(seed, step) for seed in (0, 4) for step in range(5)]
    for minibatch in minibatches:
        assert sum(micro.mask.numel() for micro in minibatch) == minibatch[0].num_transitions


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


def test_the_clip_stops_a_step_that_has_moved_far_enough():
    # A log-ratio of 2 nats in the direction of its advantage: clipped at 1, no gradient.
    policy = RandomWalk(num_steps=1)
    (minibatch,) = micros(PPO(PPOConfig(), seed=0), policy, images=2, chunk=2)
    (micro,) = minibatch
    shifted = Trajectory(
        prompts=micro.trajectory.prompts,
        prompt_ids=micro.trajectory.prompt_ids,
        seeds=micro.trajectory.seeds,
        samples=micro.trajectory.samples,
        log_probs=micro.trajectory.log_probs - 2.0,
        mask=micro.trajectory.mask,
        replay=micro.trajectory.replay,
    )
    for advantage, moves in [(1.0, False), (-1.0, True)]:
        policy.shift.grad = None
        far = MicroBatch(
            trajectory=shifted,
            steps=micro.steps,
            advantages=torch.full_like(micro.advantages, advantage),
            mask=micro.mask,
            num_transitions=2,
            epoch=0,
        )
        loss, stats = ppo_loss(policy, far, config=PPOConfig(clip_nats=1.0), kl_coefficient=0.0)
        loss.backward()
        assert stats["clip_fraction"].item() == 2
        assert stats["log_ratio_max"].item() == pytest.approx(2.0)
        assert policy.shift.grad is not None
        assert bool(policy.shift.grad.any()) is moves


def test_the_fields_clip_range_is_nats_per_latent_element():
    config = PPOConfig(clip_range=1e-4)
    assert config.clip_in_nats(4 * 64 * 64) == pytest.approx(1.6384)
    assert PPOConfig(clip_nats=0.2).clip_in_nats(4 * 64 * 64) == 0.2


def test_one_limit_under_two_names_is_an_error_and_survives_a_round_trip(tmp_path):
    dump_config(PPOConfig(clip_range=1e-4), tmp_path / "ppo.yaml")
    assert load_config(PPOConfig, tmp_path / "ppo.yaml").clip_range == 1e-4
    with pytest.raises(ConfigError, match="two names"):
        load_config(PPOConfig, None, ["clip_nats=1.0", "clip_range=1e-4"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["clip_nats=null"],
        ["running_min_count=64"],
        ["advantages=running", "normalise=none"],
        ["kl.target_nats=1.0", "kl.coefficient=0.0"],
        ["clip_nats=-1.0"],
        ["credited_steps=3", "num_steps=2"],
        ["kl.coefficient=.inf"],
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides):
    with pytest.raises(ConfigError):
        load_config(PPOConfig, None, overrides)


@pytest.mark.parametrize("advantages", ["group", "wins", "running", "value"])
def test_the_reward_rises(advantages):
    policy = RandomWalk(num_steps=3, size=1)
    config = PPOConfig(advantages=advantages, inner_epochs=2, minibatches=2, running_min_count=4)
    ppo = PPO(config, seed=0)
    optimizer = torch.optim.AdamW(policy.trainable_parameters(), lr=0.05, weight_decay=0.0)
    rewards = [run_update(ppo, policy, optimizer, first=32 * each)[0] for each in range(12)]
    # The walk ends at the initial noise plus steps: deviation 1.2, so brightness starts near 0.5.
    assert rewards[0] < 0.55
    assert rewards[-1] > rewards[0] + 0.15


def test_a_higher_kl_coefficient_ends_nearer_to_the_pretrained_model():
    ends = []
    for coefficient in (0.0, 1.0):
        policy = RandomWalk(num_steps=3, size=1)
        ppo = PPO(PPOConfig(kl=KLConfig(coefficient=coefficient)), seed=0)
        optimizer = torch.optim.AdamW(policy.trainable_parameters(), lr=0.05, weight_decay=0.0)
        for each in range(15):
            run_update(ppo, policy, optimizer, first=32 * each)
        ends.append(measure_kl(policy, sample(policy)[0]))
    assert ends[1] < 0.5 * ends[0]


@pytest.mark.parametrize("advantages", ["group", "wins", "running", "value"])
def test_its_state_goes_on_exactly(advantages):
    config = PPOConfig(
        advantages=advantages, running_min_count=2, kl=KLConfig(coefficient=0.1, target_nats=1.0)
    )
    policy = RandomWalk()
    ppo, resumed = PPO(config, seed=0), PPO(config, seed=5)
    ppo.assess(policy, *sample(policy))
    ppo.kl.update(9.0)
    resumed.load_state_dict(ppo.state_dict())
    batch, rewards = sample(policy, first=100)
    first, second = (each.assess(policy, batch, rewards) for each in (ppo, resumed))
    assert torch.equal(torch.cat(first.advantages), torch.cat(second.advantages))
    assert first.metrics == second.metrics
    assert resumed.kl.coefficient == ppo.kl.coefficient


def test_a_state_of_other_settings_is_a_checkpoint_error():
    adaptive = PPOConfig(kl=KLConfig(coefficient=0.1, target_nats=1.0))
    with pytest.raises(CheckpointError, match="kl coefficient"):
        PPO(PPOConfig(), seed=0).load_state_dict(PPO(adaptive, seed=0).state_dict())
    with pytest.raises(CheckpointError, match="lacks"):
        PPO(PPOConfig(), seed=0).load_state_dict({})
