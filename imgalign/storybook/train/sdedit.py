"""Training images in the style of the text-to-image model, by SDEdit (arXiv:2108.01073).

Noise is added up to a strength and removed again under the image's own caption, which keeps the
content and the layout while textures and outlines become the model's. CLIP and verifier judge
images of the model, so they are trained on such images too. A strength of 0 gives the
autoencoder's reconstruction.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from torch import Tensor

from imgalign.storybook.train.autoencoder import batch_images
from imgalign.storybook.train.data import load_images
from imgalign.storybook.train.loop import native_precision, say
from imgalign.storybook.train.pipeline import open_pipeline

BATCH = 50
NUM_INFERENCE_STEPS = 20
LATENT_NOISE = 0.2
"""Largest noise on the latents of a reconstruction, in standard deviations."""


def sdedit_images(
    data: Path, pipeline: Path, out: Path, *, num_images: int, strength: float
) -> None:
    """Write SDEdit versions of the first `num_images` of `data` to `out`: uint8 [n 64 64 3].

    Each batch has its own strength, uniform from 0 to `strength`.
    """
    dataset = load_images(data)
    pipe = open_pipeline(pipeline, StableDiffusionImg2ImgPipeline)
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    temporary = out.with_name(f".tmp-{out.name}")
    edited = np.lib.format.open_memmap(
        temporary, mode="w+", dtype=np.uint8, shape=(num_images, 64, 64, 3)
    )
    for start in range(0, num_images, BATCH):
        indices = np.arange(start, min(start + BATCH, num_images))
        images = batch_images(dataset, indices)
        captions = [dataset.captions[index] for index in indices]
        part = sdedit(pipe, images, captions, strength=rng.uniform(0, strength), seed=start)
        edited[indices] = (part * 255).round().byte().permute(0, 2, 3, 1).numpy()
        if start % (40 * BATCH) == 0:
            say(f"{out}: {start} of {num_images} images")
    edited.flush()
    temporary.rename(out)


@torch.no_grad()
def sdedit(pipe: Any, images: Tensor, captions: list[str], *, strength: float, seed: int) -> Tensor:
    """SDEdit of images `b 3 h w` in [-1, 1]; the result is in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    with native_precision():
        if strength * NUM_INFERENCE_STEPS < 1:
            latents = pipe.vae.encode(images).latent_dist.mean
            noise = torch.randn(latents.shape, generator=generator)
            size = LATENT_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
            decoded: Tensor = pipe.vae.decode(latents + size * noise).sample
            return (decoded.float() / 2 + 0.5).clamp(0, 1)
        edited: Tensor = pipe(
            prompt=captions,
            image=images / 2 + 0.5,
            strength=strength,
            num_inference_steps=NUM_INFERENCE_STEPS,
            guidance_scale=1.0,
            generator=generator,
            output_type="pt",
        ).images
    return edited.float().clamp(0, 1)
