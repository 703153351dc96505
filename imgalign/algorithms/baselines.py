"""Baselines: turn the rewards of a batch into advantages, and keep state between batches.

Group and rank baselines need no critic: with them the algorithm is called GRPO. A learned value
makes it an actor and a critic, as in the PPO paper.

Shapes: m = samples with a finite reward, t = steps of a trajectory.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from imgalign.advantages import (
    RunningPromptStatistics,
    centred_group_advantages,
    generalized_advantages,
    group_advantages,
    group_wins,
    whitened,
)
from imgalign.algorithms.critic import CriticBaseline, CriticConfig
from imgalign.algorithms.rewarded import Baseline, Normalise, Rewarded, Share, mismatch
from imgalign.algorithms.value import ValueEstimator, explained_variance
from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.policy import Critic
from imgalign.runs.world import World, first_position


class GroupConfig(Config):
    """The mean reward of the prompt's samples in this iteration (GRPO, arXiv:2402.03300)."""

    kind: Literal["group"] = "group"
    """The baseline."""

    normalise: Normalise = "std"
    """Divide by the group's standard deviation, or keep the reward's unit (none: Dr. GRPO,
    arXiv:2503.20783)."""


class RankConfig(Config):
    """The share of the prompt's samples that a sample beats, so that only their order counts."""

    kind: Literal["rank"] = "rank"
    """The baseline."""

    normalise: Normalise = "std"
    """Divide by the group's standard deviation, or keep the share of the group that is beaten."""


class RunningConfig(Config):
    """The prompt's recent rewards, for few samples per prompt (DDPO, arXiv:2305.13301)."""

    kind: Literal["running"] = "running"
    """The baseline."""

    window: PositiveInt = 32
    """Rewards remembered per prompt."""

    min_count: PositiveInt = 16
    """A prompt with fewer rewards than this is compared with the whole batch."""

    @model_validator(mode="after")
    def _fits_into_the_window(self) -> "RunningConfig":
        if self.min_count > self.window:
            raise ValueError(f"min_count: expected at most window, {self.window}")
        return self


class ValueConfig(Config):
    """A learned value estimate from prompt and timestep: the critic."""

    kind: Literal["value"] = "value"
    """The baseline."""

    normalise: Normalise = "std"
    """Whiten advantages over the batch, or keep the reward's unit."""

    hidden: PositiveInt = 128
    """Width of the estimator's two hidden layers."""

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Learning rate of the value estimator's own AdamW."""

    epochs: PositiveInt = 8
    """Gradient steps on each batch of trajectories, all of it at once."""

    error_clip: PositiveFloat = 2.0
    """Where Huber's loss becomes linear, in standard deviations of the reward."""

    smoothing: Share = 1.0
    """Lambda of generalised advantage estimation (arXiv:1506.02438). 1 compares the rewards to come
    with the estimate; less trusts the estimates of later steps instead, with less noise."""


GroupBaselineConfig: TypeAlias = GroupConfig | RankConfig
LearnedBaselineConfig: TypeAlias = ValueConfig | RunningConfig | CriticConfig


class GroupBaseline:
    """Rewards, or their ranks, against the other samples of the prompt."""

    def __init__(self, config: GroupConfig | RankConfig) -> None:
        self.config = config

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """As `group_advantages` and its relatives; the same for every step of a sample.

        Given samples beside those of the policy count in the statistics of their group, and have no
        advantage themselves.
        """
        ids = [*batch.prompt_ids, *batch.beside_ids]
        names = {name: number for number, name in enumerate(dict.fromkeys(ids))}
        group = torch.tensor([names[each] for each in ids], dtype=torch.long)
        ranked, totals = self.config.kind == "rank", torch.cat([batch.totals, batch.beside])
        rewards = group_wins(totals, group) if ranked else totals
        standardised = self.config.normalise == "std"
        by_group = group_advantages if standardised else centred_group_advantages
        advantages, group = by_group(rewards, group)[: len(batch)], group[: len(batch)]
        own = set(group.tolist())
        useless = sum(not advantages[group == number].any() for number in own)
        share = world.total(float(useless)) / world.total(float(len(own)))
        metrics = {"useless_group_fraction": share}
        return advantages[:, None].expand_as(batch.mask), metrics

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a group is complete in its iteration."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Accept only the empty state."""
        if state:
            raise CheckpointError(mismatch(self.config.kind))


class RunningBaseline:
    """Rewards against the recent ones of the same prompt."""

    def __init__(self, config: RunningConfig) -> None:
        self.statistics = RunningPromptStatistics(window=config.window, min_count=config.min_count)

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """As `RunningPromptStatistics.advantages`; the same for every step of a sample."""
        everybody = batch.of_all(world)
        advantages = self.statistics.advantages(everybody.totals, everybody.prompt_ids)
        first = first_position(world, len(batch))
        own = advantages[first : first + len(batch)]
        return own[:, None].expand_as(batch.mask), {}

    def state_dict(self) -> dict[str, Any]:
        """The rewards of each prompt."""
        return dict(self.statistics.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with these rewards."""
        if state.keys() != {"window", "rewards"}:
            raise CheckpointError(mismatch("running"))
        self.statistics.load_state_dict({"window": state["window"], "rewards": state["rewards"]})


class ValueBaseline:
    """Rewards against a small network's estimate from prompt and timestep."""

    def __init__(self, config: ValueConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.estimator: ValueEstimator | None = None

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """By the values predicted before this batch; then fits the estimator to it.

        Every process fits the samples of all, in the same order, and so holds the same estimator.
        """
        everybody = batch.of_all(world)
        each, mask = everybody.features(), everybody.mask
        features = {
            "prompt": torch.cat([features["prompt"].cpu() for features in each]),
            "timestep": each[0]["timestep"].cpu(),
        }
        if self.estimator is None:
            self.estimator = self.new_estimator(features["prompt"].shape[1])
        values = self.estimator.predict(features)
        # An estimator that has learned nothing would predict 0: use the batch's mean instead.
        if not self.estimator.fitted:
            values = torch.full_like(values, everybody.totals.mean().item())
        advantages, returns = generalized_advantages(
            everybody.rewards, values, mask, smoothing=self.config.smoothing
        )
        metrics = {"explained_variance": explained_variance(returns, values, mask)}
        if self.config.normalise == "std":
            advantages = whitened(advantages, mask)
        metrics["value_loss"] = self.estimator.fit(features, returns, mask)
        first = first_position(world, len(batch))
        return advantages[first : first + len(batch)], metrics

    def new_estimator(self, prompt_width: int) -> ValueEstimator:
        """An estimator that has learned nothing, for prompt features of this width."""
        config = self.config
        return ValueEstimator(
            prompt_width=prompt_width,
            hidden=config.hidden,
            learning_rate=config.learning_rate,
            epochs=config.epochs,
            error_clip=config.error_clip,
            seed=self.seed,
        )

    def state_dict(self) -> dict[str, Any]:
        """The estimator's; empty before the first batch."""
        return {} if self.estimator is None else self.estimator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with that estimator; CheckpointError where it is of another size."""
        if not state:
            self.estimator = None
            return
        if "prompt_width" not in state:
            raise CheckpointError(mismatch("value"))
        self.estimator = self.new_estimator(int(state["prompt_width"]))
        self.estimator.load_state_dict(state)


def build_baseline(
    config: GroupBaselineConfig | LearnedBaselineConfig, *, seed: int, critic: Critic | None = None
) -> Baseline:
    """The baseline that the settings describe; `critic` is that of `CriticConfig`."""
    match config:
        case GroupConfig() | RankConfig():
            return GroupBaseline(config)
        case RunningConfig():
            return RunningBaseline(config)
        case ValueConfig():
            return ValueBaseline(config, seed=seed)
        case CriticConfig():
            return CriticBaseline(config, critic, seed=seed)
