"""Settings of a training run: policy, algorithm, data, reward, optimizer, and how to run them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from imgalign.algorithms import old_names
from imgalign.algorithms.choice import DEFAULT, AlgorithmConfig
from imgalign.config import Config, Device, PathText, Seed, refuse_ineffective
from imgalign.diffusion.policy import DiffusionConfig

Decay = Annotated[float, Field(ge=0, lt=1)]

USUAL_IMAGES = 64


class PromptsConfig(Config):
    """Where the prompts to train on come from."""

    file: Path | None = None
    """Text file with one prompt per line; null takes prompts of the storybook world."""

    num_storybook: PositiveInt = 200
    """How many, without a file."""

    seed: NonNegativeInt = 7001
    """Draws the storybook prompts. Differs from the seeds that evaluation draws its own with."""

    @model_validator(mode="after")
    def _a_file_is_read_as_it_is(self) -> "PromptsConfig":
        if self.file is not None:
            refuse_ineffective(self, ["num_storybook", "seed"], "with prompts from a file")
        return self


class HeldOutConfig(Config):
    """Prompts and seeds that are only ever measured, never learned from."""

    file: Path | None = None
    """Text file of prompts. Null chooses some of those to train on by their hash; of the storybook
    world, combinations that neither the shipped model nor this run trains on."""

    num_prompts: Annotated[int, Field(ge=0)] = 16
    """How many prompts are held out, without a file. 0 measures no held-out reward."""

    images_per_prompt: PositiveInt = 2
    """Images per held-out prompt; always of the same seeds."""

    def refuse_images(self, why: str) -> None:
        """ValueError where a number of images is asked for that nobody measures."""
        try:
            refuse_ineffective(self, ["images_per_prompt"], why)
        except ValueError as error:
            raise ValueError(f"data.held_out.{error}") from None

    @model_validator(mode="after")
    def _a_file_is_used_as_a_whole(self) -> "HeldOutConfig":
        if self.file is not None:
            refuse_ineffective(self, ["num_prompts"], "with held-out prompts from a file")
        return self


class RolloutsConfig(Config):
    """Images that the policy samples during training, scored by the reward model."""

    source: Literal["rollouts"] = Field("rollouts", alias="from")
    """rollouts, or images: given ones."""

    prompts: PromptsConfig = PromptsConfig()
    """Prompts to sample images for."""

    held_out: HeldOutConfig = HeldOutConfig()
    """Held-out prompts, which are measured only."""

    prompts_per_iteration: PositiveInt = 8
    """Different prompts in each iteration."""

    group_size: PositiveInt = 8
    """Images of each prompt in each iteration: the group that advantages compare within."""

    @property
    def images_per_iteration(self) -> int:
        """Over all prompts."""
        return self.prompts_per_iteration * self.group_size


class ImagesConfig(Config):
    """Images given as examples, each with its prompt in a text file beside it."""

    source: Literal["images"] = Field("images", alias="from")
    """rollouts, or images: given ones."""

    folder: Path
    """Images with their captions: `cat.png` and `cat.txt`. Each is scaled and cut to the model's
    size."""

    held_out: HeldOutConfig = HeldOutConfig()
    """Held-out prompts, which are measured only. Their images are left out of training."""

    images_per_iteration: PositiveInt | None = None
    """Images in each iteration; every one comes once before any comes again. Null is 64, or all of
    them where there are fewer."""

    def images_taken(self, available: int) -> int:
        """How many of the available images an iteration learns from."""
        return self.images_per_iteration or min(USUAL_IMAGES, available)


class RewardConfig(Config):
    """The reward models of a run."""

    path: PathText | None = None
    """The reward that is maximised: a folder written by `imgalign reward train`, or the name of a
    known reward model."""

    held_out: PathText | None = None
    """Another reward model for held-out prompts, so that early stopping does not rely on the one
    that is optimised. Null uses the same."""


class OptimizerConfig(Config):
    """AdamW on the trainable weights."""

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """After warm-up. 3e-4 is usual for LoRA."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Decay of the adapter towards zero, which is the pretrained model."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of the gradient's running mean and of its running square."""

    warmup_iterations: NonNegativeInt = 0
    """The learning rate grows linearly over this many iterations."""

    max_grad_norm: PositiveFloat | None = 1.0
    """Larger gradients are scaled down to this norm. Of the loss per latent element, so that it
    means the same at every resolution; null never scales."""


class SamplesConfig(Config):
    """Grids that show one set of prompts and seeds over time, sampled without noise (eta 0)."""

    every: PositiveInt = 10
    """Iterations between two grids."""

    num_prompts: PositiveInt = 6
    """Rows: held-out prompts first."""

    images_per_prompt: PositiveInt = 4
    """Columns: seeds 0, 1, 2, ..."""


class RunConfig(Config):
    """How a run goes: the settings that may be changed when it is resumed."""

    iterations: PositiveInt = 40
    """How often a batch is sampled or read, and learned from."""

    device: Device = "auto"
    """auto takes a CUDA device where there is one; or cpu, cuda, cuda:1."""

    kl_budget_nats: PositiveFloat | None = None
    """Stop when the KL to the pretrained model, per image, exceeds this many nats, and go back to
    the last weights that were inside. Null measures and never stops."""

    measure_every: PositiveInt = 5
    """Iterations between two measurements on held-out prompts."""

    patience: PositiveInt | None = 4
    """Stop after this many measurements in a row without a new best held-out reward; null never
    does."""

    samples: SamplesConfig = SamplesConfig()
    """Sample grids during training."""

    checkpoint_every: PositiveInt = 10
    """Iterations between two checkpoints; the last, the best and a stopped one are always kept."""

    keep_checkpoints: PositiveInt = 3
    """How many of the newest stay, beside the best."""


DataConfig: TypeAlias = RolloutsConfig | ImagesConfig


class TrainConfig(Config):
    """Settings of a training run."""

    renamed: ClassVar[Mapping[str, str]] = old_names.TRAINING

    policy: DiffusionConfig = DiffusionConfig()
    """The model, how it samples in training, and which of its weights change."""

    algorithm: AlgorithmConfig = Field(DEFAULT, discriminator="name")
    """The training algorithm."""

    data: DataConfig = Field(RolloutsConfig(), discriminator="source")
    """What it learns from: images that it samples itself, or given images."""

    reward: RewardConfig = RewardConfig()
    """The reward models."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimizer."""

    seed: Seed = 0
    """Decides adapter, prompts, noise and order: the same seed repeats the run."""

    run: RunConfig = RunConfig()
    """How long, on what device, and what is kept; these may be changed when a run is resumed."""

    @model_validator(mode="after")
    def _the_algorithm_can_learn_from_the_data(self) -> "TrainConfig":
        size = self.data.group_size if isinstance(self.data, RolloutsConfig) else None
        self.algorithm.refuse_data(group_size=size)
        return self

    @model_validator(mode="after")
    def _nothing_is_asked_of_held_out_prompts_without_any(self) -> "TrainConfig":
        held_out, given = self.data.held_out, isinstance(self.data, ImagesConfig)
        there = held_out.file is not None or held_out.num_prompts > 0
        if not there and self.reward.held_out is not None:
            raise ValueError("reward.held_out: has no effect without held-out prompts")
        if not there and given and self.reward.path is not None:
            raise ValueError("reward.path: has no effect on given images without held-out prompts")
        if not there and self.run.kl_budget_nats is None:
            held_out.refuse_images("without held-out prompts and without run.kl_budget_nats")
        scored = not given or self.reward.path is not None or self.reward.held_out is not None
        usual = RunConfig.model_fields["patience"].default
        if not (there and scored) and self.run.patience not in (None, usual):
            raise ValueError("run.patience: has no effect without a held-out reward")
        return self

    @model_validator(mode="after")
    def _no_more_steps_than_there_are(self) -> "TrainConfig":
        self.algorithm.refuse_steps(self.policy.num_inference_steps)
        if isinstance(self.data, RolloutsConfig):
            batches = math.ceil(self.data.images_per_iteration / self.policy.batch_size)
            self.algorithm.refuse_minibatches(batches=batches, passes=self.policy.learned_passes)
        return self
