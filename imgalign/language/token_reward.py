"""Rewards that read samples as tokens, of which they take so many."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from imgalign.policy import ReadsTokens, RewardModel


@runtime_checkable
class TokenReward(ReadsTokens, Protocol):
    """A reward model that reads samples as tokens, of which it takes so many."""

    def refuse_long(self, prompts: Sequence[str], *, length: int) -> None:
        """InputError for a prompt after which there is no room for a sample of `length` tokens."""
        ...

    def unread(self, prompts: Sequence[str], samples: Sequence[str]) -> list[str]:
        """Why it cannot read each sample after its prompt; empty for those that it can."""
        ...


def unread(reward: RewardModel | None, prompts: Sequence[str], samples: Sequence[Any]) -> list[str]:
    """Why a reward cannot read each sample; empty for those that it can, such as all images."""
    if isinstance(reward, TokenReward):
        return reward.unread(prompts, samples)
    return [""] * len(samples)
