"""Claims: a critic learns what reward to expect at each step, moves no further than its clip, and
goes on exactly; a reward that pays for the KL by steps gives the advantages that it should."""

import math
from dataclasses import replace

import pytest
import torch
from batches import batch_of
from random_walk import RandomWalk
from torch import Tensor, nn
from torch.testing import assert_close

from imgalign.algorithms.critic import CriticBaseline, CriticConfig
from imgalign.algorithms.kl import FixedKLConfig, reference_log_ratios
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient
from imgalign.algorithms.rewarded import Rewarded
from imgalign.errors import CheckpointError, ConfigError
from imgalign.runs.state import load_state, save_state
from imgalign.runs.world import Alone


class Counter(nn.Module):
    """Reads which token stands at each place: a value of its own for each of them."""

    reading = "numbers"

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Embedding(8, 1)
        nn.init.zeros_(self.values.weight)

    def forward(self, features: dict[str, Tensor], *, steps: int) -> Tensor:
        first = int(features["first_state"])
        values: Tensor = self.values(features["input_ids"])[:, first : first + steps, 0]
        return values


def rewarded(rewards: Tensor, *, samples: int = 8, steps: int = 3) -> Rewarded:
    """Samples made together by fours; their state at step t is the token t + 1."""
    tokens = torch.arange(steps + 2).expand(4, -1)
    there = torch.ones_like(tokens, dtype=torch.bool)
    each = {"input_ids": tokens, "attention_mask": there, "first_state": torch.tensor(1)}
    return Rewarded(
        rewards=rewards,
        prompt_ids=["a"] * samples,
        mask=torch.ones(samples, steps, dtype=torch.bool),
        features=lambda: [each] * (samples // 4),
    )


def final(values: list[float], *, steps: int = 3) -> Tensor:
    rewards = torch.zeros(len(values), steps)
    rewards[:, -1] = torch.tensor(values)
    return rewards


def test_it_learns_the_return_of_each_state():
    config = CriticConfig(learning_rate=0.05, epochs=200, value_clip=None, smoothing=1.0)
    critic = Counter()
    baseline = CriticBaseline(config, critic, seed=0)
    rewards = torch.tensor([[1.0, 0.0, 2.0]]).expand(8, -1)
    baseline.advantages(rewarded(rewards), world=Alone())
    # What is still to come before steps 0, 1 and 2.
    assert_close(critic.values.weight[1:4, 0], torch.tensor([3.0, 2.0, 2.0]), atol=0.02, rtol=0)


def test_advantages_are_by_the_values_before_the_batch_and_white():
    baseline = CriticBaseline(CriticConfig(smoothing=1.0), Counter(), seed=0)
    rewards = final([1.0, 3.0] * 4)
    advantages, metrics = baseline.advantages(rewarded(rewards), world=Alone())
    assert_close(advantages, torch.tensor([-1.0, 1.0] * 4)[:, None].expand(-1, 3))
    assert metrics["explained_variance"] == pytest.approx(0)
    raw = CriticBaseline(CriticConfig(normalise="none", smoothing=1.0), Counter(), seed=0)
    assert_close(
        raw.advantages(rewarded(rewards), world=Alone())[0],
        torch.tensor([1.0, 3.0] * 4)[:, None].expand(-1, 3),
    )


def ragged(garbage: float) -> Rewarded:
    """Samples of which every other one ends after a step; what stands behind is `garbage`."""
    rewards = final([1.0, 4.0] * 4)
    rewards[1::2] = torch.tensor([2.0, garbage, garbage])
    mask = torch.ones(8, 3, dtype=torch.bool)
    mask[1::2, 1:] = False
    return replace(rewarded(rewards), mask=mask)


def test_nothing_behind_the_end_of_a_text_is_learned_or_counts_in_the_whitening():
    found = []
    for garbage in (0.0, 1e3):
        critic = Counter()
        config = CriticConfig(learning_rate=0.05, epochs=200, value_clip=None, smoothing=1.0)
        baseline = CriticBaseline(config, critic, seed=0)
        advantages, _ = baseline.advantages(ragged(garbage), world=Alone())
        found.append((advantages, critic.values.weight.detach().clone()))
    mask = ragged(0.0).mask
    own = found[0][0][mask]
    assert_close(found[1][0][mask], own)
    assert_close(found[1][1], found[0][1])
    assert own.mean().item() == pytest.approx(0, abs=1e-6)
    assert own.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    # Before step 0 the mean of 1 and 2 is to come; before the others 1, since half have ended.
    assert_close(found[0][1][1:4, 0], torch.tensor([1.5, 1.0, 1.0]), atol=0.02, rtol=0)


def test_it_reads_no_further_than_the_last_step_of_the_samples_it_reads_together():
    widths = []

    class Watched(Counter):
        def forward(self, features: dict[str, Tensor], *, steps: int) -> Tensor:
            widths.append(steps)
            return super().forward(features, steps=steps)

    ends = torch.tensor([1, 2, 1, 1, 4, 3, 2, 4])
    whole = rewarded(final([1.0] * 8, steps=5), steps=5)
    batch = replace(whole, mask=torch.arange(5) < ends[:, None])
    baseline = CriticBaseline(CriticConfig(batch_size=2, epochs=1), Watched(), seed=0)
    advantages, _ = baseline.advantages(batch, world=Alone())
    assert widths[:2] == [2, 4]
    assert sorted(widths[2:]) == [1, 2, 4, 4]
    assert not advantages[~batch.mask].any()


def test_a_value_is_not_pulled_further_than_the_clip():
    moved = {}
    for clip in (0.1, None):
        config = CriticConfig(learning_rate=0.02, epochs=100, value_clip=clip)
        critic = Counter()
        CriticBaseline(config, critic, seed=0).advantages(rewarded(final([5.0] * 8)), world=Alone())
        moved[clip] = critic.values.weight[1:4].max().item()
    # A last step may go over the clip, and Adam's momentum carries some more.
    assert 0.1 <= moved[0.1] < 0.4
    assert moved[None] > 1


def test_it_goes_on_exactly_from_a_checkpoint(tmp_path):
    config = CriticConfig(learning_rate=0.05, batch_size=2)
    first, second = (CriticBaseline(config, Counter(), seed=0) for _ in "ab")
    first.advantages(rewarded(final([1.0, 2.0] * 4)), world=Alone())
    save_state(tmp_path, "state", first.state_dict())
    second.load_state_dict(load_state(tmp_path, "state"))
    after = [
        each.advantages(rewarded(final([0.0, 5.0] * 4)), world=Alone())[0]
        for each in (first, second)
    ]
    assert torch.equal(*after)
    assert first.critic is not None
    assert second.critic is not None
    for one, other in zip(first.critic.parameters(), second.critic.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(CheckpointError, match="not of kind 'critic'"):
        second.load_state_dict({})


def test_without_a_critic_it_can_only_be_asked_for_other_things():
    baseline = CriticBaseline(CriticConfig(), None, seed=0)
    assert baseline.state_dict() == {}
    with pytest.raises(ConfigError, match=r"algorithm\.baseline\.kind: critic: expected a reward"):
        baseline.advantages(rewarded(final([1.0] * 8)), world=Alone())


# --- the KL in the reward


def moved(by: float) -> RandomWalk:
    policy = RandomWalk(num_steps=3, batch_size=4)
    with torch.no_grad():
        policy.shift.add_(by)
    return policy


def test_log_ratios_to_the_reference_are_those_of_the_steps_and_nothing_for_a_fresh_policy():
    for by in (0.0, 0.3):
        policy = moved(by)
        batch = batch_of(policy).batch
        for trajectory, found in zip(batch, reference_log_ratios(policy, batch), strict=True):
            with policy.using("reference"):
                where = policy.step_distributions(trajectory, slice(None))
            expected = trajectory.log_probs - where.log_prob(
                policy.actions(trajectory, slice(None))
            )
            assert_close(found, expected.detach())
            assert bool(found.any()) is (by > 0)


def test_a_kl_in_the_reward_is_not_in_the_loss_and_changes_the_advantages():
    policy = moved(0.3)
    rollout = batch_of(policy)
    found = {}
    for place in ("loss", "reward"):
        kl = FixedKLConfig(coefficient=0.5, place=place)
        algorithm = PolicyGradient(GRPOConfig(kl=kl, advantage_clip=1e3), seed=0)
        found[place] = torch.cat(algorithm.assess(policy, rollout, world=Alone()).advantages)
    ratios = torch.cat(reference_log_ratios(policy, rollout.batch))
    paid = rollout.rewards - 0.5 * ratios.sum(dim=1)
    for parity in (0, 1):  # the two prompts take turns
        own = paid[parity::2]
        expected = (own - own.mean()) / own.std(correction=0)
        assert_close(found["reward"][parity::2, 0], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found["loss"], found["reward"])
    assert math.isfinite(found["reward"].sum().item())
