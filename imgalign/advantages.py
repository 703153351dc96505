"""Advantages: rewards relative to a baseline.

Baselines are the other samples of the same group, by reward or by rank, the recent rewards of the
same prompt, and a learned value. Sums over samples or steps are computed in float64, because equal
rewards must give exactly 0 and not the rounding of their mean divided by itself.

Shapes: b = samples, t = steps. Advantages come back in the type of the rewards, without gradients.
"""

from collections import deque
from collections.abc import Sequence
from typing import TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imgalign.errors import CheckpointError, NumericsError

EQUAL = 1e-6
"""Rewards this close together, relative to the largest of them, are equal: float32 rounding."""


@torch.no_grad()
def group_advantages(rewards: Float[Tensor, " b"], group: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Reward minus the group's mean, in units of the group's standard deviation (GRPO).

    From arXiv:2402.03300, section 4.1.2, with the population's deviation. Every group has mean 0;
    a group of equal rewards, or of one, gets 0.
    """
    member, centred, spread = _within_groups(rewards, group)
    deviation = _group_mean(centred**2, member).sqrt()
    scale = torch.where(spread, deviation, 1.0)[member]
    return torch.where(spread[member], centred / scale, 0.0).to(rewards.dtype)


@torch.no_grad()
def centred_group_advantages(
    rewards: Float[Tensor, " b"], group: Int[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Reward minus the group's mean, in units of the reward (Dr. GRPO, arXiv:2503.20783).

    Every group has mean 0; groups whose samples hardly differ keep their small weight.
    """
    member, centred, spread = _within_groups(rewards, group)
    return torch.where(spread[member], centred, 0.0).to(rewards.dtype)


@torch.no_grad()
def group_wins(rewards: Float[Tensor, " b"], group: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Rank-based reward: the share of its group that each sample beats, in (0, 1).

    A tie counts half, and each sample ties with itself. It replaces the reward where only the order
    should count: neither the unit nor an outlier then dominates the group. Fitness shaping
    (Wierstra et al. 2014, JMLR 15, section 3.1); the win rate within a group as a reward is that of
    Pref-GRPO (arXiv:2508.20751).
    """
    _require_finite(rewards)
    exact = rewards.double()
    ahead = exact[:, None] - exact
    tied = ahead.abs() <= EQUAL * torch.maximum(exact.abs()[:, None], exact.abs())
    wins = torch.where(tied, 0.5, (ahead > 0).double())
    same = group[:, None] == group
    return ((wins * same).sum(1) / same.sum(1)).to(rewards.dtype)


@torch.no_grad()
def kl_penalised_rewards(
    score: Float[Tensor, " b"],
    log_ratio: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    coefficient: float,
) -> Float[Tensor, "b t"]:
    """Reward of each step: the sample's score at its last step, less the price of the KL.

    -coefficient * log_ratio at every step of the mask, plus the score at the last of them: the
    reward of arXiv:1909.08593, eq. 2, by steps. `log_ratio` is log p(step) under the policy that
    took it less that under the reference, in nats; `coefficient` is in units of the score per nat.
    The expected sum over a sample is its score less coefficient * KL(policy || reference). Steps
    outside the mask get 0, whatever they hold, and so does a sample without any step.
    """
    steps_left = mask.flip(1).cumsum(1).flip(1)
    final = torch.where(mask & (steps_left == 1), score[:, None], 0.0)
    return final - coefficient * torch.where(mask, log_ratio, 0.0)


@torch.no_grad()
def generalized_advantages(
    rewards: Float[Tensor, "b t"],
    values: Float[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    discount: float = 1.0,
    smoothing: float = 0.95,
) -> tuple[Float[Tensor, "b t"], Float[Tensor, "b t"]]:
    """Advantages and returns of each step by GAE (arXiv:1506.02438, eq. 16).

    With V the value before a step, discount the paper's gamma and smoothing its lambda:

        delta_t = reward_t + discount * V_{t+1} - V_t
        advantage_t = delta_t + discount * smoothing * advantage_{t+1}
        return_t = advantage_t + V_t

    Smoothing 1 gives the rewards to come less the value, smoothing 0 the error of the value against
    the next one. t + 1 is the next step of the mask, whatever lies between, and after the last one
    nothing follows. Steps outside the mask get 0, whatever they hold: their rewards do not count.
    Returns are what values are fitted to; they belong to the advantages before these are whitened.
    """
    reward, value = (torch.where(mask, each, 0.0).double() for each in (rewards, values))
    next_value = next_advantage = reward.new_zeros(len(reward))
    advantages = torch.zeros_like(reward)
    for step in reversed(range(mask.shape[1])):
        counts = mask[:, step]
        delta = reward[:, step] + discount * next_value - value[:, step]
        advantage = delta + discount * smoothing * next_advantage
        advantages[:, step] = torch.where(counts, advantage, 0.0)
        next_value = torch.where(counts, value[:, step], next_value)
        next_advantage = torch.where(counts, advantage, next_advantage)
    return advantages.to(rewards.dtype), (advantages + value).to(rewards.dtype)


@torch.no_grad()
def whitened(advantages: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """Shifted and scaled to mean 0 and standard deviation 1 over the mask; 0 elsewhere."""
    # Two groups, inside the mask and outside: the second is all zeros and stays so.
    counted = torch.where(mask, advantages, 0.0).flatten()
    return group_advantages(counted, mask.flatten().long()).view_as(advantages)


@torch.no_grad()
def scaled_about_mean(
    rewards: Float[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, "b t"]:
    """Scaled to standard deviation 1 over the mask, with the mean where it was; 0 elsewhere.

    For rewards, whose mean a critic is to learn: what OpenAI's code and TRL call whitening without
    `shift_mean`. Rewards that are all equal stay as they are.
    """
    counted = torch.where(mask, rewards, 0.0).double()
    mean = counted.sum() / mask.sum().clamp(min=1)
    return torch.where(mask, whitened(counted, mask) + mean, 0.0).to(rewards.dtype)


class RunningState(TypedDict):
    """Example: {"window": 32, "rewards": {"a cat#0": [0.5, 0.75]}}."""

    window: int
    rewards: dict[str, list[float]]


class RunningPromptStatistics:
    """The recent rewards of each prompt id, as its baseline (DDPO, arXiv:2305.13301, section 5.1).

    For batches with few samples of a prompt that recurs: mean and standard deviation are taken over
    its last `window` rewards. While a prompt has fewer than `min_count` of them, those of the whole
    batch are used instead, as in the authors' code.
    """

    def __init__(self, *, window: int = 32, min_count: int = 16) -> None:
        if not 1 <= min_count <= window:
            raise ValueError(
                "running prompt statistics: expected 1 <= min_count <= window,"
                f" got {min_count} and {window}"
            )
        self.window = window
        self.min_count = min_count
        self._rewards: dict[str, deque[float]] = {}

    @torch.no_grad()
    def advantages(
        self, rewards: Float[Tensor, " b"], prompt_ids: Sequence[str]
    ) -> Float[Tensor, " b"]:
        """Record these rewards, then standardise each by the recent rewards of its prompt.

        Equal rewards give 0. Call it once per batch of new samples.
        """
        _require_finite(rewards)
        exact = rewards.double().cpu()
        for prompt_id, reward in zip(prompt_ids, exact.tolist(), strict=True):
            self._rewards.setdefault(prompt_id, deque(maxlen=self.window)).append(reward)
        standardised = []
        for prompt_id, reward in zip(prompt_ids, exact, strict=True):
            known = self._rewards[prompt_id]
            expected = exact if len(known) < self.min_count else exact.new_tensor(list(known))
            standardised.append(_standardised(reward, expected))
        return torch.stack(standardised).to(rewards)

    def state_dict(self) -> RunningState:
        """State for `load_state_dict`; JSON-serialisable."""
        return {
            "window": self.window,
            "rewards": {prompt_id: list(known) for prompt_id, known in self._rewards.items()},
        }

    def load_state_dict(self, state: RunningState) -> None:
        """Restore a `state_dict`; CheckpointError where its window is another."""
        if state["window"] != self.window:
            raise CheckpointError(
                f"running prompt statistics: expected a window of {self.window},"
                f" got {state['window']}; resume with the window that the run began with"
            )
        self._rewards = {
            prompt_id: deque(known, maxlen=self.window)
            for prompt_id, known in state["rewards"].items()
        }


def _within_groups(
    rewards: Float[Tensor, " b"], group: Int[Tensor, " b"]
) -> tuple[Int[Tensor, " b"], Float[Tensor, " b"], Bool[Tensor, " g"]]:
    """Each reward's group, its difference to the group's mean, and which groups vary."""
    _require_finite(rewards)
    exact = rewards.double()
    names, member = torch.unique(group, return_inverse=True)
    lowest = exact.new_zeros(len(names)).scatter_reduce(
        0, member, exact, "amin", include_self=False
    )
    highest = exact.new_zeros(len(names)).scatter_reduce(
        0, member, exact, "amax", include_self=False
    )
    spread = highest - lowest > EQUAL * torch.maximum(lowest.abs(), highest.abs())
    return member, exact - _group_mean(exact, member)[member], spread


def _require_finite(rewards: Float[Tensor, " b"]) -> None:
    wrong = (~rewards.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise NumericsError(
            f"advantages: expected finite rewards, got {rewards[wrong[0]].item()} for sample"
            f" {wrong[0]} ({len(wrong)} of {len(rewards)} are not finite)"
        )


def _group_mean(values: Float[Tensor, " b"], member: Int[Tensor, " b"]) -> Float[Tensor, " g"]:
    count = torch.bincount(member)
    return values.new_zeros(len(count)).index_add(0, member, values) / count


def _standardised(reward: Float[Tensor, ""], known: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    if known.max() - known.min() <= EQUAL * known.abs().max():
        return torch.zeros_like(reward)
    return (reward - known.mean()) / known.std(correction=0)
