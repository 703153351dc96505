"""Settings of a training run."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from imgalign.algorithms.ppo import PPOConfig
from imgalign.config import Config, PathText, Seed
from imgalign.diffusion.attention import Attention
from imgalign.diffusion.policy import PolicyConfig
from imgalign.environment import TrainingDType
from imgalign.train.sources import PromptsConfig

MAY_CHANGE = (
    "iterations",
    "checkpoint_every",
    "keep_checkpoints",
    "kl_budget_nats",
    "samples",
    "device",
)
"""Settings that a resumed run may have otherwise; any other change would make it another run."""


Decay = Annotated[float, Field(ge=0, lt=1)]


class RewardConfig(Config):
    """Which reward models; the command line loads them."""

    path: PathText | None = None
    """Folder written by `imgalign reward train`, or the name of a known reward model."""

    held_out: PathText | None = None
    """Another one for the held-out reward, so that stopping does not trust the one that is
    optimised. Null uses the same."""


class OptimizerConfig(Config):
    """AdamW on the trainable weights."""

    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-4
    """After warm-up. 3e-4 is the field's habit for LoRA; full weights need about 1e-5."""

    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Pull of the adapter towards zero, which is the pretrained model."""

    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square."""

    warmup_iterations: NonNegativeInt = 0
    """The learning rate grows linearly over this many iterations."""

    max_grad_norm: PositiveFloat | None = 1.0
    """Larger gradients are scaled down to this norm. Of the loss per latent element, so that it
    means the same at every resolution; null never scales."""


class HeldOutConfig(Config):
    """The reward on prompts and seeds that are never learned from."""

    every: PositiveInt = 5
    """Iterations between two measurements."""

    images_per_prompt: PositiveInt = 2
    """Images per held-out prompt; always of the same seeds."""

    patience: PositiveInt | None = 4
    """Stop after this many measurements in a row without a new best one; null never does."""


class SamplesConfig(Config):
    """Grids that show one set of prompts and seeds over time, sampled without noise (eta 0)."""

    every: PositiveInt = 10
    """Iterations between two grids."""

    num_prompts: PositiveInt = 6
    """Rows: held-out prompts first."""

    images_per_prompt: PositiveInt = 4
    """Columns: seeds 0, 1, 2, ..."""


class TrainConfig(Config):
    """A whole training run."""

    model: PathText = "storybook"
    """The shipped model, a folder in diffusers' layout, or a name on the Hugging Face hub."""

    device: str = "auto"
    """auto takes a CUDA device where there is one; or cpu, cuda, cuda:1."""

    dtype: TrainingDType = "auto"
    """In which the network computes and its frozen weights are kept; adapter, latents and
    log-probabilities are float32. auto is bfloat16 where the device multiplies it natively, else
    float32; the run writes down which, and a resumed run keeps it on any machine."""

    attention: Attention = "sdpa"
    """sdpa is PyTorch's own; xformers where its compiled part fits."""

    policy: PolicyConfig = PolicyConfig()
    """How images are sampled in training, and which weights change."""

    ppo: PPOConfig = PPOConfig()
    """The algorithm."""

    reward: RewardConfig = RewardConfig()
    """What is maximised."""

    prompts: PromptsConfig = PromptsConfig()
    """What is asked for."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """How weights move."""

    iterations: PositiveInt = 40
    """Rounds of sampling, scoring and learning."""

    prompts_per_iteration: PositiveInt = 8
    """Different prompts in each round."""

    images_per_prompt: PositiveInt = 8
    """Images of each prompt in each round: the group that advantages compare within."""

    seed: Seed = 0
    """Decides adapter, prompts, noise and order: the same seed repeats the run."""

    kl_budget_nats: PositiveFloat | None = None
    """Stop when the KL to the pretrained model, per image, exceeds this many nats, and go back to
    the last weights that were inside. Null measures and never stops."""

    held_out: HeldOutConfig = HeldOutConfig()
    """Early stopping on a held-out reward."""

    samples: SamplesConfig = SamplesConfig()
    """Pictures on the way."""

    checkpoint_every: PositiveInt = 10
    """Iterations between two checkpoints; the last, the best and a stopped one are always kept."""

    keep_checkpoints: PositiveInt = 3
    """How many of the newest stay, beside the best."""

    @model_validator(mode="after")
    def _groups_have_company(self) -> "TrainConfig":
        if self.ppo.advantages in ("group", "wins") and self.images_per_prompt < 2:
            raise ValueError(
                f"images_per_prompt: expected at least 2 with {self.ppo.advantages} advantages, "
                "got 1; "
                "a single image is never better than its group (or use ppo.advantages: running)"
            )
        return self

    @model_validator(mode="after")
    def _no_more_steps_than_there_are(self) -> "TrainConfig":
        there = self.policy.num_steps
        for name in ("credited_steps", "num_steps"):
            asked = getattr(self.ppo, name)
            if asked is not None and asked > there:
                raise ValueError(
                    f"ppo.{name}: expected at most policy.num_steps, {there}, got {asked}"
                )
        return self

    @property
    def images_per_iteration(self) -> int:
        """Over all prompts."""
        return self.prompts_per_iteration * self.images_per_prompt
