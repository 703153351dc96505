"""Claims: weights go to what is better by the rule of each weighting; the gradient is that of the
weighted mean log-density."""

import math
from collections.abc import Sequence

import pytest
import torch
from random_walk import RandomWalk
from ranked_batches import moved_walk, ranked
from torch.testing import assert_close
from walk_batches import sample

from imgalign.algorithms.batches import Demonstrations, Rollout
from imgalign.algorithms.supervised import (
    BestConfig,
    EqualConfig,
    RewardWeightedConfig,
    Supervised,
    SupervisedConfig,
    sample_weights,
)
from imgalign.config import load_config
from imgalign.errors import CheckpointError, ConfigError, NumericsError
from imgalign.policy import Data, Draws
from imgalign.prompts import seeded_generator
from imgalign.runs.world import Alone

GROUPS = ["a", "a", "a", "b", "b"]


def one_pass(policy: RandomWalk, batch: Rollout | Demonstrations, **settings: object) -> Supervised:
    algorithm = Supervised(SupervisedConfig.model_validate(settings))
    generator = torch.Generator().manual_seed(0)
    for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
        torch.autograd.backward(loss.value)
    return algorithm


def test_all_weight_goes_to_the_best_of_each_prompt_and_a_tie_shares_it():
    rewards = torch.tensor([0.1, 0.9, 0.2, 3.0, 3.0])
    assert sample_weights(rewards, GROUPS, BestConfig()).tolist() == [0, 3, 0, 1, 1]
    kept = sample_weights(rewards, GROUPS, BestConfig(keep=2)).tolist()
    assert kept == [0, 1.5, 1.5, 1, 1]
    assert sample_weights(rewards, GROUPS, BestConfig(keep=9)).tolist() == [1] * 5


def test_reward_weights_are_exponential_in_standard_deviations_of_the_group():
    # Two rewards are one deviation either side of their mean: a ratio of exp(2 / temperature).
    weights = sample_weights(
        torch.tensor([5.0, 5.0, 5.0, 0.0, 100.0]), GROUPS, RewardWeightedConfig(temperature=2.0)
    )
    assert_close(weights[:3], torch.ones(3))
    assert weights[4] / weights[3] == pytest.approx(math.e)
    assert weights[3:].mean() == pytest.approx(1.0)


def test_equal_weights_are_all_one_and_a_reward_that_is_not_finite_gets_none():
    rewards = torch.tensor([1.0, math.nan, 3.0, 4.0, 5.0])
    assert sample_weights(rewards, GROUPS, EqualConfig()).tolist() == [1, 0, 1, 1, 1]
    assert sample_weights(rewards, GROUPS, BestConfig()).tolist() == [0, 0, 2, 0, 2]


def test_the_gradient_is_that_of_the_weighted_mean_log_density():
    policy = RandomWalk(num_steps=2, batch_size=3)
    rollout = sample(policy, images=8, chunk=4)
    one_pass(policy, rollout, weighting={"kind": "reward"}, draws=1)
    weights = sample_weights(rollout.rewards, rollout.prompt_ids, RewardWeightedConfig())
    latents = torch.cat([each.replay["latents"][:, -1] for each in rollout.batch])
    variance = 1 + (policy.sigma**2).sum()
    # d/d shift[k] of -log N(x; sum of base and shift, variance) is -(x - mean) / variance.
    score = -(latents - policy.base.sum(dim=0)) / variance
    share = (weights / weights.sum())[:, None, None, None]
    expected = (share * score).sum(dim=0) / latents[0].numel()
    assert policy.shift.grad is not None
    assert_close(policy.shift.grad, expected.expand_as(policy.shift))


class Watched(RandomWalk):
    """A walk that keeps the seeds of all that was drawn."""

    def __init__(self) -> None:
        super().__init__(batch_size=3)
        self.drawn: list[int] = []

    def draw(
        self, data: Data, *, seeds: Sequence[int], levels: Sequence[float] | None = None
    ) -> Draws:
        self.drawn += seeds
        return super().draw(data, seeds=seeds, levels=levels)


def test_no_two_scores_of_two_iterations_share_their_draws():
    policy = Watched()
    rollout, algorithm = sample(policy), Supervised(SupervisedConfig(weighting=EqualConfig()))
    for iteration in range(2):
        generator = seeded_generator(f"{iteration}")
        for loss in algorithm.losses(policy, rollout, world=Alone(), generator=generator):
            assert loss.value is not None
    assert len(policy.drawn) == len(set(policy.drawn)) == 2 * 8 * 8


def test_only_what_has_weight_is_scored():
    policy = RandomWalk(batch_size=4)
    algorithm = one_pass(policy, sample(policy), weighting={"kind": "best"}, draws=3)
    assert algorithm.metrics()["samples_used"] == 2  # one of each of two prompts


def test_given_samples_all_count_alike():
    policy = RandomWalk(num_steps=2)
    rollout = sample(policy)
    given = Demonstrations(batch=[policy.given(each) for each in rollout.batch])
    one_pass(policy, given, weighting={"kind": "equal"}, draws=1)
    from_given = policy.shift.grad
    policy.shift.grad = None
    one_pass(policy, rollout, weighting={"kind": "equal"}, draws=1)
    assert from_given is not None
    assert_close(policy.shift.grad, from_given)


def test_an_iteration_without_any_finite_reward_is_an_error():
    policy = RandomWalk()
    rollout = sample(policy)
    broken = Rollout(batch=rollout.batch, rewards=torch.full((8,), math.nan))
    with pytest.raises(NumericsError, match="finite reward"):
        one_pass(policy, broken)


@pytest.mark.parametrize("override", ["minibatches=9", "draws=0", "weighting.keep=0"])
def test_settings_that_make_no_sense_are_refused(override):
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config(SupervisedConfig, None, [override])


def test_it_remembers_nothing_and_refuses_the_state_of_another_algorithm():
    algorithm = Supervised(SupervisedConfig())
    assert algorithm.state_dict() == {}
    algorithm.load_state_dict({})
    with pytest.raises(CheckpointError, match="another algorithm"):
        algorithm.load_state_dict({"kl": {}})


def test_from_ties_alone_nothing_is_learned_and_that_is_said(caplog):
    algorithm, tied = Supervised(SupervisedConfig()), ranked(torch.tensor([[0, 0, 0]]))
    generator = torch.Generator().manual_seed(0)
    assert not list(algorithm.losses(moved_walk(), tied, world=Alone(), generator=generator))
    assert algorithm.metrics() == {}
    assert "no ranking of this iteration prefers a sample to another" in caplog.text
