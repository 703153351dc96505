"""Claims: before the first update the ratio is exactly 1 and the loss is the plain policy gradient;
the KL is the closed form, with a gradient; what is masked teaches nothing."""

import pytest
import torch
from ppo_batches import micros, run_update, sample
from random_walk import RandomWalk
from torch.testing import assert_close

from imgalign.algorithms.batches import MicroBatch
from imgalign.algorithms.ppo import PPO, KLConfig, PPOConfig, measure_kl, ppo_loss
from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError
from imgalign.policy import Policy, Trajectory


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
            weights=micro.weights,
            total_weight=micro.total_weight,
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
        assert sum(micro.mask.numel() for micro in minibatch) == minibatch[0].total_weight


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
            weights=torch.ones(1),
            total_weight=2,
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
        ["kl_steps=2"],
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
