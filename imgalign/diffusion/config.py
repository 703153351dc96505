"""Settings of a diffusion policy: the model, how it samples in training, and what is trained."""

import math
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, PositiveInt, model_validator

from imgalign.config import Config, PathText
from imgalign.diffusion.attention import Attention
from imgalign.diffusion.kernels import ErrorOf
from imgalign.environment import TrainingDType
from imgalign.explain import Instead
from imgalign.runs.trained import ADAPTER, REFERENCE_HASH

MERGE_FIRST = (
    "to train all weights of a model with this LoRA, merge it first: imgalign export ADAPTER "
    "--model MODEL --format merged --out FOLDER, and set policy.model=FOLDER"
)
Level = Annotated[float, Field(ge=0, le=1)]


class DiffusionConfig(Config):
    """A text-to-image model, and how it samples in training."""

    exact_likelihood: ClassVar[bool] = False
    """Whether log-probabilities of given samples are exact, and not a bound with draws of noise."""
    exploration: ClassVar[tuple[str, ...]] = ("eta", "steps_per_pass")
    """Settings that only matter where the policy samples with noise."""
    likelihood: ClassVar[tuple[str, ...]] = ("likelihood_error", "noise_levels")
    """Settings that only matter where given samples are scored."""
    samples: ClassVar[Literal["images", "texts"]] = "images"
    """What it makes and can be given."""
    may_be_cut: ClassVar[bool] = False
    """Whether a sample may not come to its end within the steps of a trajectory."""
    steps_setting: ClassVar[str] = "num_inference_steps"
    """The setting with the steps of a trajectory."""
    always_saved: ClassVar[str]
    """The file that is in each checkpoint."""

    kind: Literal["diffusion"] = "diffusion"
    """What kind of model it is: a text-to-image diffusion model, or a language model."""

    model: PathText = "storybook"
    """The shipped model, a folder in diffusers' layout, or a name on the Hugging Face hub."""

    dtype: TrainingDType = "auto"
    """In which the network computes and its frozen weights are kept; trained weights and
    log-probabilities are float32. auto is bfloat16 where the device multiplies it natively, else
    float32; the run writes down which, and a resumed run keeps it on any machine."""

    attention: Attention = "sdpa"
    """sdpa is PyTorch's own; xformers where its compiled part fits."""

    num_inference_steps: Annotated[int, Field(ge=2)] = 10
    """Denoising steps per image; the last adds no noise, and nothing is learned from it. Ten are
    enough to learn from (arXiv:2505.05470); generate with as many as you like afterwards."""

    eta: Annotated[float, Field(ge=1e-3, le=1)] = 1.0
    """Noise of the sampler: 1 is DDPM's. Near 0, steps are nearly deterministic and hard to
    explore from; below 0.001 their density is beyond float32."""

    guidance_scale: Annotated[float, Field(ge=1)] = 1.0
    """Classifier-free guidance; 1 is off. Off, a step costs half and the ratio is less noisy; the
    policy learns what guidance would have added."""

    batch_size: PositiveInt = 8
    """Images per forward pass of the network while sampling. Re-scoring as many rows at once gives
    bit for bit the same log-probabilities. Where it does not fit into the device's memory, a run
    goes on with half of it."""

    steps_per_pass: PositiveInt = 1
    """Steps re-scored in one forward pass. 1 keeps the batch as it was when sampling, and so the
    ratio exactly 1 before the first update; more is faster on a GPU and leaves rounding noise."""

    latent_dtype: Literal["float32", "bfloat16"] = "float32"
    """What latents are rounded to before their log-probability is taken."""

    likelihood_error: ErrorOf = "target"
    """What the squared error that stands for the log-probability of a given image is of: what the
    network predicts, as in its pretraining, the noise, or the velocity. The error of the velocity
    is that of the noise over the share of signal left, so it weighs high noise levels more."""

    noise_levels: tuple[Level, Level] = (0.0, 1.0)
    """The lowest and the highest noise level at which given images are scored: 0 is none, 1 nothing
    but noise. All between are as likely."""

    cut_prompts: bool = False
    """Train on prompts with more tokens than the model reads; it does not see their end. Without
    it they are an error."""

    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them: less memory, a third slower."""

    @model_validator(mode="after")
    def _noise_levels_are_a_range(self) -> "DiffusionConfig":
        lowest, highest = self.noise_levels
        if lowest >= highest:
            raise ValueError(
                f"noise_levels: expected the lowest and then a higher one, got {lowest}, {highest}"
            )
        return self

    @property
    def num_steps(self) -> int:
        """Steps of a trajectory."""
        return self.num_inference_steps

    @property
    def learned_passes(self) -> int:
        """Forward passes that re-score all steps of a batch but the last, which adds no noise."""
        return math.ceil((self.num_inference_steps - 1) / self.steps_per_pass)


class LoraDiffusionConfig(DiffusionConfig):
    """A LoRA adapter is trained, a few small matrices beside frozen weights."""

    always_saved: ClassVar[str] = ADAPTER

    train: Literal["lora"] = "lora"
    """What is trained."""

    adapter: Annotated[PathText | None, Instead(MERGE_FIRST)] = None
    """A LoRA to start from: a file, a folder, or a run, as `--adapter` of generate takes. The run
    trains a copy of it, and the model with this LoRA takes the place of the pretrained model in
    every KL and implicit reward. Checkpoints keep it, so the file is needed at the start only."""

    lora_rank: PositiveInt | None = None
    """Rank of the trained matrices; more is more capacity and more memory. Null is 8, or what
    policy.adapter has."""

    lora_alpha: PositiveInt | None = None
    """The adapter is scaled by alpha / rank. Null is the rank itself, a scale of 1, which is what
    tools assume that do not read it from the file; or what policy.adapter has."""

    channels_last: bool = False
    """Keep the network's convolutions with their channels last in memory, which some hardware
    prefers. Rounding differs. On the storybook in float32 on a CPU with AVX-512 it gained nothing
    that could be told from noise, so measure it."""

    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Ends of the names of the layers to train; null is the attention projections, or the layers of
    policy.adapter."""


class FullDiffusionConfig(DiffusionConfig):
    """All weights of the network are trained, with their optimizer state and a copy in memory."""

    always_saved: ClassVar[str] = REFERENCE_HASH

    train: Literal["full"] = "full"
    """What is trained."""


AnyDiffusionConfig: TypeAlias = Annotated[
    LoraDiffusionConfig | FullDiffusionConfig, Field(discriminator="train")
]
