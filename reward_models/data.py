"""Rankings of images or texts as tensors.

Left out: the features of images and their prompts (features.py), and tokens (text_training.py).

Shapes: n = rankings, k = candidates of the longest ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from imgalign.preferences.accuracy import Floats
from imgalign.preferences.records import Ranking, pairs, ranks


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
