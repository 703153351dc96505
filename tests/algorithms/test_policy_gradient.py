"""Claims: before the first update the ratio is exactly 1 and the loss is the plain policy gradient;
the KL is the closed form, with a gradient; what is masked teaches nothing."""

import logging
from collections.abc import Callable
from functools import partial

import pytest
import torch
from random_walk import RandomWalk
from torch.testing import assert_close
from walk_batches import micros, run_update, sample

from imgalign.algorithms.batches import MicroBatch
from imgalign.algorithms.kl import AdaptiveKLConfig, FixedKLConfig, measure_kl
from imgalign.algorithms.policy_gradient import (
    GRPOConfig,
    PolicyGradient,
)
from imgalign.algorithms.surrogate import policy_gradient_loss
from imgalign.config import dump_config, load_config
from imgalign.errors import CheckpointError, ConfigError
from imgalign.policy import Trajectory
from imgalign.runs.world import Alone


def clip_of(config: GRPOConfig) -> Callable[[int], float]:
    return partial(config.clip_in_nats, default=RandomWalk.default_clip_nats)


def test_the_sampler_is_the_anchor_and_nothing_is_computed_twice():
    policy = RandomWalk(num_steps=3)
    rollout = sample(policy, images=8, chunk=4)
    algorithm = PolicyGradient(GRPOConfig(), seed=0)
    policy.num_forwards = 0
    assessment = algorithm.assess(policy, rollout, world=Alone())
    assert policy.num_forwards == 0
    for minibatch in algorithm.minibatches(
        policy, assessment, world=Alone(), generator=torch.Generator()
    ):
        for micro in minibatch:
            algorithm.loss(policy, micro)
    # two chunks of images, three steps each, once under the policy and once under the reference
    assert policy.num_forwards == 2 * 3 * 2


def test_the_first_gradient_is_the_plain_policy_gradient():
    # At ratio 1 the gradient of -A r is -A grad log p, and for a Gaussian step
    # d log p / d shift[k] = (next - mean) / sigma[k]^2.
    policy = RandomWalk(num_steps=3, steps_per_pass=2)
    config = GRPOConfig(minibatches=1)
    algorithm = PolicyGradient(config, seed=0)
    rollout = sample(policy)
    assessment = algorithm.assess(policy, rollout, world=Alone())
    (minibatch,) = algorithm.minibatches(
        policy, assessment, world=Alone(), generator=torch.Generator()
    )
    for micro in minibatch:
        policy_gradient_loss(policy, micro, clip=clip_of(config), kl_coefficient=0.0)[0].backward()
    latents = torch.cat([each.replay["latents"] for each in rollout.batch])
    noise = latents[:, 1:] - latents[:, :-1] - policy.base
    advantage = torch.cat(assessment.advantages)[:, :, None, None, None]
    score = noise / policy.sigma[:, None, None, None] ** 2
    num_transitions, num_elements = 8 * 3, 12
    expected = -(advantage * score).sum(dim=0) / (num_transitions * num_elements)
    assert policy.shift.grad is not None
    assert_close(policy.shift.grad, expected)


def test_the_kl_is_zero_at_first_and_the_closed_form_once_weights_moved():
    policy = RandomWalk(num_steps=3)
    batch = sample(policy).batch
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
    algorithm = PolicyGradient(GRPOConfig(), seed=0)
    (minibatch,) = micros(algorithm, policy)
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
        policy_gradient_loss(policy, silent, clip=lambda _: 1.6, kl_coefficient=3.0)[0].backward()
    num_steps, num_elements = 2, 12
    variance = policy.sigma[:, None, None, None] ** 2
    expected = 3.0 * policy.shift.detach() / variance / (num_steps * num_elements)
    assert policy.shift.grad is not None
    assert_close(policy.shift.grad, expected)


@pytest.mark.parametrize("num_steps", [None, 2])
def test_the_tallied_kl_is_that_of_a_whole_trajectory_even_from_some_steps(num_steps):
    policy = RandomWalk(num_steps=5, last_step_deterministic=True)
    policy.sigma.fill_(0.5)
    with torch.no_grad():
        policy.shift.fill_(0.1)
    algorithm = PolicyGradient(GRPOConfig(timesteps_per_update=num_steps), seed=0)
    rollout = sample(policy)
    assessment = algorithm.assess(policy, rollout, world=Alone())
    tally = assessment.tally()
    seen = 0
    for minibatch in algorithm.minibatches(
        policy, assessment, world=Alone(), generator=torch.Generator().manual_seed(0)
    ):
        for micro in minibatch:
            tally.add(algorithm.loss(policy, micro)[1], micro)
            seen += micro.mask.numel()
    assert seen == 8 * (num_steps or 4)
    # four steps with a density, 12 elements each, (0.1 / 0.5)^2 / 2 nats per element
    assert tally.kl_nats == pytest.approx(4 * 12 * 0.02, rel=1e-5)


def test_a_step_without_density_is_never_scored():
    policy = RandomWalk(num_steps=3, last_step_deterministic=True)
    (minibatch,) = micros(PolicyGradient(GRPOConfig(), seed=0), policy)
    assert {step for micro in minibatch for step in micro.steps.tolist()} == {0, 1}


def test_every_pair_of_images_and_step_comes_once_per_epoch():
    policy = RandomWalk(num_steps=5, steps_per_pass=2)
    algorithm = PolicyGradient(GRPOConfig(inner_epochs=2, minibatches=3), seed=0)
    minibatches = micros(algorithm, policy, images=8, chunk=4)
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
    (minibatch,) = micros(PolicyGradient(GRPOConfig(), seed=0), policy, images=2, chunk=2)
    (micro,) = minibatch
    shifted = Trajectory(
        prompts=micro.trajectory.prompts,
        prompt_ids=micro.trajectory.prompt_ids,
        seeds=micro.trajectory.seeds,
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
        loss, stats = policy_gradient_loss(policy, far, clip=lambda _: 1.0, kl_coefficient=0.0)
        loss.backward()
        assert stats["clip_fraction"].item() == 2
        assert stats["log_ratio_max"].item() == pytest.approx(2.0)
        assert policy.shift.grad is not None
        assert bool(policy.shift.grad.any()) is moves


def test_the_fields_clip_range_is_nats_per_latent_element():
    config = GRPOConfig(clip_range=1e-4)
    assert config.clip_in_nats(4 * 64 * 64, default=9.0) == pytest.approx(1.6384)
    assert GRPOConfig(clip_nats=0.2).clip_in_nats(4 * 64 * 64, default=9.0) == 0.2
    assert GRPOConfig().clip_in_nats(4 * 64 * 64, default=9.0) == 9.0


def test_one_limit_under_two_names_is_an_error_and_survives_a_round_trip(tmp_path):
    dump_config(GRPOConfig(clip_range=1e-4), tmp_path / "algorithm.yaml")
    assert load_config(GRPOConfig, tmp_path / "algorithm.yaml").clip_range == 1e-4
    with pytest.raises(ConfigError, match="two names"):
        load_config(GRPOConfig, None, ["clip_nats=1.0", "clip_range=1e-4"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["baseline.kind=value"],
        ["kl.target_nats=1.0"],
        ["kl.kind=adaptive"],
        ["kl.kind=adaptive", "kl.target_nats=1.0", "kl.coefficient=0.0"],
        ["clip_nats=-1.0"],
        ["credited_steps=3", "timesteps_per_update=2"],
        ["kl_steps=2"],
        ["kl.coefficient=.inf"],
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides):
    with pytest.raises(ConfigError):
        load_config(GRPOConfig, None, overrides)


def test_a_higher_kl_coefficient_ends_nearer_to_the_pretrained_model():
    ends = []
    for coefficient in (0.0, 1.0):
        policy = RandomWalk(num_steps=3, size=1)
        algorithm = PolicyGradient(GRPOConfig(kl=FixedKLConfig(coefficient=coefficient)), seed=0)
        optimizer = torch.optim.AdamW(policy.trainable_parameters(), lr=0.05, weight_decay=0.0)
        for each in range(15):
            run_update(algorithm, policy, optimizer, first=32 * each)
        ends.append(measure_kl(policy, sample(policy).batch))
    assert ends[1] < 0.5 * ends[0]


def test_a_state_of_other_settings_is_a_checkpoint_error():
    adaptive = GRPOConfig(kl=AdaptiveKLConfig(coefficient=0.1, target_nats=1.0))
    with pytest.raises(CheckpointError, match="kl coefficient"):
        PolicyGradient(GRPOConfig(), seed=0).load_state_dict(
            PolicyGradient(adaptive, seed=0).state_dict()
        )
    with pytest.raises(CheckpointError, match="lacks"):
        PolicyGradient(GRPOConfig(), seed=0).load_state_dict({})


def test_fewer_forward_passes_than_minibatches_are_said_once_with_their_number(caplog):
    # Two parts of four images, with four steps each, are eight forward passes.
    policy, algorithm = RandomWalk(), PolicyGradient(GRPOConfig(minibatches=9), seed=0)
    with caplog.at_level(logging.WARNING):
        steps = [len(micros(algorithm, policy, first=first)) for first in (0, 8)]
    assert steps == [8, 8]
    assert caplog.text.count("minibatches: 9 asked for, but this iteration has 8 forward") == 1
