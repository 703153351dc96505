"""Training pictures as the text-to-image model would have drawn them.

A share of the way into noise and back with the picture's own caption (arXiv:2108.01073): what is
there, and where, stays, while its hand becomes the model's. CLIP and verifier read such pictures
all the time and should not meet them for the first time then. A strength of 0 leaves what the
autoencoder makes of a picture.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor

from imgalign.storybook.train.autoencoder import batch_images
from imgalign.storybook.train.data import load_pictures
from imgalign.storybook.train.loop import native_precision, say
from imgalign.storybook.train.pipeline import open_pipeline

BATCH = 50
STEPS = 20
LATENT_NOISE = 0.2
"""Of a reconstruction: at most so many standard deviations, for latents are never quite right."""


def redraw_pictures(
    data: Path, pipeline: Path, out: Path, *, num_pictures: int, strength: float
) -> None:
    """Write the first `num_pictures` of `data`, redrawn, to `out`: uint8 [n 64 64 3].

    Strengths are drawn for each batch, evenly from 0 to `strength`.
    """
    pictures = load_pictures(data)
    pipe = open_pipeline(pipeline, StableDiffusionImg2ImgPipeline)
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    temporary = out.with_name(f".tmp-{out.name}")
    redrawn = np.lib.format.open_memmap(
        temporary, mode="w+", dtype=np.uint8, shape=(num_pictures, 64, 64, 3)
    )
    for start in range(0, num_pictures, BATCH):
        indices = np.arange(start, min(start + BATCH, num_pictures))
        images = batch_images(pictures, indices)
        captions = [pictures.captions[index] for index in indices]
        part = redraw(pipe, images, captions, strength=rng.uniform(0, strength), seed=start)
        redrawn[indices] = (part * 255).round().byte().permute(0, 2, 3, 1).numpy()
        if start % (40 * BATCH) == 0:
            say(f"{out}: {start} of {num_pictures} pictures")
    redrawn.flush()
    temporary.rename(out)


@torch.no_grad()
def redraw(pipe: Any, images: Tensor, captions: list[str], *, strength: float, seed: int) -> Tensor:
    """Pictures `b 3 h w` in [-1, 1], redrawn and in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    with native_precision():
        if strength * STEPS < 1:
            latents = pipe.vae.encode(images).latent_dist.mean
            noise = torch.randn(latents.shape, generator=generator)
            size = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
            decoded: Tensor = pipe.vae.decode(latents + size * noise).sample
            return (decoded.float() / 2 + 0.5).clamp(0, 1)
        redrawn: Tensor = pipe(
            prompt=captions,
            image=images / 2 + 0.5,
            strength=strength,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            generator=generator,
            output_type="pt",
        ).images
    return redrawn.float().clamp(0, 1)
