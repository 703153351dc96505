"""Baselines: turn the rewards of a batch into advantages, and keep state between batches.

Group and rank baselines need no critic: with them the algorithm is called GRPO. A learned value
makes it an actor and a critic, as in the PPO paper.

Shapes: m = images with a finite reward, t = steps of a trajectory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from imgalign.advantages import (
    RunningPromptStatistics,
    centred_group_advantages,
    group_advantages,
    group_wins,
    value_advantages,
    whitened,
)
from imgalign.algorithms.interface import World, first_position
from imgalign.algorithms.value import ValueEstimator, explained_variance
from imgalign.config import Config
from imgalign.errors import CheckpointError

Normalise = Literal["std", "none"]


class GroupConfig(Config):
    """The mean reward of the prompt's images in this iteration (GRPO, arXiv:2402.03300)."""

    kind: Literal["group"] = "group"
    """The baseline."""

    normalise: Normalise = "std"
    """Divide by the group's standard deviation, or keep the reward's unit (none: Dr. GRPO,
    arXiv:2503.20783)."""


class RankConfig(Config):
    """The share of the prompt's images that an image beats, so that only their order counts."""

    kind: Literal["rank"] = "rank"
    """The baseline."""

    normalise: Normalise = "std"
    """Divide by the group's standard deviation, or keep the share of the group that is beaten."""


class RunningConfig(Config):
    """The prompt's recent rewards, for few images per prompt (DDPO, arXiv:2305.13301)."""

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


GroupBaselineConfig: TypeAlias = GroupConfig | RankConfig
CriticConfig: TypeAlias = ValueConfig | RunningConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """What a baseline sees of a batch: images with a finite reward."""

    rewards: Float[Tensor, " m"]
    prompt_ids: list[str]
    mask: Bool[Tensor, "m t"]
    features: Callable[[], Mapping[str, Tensor]]
    """What a value estimator may see: prompts [m d] and timesteps [t]; computed when asked for."""

    def of_all(self, world: World) -> "Rewarded":
        """The images of all processes, in their order."""

        def features() -> Mapping[str, Tensor]:
            each = world.gather(dict(self.features()))
            prompts = torch.cat([given["prompt"] for given in each])
            return {"prompt": prompts, "timestep": each[0]["timestep"]}

        return Rewarded(
            rewards=torch.cat(world.gather(self.rewards)),
            prompt_ids=[each for ids in world.gather(self.prompt_ids) for each in ids],
            mask=torch.cat(world.gather(self.mask)),
            features=features,
        )

    def __len__(self) -> int:
        return len(self.rewards)


@runtime_checkable
class Baseline(Protocol):
    """Turns rewards into advantages of each step."""

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """Advantages of this process's images, and metrics of all.

        Updates the baseline's state, alike in all processes: each calls it once per batch, also
        with no image.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of another baseline."""
        ...


class GroupBaseline:
    """Rewards, or their ranks, against the other images of the prompt."""

    def __init__(self, config: GroupConfig | RankConfig) -> None:
        self.config = config

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """As `group_advantages` and its relatives; the same for every step of an image."""
        names = {name: number for number, name in enumerate(dict.fromkeys(batch.prompt_ids))}
        group = torch.tensor([names[each] for each in batch.prompt_ids], dtype=torch.long)
        ranked = self.config.kind == "rank"
        rewards = group_wins(batch.rewards, group) if ranked else batch.rewards
        standardised = self.config.normalise == "std"
        by_group = group_advantages if standardised else centred_group_advantages
        advantages = by_group(rewards, group)
        useless = sum(not advantages[group == number].any() for number in range(len(names)))
        share = world.total(float(useless)) / world.total(float(len(names)))
        metrics = {"useless_group_fraction": share}
        return advantages[:, None].expand_as(batch.mask), metrics

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a group is complete in its iteration."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Accept only the empty state."""
        if state:
            raise CheckpointError(_mismatch(self.config.kind))


class RunningBaseline:
    """Rewards against the recent ones of the same prompt."""

    def __init__(self, config: RunningConfig) -> None:
        self.statistics = RunningPromptStatistics(window=config.window, min_count=config.min_count)

    def advantages(
        self, batch: Rewarded, *, world: World
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """As `RunningPromptStatistics.advantages`; the same for every step of an image."""
        everybody = batch.of_all(world)
        advantages = self.statistics.advantages(everybody.rewards, everybody.prompt_ids)
        first = first_position(world, len(batch))
        own = advantages[first : first + len(batch)]
        return own[:, None].expand_as(batch.mask), {}

    def state_dict(self) -> dict[str, Any]:
        """The rewards of each prompt."""
        return dict(self.statistics.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with these rewards."""
        if state.keys() != {"window", "rewards"}:
            raise CheckpointError(_mismatch("running"))
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
        """Reward minus the value predicted before this batch; then fits the estimator to it.

        Every process fits the images of all, in the same order, and so holds the same estimator.
        """
        everybody = batch.of_all(world)
        features, rewards, mask = everybody.features(), everybody.rewards, everybody.mask
        if self.estimator is None:
            self.estimator = self.new_estimator(features["prompt"].shape[1])
        values = self.estimator.predict(features)
        # An estimator that has learned nothing would predict 0: use the batch's mean instead.
        if not self.estimator.fitted:
            values = torch.full_like(values, rewards.mean().item())
        metrics = {"explained_variance": explained_variance(rewards, values, mask)}
        advantages = value_advantages(rewards, values)
        if self.config.normalise == "std":
            advantages = whitened(advantages, mask)
        metrics["value_loss"] = self.estimator.fit(features, rewards, mask)
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
            raise CheckpointError(_mismatch("value"))
        self.estimator = self.new_estimator(int(state["prompt_width"]))
        self.estimator.load_state_dict(state)


def build_baseline(config: GroupBaselineConfig | CriticConfig, *, seed: int) -> Baseline:
    """The baseline that the settings describe."""
    match config:
        case GroupConfig() | RankConfig():
            return GroupBaseline(config)
        case RunningConfig():
            return RunningBaseline(config)
        case ValueConfig():
            return ValueBaseline(config, seed=seed)


def _mismatch(kind: str) -> str:
    return (
        f"baseline: the checkpoint's state is not of kind {kind!r};"
        " resume with the baseline that the run began with"
    )
