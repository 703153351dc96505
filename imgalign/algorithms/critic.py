"""A critic: a network that reads a sample as far as it is made, and says what reward to expect.

It starts as the reward model and learns from the returns of each batch. Left out: the network
itself, which is the reward model's.

Shapes: m = samples with a finite reward, n = some of them, t = steps of a trajectory.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import pad

from imgalign.advantages import generalized_advantages, whitened
from imgalign.algorithms.rewarded import Features, Normalise, Rewarded, Share, mismatch
from imgalign.algorithms.value import explained_variance
from imgalign.config import Config
from imgalign.errors import CheckpointError, ConfigError
from imgalign.losses import clipped_value_loss
from imgalign.policy import Critic
from imgalign.prompts import seeded_generator
from imgalign.runs.world import World, first_position

NO_CRITIC = (
    "algorithm.baseline.kind: critic: expected a reward model that can read unfinished samples, "
    "such as one of texts, in reward.path; use algorithm.baseline.kind=value with others"
)


class CriticConfig(Config):
    """A network that reads the unfinished sample: the critic of language models.

    It starts as the reward model, so it needs one that can read unfinished samples.
    """

    kind: Literal["critic"] = "critic"
    """The baseline."""

    normalise: Normalise = "std"
    """Whiten advantages over the batch, or keep the reward's unit."""

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """Learning rate of the critic's own AdamW."""

    epochs: PositiveInt = 2
    """Passes over each batch of trajectories."""

    batch_size: PositiveInt = 16
    """Samples in each of its optimizer steps."""

    value_clip: PositiveFloat | None = 0.2
    """A value that has moved further than this from the one before the update, in the reward's
    unit, is not pulled further (PPO2). Null never clips."""

    smoothing: Share = 0.95
    """Lambda of generalised advantage estimation (arXiv:1506.02438)."""


class CriticBaseline:
    """Rewards against a critic that reads the sample as far as it is made.

    `critic` is None where only the algorithm's other parts are asked for.
    """

    def __init__(self, config: CriticConfig, critic: Critic | None, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.critic = critic
        self.batches = 0
        self.optimizer = (
            None
            if critic is None
            else torch.optim.AdamW(critic.parameters(), lr=config.learning_rate, weight_decay=0.0)
        )

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """By the values before this batch; then fits the critic to its returns.

        Every process fits the samples of all, in the same order, and so holds the same critic.
        """
        if self.critic is None:
            raise ConfigError(NO_CRITIC)
        everybody = batch.of_all(world)
        features, mask = everybody.features(), everybody.mask
        with torch.no_grad():
            values = torch.cat(
                [
                    values_of(self.critic, each, there).cpu()
                    for each, there in zip(
                        features, torch.split(mask, sizes_of(features)), strict=True
                    )
                ]
            )
        advantages, returns = generalized_advantages(
            everybody.rewards, values, mask, smoothing=self.config.smoothing
        )
        metrics = {"explained_variance": explained_variance(returns, values, mask)}
        if self.config.normalise == "std":
            advantages = whitened(advantages, mask)
        metrics["value_loss"] = self._fit(self.critic, features, values, returns, mask)
        first = first_position(world, len(batch))
        return advantages[first : first + len(batch)], metrics

    def _fit(
        self,
        critic: Critic,
        features: Sequence[Features],
        values: Float[Tensor, "m t"],
        returns: Float[Tensor, "m t"],
        mask: Bool[Tensor, "m t"],
    ) -> float:
        """Some passes over all samples; returns the mean loss of the first one."""
        assert self.optimizer is not None
        clip = math.inf if self.config.value_clip is None else self.config.value_clip
        generator = seeded_generator(f"critic/{self.seed}/{self.batches}")
        self.batches += 1
        sizes = sizes_of(features)
        # Samples stay with those that they were made with, whose padding they share.
        parts = [
            (rows_of(each, part), part + start)
            for each, size, start in zip(features, sizes, starts(sizes), strict=True)
            for part in torch.split(torch.arange(size), self.config.batch_size)
        ]
        first, count = 0.0, int(mask.sum())
        for epoch in range(self.config.epochs):
            for number in torch.randperm(len(parts), generator=generator).tolist():
                each, places = parts[number]
                there = mask[places]
                if not there.any():
                    continue
                value = values_of(critic, each, there)
                old, target = (given[places].to(value) for given in (values, returns))
                error = clipped_value_loss(value, old, target, clip=clip)
                losses = error[there.to(error.device)]
                self.optimizer.zero_grad()
                torch.autograd.backward(losses.mean())
                norm = torch.nn.utils.clip_grad_norm_(list(critic.parameters()), 1.0)
                if norm.isfinite():  # else it would spoil the network for good
                    self.optimizer.step()
                if epoch == 0:
                    first += losses.sum().item()
        return first / max(count, 1)

    def state_dict(self) -> dict[str, Any]:
        """The critic's weights and its optimizer."""
        if self.critic is None or self.optimizer is None:
            return {}
        # Copied, because torch returns the tensors that the next step changes in place.
        return copy.deepcopy(
            {
                "critic": dict(self.critic.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "batches": self.batches,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with that critic; CheckpointError where it is another."""
        if self.critic is None or self.optimizer is None or "critic" not in state:
            raise CheckpointError(mismatch("critic"))
        try:
            self.critic.load_state_dict(state["critic"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"critic: the checkpoint is of another size ({reason}); resume with the reward "
                "model that the run began with"
            ) from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches = int(state["batches"])


def values_of(
    critic: Critic, features: Features, mask: Bool[Tensor, "n t"]
) -> Float[Tensor, "n t"]:
    """What the critic says at each step; after the last one of these samples it says 0.

    It reads no further than that: a step's value depends on nothing after the step.
    """
    ends = int(mask.any(dim=0).nonzero().max()) + 1 if mask.any() else 1
    return pad(critic(features, steps=ends).float(), (0, mask.shape[1] - ends))


def sizes_of(features: Sequence[Features]) -> list[int]:
    """Samples in each."""
    return [next(len(value) for value in each.values() if value.ndim > 1) for each in features]


def rows_of(features: Features, rows: Int[Tensor, " n"]) -> Features:
    """Those of some samples only."""
    return {
        name: value[rows.to(value.device)] if value.ndim > 1 else value
        for name, value in features.items()
    }


def starts(sizes: Sequence[int]) -> list[int]:
    """Where each of several parts begins. Example: sizes (4, 2) begin at 0 and 4."""
    return [sum(sizes[:place]) for place in range(len(sizes))]
