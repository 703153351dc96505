"""Simulated annotators as a reward: what they make of each sample that training asks them about.

Their rankings of a prompt's samples are those that the scores give: utility and Gumbel noise, as in
annotators.py, without position bias, lapses and verdicts. The noise belongs to the prompt and the
sample, so that an opinion stays the same when it is asked for again.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.policy import Images, Texts
from imgalign.storybook.annotators import Habits, check_group, oracle_utility
from imgalign.storybook.text_oracle import text_utility

PREFIX = "annotators:"
"""What the name of such a reward begins with. Example: "annotators:cosy"."""


CAREFUL = Habits()


class Opinions:
    """Noisy utilities of a group of annotators; implements the protocol RewardModel."""

    def __init__(self, group: str, *, habits: Habits = CAREFUL) -> None:
        check_group(group)
        self.group = group
        self.habits = habits

    @classmethod
    def named(cls, name: str) -> "Opinions":
        """By a name such as "annotators:cosy"; InputError for an unknown group."""
        return cls(name.removeprefix(PREFIX))

    def score(self, *, prompts: Sequence[str], samples: Images | Texts) -> Float[Tensor, " b"]:
        """Utility with noise, of images in [0, 1] at any size, or of texts."""
        if isinstance(samples, Tensor):
            worth = oracle_utility(prompts, samples, group=self.group)
            content = [
                (255 * image).round().to(torch.uint8).cpu().numpy().tobytes() for image in samples
            ]
        else:
            worth = text_utility(prompts, samples, group=self.group)
            content = [text.encode() for text in samples]
        noise = [
            gumbel(prompt.encode() + b"\0" + each)
            for prompt, each in zip(prompts, content, strict=True)
        ]
        return worth.cpu() + self.habits.temperature * torch.tensor(noise)


def gumbel(content: bytes) -> float:
    """A number from the standard Gumbel distribution that follows from some bytes."""
    number = int.from_bytes(hashlib.sha256(content).digest()[:8], "big")
    return -math.log(-math.log((number + 0.5) / 2**64))
