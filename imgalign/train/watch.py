"""Grids of pictures that show one set of prompts and seeds over the course of a run."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.files import write_atomically
from imgalign.policy import Policy

Painter: TypeAlias = Callable[[Sequence[str], Sequence[int]], Tensor]
"""Makes one image [b 3 h w] per prompt and seed, the way pictures are shown."""


def painter_of(policy: Policy, *, batch_size: int) -> Painter:
    """How a policy shows itself: a diffusion policy without noise (eta 0), any other as it samples.

    Diffusion pictures are those that `generate` makes with as many steps and the same guidance.
    """

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        parts = [slice(start, start + batch_size) for start in range(0, len(prompts), batch_size)]
        with torch.no_grad():
            return torch.cat([paint_batch(policy, prompts[each], seeds[each]) for each in parts])

    return paint


def paint_batch(
    policy: Policy, prompts: Sequence[str], seeds: Sequence[int]
) -> Float[Tensor, "b 3 h w"]:
    """One batch of pictures on the CPU."""
    if not isinstance(policy, DiffusionPolicy):
        return policy.sample(prompts, seeds=seeds).samples.cpu()
    sure = replace(policy.denoiser, kernel=policy.denoiser.kernel.deterministic())
    path = sure.sample(prompts, seeds=seeds, latent_shape=policy.latent_shape)
    return policy.family.decode(path.latents[:, -1]).cpu()


GAP = 2


def save_grid(images: Float[Tensor, "n 3 h w"], path: Path, *, columns: int) -> None:
    """Write images row by row into one PNG, with a thin white gap between them."""
    height, width = images.shape[2] + GAP, images.shape[3] + GAP
    rows = -(-len(images) // columns)
    grid = torch.ones(3, rows * height + GAP, columns * width + GAP)
    for number, image in enumerate(images):
        top, left = GAP + number // columns * height, GAP + number % columns * width
        grid[:, top : top + image.shape[1], left : left + image.shape[2]] = image
    pixels = (grid.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
