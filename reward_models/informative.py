"""How much a ranking of some images is expected to tell a fitted reward, in nats.

The linear part of the head has a normal prior, and what was ranked makes it surer: the posterior is
taken as normal around the fitted weights (Laplace; MacKay 1992, "Information-based objective
functions for active data selection"). The information that a ranking is expected to give is the
half log-determinant by which it shrinks that posterior (Chaloner & Verdinelli 1995). It is large
where the reward cannot tell which image is better because it has seen few that differ so; where it
cannot tell because the images are alike, it is small, which the entropy of a prediction is not.

A ranking counts as comparisons of all its pairs, each with the weight that gives it the Fisher
information of Plackett-Luce between equal images. Left out: the cosine's weight, the network, and
that two items may tell the same.

Shapes: b = items, k = their images, r = pairs of these, n = inputs of the linear part.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.environment import choose_device
from imgalign.errors import InputError, StoreError
from imgalign.images import read_tensor
from imgalign.preferences.fit_report import read_fit_report
from imgalign.preferences.queue_order import (
    OpenItem,
    Valued,
    informative_projects,
    open_items_of,
    set_priorities,
    valued_items,
)
from imgalign.preferences.records import Ranking, compares
from imgalign.preferences.splits import prompt_position
from imgalign.preferences.store import Store
from reward_models.clip import ClipReward
from reward_models.contract import HeldOut
from reward_models.features import ENCODE_BATCH, ImageLoader
from reward_models.head import PreferenceHead

Candidates = tuple[str, tuple[str, ...]]
"""A prompt, and the ids of images."""

log = logging.getLogger(__name__)


def prioritise(
    store: Store,
    folder: Path,
    ranked: Sequence[Ranking],
    *,
    device: str,
    project: str | None,
) -> dict[str, Valued]:
    """Give the open items of projects that rank the most informative first their priorities.

    Of one project, or of all, by the reward in `folder` and what it was fitted to. Items of
    held-out prompts, and those with an image that cannot be read, get none. Returns how many of
    each project have one then; nothing where the store cannot be written.
    """
    every = informative_projects(store.database)
    names = [name for name in every if project in (None, name)]
    if not names or store.database.read_only:
        return {}
    reward = ClipReward.from_pretrained(folder).to(choose_device(device))
    report = read_fit_report(folder)
    stds = [each.prior_std for each in report.seeds if each.seed == report.chosen_seed]
    assert stds[0] is not None, "a reward of images has a prior"
    learned = [(each.prompt, each.sample_ids) for each in ranked if compares(each)]

    def images(image_id: str) -> Tensor:
        return read_tensor(store.image_path(image_id))

    found = {}
    for name in names:
        asked = open_items_of(store.database, name, "images")
        log.info("project %r: what each of %d open sets tells the reward", name, len(asked))
        nats = nats_of(reward, learned, asked, images, prior_std=stds[0])
        set_priorities(store.database, name, nats)
        found[name] = valued_items(store.database, name)
    return found


def nats_of(
    reward: ClipReward,
    learned: Sequence[Candidates],
    asked: Sequence[OpenItem],
    images: ImageLoader,
    *,
    prior_std: float,
) -> dict[str, float]:
    """What each item tells, by its id, after a fit to rankings of `learned`."""
    assert reward.held_out is not None, "a fitted reward says what was held out"
    used = [each for each in learned if not is_held_out(each[0], reward.held_out)]
    free = [each for each in asked if not is_held_out(each.prompt, reward.held_out)]
    several = [each for each in free if len(each.sample_ids) > 1]
    known = _Inputs(reward, images)
    known.encode([image for _, own in used for image in own])
    known.encode([image for each in several for image in each.sample_ids])
    readable = [each for each in several if known.has(each.sample_ids)]
    gains = information(
        (known.comparisons(*each) for each in used if known.has(each[1])),
        (known.comparisons(each.prompt, each.sample_ids) for each in readable),
        prior=known.head.prior_precision(std=prior_std),
    )
    return {each.item_id: gain for each, gain in zip(readable, gains, strict=True)}


def is_held_out(prompt: str, held_out: HeldOut) -> bool:
    """Whether the fit stopped by, or was tested on, rankings of this prompt."""
    return prompt_position(prompt, seed=held_out.seed) < held_out.test + held_out.validation


def information(
    learned: Iterable[Float[Tensor, "_r n"]],
    asked: Iterable[Float[Tensor, "_q n"]],
    *,
    prior: Float[Tensor, " n"],
) -> list[float]:
    """Nats that each of `asked` is expected to tell after all of `learned`.

    An item is the rows of its `comparisons`, of which one is held at a time; `prior` is the
    precision of each weight. What was learned only ever lowers what is left to tell.
    """
    precision = torch.diag(prior.double())
    for rows in learned:
        precision += rows.double().T @ rows.double()
    factor = torch.linalg.cholesky(precision)
    gains = []
    for rows in asked:
        left = torch.linalg.solve_triangular(factor, rows.double().T, upper=False)
        shrunk = torch.eye(len(rows), dtype=torch.double, device=rows.device) + left.T @ left
        gains.append(float(torch.logdet(shrunk)) / 2)
    return gains


def comparisons(
    inputs: Float[Tensor, "k n"], utilities: Float[Tensor, " k"]
) -> Float[Tensor, "r n"]:
    """Rows whose products with themselves sum to the Fisher information of a ranking."""
    count = len(inputs)
    first, second = torch.tensor(list(combinations(range(count), 2)), device=inputs.device).T
    better = torch.sigmoid(utilities[first] - utilities[second])
    weight = pair_weight(count) * better * (1 - better)
    return weight.sqrt()[:, None] * (inputs[first] - inputs[second])


def pair_weight(count: int) -> float:
    """How much a pair of a ranking of so many tells, relative to the comparison of two alone.

    Of Plackett-Luce between equal candidates, whose information is that of its choices among s =
    count, ..., 2 of them: the sum of the covariances of their inputs.
    """
    harmonic = sum(1 / each for each in range(1, count + 1))
    return 4 * (count - harmonic) / (count * (count - 1))


class _Inputs:
    """Inputs of the linear part, and utilities, of images for prompts; each is encoded once."""

    def __init__(self, reward: ClipReward, images: ImageLoader) -> None:
        self._reward, self._images = reward, images
        self.head = cast(PreferenceHead, reward.heads[0])
        self._image: dict[str, Tensor] = {}
        self._text: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, image_ids: Sequence[str]) -> None:
        """Encode images that are not yet; those that cannot be read are left out."""
        towers = self._reward.towers
        new = [each for each in dict.fromkeys(image_ids) if each not in self._image]
        for start in range(0, len(new), ENCODE_BATCH):
            prepared: dict[str, Tensor] = {}
            for each in new[start : start + ENCODE_BATCH]:
                with suppress(InputError, StoreError):
                    prepared[each] = towers.prepare(self._images(each)[None])
            if prepared:
                batch = torch.cat(list(prepared.values()))
                features = towers.image_features(batch, style=self._reward.head_config.style)
                self._image |= dict(zip(prepared, features, strict=True))

    def has(self, image_ids: Sequence[str]) -> bool:
        """Whether all of these are encoded."""
        return self._image.keys() >= set(image_ids)

    @torch.no_grad()
    def comparisons(self, prompt: str, image_ids: Sequence[str]) -> Tensor:
        """Of an item whose images are encoded."""
        towers = self._reward.towers
        if prompt not in self._text:
            self._text[prompt] = towers.encode_tokens(towers.tokenize([prompt]))[0]
        image = torch.stack([self._image[each] for each in image_ids])
        text = self._text[prompt].expand(len(image), -1)
        return comparisons(self.head.linear_inputs(image, text), self.head(image, text))
