"""What the embedded world measures an alignment by; none of it is ever shown to training.

A composition root beside cli.py and demo.py: it joins the storybook's eyes and a reward's features
to the protocols of evaluate.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from imgalign.policy import RewardModel
from imgalign.storybook.annotators import Habits, gold_utility
from imgalign.storybook.verifier import default_verifier, verified
from reward_models.clip import ClipReward

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


def image_features(reward: RewardModel) -> Callable[..., Float[Tensor, "b d"]] | None:
    """The CLIP features that diversity is measured in, where the reward has some."""
    if not isinstance(reward, ClipReward):
        return None
    towers = reward.towers

    @torch.no_grad()
    def features(samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        return towers.encode_prepared(towers.prepare(samples))

    return features
