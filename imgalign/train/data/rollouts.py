"""Samples that the policy makes during training, with their rewards.

Shapes: b = samples made together.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from imgalign.algorithms.batches import Beside, Rollout
from imgalign.algorithms.interface import BatchKind
from imgalign.config import Config, refuse_ineffective
from imgalign.errors import ConfigError, InputError, NumericsError
from imgalign.policy import (
    Images,
    LikelihoodPolicy,
    Policy,
    RewardModel,
    Texts,
    Trajectory,
    join_data,
)
from imgalign.preferences.records import Samples
from imgalign.prompts import Prompts, iteration_prompts, read_prompts, training_seed
from imgalign.runs.world import World
from imgalign.storybook import scenes
from imgalign.storybook.ideas import sample_ideas
from imgalign.train.data.demonstrations import GivenSamples
from imgalign.train.data.examples import (
    keep_examples,
    kept_examples,
    refuse_other_examples,
    refuse_other_kind,
)
from imgalign.train.data.source import USUAL_PROMPTS, Amount, DataSection, Known, Parts, some_of
from imgalign.train.watcher import SILENT, Watcher, cut

log = logging.getLogger(__name__)

NO_REWARD = "reward.path: expected a reward model; add reward.path=runs/reward"


@runtime_checkable
class MayBeCut(Protocol):
    """A policy whose samples may not come to their end within the steps that there are."""

    def finished(self, trajectory: Trajectory) -> Bool[Tensor, " b"]:
        """Which samples came to their end; on the CPU."""
        ...


class PromptsConfig(Config):
    """Where the prompts to train on come from."""

    file: Path | None = None
    """Text file with one prompt per line; null takes prompts of the storybook world."""

    storybook: Literal["scenes", "ideas"] = "scenes"
    """What these ask for: a scene, as a picture prompt does, or a part of one, as a short idea."""

    num_storybook: PositiveInt = 200
    """How many, without a file."""

    seed: NonNegativeInt = 7001
    """Draws the storybook prompts. Differs from the seeds that evaluation draws its own with."""

    @model_validator(mode="after")
    def _a_file_is_read_as_it_is(self) -> "PromptsConfig":
        if self.file is not None:
            refuse_ineffective(
                self, ["storybook", "num_storybook", "seed"], "with prompts from a file"
            )
        return self


class RolloutsConfig(DataSection):
    """Samples that the policy makes during training, scored by the reward model."""

    gives: ClassVar[BatchKind] = "rollouts"

    source: Literal["rollouts"] = Field("rollouts", alias="from")
    """Where the data comes from."""

    prompts: PromptsConfig = PromptsConfig()
    """Prompts to sample for."""

    prompts_per_iteration: PositiveInt = 8
    """Different prompts in each iteration."""

    group_size: PositiveInt = 8
    """Images of each prompt in each iteration: the group that advantages compare within."""

    unfinished_penalty: NonNegativeFloat = 0.0
    """Subtracted from the reward of a sample that did not come to its end, such as a text that was
    cut at policy.max_new_tokens, in training and on held-out prompts; in the reward's unit. A
    reward model scores such a text as if it had ended there. Subtracted and not put in place of the
    reward, so that a group of which none ended still has an order."""

    original_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """For a policy of texts that rewrites prompts: this share of each group is the prompt as it is,
    at least one of it above 0, and as many samples of the policy are left out. They are scored like
    rewrites. Supervised and direct methods learn from them too, so leaving a prompt as it is can
    win; a policy gradient only compares its own samples with them."""

    examples: Path | None = None
    """Examples whose likelihood is kept, with algorithm.ptx: a folder of images with captions, or a
    file of prompts and completions."""

    examples_per_iteration: PositiveInt | None = None
    """Null is as many as there are samples in an iteration, or all of them where there are
    fewer."""

    @property
    def images_per_iteration(self) -> int:
        """Over all prompts."""
        return self.prompts_per_iteration * self.group_size

    @property
    def images_of_a_prompt(self) -> int:
        """The size of a group."""
        return self.group_size

    @property
    def num_originals(self) -> int:
        """How many of a group are the prompt as it is."""
        share = self.original_share * self.group_size
        return max(1, round(share)) if share else 0

    @model_validator(mode="after")
    def _the_policy_has_a_part_in_each_group(self) -> "RolloutsConfig":
        if self.num_originals >= self.group_size:
            raise ValueError(
                f"original_share: {self.num_originals} of a group of {self.group_size} would be "
                "the prompt as it is, and none of the policy; lower it, or raise group_size"
            )
        return self

    @property
    def penalty(self) -> float:
        """By the setting."""
        return self.unfinished_penalty

    @property
    def groups(self) -> int | None:
        """One for each prompt."""
        return self.prompts_per_iteration

    def known_prompts(self) -> Known:
        """Those of the file, or of the storybook."""
        if self.prompts.file is not None:
            training = read_prompts(self.prompts.file)
            return Known(training, some_of(training, self.held_out), str(self.prompts.file))
        draw = sample_ideas if self.prompts.storybook == "ideas" else scenes.evaluation_prompts
        training, apart = (
            draw(count, seed=self.prompts.seed, held_out=unseen)
            for count, unseen in (
                (self.prompts.num_storybook, False),
                (self.held_out.count(4 * USUAL_PROMPTS), True),
            )
        )
        return Known(training, apart, "the storybook's prompts")

    def amount(self, prompts: Prompts) -> Amount:
        """Prompts."""
        asked, available = self.prompts_per_iteration, len(prompts.training)
        return Amount("prompts_per_iteration", asked, available, "training prompts")

    def build(self, parts: Parts) -> "Rollouts":
        """A source that samples; ConfigError without a reward."""
        if parts.reward is None:
            raise ConfigError(NO_REWARD)
        if self.num_originals:  # now, and not when the first of them is too long
            texts = parts.prompts.training
            parts.scoring_policy().encode(texts, texts)
        return Rollouts(
            self,
            policy=parts.policy,
            reward=parts.reward,
            prompts=parts.prompts.training,
            seed=parts.seed,
            world=parts.world,
            examples=self._examples(parts),
        )

    def refuse_samples(self, samples: Samples) -> None:
        """Examples of the other kind."""
        if self.examples is not None:
            refuse_other_kind(self.examples, samples)

    def keep(self, run: Path) -> None:
        """What the examples are."""
        if self.examples is not None:
            keep_examples(self.examples, run)

    def moved(self, run: Path) -> frozenset[str]:
        """The examples may, as long as they are the same."""
        if self.examples is None:
            return frozenset()
        refuse_other_examples(self.examples, run, setting="data.examples")
        return frozenset({"examples"})

    def _examples(self, parts: Parts) -> GivenSamples | None:
        if self.examples is None:
            return None
        return GivenSamples(
            kept_examples(self.examples, parts.run),
            asked=self.examples_per_iteration,
            usual=self.images_per_iteration,
            policy=parts.scoring_policy(),
            run=parts.run,
            seed=parts.seed,
            world=parts.world,
        )


class Rollouts:
    """Samples that the policy makes, with their rewards."""

    def __init__(
        self,
        config: RolloutsConfig,
        *,
        policy: Policy,
        reward: RewardModel,
        prompts: Sequence[str],
        seed: int,
        world: World,
        examples: GivenSamples | None = None,
    ) -> None:
        self.config = config
        self.policy = policy
        self.reward = reward
        self.prompts = prompts
        self.seed = seed
        self.world = world
        self.examples = examples

    def batch(self, iteration: int, *, watcher: Watcher = SILENT) -> Rollout:
        """`group_size` samples of each prompt of the iteration; seeds are numbered over the run.

        A prompt's group is sampled by one process, so that groups stay together.
        """
        config, size = self.config, self.config.group_size
        own = size - config.num_originals
        chosen = iteration_prompts(
            self.prompts, iteration, count=config.prompts_per_iteration, seed=self.seed
        )
        mine = self.world.deal(len(chosen))
        first = iteration * config.images_per_iteration
        numbers = [first + place * size + each for place in mine for each in range(own)]
        rollout = collect(
            self.policy,
            self.reward,
            [chosen[place] for place in mine for _ in range(own)],
            seeds=[training_seed(self.seed, number) for number in numbers],
            unfinished_penalty=config.unfinished_penalty,
            world=self.world,
            watcher=watcher,
        )
        if config.num_originals:
            rollout = self._with_originals(rollout, [chosen[place] for place in mine])
        if self.examples is None:
            return rollout
        given = self.examples.batch(iteration, watcher=watcher)
        return replace(rollout, examples=join_data(given.batch))

    def _with_originals(self, rollout: Rollout, prompts: Sequence[str]) -> Rollout:
        """The rollout with each prompt as an answer to itself, as often as the settings say."""
        policy, count = self.policy, self.config.num_originals
        assert isinstance(policy, LikelihoodPolicy)  # `build` has asked it
        begin = time.perf_counter()
        data = policy.encode(prompts, prompts).select(
            [place for place in range(len(prompts)) for _ in range(count)]
        )
        named = ["the prompt itself"] * len(prompts)
        scores = finite_scores(self.reward, prompts, prompts, named=named)
        seconds = rollout.seconds_scoring + time.perf_counter() - begin
        beside = Beside(data=data, rewards=scores.repeat_interleave(count))
        return replace(rollout, beside=beside, seconds_scoring=seconds)

    def held_out(self, *, watcher: Watcher = SILENT) -> None:
        """Nothing: held-out prompts are measured on new samples."""


def collect(
    policy: Policy,
    reward: RewardModel,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    unfinished_penalty: float = 0.0,
    world: World,
    watcher: Watcher = SILENT,
) -> Rollout:
    """Make one sample per prompt and seed and score it.

    `unfinished_penalty` is subtracted from the scores of those that did not come to their end.

    Images go through the policy in batches of its size and stay in them: a network's rounding
    depends on its batch. A reward that is not finite drops its sample with a warning; none finite
    in any process is a NumericsError. `Interrupted` where a stop is requested between batches.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            raise InputError(f"prompts: number {number} of {len(prompts)} is empty")
    batch, rewards, finished = [], [], []
    sampling = scoring = 0.0
    for part in cut(len(prompts), policy.batch_size, world=world, watcher=watcher):
        begin = time.perf_counter()
        with torch.no_grad():
            trajectory = policy.sample(prompts[part], seeds=seeds[part])
            samples = policy.decode(trajectory)
        between = time.perf_counter()
        scores = score(reward, trajectory, samples)
        if isinstance(policy, MayBeCut):
            finished.append(policy.finished(trajectory))
            scores = torch.where(finished[-1], scores, scores - unfinished_penalty)
        rewards.append(scores)
        batch.append(trajectory)
        sampling += between - begin
        scoring += time.perf_counter() - between
    own, none = torch.cat([*rewards, torch.zeros(0)]), torch.zeros(0, dtype=torch.bool)
    everybody = torch.cat(world.gather(own))
    if not everybody.isfinite().any():
        raise NumericsError(
            f"reward: none of {len(everybody)} scores is a finite number; "
            "score a few samples with the reward model alone to see why"
        )
    return Rollout(
        batch=batch,
        rewards=own,
        seconds_sampling=sampling,
        seconds_scoring=scoring,
        finished=torch.cat([*finished, none]) if isinstance(policy, MayBeCut) else None,
    )


def score(
    reward: RewardModel, trajectory: Trajectory, samples: Images | Texts
) -> Float[Tensor, " b"]:
    """Float32 rewards on the CPU, NaN for every sample whose score is not a finite number."""
    named = [f"seed {seed}" for seed in trajectory.seeds]
    return finite_scores(reward, trajectory.prompts, samples, named=named)


def finite_scores(
    reward: RewardModel, prompts: Sequence[str], samples: Images | Texts, *, named: Sequence[str]
) -> Float[Tensor, " b"]:
    """As `score`; `named` is what a warning calls the samples."""
    with torch.no_grad():
        try:
            scores = reward.score(prompts=prompts, samples=samples)
        except InputError as error:
            scores = _each_score(reward, prompts, samples, error)
    if scores.shape != (len(prompts),):
        raise NumericsError(
            f"reward: expected one score for each of {len(prompts)} samples, "
            f"got shape {list(scores.shape)}"
        )
    scores = scores.detach().float().cpu()
    for index in (~scores.isfinite()).nonzero().flatten().tolist():
        log.warning(
            "reward is %s for %s, prompt %r: sample left out of this update",
            scores[index].item(),
            named[index],
            prompts[index],
        )
    return torch.where(scores.isfinite(), scores, math.nan)


def _each_score(
    reward: RewardModel, prompts: Sequence[str], samples: Images | Texts, error: InputError
) -> Float[Tensor, " b"]:
    """Scores one by one, NaN where the reward cannot read a sample; `error` where of several it
    reads none.

    Example: a text that the reward's tokenizer makes longer than the context.
    """
    found: list[Tensor] = []
    for number, prompt in enumerate(prompts):
        try:
            scores = reward.score(prompts=[prompt], samples=samples[number : number + 1])
            found.append(scores.detach().float().cpu())
        except InputError as each:
            log.warning("reward: %s", each)
            found.append(torch.tensor([math.nan]))
    together = torch.cat(found)
    if len(found) > 1 and together.isnan().all():
        raise error
    return together
