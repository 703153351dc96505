"""One batch of new images with their rewards.

Images go through the policy in batches of a fixed size and stay in them: a network's rounding
depends on its batch, and the learner scores the steps again in the same ones.

Shapes: n = images of an iteration, b = images sampled together.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.errors import InputError, NumericsError
from imgalign.policy import Policy, RewardModel, Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """What the policy did, and what it was worth."""

    batch: list[Trajectory]
    rewards: Float[Tensor, " n"]
    """Float32 on the CPU. NaN marks a quarantined image."""
    seconds_sampling: float
    seconds_scoring: float

    @property
    def num_images(self) -> int:
        """Quarantined ones included."""
        return len(self.rewards)

    def metrics(self) -> dict[str, float]:
        """The rewards in a few numbers, by the names that docs/metrics.md explains."""
        good = self.rewards[self.rewards.isfinite()].double()
        return {
            "reward_mean": good.mean().item(),
            "reward_std": good.std(correction=0).item(),
            "reward_min": good.min().item(),
            "reward_max": good.max().item(),
            "quarantined": float(self.num_images - len(good)),
        }


class Interrupted(Exception):  # noqa: N818  not an error: someone asked to stop
    """Sampling was left off because a stop was requested; nothing has been learned from it."""


def collect(
    policy: Policy,
    reward: RewardModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    batch_size: int,
    stop_requested: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rollout:
    """Sample one image per prompt and seed and score it.

    A reward that is not finite quarantines its image with a warning; none finite is a
    NumericsError. `stop_requested` is asked between batches; `Interrupted` where it says so.
    `on_progress` is told how many images are done, of how many.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise InputError(f"prompts: number {number} of {len(prompts)} is empty")
    batch, rewards = [], []
    sampling = scoring = 0.0
    for start in range(0, len(prompts), batch_size):
        if stop_requested():
            raise Interrupted
        on_progress(start, len(prompts))
        part = slice(start, start + batch_size)
        begin = time.perf_counter()
        with torch.no_grad():
            trajectory = policy.sample(prompts[part], seeds=seeds[part])
        between = time.perf_counter()
        rewards.append(score(reward, trajectory))
        batch.append(trajectory)
        sampling += between - begin
        scoring += time.perf_counter() - between
    on_progress(len(prompts), len(prompts))
    all_rewards = torch.cat(rewards)
    if not all_rewards.isfinite().any():
        raise NumericsError(
            f"reward: none of {len(all_rewards)} scores is a finite number; "
            "score a few images with the reward model alone to see why"
        )
    return Rollout(
        batch=batch, rewards=all_rewards, seconds_sampling=sampling, seconds_scoring=scoring
    )


def score(reward: RewardModel, trajectory: Trajectory) -> Float[Tensor, " b"]:
    """Float32 rewards on the CPU, NaN for every image whose score is not a finite number."""
    with torch.no_grad():
        scores = reward.score(prompts=trajectory.prompts, samples=trajectory.samples)
    if scores.shape != (len(trajectory),):
        raise NumericsError(
            f"reward: expected one score for each of {len(trajectory)} images, "
            f"got shape {list(scores.shape)}"
        )
    scores = scores.detach().float().cpu()
    for index in (~scores.isfinite()).nonzero().flatten().tolist():
        log.warning(
            "reward is %s for seed %s, prompt %r: image left out of this update",
            scores[index].item(),
            trajectory.seeds[index],
            trajectory.prompts[index],
        )
    return torch.where(scores.isfinite(), scores, math.nan)
