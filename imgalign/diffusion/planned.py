"""What the model of a policy tells before its weights are loaded, and what it would refuse."""

from collections.abc import Sequence

from imgalign.diffusion.config import DiffusionConfig
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.loading import plan_family
from imgalign.errors import InputError

PROMPT_SHOWN = 60
"""Characters of a prompt in a message."""


class PlannedPolicy:
    """The policy of these settings without weights; InputError where there is no such model."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        self.family = plan_family(config.model)

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height in pixels, of what it samples and of what given images are made."""
        return self.family.image_size()

    def refuse_prompts(self, prompts: Sequence[str]) -> None:
        """InputError for prompts that the model would not read to the end, unless they may be."""
        refuse_long_prompts(prompts, self.family, self.config)


def refuse_long_prompts(prompts: Sequence[str], family: Family, config: DiffusionConfig) -> None:
    """InputError for prompts that a model would not read to the end, unless they may be cut."""
    if config.cut_prompts:
        return
    limit = family.max_tokens
    lengths = {prompt: family.num_tokens(prompt) for prompt in prompts}
    too_long = [prompt for prompt, length in lengths.items() if length > limit]
    if too_long:
        first = too_long[0]
        others = f", and {len(too_long) - 1} more" if len(too_long) > 1 else ""
        raise InputError(
            f"prompts: {shortened(first)!r} has {lengths[first]} tokens{others}; the model "
            f"reads {limit}: shorten or leave out such prompts, or set policy.cut_prompts=true "
            "to train without their ends"
        )


def shortened(text: str) -> str:
    """The beginning of a text, for a message of one line."""
    return text if len(text) <= PROMPT_SHOWN else f"{text[:PROMPT_SHOWN]}..."
