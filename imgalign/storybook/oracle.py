"""Oracle rewards of the storybook, by which an alignment is measured; training never sees them."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from imgalign.storybook.annotators import Habits, oracle_utility
from imgalign.storybook.scenes import parse_prompt
from imgalign.storybook.verifier import default_verifier, verified

ORACLE_TIE = Habits().tie_threshold
"""Utilities that differ by no more are a tie, as in the annotators' rankings."""


def oracle_reward(group: str) -> Callable[..., Float[Tensor, " b"]]:
    """The noiseless utility of a group of annotators, as a reward function."""

    def score(*, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        return oracle_utility(prompts, samples, group=group)

    return score


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
