"""Simulated annotators with a known utility: prompt faithfulness first, then their group's taste.

The utility is an oracle reward, so a reward model or a policy can be measured against it. It is
FAITHFULNESS_WEIGHT x faithfulness + taste; taste lies in [0, 1] and a single flaw costs more than
1, so taste never outweighs a flaw. Annotators rank images and texts alike; the impressions of texts
are in text_oracle.py. Rankings are noisier than the utility: Gumbel noise, which gives
Plackett-Luce rankings (Luce 1959, Plackett 1975; Yellott 1977), position bias, lapses, ties,
"all bad" and skips.

Tastes depend on light, size and line, which prompts leave open, so an image model can move towards
any of them and still follow its prompts. The groups pull in different directions.

Shapes: b = images, K = candidates of one item. Utilities have no unit; noise is on their scale.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from numpy.random import Generator, default_rng
from torch import Tensor

from imgalign.errors import InputError
from imgalign.preferences.records import TieGroups, Verdict, tie_groups
from imgalign.storybook.scenes import WIDTHS
from imgalign.storybook.verifier import (
    Reading,
    Verifier,
    at_reading_size,
    default_verifier,
    faithfulness,
)

FAITHFULNESS_WEIGHT = 6.0
"""Times the least cost of a flaw (1 - verifier.FLAWED = 0.2), this exceeds the range of taste."""

RENDERS = {
    "warmth": (0.044, 0.114),
    "brightness": (0.727, 0.176),
    "contrast": (0.150, 0.039),
    "saturation": (0.177, 0.050),
    "crispness": (0.357, 0.066),
    "extent": (0.493, 0.079),
}
"""Mean and standard deviation of each feature over renders of the training mix."""

TASTES: Mapping[str, Mapping[str, float]] = {
    "cosy": {"warmth": 0.8, "extent": 0.5, "contrast": -0.5},
    "dreamy": {"warmth": -0.45, "brightness": -0.4, "extent": -0.5, "crispness": -0.3},
    "graphic": {
        "saturation": 0.7,
        "crispness": 0.6,
        "contrast": 0.4,
        "extent": -0.6,
        "warmth": -0.2,
    },
}
"""Weights of each group's taste, per standard deviation of a feature.

Cosy: warm light, large objects, gentle contrast. Dreamy: dim cool light, small soft objects under
much sky. Graphic: saturated and crisp, hard contrast, room around the objects.
"""
GROUPS = tuple(TASTES)
STEEPNESS = 1.6
"""Of the logistic function that maps taste to [0, 1]; renders then cover the range evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """The two parts of an image's or a text's utility for a group; both are in [0, 1]."""

    faithfulness: float
    taste: float

    @property
    def utility(self) -> float:
        """At most FAITHFULNESS_WEIGHT + 1; taste never outweighs a flaw."""
        return FAITHFULNESS_WEIGHT * self.faithfulness + self.taste


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """An annotator's answer to one item; the tie groups hold numbers of candidates."""

    verdict: Verdict
    ranking: TieGroups | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """Noise and bias of an annotator's rankings. The defaults are of a careful annotator."""

    temperature: float = 0.15
    """Scale of the Gumbel noise: a candidate whose utility is higher by this much is preferred with
    probability 1/(1 + 1/e) = 73 %."""
    position_bias: float = 0.04
    """Added to the utility of the candidate shown first; falls linearly to 0 for the last."""
    lapse: float = 0.03
    """Probability of a random ranking."""
    tie_threshold: float = 0.03
    """Neighbours in the ranking whose noisy utilities differ by at most this are tied."""
    floor: float = 0.3
    """A candidate of lower faithfulness is bad."""
    all_bad: float = 0.8
    """Probability of the verdict "all bad" when all candidates of an item are bad."""
    skip: float = 0.005
    """Probability of skipping an item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """One simulated annotator, whose answer to an item is always the same."""

    name: str
    group: str
    seed: int
    habits: Habits = Habits()

    def __post_init__(self) -> None:
        check_group(self.group)

    def rank(
        self, impressions: Sequence[Impression], *, order: Sequence[int], item_id: str
    ) -> Judgement:
        """Rank candidates 0 .. K-1; `order` is the candidate at each position.

        A function of the seed, the item and its candidates. The noise belongs to the candidate:
        another order changes the answer only through the position bias.
        """
        num = len(impressions)
        if num == 0:
            raise InputError(f"{item_id}: expected candidates to rank, got none")
        if sorted(order) != list(range(num)):
            raise InputError(
                f"{item_id}: expected an order of the {num} candidates, got {tuple(order)}"
            )
        rng = _rng(self.seed, item_id)
        # Drawn whether used or not, so that habits do not change each other's random numbers.
        skips, lapses, gives_up = rng.random(3)
        gumbel = rng.gumbel(size=num)
        random = rng.permutation(num)
        habits = self.habits
        if skips < habits.skip:
            return Judgement(verdict="skipped", reason="cannot decide")
        bad = all(impression.faithfulness < habits.floor for impression in impressions)
        if bad and gives_up < habits.all_bad:
            return Judgement(verdict="all_bad")
        if lapses < habits.lapse:
            return Judgement(verdict="ranked", ranking=tuple((int(i),) for i in random))
        noisy = [
            impression.utility + habits.temperature * noise
            for impression, noise in zip(impressions, gumbel.tolist(), strict=True)
        ]
        for position, candidate in enumerate(order):
            noisy[candidate] += habits.position_bias * (1 - position / max(1, num - 1))
        return Judgement(
            verdict="ranked", ranking=tie_groups(noisy, tolerance=habits.tie_threshold)
        )


def panel(num: int, *, seed: int, habits: Habits = Habits()) -> tuple[Annotator, ...]:
    """`num` annotators of alternating groups, with individual noise.

    Names are like "cosy-1". Temperature and position bias of each vary by about a quarter.
    """
    rng = default_rng(seed)
    return tuple(
        Annotator(
            name=f"{GROUPS[i % len(GROUPS)]}-{i // len(GROUPS) + 1}",
            group=GROUPS[i % len(GROUPS)],
            seed=int(rng.integers(2**31)),
            habits=replace(
                habits,
                temperature=habits.temperature * math.exp(0.25 * rng.standard_normal()),
                position_bias=habits.position_bias * math.exp(0.25 * rng.standard_normal()),
            ),
        )
        for i in range(num)
    )


def pixel_features(images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, " b"]]:
    """The features of RENDERS that are smooth functions of the pixels, all but the extent.

    Images are in [0, 1], and resized to 64x64. Crispness is the mean gradient weighted with
    itself, which measures how hard edges are and not how many there are.
    """
    images = at_reading_size(images)
    luminance = (images * images.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    across = luminance.diff(dim=2)[:, :-1].abs()
    down = luminance.diff(dim=1)[:, :, :-1].abs()
    slope = (across + down).flatten(1)
    return {
        "warmth": (images[:, 0] - images[:, 2]).mean((1, 2)),
        "brightness": luminance.mean((1, 2)),
        "contrast": luminance.std((1, 2)),
        "saturation": (images.amax(1) - images.amin(1)).mean((1, 2)),
        "crispness": slope.square().mean(1) / slope.mean(1).clamp_min(1e-3),
    }


def extent(reading: Reading) -> float:
    """Size of the objects: square root of the area of their boxes, 1 for the whole image."""
    return math.sqrt(sum(item.size**2 * WIDTHS[item.kind] for item in reading.items))


def impressions(
    prompts: Sequence[str],
    images: Float[Tensor, "b 3 h w"],
    *,
    group: str,
    verifier: Verifier | None = None,
) -> list[Impression]:
    """Faithfulness and taste of each image for its prompt, as `group` sees it.

    Both are 0 for an unreadable image. Uses the shipped verifier unless another is given.
    """
    if len(prompts) != len(images):
        raise InputError(f"annotators: {len(prompts)} prompts for {len(images)} images")
    readings = (verifier or default_verifier()).read(images)
    return read_impressions(prompts, images, readings, group=group)


def read_impressions(
    prompts: Sequence[str],
    images: Float[Tensor, "b 3 h w"],
    readings: Sequence[Reading],
    *,
    group: str,
) -> list[Impression]:
    """`impressions` from readings at hand; one reading serves all groups."""
    check_group(group)
    features = {name: values.tolist() for name, values in pixel_features(images).items()}
    features["extent"] = [extent(reading) for reading in readings]
    looks = [
        {name: (features[name][i] - mean) / spread for name, (mean, spread) in RENDERS.items()}
        for i in range(len(readings))
    ]
    return [
        Impression(
            faithfulness=faithfulness(prompt, reading),
            taste=0.0 if reading.unsure else taste_of(look, group=group),
        )
        for prompt, reading, look in zip(prompts, readings, looks, strict=True)
    ]


def taste_of(look: Mapping[str, float], *, group: str, steepness: float = STEEPNESS) -> float:
    """How a group likes a look, in [0, 1]; 0.5 for one that is average in all that it cares about.

    `look` has features of RENDERS in standard deviations from their means; none is 0.
    """
    score = sum(weight * look.get(name, 0.0) for name, weight in TASTES[group].items())
    return _logistic(steepness * score)


def oracle_utility(
    prompts: Sequence[str],
    images: Float[Tensor, "b 3 h w"],
    *,
    group: str,
    verifier: Verifier | None = None,
) -> Float[Tensor, " b"]:
    """Oracle utility of each image for `group`, without noise."""
    worth = impressions(prompts, images, group=group, verifier=verifier)
    return torch.tensor([impression.utility for impression in worth])


def _rng(seed: int, item_id: str) -> Generator:
    # hashlib, not hash(): the same answers in every process.
    digest = hashlib.sha256(item_id.encode()).digest()
    return default_rng((seed, int.from_bytes(digest[:8], "big")))


def check_group(group: str) -> None:
    """Raise InputError for an unknown group."""
    if group not in TASTES:
        raise InputError(f"annotators: expected a group of {', '.join(GROUPS)}, got {group!r}")


def _logistic(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
