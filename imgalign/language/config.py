"""Settings of a language policy: the model, how it samples in training, and what is trained."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, PositiveInt

from imgalign.config import Config, PathText
from imgalign.environment import TrainingDType
from imgalign.runs.trained import LANGUAGE_ADAPTER, REFERENCE_HASH


class WritingConfig(Config):
    """How a text is sampled from its prompt and seed."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Logits are divided by it. Null is what the run samples with, 1 for weights from elsewhere."""

    max_new_tokens: Annotated[int, Field(ge=2)] | None = None
    """Tokens of a text, the end token included. Null is what the run samples with, 64 for weights
    from elsewhere."""


class LanguageConfig(Config):
    """A causal language model, and how it samples in training."""

    exact_likelihood: ClassVar[bool] = True
    """Whether log-probabilities of given samples are exact, and not a bound with draws of noise."""
    exploration: ClassVar[tuple[str, ...]] = ("temperature",)
    """Settings that only matter where the policy samples."""
    likelihood: ClassVar[tuple[str, ...]] = ()
    """Settings that only matter where given samples are scored."""
    samples: ClassVar[Literal["images", "texts"]] = "texts"
    """What it makes and can be given."""
    may_be_cut: ClassVar[bool] = True
    """Whether a sample may not come to its end within the steps of a trajectory."""
    steps_setting: ClassVar[str] = "max_new_tokens"
    """The setting with the steps of a trajectory."""
    always_saved: ClassVar[str]
    """The file that is in each checkpoint."""

    kind: Literal["language"] = "language"
    """What kind of model it is: a text-to-image diffusion model, or a language model."""

    model: PathText = "storybook"
    """The shipped language model, a folder in transformers' layout, a run that trained all weights,
    or a name on the Hugging Face hub."""

    dtype: TrainingDType = "auto"
    """In which the network computes and its frozen weights are kept; trained weights and
    log-probabilities are float32. auto is bfloat16 where the device multiplies it natively, else
    float32; the run writes down which, and a resumed run keeps it on any machine."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    """PyTorch's fused attention, or plain matrix products."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Logits are divided by it where the policy samples, and so where steps are scored again. Given
    texts are scored at 1."""

    max_new_tokens: Annotated[int, Field(ge=2)] = 64
    """Tokens of a response, the end token included. Sampled ones that have not ended by then stay
    without an end; given ones that are longer are an error."""

    batch_size: PositiveInt = 16
    """Texts per forward pass of the network. Re-scoring as many rows at once gives bit for bit the
    same log-probabilities. Where it does not fit into the device's memory, a run goes on with half
    of it."""

    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them: less memory, a third slower."""

    @property
    def num_steps(self) -> int:
        """Steps of a trajectory."""
        return self.max_new_tokens

    @property
    def learned_passes(self) -> int:
        """Forward passes that re-score all steps of a batch: one, since a text is scored whole."""
        return 1


class LoraLanguageConfig(LanguageConfig):
    """A LoRA adapter is trained, a few small matrices beside frozen weights."""

    always_saved: ClassVar[str] = LANGUAGE_ADAPTER

    train: Literal["lora"] = "lora"
    """What is trained."""

    adapter: PathText | None = None
    """A LoRA in peft's layout to start from: a folder, or a run. The run trains a copy of it, and
    the model with this LoRA takes the place of the pretrained model in every KL and implicit
    reward. Checkpoints keep it, so the folder is needed at the start only."""

    lora_rank: PositiveInt | None = None
    """Rank of the trained matrices; more is more capacity and more memory. Null is 16, or what
    policy.adapter has."""

    lora_alpha: PositiveInt | None = None
    """The adapter is scaled by alpha / rank. Null is the rank itself, a scale of 1; or what
    policy.adapter has."""

    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Ends of the names of the layers to train; null is every linear layer but the last, or the
    layers of policy.adapter."""


class FullLanguageConfig(LanguageConfig):
    """All weights of the network are trained, with their optimizer state and a copy in memory."""

    always_saved: ClassVar[str] = REFERENCE_HASH

    train: Literal["full"] = "full"
    """What is trained."""


AnyLanguageConfig: TypeAlias = Annotated[
    LoraLanguageConfig | FullLanguageConfig, Field(discriminator="train")
]
