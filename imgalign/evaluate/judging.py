"""Blind judging of image pairs: a measure cannot tell which side an image is from.

A random bit per pair decides whether the base's image is scored in the first pass or in the second.
Both passes have the same prompts in the same batches, so equal images get equal scores however a
network rounds. Measures get the 8-bit pixels that are saved.

Shapes: n = pairs, b = images of a batch, d = features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from imgalign.errors import NumericsError
from imgalign.evaluate.comparison import Pair, Sides
from imgalign.images import as_tensor
from imgalign.policy import FeatureModel, RewardModel

BATCH = 32


@runtime_checkable
class OracleReward(Protocol):
    """The true objective, as far as it can be measured; training never sees it."""

    def __call__(
        self, *, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """One finite number per image, higher is better, on any scale."""
        ...


@runtime_checkable
class FaithfulCheck(Protocol):
    """Whether an image shows what its prompt says."""

    def __call__(
        self, *, prompts: Sequence[str], samples: Float[Tensor, "b 3 h w"]
    ) -> Bool[Tensor, " b"]:
        """True where the image shows everything in the prompt, and nothing else."""
        ...


@runtime_checkable
class ImageFeatures(Protocol):
    """A space in which images that look alike are near each other."""

    def __call__(self, samples: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """One vector per image; only its direction counts."""
        ...


Measure = Callable[..., Tensor]
"""Called as `measure(prompts=..., samples=...)`; gives one number per image."""

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
    """Images whose oracle rewards differ by at most this much are a tie."""
    proxy: RewardModel | None = None
    """The reward that training maximised."""
    faithful: FaithfulCheck | None = None
    features: ImageFeatures | None = None
    """The space of the diversity measure; pixels if None."""
    slices: Slices | None = None
    """Kinds of prompts that are also reported separately."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judge:
    """Both sides' images of the same prompts and seeds, scored in random order."""

    prompts: Sequence[str]
    base: Sequence[Image.Image]
    aligned: Sequence[Image.Image]
    seed: int
    """Of the random bits."""

    def pairs(
        self,
        seeds: Sequence[int],
        measures: Measures,
    ) -> tuple[Pair, ...]:
        """Every pair with its measures; `seeds` are those of the images."""
        proxy = None if measures.proxy is None else measures.proxy.score
        by_oracle = self.scores_if(measures.oracle, name="oracle reward")
        by_proxy = self.scores_if(proxy, name="reward")
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

    def scores_if(self, measure: Measure | None, *, name: str) -> Sequence[Sides | None]:
        """As `scores`; None for every pair without a measure."""
        return [None] * len(self.prompts) if measure is None else self.scores(measure, name=name)

    def scores(self, measure: Measure, *, name: str) -> list[Sides]:
        """`measure` of the base's image and of the aligned one, for each pair.

        NumericsError names the first image without a finite number.
        """
        aligned_first = np.random.default_rng(self.seed).integers(2, size=len(self.prompts))
        pairs = list(zip(self.base, self.aligned, strict=True))
        shown_first = [pair[coin] for pair, coin in zip(pairs, aligned_first, strict=True)]
        shown_last = [pair[1 - coin] for pair, coin in zip(pairs, aligned_first, strict=True)]
        first = measured(measure, self.prompts, shown_first, name=name)
        last = measured(measure, self.prompts, shown_last, name=name)
        return [
            (late, early) if coin else (early, late)
            for early, late, coin in zip(first, last, aligned_first, strict=True)
        ]


@torch.no_grad()
def measured(
    measure: Measure, prompts: Sequence[str], images: Sequence[Image.Image], *, name: str
) -> list[float]:
    """One finite number per image."""
    values: list[float] = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        numbers = measure(prompts=prompts[part], samples=to_samples(images[part]))
        if numbers.shape != (len(images[part]),):
            raise NumericsError(
                f"{name}: expected one number for each of {len(images[part])} images, "
                f"got shape {list(numbers.shape)}"
            )
        values += numbers.double().tolist()
    for prompt, value in zip(prompts, values, strict=True):
        if not math.isfinite(value):
            raise NumericsError(f"{name}: expected a finite number, got {value} for {prompt!r}")
    return values


def check_oracle(oracle: OracleReward | None, prompts: Sequence[str]) -> None:
    """Score a blank image for each prompt, so that one it cannot judge is an error at once."""
    if oracle is not None:
        asked, empty = list(dict.fromkeys(prompts)), Image.new("RGB", (64, 64), "grey")
        measured(oracle, asked, [empty] * len(asked), name="oracle reward")


@torch.no_grad()
def mean_distances(
    images: Sequence[Image.Image], prompts: Sequence[str], features: ImageFeatures | None
) -> dict[str, float]:
    """Mean distance between two images of a prompt, for each prompt that has two.

    Cosine distance of features (0 alike, 1 unrelated), or without them the root mean square
    difference of pixels in [0, 1].
    """
    distances = {}
    for prompt in dict.fromkeys(prompts):
        own = [image for image, name in zip(images, prompts, strict=True) if name == prompt]
        if len(own) > 1:
            samples = to_samples(own)
            distances[prompt] = (
                pixel_distance(samples) if features is None else cosine_distance(features(samples))
            )
    return distances


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


def to_samples(images: Sequence[Image.Image]) -> Float[Tensor, "b 3 h w"]:
    """Images of one size as numbers in [0, 1]."""
    return torch.stack([as_tensor(image) for image in images])


def as_bools(sides: Sides | None) -> tuple[bool, bool] | None:
    """Numbers 0 and 1 as booleans."""
    return None if sides is None else (bool(sides[0]), bool(sides[1]))


def features_of(reward: RewardModel | None) -> ImageFeatures | None:
    """The reward model's features for measuring diversity, if it has any."""
    return reward.features if isinstance(reward, FeatureModel) else None
