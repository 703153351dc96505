"""What the embedded world measures an alignment by: oracle rewards, never shown to training."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from imgalign.storybook.annotators import Habits, gold_utility
from imgalign.storybook.scenes import parse_prompt
from imgalign.storybook.verifier import default_verifier, verified

GOLD_TIE = Habits().tie_threshold
"""What the annotators call a tie when they rank is one when they judge."""


def gold_of(group: str) -> Callable[..., Float[Tensor, " b"]]:
    """The group's noiseless utility, which training never sees."""

    def gold(*, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return gold_utility(prompts, samples, group=group)

    return gold


def check_faithful(
    *, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]
) -> Bool[Tensor, " b"]:
    """Whether the verifier finds in each image exactly what its prompt asks for."""
    readings = default_verifier().read(samples)
    found = [verified(prompt, reading) for prompt, reading in zip(prompts, readings, strict=True)]
    return torch.tensor(found)


def slice_of(prompt: str) -> str:
    """The kind of scene that a prompt asks for; "free text" outside the storybook's grammar."""
    try:
        spec = parse_prompt(prompt)
    except ValueError:
        return "free text"
    if spec.relation is not None:
        return "two in a relation"
    return "one object" if spec.count == 1 else "several of a kind"
