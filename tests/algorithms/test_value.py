"""Claims: it starts at the mean, learns what prompt and step say, and goes on exactly."""

import math

import pytest
import torch
from torch.testing import assert_close

from imgalign.algorithms.baselines import ValueBaseline, ValueConfig
from imgalign.algorithms.value import ValueEstimator, explained_variance
from imgalign.errors import CheckpointError


def estimator_of(config: ValueConfig, *, width: int = 4, seed: int = 0) -> ValueEstimator:
    return ValueBaseline(config, seed=seed).new_estimator(width)


def features(*, images: int = 16) -> dict[str, torch.Tensor]:
    prompt = torch.eye(4)[torch.arange(images) % 4]
    return {"prompt": prompt, "timestep": torch.tensor([0.9, 0.5, 0.1])}


def by_step(rewards: torch.Tensor) -> torch.Tensor:
    """The same return at each of three steps."""
    return rewards[:, None].expand(-1, 3)


def test_before_it_learned_it_answers_the_mean_of_the_rewards():
    estimator = estimator_of(ValueConfig(learning_rate=1e-12), seed=0)
    rewards = torch.arange(16.0)
    estimator.fit(features(), by_step(rewards), torch.ones(16, 3, dtype=torch.bool))
    assert_close(estimator.predict(features()), torch.full((16, 3), 7.5), atol=1e-4, rtol=0)


def test_it_learns_a_reward_that_depends_on_the_prompt_and_so_explains_its_variance():
    estimator = estimator_of(ValueConfig(epochs=200), seed=0)
    noise = torch.randn(16, generator=torch.Generator().manual_seed(0))
    rewards = 100 + 10.0 * (torch.arange(16) % 4) + 0.1 * noise
    mask = torch.ones(16, 3, dtype=torch.bool)
    estimator.fit(features(), by_step(rewards), mask)
    assert explained_variance(by_step(rewards), estimator.predict(features()), mask) > 0.98


def test_masked_steps_teach_nothing():
    mask = torch.ones(16, 3, dtype=torch.bool)
    mask[3] = False
    learned = []
    for odd in (0.0, 1e6):
        estimator = estimator_of(ValueConfig(), seed=0)
        estimator.fit(features(), by_step(torch.arange(16.0)), mask)
        rewards = torch.arange(16.0).index_fill(0, torch.tensor([3]), odd)
        estimator.fit(features(), by_step(rewards), mask)
        learned.append(estimator.predict(features()))
    assert torch.equal(learned[0], learned[1])


def test_explained_variance_is_1_for_the_truth_0_for_a_constant_and_nan_without_variance():
    returns = torch.tensor([1.0, 2.0, 4.0])[:, None].expand(3, 2)
    mask = torch.ones(3, 2, dtype=torch.bool)
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(returns, torch.full((3, 2), 9.0), mask) == pytest.approx(0)
    assert math.isnan(explained_variance(torch.ones(3, 2), torch.ones(3, 2), mask))


def test_it_goes_on_exactly_from_its_state_and_refuses_another_size():
    config, mask = ValueConfig(), torch.ones(16, 3, dtype=torch.bool)
    first = estimator_of(config, seed=0)
    first.fit(features(), by_step(torch.arange(16.0)), mask)
    second = estimator_of(config, seed=1)
    second.load_state_dict(first.state_dict())
    for estimator in (first, second):
        estimator.fit(features(), by_step(torch.arange(16.0) ** 2), mask)
    assert torch.equal(first.predict(features()), second.predict(features()))
    with pytest.raises(CheckpointError, match="another size"):
        estimator_of(config, width=5, seed=0).load_state_dict(first.state_dict())


def test_its_weights_come_from_its_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (
        estimator_of(ValueConfig(), seed=seed).net.state_dict()["1.weight"] for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("odd", [math.inf, math.nan])
def test_returns_that_are_not_finite_leave_it_as_it_is(odd):
    estimator, mask = estimator_of(ValueConfig()), torch.ones(16, 3, dtype=torch.bool)
    estimator.fit(features(), by_step(torch.arange(16.0)), mask)
    before = estimator.predict(features())
    estimator.fit(features(), by_step(torch.full((16,), odd)), mask)
    assert torch.equal(estimator.predict(features()), before)
