"""Simulated people who rank storybook pictures: faithful first, then to their group's taste.

What an annotator wants is known exactly, so how close a reward model or a policy came can be
measured. Utility is FAITHFULNESS_WEIGHT x faithfulness + taste. Taste lies in [0, 1] and a single
flaw costs more than 1, so no beauty makes up for a flaw. What people do is noisier than what they
want: random utility with Gumbel noise, which ranks as Plackett and Luce do (Luce 1959, Plackett
1975; Yellott 1977), a liking for what is shown first, lapses, ties, "all bad" and skips.

Tastes depend on light, size and line, which prompts leave open; so an image model can move towards
any of them without losing its prompts, and the groups pull in different directions.

Shapes: b = pictures, K = candidates of one item. Utilities have no unit; noise is on their scale.
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
"""Times what a flaw costs at least (1 - verifier.FLAWED = 0.2), this is more than all of taste."""

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
"""Groups, and what each gives for one standard deviation of a feature.

Cosy: warm light, large objects, gentle contrast. Dreamy: dim cool light, small soft objects under
much sky. Graphic: saturated and crisp, hard contrast, room around the objects.
"""
GROUPS = tuple(TASTES)
STEEPNESS = 1.6
"""Of the logistic function that squashes taste: scores of renders then fill [0, 1] evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """What one picture is worth to a group; both parts are in [0, 1]."""

    faithfulness: float
    taste: float

    @property
    def utility(self) -> float:
        """At most FAITHFULNESS_WEIGHT + 1; taste never outweighs a flaw."""
        return FAITHFULNESS_WEIGHT * self.faithfulness + self.taste


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an annotator says about one item; the tie groups hold numbers of candidates."""

    verdict: Verdict
    ranking: TieGroups | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How far from their wishes somebody ranks. The defaults are of a careful person."""

    temperature: float = 0.15
    """Scale of the Gumbel noise: of two pictures, the one that is worth this much more is
    preferred with probability 1/(1 + 1/e) = 73 %."""
    position_bias: float = 0.04
    """Added to whatever is shown first; falls linearly to 0 for what is shown last."""
    lapse: float = 0.03
    """Probability of a ranking without looking."""
    tie_threshold: float = 0.03
    """Neighbours in the ranking that seem at most this far apart are tied."""
    floor: float = 0.3
    """Below this faithfulness a picture is bad."""
    all_bad: float = 0.8
    """Probability of saying so when all pictures of an item are bad."""
    skip: float = 0.005
    """Probability of passing over an item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator:
    """One simulated person. The same item always gets the same answer from them."""

    name: str
    group: str
    seed: int
    habits: Habits = Habits()

    def __post_init__(self) -> None:
        _taste_of(self.group)

    def rank(
        self, impressions: Sequence[Impression], *, order: Sequence[int], item_id: str
    ) -> Judgement:
        """Rank candidates 0 .. K-1, where `order` says which stood at each position.

        Depends on the seed, the item and what is shown, and on nothing else. The noise belongs to
        the candidate: another order changes the answer only through the position bias.
        """
        num = len(impressions)
        if num == 0:
            raise InputError(f"{item_id}: expected candidates to rank, got none")
        if sorted(order) != list(range(num)):
            raise InputError(
                f"{item_id}: expected an order of the {num} candidates, got {tuple(order)}"
            )
        rng = _rng(self.seed, item_id)
        # Everything is drawn whether used or not, so that one habit does not shift another's luck.
        skips, lapses, gives_up = rng.random(3)
        gumbel = rng.gumbel(size=num)
        blind = rng.permutation(num)
        habits = self.habits
        if skips < habits.skip:
            return Judgement(verdict="skipped", reason="cannot decide")
        bad = all(impression.faithfulness < habits.floor for impression in impressions)
        if bad and gives_up < habits.all_bad:
            return Judgement(verdict="all_bad")
        if lapses < habits.lapse:
            return Judgement(verdict="ranked", ranking=tuple((int(i),) for i in blind))
        seems = [
            impression.utility + habits.temperature * noise
            for impression, noise in zip(impressions, gumbel.tolist(), strict=True)
        ]
        for position, candidate in enumerate(order):
            seems[candidate] += habits.position_bias * (1 - position / max(1, num - 1))
        return Judgement(
            verdict="ranked", ranking=tie_groups(seems, tolerance=habits.tie_threshold)
        )


def panel(num: int, *, seed: int, habits: Habits = Habits()) -> tuple[Annotator, ...]:
    """`num` annotators, the groups taking turns; some are steadier than others.

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


def preference_probability(
    better_by: float, habits: Habits, *, shown_first: bool = True
) -> tuple[float, float, float]:
    """Probabilities that the first of two is preferred, that they tie, that the other one is.

    `better_by` is the first's utility less the other's. In closed form: the difference of two
    Gumbel variables is logistic. Given that a ranking comes at all.
    """
    bias = habits.position_bias if shown_first else -habits.position_bias
    wins = _logistic((better_by + bias - habits.tie_threshold) / habits.temperature)
    loses = _logistic((-better_by - bias - habits.tie_threshold) / habits.temperature)
    looks, blind = 1 - habits.lapse, habits.lapse / 2
    return looks * wins + blind, looks * (1 - wins - loses), looks * loses + blind


def pixel_features(images: Float[Tensor, "b 3 h w"]) -> dict[str, Float[Tensor, " b"]]:
    """The features of RENDERS that need no reading; smooth functions of the pixels.

    Pictures are in [0, 1], and resized to 64x64. Crispness is the mean gradient weighted with
    itself, which says how hard edges are and not how many there are.
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
    """How large the objects are: the square root of their boxes' area, 1 for the whole picture."""
    return math.sqrt(sum(item.size**2 * WIDTHS[item.kind] for item in reading.items))


def impressions(
    prompts: Sequence[str],
    images: Float[Tensor, "b 3 h w"],
    *,
    group: str,
    verifier: Verifier | None = None,
) -> list[Impression]:
    """What each picture is worth to `group` as an answer to its prompt.

    Pictures that cannot be read please nobody. The shipped verifier reads unless another is given.
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
    """As `impressions`, for pictures that have been read already: one reading serves all groups."""
    taste = _taste_of(group)
    features = {name: values.tolist() for name, values in pixel_features(images).items()}
    features["extent"] = [extent(reading) for reading in readings]
    scores = [
        sum(
            weight * (features[name][i] - RENDERS[name][0]) / RENDERS[name][1]
            for name, weight in taste.items()
        )
        for i in range(len(readings))
    ]
    return [
        Impression(
            faithfulness=faithfulness(prompt, reading),
            taste=0.0 if reading.unsure else _logistic(STEEPNESS * score),
        )
        for prompt, reading, score in zip(prompts, readings, scores, strict=True)
    ]


def gold_utility(
    prompts: Sequence[str],
    images: Float[Tensor, "b 3 h w"],
    *,
    group: str,
    verifier: Verifier | None = None,
) -> Float[Tensor, " b"]:
    """What `group` truly thinks of each picture, without noise."""
    worth = impressions(prompts, images, group=group, verifier=verifier)
    return torch.tensor([impression.utility for impression in worth])


def _rng(seed: int, item_id: str) -> Generator:
    # hashlib, not hash(): the same answers in every process.
    digest = hashlib.sha256(item_id.encode()).digest()
    return default_rng((seed, int.from_bytes(digest[:8], "big")))


def _taste_of(group: str) -> Mapping[str, float]:
    if group not in TASTES:
        raise InputError(f"annotators: expected a group of {', '.join(GROUPS)}, got {group!r}")
    return TASTES[group]


def _logistic(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
