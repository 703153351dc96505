"""Rankings as tensors, and the features of their images and prompts.

Each image and each prompt is encoded once, however many rankings it is in. Features of frozen
towers are cached; where blocks are trained, the inputs of the tower are cached instead.

Shapes: n = rankings, k = candidates of the longest ranking, i = images, p = prompts, d = width of
the shared space, l = d plus the width of the style features, if any. Image memory with
unfrozen blocks: 12 bytes per pixel of tower input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from imgalign.preferences.accuracy import Floats
from imgalign.preferences.records import Ranking, pairs, ranks
from imgalign.runs.world import World, shared_rows
from reward_models.towers import Towers

ImageLoader: TypeAlias = Callable[[str], Tensor]
"""Loads the pixels [3 h w] in [0, 1] of an image id."""

ENCODE_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingData:
    """Rankings as tensors of indices. Example: row 0 ranks the images `image_index[0]`."""

    rankings: list[Ranking]
    prompts: list[str]
    images: list[str]
    prompt_index: Int[Tensor, " n"]
    image_index: Int[Tensor, "n k"]
    """Into `images`; 0 where a ranking has fewer than k."""
    ranks: Int[Tensor, "n k"]
    """0 is best, equal is a tie, -1 where there is no candidate."""
    weights: Float[Tensor, " n"]


def index_rankings(
    rankings: Sequence[Ranking], weights: Sequence[float], *, device: torch.device
) -> RankingData:
    """Number the prompts and images of `rankings`, in order of first appearance."""
    prompts = list(dict.fromkeys(ranking.prompt for ranking in rankings))
    images = list(dict.fromkeys(image for ranking in rankings for image in ranking.sample_ids))
    of_prompt = {prompt: i for i, prompt in enumerate(prompts)}
    of_image = {image: i for i, image in enumerate(images)}
    k = max(len(ranking.sample_ids) for ranking in rankings)
    image_index = torch.zeros(len(rankings), k, dtype=torch.long)
    rank = torch.full((len(rankings), k), -1)
    for row, ranking in enumerate(rankings):
        count = len(ranking.sample_ids)
        image_index[row, :count] = torch.tensor([of_image[image] for image in ranking.sample_ids])
        rank[row, :count] = torch.tensor(ranks(ranking))
    return RankingData(
        rankings=list(rankings),
        prompts=prompts,
        images=images,
        prompt_index=torch.tensor([of_prompt[r.prompt] for r in rankings], device=device),
        image_index=image_index.to(device),
        ranks=rank.to(device),
        weights=torch.tensor(weights, dtype=torch.float32, device=device),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of every image and prompt, cached or recomputed with the present weights.

    `prepared` and `tokens` are the inputs of a tower that is being trained, None for a frozen one.
    """

    towers: Towers
    style: bool
    """Whether image features include style features."""
    image: Float[Tensor, "i l"]
    text: Float[Tensor, "p d"]
    prepared: Float[Tensor, "i 3 h w"] | None = None
    tokens: Int[Tensor, "p length"] | None = None

    def of_images(self, index: Int[Tensor, " m"]) -> Float[Tensor, "m l"]:
        """Features of images, recomputed if the image tower is being trained."""
        if self.prepared is None:
            return self.image[index]
        unique, back = torch.unique(index, return_inverse=True)
        return self.towers.image_features(self.prepared[unique], style=self.style)[back]

    def of_prompts(self, index: Int[Tensor, " m"]) -> Float[Tensor, "m d"]:
        """Features of prompts, recomputed if the text tower is being trained."""
        if self.tokens is None:
            return self.text[index]
        unique, back = torch.unique(index, return_inverse=True)
        return self.towers.encode_tokens(self.tokens[unique])[back]


@torch.no_grad()
def encode(
    data: RankingData,
    images: ImageLoader,
    towers: Towers,
    *,
    style: bool,
    live_image: bool,
    live_text: bool,
    world: World,
) -> Features:
    """Encode every image and prompt of `data`; cache the inputs of the towers to be trained.

    Each process encodes its share, and has the inputs of all.
    """

    def prepare(names: Sequence[str]) -> Tensor:
        return torch.cat([towers.prepare(images(name)[None]) for name in names])

    prepared = prepare(data.images) if live_image else None

    def encode_images(some: slice) -> Tensor:
        batch = prepare(data.images[some]) if prepared is None else prepared[some]
        return towers.image_features(batch, style=style)

    tokens = towers.tokenize(data.prompts).to(towers.device)
    image, text = (
        shared_rows(world, count, make, at_once=ENCODE_BATCH, device=towers.device)
        for count, make in (
            (len(data.images), encode_images),
            (len(tokens), lambda some: towers.encode_tokens(tokens[some])),
        )
    )
    return Features(
        towers=towers,
        style=style,
        image=image,
        text=text,
        prepared=prepared,
        tokens=tokens if live_text else None,
    )


def pair_margins(
    rankings: Sequence[Ranking], scores: Sequence[Sequence[float]]
) -> tuple[Floats, list[str]]:
    """Score of the preferred minus score of the other image, and the prompt, of each strict pair.

    `scores` holds those of each ranking's candidates, in the candidates' order.
    """
    margins, prompts = [], []
    for ranking, own in zip(rankings, scores, strict=True):
        for better, worse in pairs(ranking):
            margins.append(own[better] - own[worse])
            prompts.append(ranking.prompt)
    return np.array(margins, dtype=np.float64), prompts
