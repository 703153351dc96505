"""Train and test sets that share no prompt.

Rankings of one prompt are alike, so a split by ranking would have train/test overlap. The split is
by a hash of the prompt: a prompt stays in its part when rankings are added, and the larger of two
held-out fractions contains the smaller.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from imgalign.preferences.records import Ranking


@dataclass(frozen=True, slots=True)
class Split:
    """Rankings for fitting, for choosing settings, and for the one final number."""

    train: list[Ranking]
    validation: list[Ranking]
    test: list[Ranking]


def prompt_key(prompt: str) -> str:
    """The key under which prompts that differ only in case and spacing are equal.

    Example: "A  red Fox " and "a red fox" have the key "a red fox".
    """
    return " ".join(prompt.casefold().split())


def prompt_position(prompt: str, *, seed: int) -> float:
    """A hash of prompt and seed to [0, 1), uniform over prompts.

    Prompts of one `prompt_key` have the same one.
    """
    digest = hashlib.sha256(f"{seed}\n{prompt_key(prompt)}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def three_way_split(
    rankings: Iterable[Ranking], *, validation: float, test: float, seed: int
) -> Split:
    """Train, validation and test by prompt; the fractions are of prompts, on average.

    The test set does not depend on the size of the validation set.
    """
    if not (0 <= validation <= 1 and 0 <= test <= 1 and validation + test <= 1):
        raise ValueError(f"fractions within [0, 1] together: got {validation} and {test}")
    split = Split([], [], [])
    for ranking in rankings:
        position = prompt_position(ranking.prompt, seed=seed)
        if position < test:
            split.test.append(ranking)
        elif position < test + validation:
            split.validation.append(ranking)
        else:
            split.train.append(ranking)
    return split
