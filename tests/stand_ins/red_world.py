"""A world in which redness is what is preferred: images, and rankings by how red they are."""

from collections.abc import Mapping
from datetime import UTC, datetime

import torch
from torch import Tensor

from imgalign.preferences.records import Ranking, tie_groups

NOUNS = ["fox", "house", "tree", "boat", "sun", "cat"]


def make_images(count: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Flat noisy images whose redness is known: {id: pixels}, {id: redness}."""
    generator = torch.Generator().manual_seed(0)
    images: dict[str, Tensor] = {}
    redness: dict[str, float] = {}
    for i in range(count):
        colour = torch.rand(3, 1, 1, generator=generator)
        noise = 0.1 * torch.rand(3, 16, 16, generator=generator)
        images[f"{i:03}"] = (0.9 * colour + noise).clamp(0, 1)
        redness[f"{i:03}"] = float(colour[0] - colour[1:].mean())
    return images, redness


def make_rankings(
    redness: Mapping[str, float], *, k: int = 4, tolerance: float = 0.0, num_prompts: int = 60
) -> list[Ranking]:
    """Somebody who likes red ranks every image once; neighbours within `tolerance` tie."""
    ids = sorted(redness)
    rankings = []
    for i in range(0, len(ids) - k + 1, k):
        own = tuple(ids[i : i + k])
        prompt = f"a {NOUNS[i % 6]} {(i // k) % num_prompts}"
        rankings.append(
            Ranking(
                ranking_id=str(i),
                prompt=prompt,
                sample_ids=own,
                order=tuple(range(k)),
                ranking=tie_groups([redness[image] for image in own], tolerance=tolerance),
                verdict="ranked",
                reason=None,
                annotator="ann",
                group="red",
                created_at=datetime(2025, 1, 1, tzinfo=UTC),
            )
        )
    return rankings
