"""Builds the parts of a training run from its settings: the table from settings to classes.

Only what the settings name is imported: a library of diffusion models takes seconds, of which
language models need none.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch

from imgalign.algorithms.choice import AlgorithmConfig, build_algorithm
from imgalign.algorithms.critic import NO_CRITIC, CriticConfig
from imgalign.diffusion.config import FullDiffusionConfig, LoraDiffusionConfig
from imgalign.environment import choose_device, choose_dtype, say_dtype
from imgalign.errors import CheckpointError, ConfigError, InputError
from imgalign.language.config import FullLanguageConfig, LoraLanguageConfig
from imgalign.language.token_reward import TokenReward
from imgalign.policy import (
    Critic,
    CriticSource,
    Policy,
    PromptReader,
    ReadsTokens,
    RewardModel,
    StepPolicy,
)
from imgalign.prompts import Prompts
from imgalign.runs.trained import REFERENCE, find_weights
from imgalign.runs.world import World
from imgalign.train.config import OptimizerConfig, PolicyConfig, TrainConfig
from imgalign.train.learner import Learner

log = logging.getLogger(__name__)

AnyDiffusion: TypeAlias = LoraDiffusionConfig | FullDiffusionConfig
AnyLanguage: TypeAlias = LoraLanguageConfig | FullLanguageConfig
LORA = (LoraDiffusionConfig, LoraLanguageConfig)
FULL = (FullDiffusionConfig, FullLanguageConfig)

HIGHEST_FULL_RATE = 1e-4
"""Learning rates above it have been published for LoRA, and not for all weights."""

SMALL_MODEL = 5_000_000
"""Parameters below which a model, such as the storybook's of language, takes higher rates."""


@runtime_checkable
class OfOneSize(Protocol):
    """The plan of a policy that makes images of one size."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...


def build_learner(
    policy: Policy,
    *,
    algorithm: AlgorithmConfig,
    optimizer: OptimizerConfig,
    seed: int,
    world: World,
    reward: RewardModel | None = None,
) -> Learner:
    """A learner with a fresh algorithm and a fresh optimizer.

    `reward` is the model from which a critic starts, where the algorithm has one.
    """
    critic = critic_of(reward, policy) if needs_critic(algorithm) else None
    built = build_algorithm(algorithm, seed=seed, critic=critic)
    return Learner(policy, algorithm=built, optimizer=optimizer, seed=seed, world=world)


def needs_critic(algorithm: AlgorithmConfig) -> bool:
    """Whether it learns from a critic that starts as the reward model."""
    return isinstance(getattr(algorithm, "baseline", None), CriticConfig)


def critic_of(reward: RewardModel | None, policy: Policy) -> Critic:
    """A critic that starts as the reward model and reads what the policy writes.

    ConfigError for a reward model that cannot read unfinished samples, or reads other tokens.
    """
    if not isinstance(reward, CriticSource):
        raise ConfigError(NO_CRITIC)
    critic = reward.critic()
    if isinstance(policy, ReadsTokens) and critic.reading != policy.reading:
        raise ConfigError(
            "reward.path: its tokenizer or chat template is not that of policy.model, so a critic "
            "that starts from it would read other tokens; fit a reward model on that model "
            "(model=...), or use algorithm.baseline.kind=value"
        )
    return critic


def refuse_by_model(
    settings: TrainConfig,
    prompts: Prompts,
    policy: StepPolicy | None,
    *,
    rewards: Mapping[str, RewardModel | None],
) -> None:
    """InputError or ConfigError where the model of a new run cannot learn from its data.

    Its weights are not loaded for that. `policy` is what takes the place of that model, if any;
    `rewards` are those that score its samples, by the settings that name them.
    """
    if policy is None:
        settings.data.refuse_model(settings.policy.model)
        settings.data.refuse_samples(settings.policy.samples)
        refuse_missing_adapter(settings.policy)
    reader = policy or plan_policy(settings.policy)
    if isinstance(reader, OfOneSize):
        settings.data.refuse_size(*reader.image_size)
    sampled = [*(prompts.training if settings.data.gives == "rollouts" else ()), *prompts.held_out]
    if isinstance(reader, PromptReader):
        reader.refuse_prompts([*prompts.training, *prompts.held_out])
    for setting, reward in rewards.items():
        if isinstance(reward, TokenReward):
            # Tokens of another tokenizer may be more or fewer.
            same = isinstance(reader, ReadsTokens) and reader.reading == reward.reading
            refuse_short_reward(
                setting, reward, sampled, length=settings.policy.num_steps if same else 2
            )


def refuse_missing_adapter(config: PolicyConfig) -> None:
    """ConfigError where the LoRA that a run is to start from is not there."""
    if isinstance(config, LORA) and config.adapter is not None:
        try:
            find_weights(Path(config.adapter))
        except CheckpointError as error:
            raise ConfigError(f"policy.adapter: {error}") from None


def refuse_short_reward(
    setting: str, reward: TokenReward, prompts: Sequence[str], *, length: int
) -> None:
    """InputError, that names the setting, where a sample may be longer than a reward reads."""
    try:
        reward.refuse_long(prompts, length=length)
    except InputError as error:
        raise InputError(
            f"{setting}: {error} by policy.max_new_tokens; lower that, leave out such prompts, or "
            "fit the reward on a model that reads more"
        ) from None


def plan_policy(config: PolicyConfig) -> PromptReader:
    """What is known of a policy before its weights are loaded."""
    match config:
        case LoraDiffusionConfig() | FullDiffusionConfig():
            from imgalign.diffusion.planned import PlannedPolicy

            return PlannedPolicy(config)
        case LoraLanguageConfig() | FullLanguageConfig():
            from imgalign.language.planned import PlannedLanguagePolicy

            return PlannedLanguagePolicy(config)


def load_policy(settings: TrainConfig, *, resumed: Path | None = None) -> StepPolicy:
    """The model that the settings name, untrained.

    `resumed` is the checkpoint that a run goes on from. An adapter that the run started from is
    taken from there, whatever has become of its file.
    """
    device = choose_device(settings.run.device)
    config = settings.policy
    dtype = choose_dtype(config.dtype, device)
    if isinstance(config, LORA) and config.adapter and resumed is not None:
        config = config.model_copy(update={"adapter": str(resumed / REFERENCE)})
    # Trained weights are not rounded on the way.
    loaded = torch.float32 if isinstance(config, FULL) else dtype
    place = Place(device=device, dtype=dtype, loaded=loaded, seed=settings.seed)
    policy: StepPolicy
    match config:
        case LoraDiffusionConfig() | FullDiffusionConfig():
            policy = _diffusion(config, place)
        case LoraLanguageConfig() | FullLanguageConfig():
            policy = _language(config, place)
    say_dtype(dtype, device)
    rate, trained = settings.optimizer.learning_rate, policy.trainable_parameters()
    small = sum(each.numel() for each in trained) < SMALL_MODEL
    if isinstance(config, FULL) and not small and rate > HIGHEST_FULL_RATE:
        log.warning(
            "optimizer.learning_rate: %g is the rate of a LoRA; all weights are usually trained at"
            " 1e-6 to %g",
            *(rate, HIGHEST_FULL_RATE),
        )
    return policy


class Place(NamedTuple):
    """Where and how a model is computed."""

    device: torch.device
    dtype: torch.dtype
    loaded: torch.dtype
    """Of the weights as they are read."""
    seed: int
    """Of a fresh adapter."""


def _diffusion(config: AnyDiffusion, place: Place) -> StepPolicy:
    from imgalign.diffusion.loading import load_pipeline
    from imgalign.diffusion.policy import DiffusionPolicy

    pipeline = load_pipeline(
        config.model, device=place.device, dtype=place.loaded, attention=config.attention
    )
    return DiffusionPolicy(pipeline, config, seed=place.seed, dtype=place.dtype)


def _language(config: AnyLanguage, place: Place) -> StepPolicy:
    from imgalign.language.loading import load_language_model
    from imgalign.language.policy import LanguagePolicy

    model = load_language_model(
        config.model, device=place.device, dtype=place.loaded, attention=config.attention
    )
    return LanguagePolicy(model, config, seed=place.seed, dtype=place.dtype)
