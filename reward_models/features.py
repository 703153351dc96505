"""The features of the images and prompts of rankings.

Each image and each prompt is encoded once, however many rankings it is in. Features of frozen
towers are cached; where blocks are trained, the inputs of the tower are cached instead.

Shapes: i = images, p = prompts, d = width of the shared space, l = d plus the width of the style
features, if any. Image memory with unfrozen blocks: 12 bytes per pixel of tower input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from imgalign.runs.world import World, shared_rows
from reward_models.data import RankingData
from reward_models.towers import Towers

ImageLoader: TypeAlias = Callable[[str], Tensor]
"""Loads the pixels [3 h w] in [0, 1] of an image id."""

ENCODE_BATCH = 64


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
