"""Settings of a training run: policy, algorithm, data, reward, optimizer, and how to run them."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from imgalign.algorithms import old_names
from imgalign.algorithms.baselines import GroupConfig, RankConfig
from imgalign.algorithms.beta import AutoBetaConfig
from imgalign.algorithms.choice import DEFAULT, AlgorithmConfig
from imgalign.algorithms.interface import JUDGED
from imgalign.algorithms.objectives import CardinalConfig, DirectConfig
from imgalign.algorithms.policy_gradient import PolicyGradientConfig
from imgalign.algorithms.supervised import SupervisedConfig
from imgalign.config import Config, PathText, Seed, refuse_ineffective
from imgalign.diffusion.config import AnyDiffusionConfig, LoraDiffusionConfig
from imgalign.language.config import AnyLanguageConfig
from imgalign.train.data.choice import DataConfig
from imgalign.train.data.given_rankings import GivenRankingsConfig
from imgalign.train.data.rollouts import RolloutsConfig
from imgalign.train.data.texts import LabelledConfig
from imgalign.train.drawn import DrawnConfig
from imgalign.train.schedule import RunConfig

OF_DRAWS = ("draws", "keep_chosen")
"""Settings of algorithms about scores that depend on draws of noise."""

Decay = Annotated[float, Field(ge=0, lt=1)]

PolicyConfig: TypeAlias = AnyDiffusionConfig | AnyLanguageConfig


class RewardConfig(Config):
    """The reward models of a run."""

    path: PathText | None = None
    """The reward that is maximised: a folder written by `imgalign reward train`, or the name of a
    known reward model; of the storybook also annotators:GROUP, simulated annotators that are asked
    about each sample."""

    held_out: PathText | None = None
    """Another reward model for held-out prompts, so that early stopping does not rely on the one
    that is optimised. Null uses the same."""

    drawn: DrawnConfig | None = None
    """For a policy of texts: path and held_out are rewards of images, and a text is scored by the
    images that are drawn from it, for the prompt that it answers."""


class OptimizerConfig(Config):
    """AdamW on the trainable weights."""

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """After warm-up. 3e-4 is usual for LoRA, 1e-6 to 1e-4 for all weights."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decay of what is trained towards zero; of an adapter, that is the pretrained model."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the gradient's running mean and of its running square."""

    warmup_iterations: NonNegativeInt = 0
    """The learning rate grows linearly over this many iterations."""

    max_grad_norm: PositiveFloat | None = 1.0
    """Larger gradients are scaled down to this norm. Of the loss per latent element, so that it
    means the same at every resolution; null never scales."""


class TrainConfig(Config):
    """Settings of a training run."""

    renamed: ClassVar[Mapping[str, str]] = old_names.TRAINING

    policy: PolicyConfig = Field(LoraDiffusionConfig(), discriminator="kind")
    """The model, how it samples in training, and what of it is trained."""

    algorithm: AlgorithmConfig = Field(DEFAULT, discriminator="name")
    """The training algorithm."""

    data: DataConfig = Field(RolloutsConfig(), discriminator="source")
    """What it learns from: samples that it makes itself, given samples, or judgements."""

    reward: RewardConfig = RewardConfig()
    """The reward models."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""

    seed: Seed = 0
    """Decides a new adapter, prompts, noise and order: the same seed repeats the run."""

    run: RunConfig = RunConfig()
    """How long, on what device, and what is kept; these may be changed when a run is resumed."""

    @model_validator(mode="after")
    def _the_algorithm_can_learn_from_the_data(self) -> "TrainConfig":
        data = self.data
        self.algorithm.refuse_data(data.source, data.gives, group_size=data.images_of_a_prompt)
        scored = data.gives == "rollouts" or self.reward.path is not None
        if isinstance(self.algorithm, CardinalConfig) and not scored:
            raise ValueError(
                "reward.path: expected a reward model; algorithm 'cardinal' learns from the scores "
                "of the ranked samples"
            )
        return self

    @model_validator(mode="after")
    def _nothing_is_asked_of_held_out_prompts_without_any(self) -> "TrainConfig":
        held_out, sampled = self.data.held_out, self.data.gives == "rollouts"
        if held_out.asked_for:
            return self
        if self.reward.held_out is not None:
            raise ValueError("reward.held_out: has no effect without held-out prompts")
        if isinstance(self.algorithm, DirectConfig):
            why = "without held-out prompts"
            refuse_within("algorithm", self.algorithm, ["max_chosen_drop"], why)
        if isinstance(self.data, GivenRankingsConfig):
            refuse_within("data", self.data, ["held_out_rankings"], "without held-out prompts")
        if isinstance(self.data, LabelledConfig):
            refuse_within("data", self.data, ["held_out_completions"], "without held-out prompts")
        learned = sampled or isinstance(self.algorithm, CardinalConfig)
        if not learned and self.reward.path is not None:
            raise ValueError("reward.path: has no effect on given samples without held-out prompts")
        if self.run.kl_budget_nats is None:
            why = "without held-out prompts and without run.kl_budget_nats"
            refuse_within("data.held_out", held_out, ["images_per_prompt"], why)
            refuse_within("run", self.run, ["measure_every"], why)
            if not sampled:  # nothing is sampled but grids, which are without noise
                refuse_within("policy", self.policy, self.policy.exploration, why)
        return self

    @model_validator(mode="after")
    def _held_out_rankings_are_measured_by_direct_methods(self) -> "TrainConfig":
        direct = isinstance(self.algorithm, DirectConfig)
        if direct and self.data.gives not in JUDGED:
            why = f"with data.from: {self.data.source}, which has no held-out rankings"
            refuse_within("algorithm", self.algorithm, ["max_chosen_drop"], why)
        if not direct and isinstance(self.data, GivenRankingsConfig):
            why = (
                f"with algorithm.name: {self.algorithm.name}, which measures held-out samples only"
            )
            refuse_within("data", self.data, ["held_out_rankings"], why)
        return self

    @model_validator(mode="after")
    def _what_comes_after_some_steps_comes_within_the_run(self) -> "TrainConfig":
        if self.run.iterations is None and self.data.gives != "demonstrations":
            raise ValueError(
                "run.iterations: expected a number, got null, which is one epoch of given examples "
                f"(data.from: completions or images), with data.from: {self.data.source}"
            )
        if not isinstance(self.algorithm, DirectConfig):
            return self
        beta, refresh = self.algorithm.beta, self.algorithm.refresh
        # A run that is too short for the default is a try, and only warned of.
        if isinstance(beta, AutoBetaConfig) and beta.steps != AutoBetaConfig().steps:
            self._refuse_beyond_the_run("algorithm.beta.steps", beta.steps)
        if refresh is not None:
            self._refuse_beyond_the_run("algorithm.refresh.every", refresh.every)
        return self

    def _refuse_beyond_the_run(self, name: str, steps: int) -> None:
        total = self.run.total * self.algorithm.minibatches
        if steps >= total:
            raise ValueError(
                f"{name}: expected less than {total}, the optimizer steps of the run "
                f"(run.iterations={self.run.iterations}, algorithm.minibatches="
                f"{self.algorithm.minibatches}), got {steps}"
            )

    @model_validator(mode="after")
    def _patience_needs_a_measurement(self) -> "TrainConfig":
        rewarded = self.reward.path is not None or self.reward.held_out is not None
        compared = isinstance(self.algorithm, DirectConfig)
        measured = self.data.gives == "rollouts" or rewarded or compared
        if not (self.data.held_out.asked_for and measured) and self.run.patience is not None:
            refuse_within("run", self.run, ["patience"], "without a held-out reward")
        return self

    @model_validator(mode="after")
    def _no_more_steps_or_minibatches_than_there_are(self) -> "TrainConfig":
        self.algorithm.refuse_steps(
            self.policy.num_steps, named=f"policy.{self.policy.steps_setting}"
        )
        samples = (self.data.groups or 0) * self.data.images_of_a_prompt
        self.algorithm.refuse_minibatches(
            batches=math.ceil(samples / self.policy.batch_size),
            passes=self.policy.learned_passes,
            groups=self.data.groups,
        )
        return self

    @model_validator(mode="after")
    def _the_data_is_of_the_policys_kind(self) -> "TrainConfig":
        given, made = self.data.given_samples, self.policy.samples
        if given not in (None, made):
            cures = {
                "images": "policy.kind=diffusion, or texts: data.from=completions, text_rankings, "
                "labelled, or rankings with data.samples=texts",
                "texts": "policy.kind=language, or images: data.from=images, folder, table, or "
                "rankings",
            }
            raise ValueError(
                f"data.from: {self.data.source} gives {given}, and policy.kind: {self.policy.kind} "
                f"learns from {made}; use {cures[str(given)]}"
            )
        return self

    @model_validator(mode="after")
    def _original_prompts_are_texts_in_groups(self) -> "TrainConfig":
        data, algorithm = self.data, self.algorithm
        if not isinstance(data, RolloutsConfig) or not data.num_originals:
            return self
        if self.policy.samples != "texts":
            raise ValueError(
                f"data.original_share: has no effect with policy.kind: {self.policy.kind}, whose "
                f"samples are {self.policy.samples} and no prompts"
            )
        baseline = algorithm.baseline if isinstance(algorithm, PolicyGradientConfig) else None
        if baseline is not None and not isinstance(baseline, GroupConfig | RankConfig):
            raise ValueError(
                f"data.original_share: has no effect with algorithm.baseline.kind: {baseline.kind},"
                " which compares with no group; expected group or rank"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_drawn_for_a_reward_of_images(self) -> "TrainConfig":
        if self.reward.drawn is None:
            return self
        if self.policy.samples != "texts":
            raise ValueError(
                f"reward.drawn: draws texts, and policy.kind: {self.policy.kind} makes "
                f"{self.policy.samples}; leave it out, or use policy.kind=language"
            )
        if self.reward.path is None and self.reward.held_out is None:
            raise ValueError(
                "reward.drawn: expected reward.path, a reward of images that scores what is drawn"
            )
        return self

    @model_validator(mode="after")
    def _examples_are_given_where_they_count(self) -> "TrainConfig":
        asked = isinstance(self.algorithm, PolicyGradientConfig) and self.algorithm.ptx > 0
        given = isinstance(self.data, RolloutsConfig) and self.data.examples is not None
        if asked and not given:
            raise ValueError(
                "data.examples: expected examples whose likelihood is to be kept, with "
                "algorithm.ptx above 0; name a folder of images or a file of completions"
            )
        if given and not asked:
            why = "without algorithm.ptx above 0"
            refuse_within("data", self.data, ["examples", "examples_per_iteration"], why)
        return self

    @model_validator(mode="after")
    def _only_what_may_be_cut_is_punished_for_it(self) -> "TrainConfig":
        if isinstance(self.data, RolloutsConfig) and not self.policy.may_be_cut:
            why = f"with policy.kind: {self.policy.kind}, whose samples always come to their end"
            refuse_within("data", self.data, ["unfinished_penalty"], why)
        return self

    @model_validator(mode="after")
    def _exact_scores_take_no_draws(self) -> "TrainConfig":
        if self.policy.exact_likelihood:
            names = [each for each in OF_DRAWS if each in type(self.algorithm).model_fields]
            why = f"with policy.kind: {self.policy.kind}, whose log-probabilities are exact"
            refuse_within("algorithm", self.algorithm, names, why)
        return self

    @property
    def scoring_algorithm(self) -> AlgorithmConfig:
        """The algorithm, without draws that cannot differ.

        Where log-probabilities are exact, one for each optimizer step is all that there is.
        """
        if self.policy.exact_likelihood and isinstance(self.algorithm, SupervisedConfig):
            return self.algorithm.model_copy(update={"draws": self.algorithm.minibatches})
        return self.algorithm

    @model_validator(mode="after")
    def _given_samples_are_scored_only_by_some(self) -> "TrainConfig":
        if isinstance(self.algorithm, PolicyGradientConfig):
            why = f"with algorithm.name: {self.algorithm.name}"
            refuse_within("policy", self.policy, self.policy.likelihood, why)
        return self


def refuse_within(section: str, config: Config, names: Sequence[str], why: str) -> None:
    """ValueError for the first of these settings of a section that is not at its default."""
    try:
        refuse_ineffective(config, names, why)
    except ValueError as error:
        raise ValueError(f"{section}.{error}") from None


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
