"""Settings of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from imgalign.config import Config, Device, PathText, Seed, refuse_ineffective
from imgalign.environment import DType
from imgalign.language.config import WritingConfig
from imgalign.preferences.records import SamplerSettings
from imgalign.prompts import EVALUATION_SEEDS
from imgalign.runs import old_format
from imgalign.runs.trained import STRONGEST


class EvaluateConfig(Config):
    """A blind comparison of an aligned checkpoint with its base."""

    renamed: ClassVar[Mapping[str, str]] = old_format.EVALUATION

    aligned: Path
    """The checkpoint to judge: a run, a checkpoint of a run, or any folder with trained weights."""

    strength: Annotated[float, Field(gt=0, le=STRONGEST)] = 1.0
    """How strongly its LoRA is applied; 1 is as it was trained. Another strength is another
    comparison, in a folder of its own."""

    baseline: Path | None = None
    """What it is compared with: other trained weights, as those of an earlier run. Null is what its
    run started from: the pretrained model, with policy.adapter if it was trained from one."""

    model: PathText | None = None
    """The model under both: "storybook", a folder, or a hub name. Null is what
    the run was trained on, or storybook for weights from elsewhere."""

    prompts: Path | None = None
    """Text file with one prompt per line, all of which are used. Null draws prompts, on the command
    line from the storybook's grammar: scenes for images, ideas for texts. Prompts that the run was
    trained or selected on are left out either way."""

    num_prompts: PositiveInt = 48
    """Number of prompts drawn. The interval of the win rate shrinks with its square root."""

    prompt_seed: Seed = 9001
    """Seed of the prompts drawn."""

    unseen_combinations: bool = True
    """Draw prompts of unseen combinations, which no training of the shipped model or of a run
    contains. False draws them as training does."""

    images_per_prompt: PositiveInt = 4
    """Pairs of samples per prompt, each with its own seed."""

    first_seed: Annotated[int, Field(ge=1_000_000)] = 1_000_000
    """Seeds count up from here. Lower ones are those of a run's own held-out measurements, and
    from 2**31 on those of training."""

    sampler: SamplerSettings = SamplerSettings()
    """How the images of both sides are sampled."""

    writing: WritingConfig = WritingConfig()
    """How the texts of both sides are sampled."""

    baseline_guidance_scale: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    """Classifier-free guidance of the other side, where it is not that of the sampler. Alignment
    may only do what guidance does: a base at its best guidance is the stronger baseline."""

    device: Device = "auto"
    """auto takes a CUDA device where there is one; or cpu, cuda, cuda:1."""

    dtype: DType = "auto"
    """Dtype of the network's computation; auto is bfloat16 where the device multiplies it natively,
    else float32."""

    images: Literal["sheets", "files"] = "sheets"
    """sheets: all images of a side in one PNG, a row per prompt. files: one PNG per image, beside
    its provenance."""

    seed: Seed = 0
    """Decides which sample of a pair the judge sees first, and the resamples behind intervals."""

    @model_validator(mode="after")
    def _a_file_of_prompts_is_used_as_a_whole(self) -> "EvaluateConfig":
        if self.prompts is not None:
            drawn = ["num_prompts", "prompt_seed", "unseen_combinations"]
            refuse_ineffective(self, drawn, "with prompts from a file")
        return self

    @property
    def baseline_sampler(self) -> SamplerSettings:
        """How the images of the baseline are sampled."""
        if self.baseline_guidance_scale is None:
            return self.sampler
        changed = {"guidance_scale": self.baseline_guidance_scale}
        return SamplerSettings.model_validate(self.sampler.model_dump() | changed)

    @model_validator(mode="after")
    def _seeds_are_for_evaluation(self) -> "EvaluateConfig":
        if self.first_seed + self.num_prompts * self.images_per_prompt > len(EVALUATION_SEEDS):
            raise ValueError(
                f"first_seed: expected all seeds below {len(EVALUATION_SEEDS)}, which training "
                f"never uses, got {self.first_seed}"
            )
        return self
