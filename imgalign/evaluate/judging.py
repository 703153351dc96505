"""Blind judging of pairs of images or texts: a measure cannot tell which side a sample is from.

A random bit per pair decides whether the base's sample is scored in the first pass or in the
second. Both passes have the same prompts in the same batches, so equal samples get equal scores
however a network rounds. Measures get what is saved: 8-bit pixels, or texts.

Shapes: n = pairs, b = samples of a batch, d = features.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from imgalign.errors import NumericsError
from imgalign.evaluate.comparison import Pair, Sides
from imgalign.images import as_tensor
from imgalign.language.token_reward import unread
from imgalign.policy import FeatureModel, RewardModel

log = logging.getLogger(__name__)

BATCH = 32


@runtime_checkable
class OracleReward(Protocol):
    """The true objective, as far as it can be measured; training never sees it."""

    def __call__(self, *, prompts: Sequence[str], samples: Any) -> Float[Tensor, " b"]:
        """One finite number per sample, images or texts; higher is better, on any scale."""
        ...


@runtime_checkable
class FaithfulCheck(Protocol):
    """Whether a sample does what its prompt says."""

    def __call__(self, *, prompts: Sequence[str], samples: Any) -> Bool[Tensor, " b"]:
        """True where the sample has everything in the prompt, and nothing else."""
        ...


@runtime_checkable
class ImageFeatures(Protocol):
    """A space in which images that look alike are near each other."""

    def __call__(self, samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector per image; only its direction counts."""
        ...


Measure = Callable[..., Tensor]
"""Called as `measure(prompts=..., samples=...)`; gives one number per sample."""

Stack: TypeAlias = Callable[[Sequence[Any]], Any]
"""Makes of some samples what measures take: numbers of images, or texts."""

Slices = Callable[[str], str]
"""The name of a prompt's kind. Example: "two in a relation" of "a cat on a house"."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measures:
    """Measures of both sides of a comparison; those that are None are left out."""

    oracle: OracleReward | None = None
    """Decides the win rate; training must not have seen it."""
    oracle_meaning: str = "the oracle reward"
    """What it is, in words."""
    oracle_tie: float = 0.0
    """Samples whose oracle rewards differ by at most this much are a tie."""
    proxy: RewardModel | None = None
    """The reward that training maximised."""
    faithful: FaithfulCheck | None = None
    features: ImageFeatures | None = None
    """The space of the diversity of images; pixels if None."""
    slices: Slices | None = None
    """Kinds of prompts that are also reported separately."""


def to_samples(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """Images of one size as numbers in [0, 1]."""
    return torch.stack([as_tensor(image) for image in images])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """Both sides' samples of the same prompts and seeds, scored in random order."""

    prompts: Sequence[str]
    base: Sequence[Any]
    aligned: Sequence[Any]
    seed: int
    """Of the random bits."""
    stack: Stack = to_samples
    """Samples as measures take them."""

    def pairs(
        self,
        seeds: Sequence[int],
        measures: Measures,
    ) -> tuple[Pair, ...]:
        """Every pair with its measures; `seeds` are those of the samples."""
        by_oracle = self.scores_if(measures.oracle, name="oracle reward")
        by_proxy = self.proxy_scores(measures.proxy)
        faithful = self.scores_if(measures.faithful, name="faithful")
        return tuple(
            Pair(
                prompt=prompt,
                seed=seeds[number],
                slice=None if measures.slices is None else measures.slices(prompt),
                oracle=by_oracle[number],
                proxy=by_proxy[number],
                faithful=as_bools(faithful[number]),
            )
            for number, prompt in enumerate(self.prompts)
        )

    def proxy_scores(self, reward: RewardModel | None) -> Sequence[Sides | None]:
        """As `scores`; None for a pair of which it cannot read both, which a warning says."""
        found: list[Sides | None] = [None] * len(self.prompts)
        if reward is None:
            return found
        sides = (unread(reward, self.prompts, side) for side in (self.base, self.aligned))
        reasons = [one or other for one, other in zip(*sides, strict=True)]
        rows = [row for row, reason in enumerate(reasons) if not reason]
        if len(rows) < len(reasons):
            lost, first = len(reasons) - len(rows), next(filter(None, reasons))
            log.warning("pairs without a reward: %d of %d (%s)", lost, len(reasons), first)
        own = replace(
            self,
            prompts=[self.prompts[row] for row in rows],
            base=[self.base[row] for row in rows],
            aligned=[self.aligned[row] for row in rows],
        )
        for row, scores in zip(rows, own.scores(reward.score, name="reward"), strict=True):
            found[row] = scores
        return found

    def scores_if(self, measure: Measure | None, *, name: str) -> Sequence[Sides | None]:
        """As `scores`; None for every pair without a measure."""
        return [None] * len(self.prompts) if measure is None else self.scores(measure, name=name)

    def scores(self, measure: Measure, *, name: str) -> list[Sides]:
        """`measure` of the base's sample and of the aligned one, for each pair.

        NumericsError names the first sample without a finite number.
        """
        aligned_first = np.random.default_rng(self.seed).integers(2, size=len(self.prompts))
        pairs = list(zip(self.base, self.aligned, strict=True))
        shown_first = [pair[coin] for pair, coin in zip(pairs, aligned_first, strict=True)]
        shown_last = [pair[1 - coin] for pair, coin in zip(pairs, aligned_first, strict=True)]
        first, last = (
            measured(measure, self.prompts, shown, name=name, stack=self.stack)
            for shown in (shown_first, shown_last)
        )
        return [
            (late, early) if coin else (early, late)
            for early, late, coin in zip(first, last, aligned_first, strict=True)
        ]


@torch.no_grad()
def measured(
    measure: Measure, prompts: Sequence[str], samples: Sequence[Any], *, name: str, stack: Stack
) -> list[float]:
    """One finite number per sample."""
    values: list[float] = []
    for start in range(0, len(samples), BATCH):
        part = slice(start, start + BATCH)
        numbers = measure(prompts=prompts[part], samples=stack(samples[part]))
        if numbers.shape != (len(samples[part]),):
            raise NumericsError(
                f"{name}: expected one number for each of {len(samples[part])} samples, "
                f"got shape {list(numbers.shape)}"
            )
        values += numbers.double().tolist()
    for prompt, value in zip(prompts, values, strict=True):
        if not math.isfinite(value):
            raise NumericsError(f"{name}: expected a finite number, got {value} for {prompt!r}")
    return values


def check_oracle(
    oracle: OracleReward | None, prompts: Sequence[str], *, blank: Any, stack: Stack
) -> None:
    """Score a blank sample for each prompt, so that one it cannot judge is an error at once."""
    if oracle is not None:
        asked = list(dict.fromkeys(prompts))
        measured(oracle, asked, [blank] * len(asked), name="oracle reward", stack=stack)


def mean_distances(
    samples: Sequence[Any], prompts: Sequence[str], distance: Callable[[Sequence[Any]], float]
) -> dict[str, float]:
    """`distance` of the samples of each prompt that has two: the mean between two of them."""
    groups: dict[str, list[Any]] = {}
    for sample, prompt in zip(samples, prompts, strict=True):
        groups.setdefault(prompt, []).append(sample)
    return {prompt: distance(own) for prompt, own in groups.items() if len(own) > 1}


@torch.no_grad()
def image_distance(images: Sequence[Image.Image], features: ImageFeatures | None) -> float:
    """Mean distance between two images.

    Cosine distance of features (0 alike, 1 unrelated), or without them the root mean square
    difference of pixels in [0, 1].
    """
    samples = to_samples(images)
    return pixel_distance(samples) if features is None else cosine_distance(features(samples))


def cosine_distance(features: Float[Tensor, "b d"]) -> float:
    """Mean of 1 - cosine over pairs."""
    directions = torch.nn.functional.normalize(features.double(), dim=1)
    cosines = directions @ directions.T
    above = torch.triu_indices(len(features), len(features), offset=1)
    return float((1 - cosines[above[0], above[1]]).mean())


def pixel_distance(samples: Float[Tensor, "b 3 h w"]) -> float:
    """Mean over pairs of the root mean square difference."""
    flat = samples.flatten(1).double()
    return float(torch.nn.functional.pdist(flat).mean() / flat.shape[1] ** 0.5)


def as_bools(sides: Sides | None) -> tuple[bool, bool] | None:
    """Numbers 0 and 1 as booleans."""
    return None if sides is None else (bool(sides[0]), bool(sides[1]))


def features_of(reward: RewardModel | None) -> ImageFeatures | None:
    """The reward model's features for measuring diversity, if it has any."""
    return reward.features if isinstance(reward, FeatureModel) else None
