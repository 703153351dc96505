"""Guidance distillation of the text-to-image model (arXiv:2210.03142, first stage).

For one guidance scale: the student starts from the teacher's weights and learns its guided
prediction, so that each denoising step costs one forward pass instead of two. With an empty caption
it learns the teacher's unconditional prediction, so that further guidance can be applied on top.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgalign.runs.world import Alone, World, in_turn
from imgalign.storybook.train.data import load_images
from imgalign.storybook.train.loop import Schedule, native_precision
from imgalign.storybook.train.pipeline import (
    BATCH,
    Noisy,
    TextToImage,
    encoded,
    open_pipeline,
    optimise,
    tokenise,
)


def distil_pipeline(
    data: Path,
    pipeline: Path,
    out: Path,
    *,
    guidance_scale: float,
    num_samples: int,
    learning_rate: float,
    batch: int = BATCH,
    world: World | None = None,
) -> None:
    """Train on `data`, resume if `out` has state, write `out/pipeline` in diffusers' format."""
    world = world or Alone()
    torch.manual_seed(0)
    dataset = load_images(data)
    pipe = open_pipeline(pipeline)
    latents = in_turn(world, lambda: encoded(dataset, pipe.vae, out / "latents.npy"))
    tokens = tokenise(pipe.tokenizer, dataset.captions)
    (empty,) = tokenise(pipe.tokenizer, ("",))
    teacher = model_of(pipe).eval().requires_grad_(False)
    student = model_of(pipe).train()

    def guided_prediction(noisy: Noisy) -> Tensor:
        with native_precision():
            return guided(
                teacher, noisy.latents, noisy.timesteps, noisy.caption, empty, scale=guidance_scale
            )

    optimise(
        student,
        guided_prediction,
        out,
        latents=latents,
        tokens=tokens,
        empty=empty,
        schedule=Schedule(num_steps=num_samples // batch, learning_rate=learning_rate),
        batch=batch,
        rest=(pipe.vae, pipe.tokenizer, pipe.scheduler),
        world=world,
    )


def model_of(pipe: Any) -> TextToImage:
    """A copy of the trainable parts of a pipeline."""
    model = TextToImage(pipe.tokenizer)
    model.text_encoder.load_state_dict(pipe.text_encoder.state_dict())
    model.unet.load_state_dict(pipe.unet.state_dict())
    return model


@torch.no_grad()
def guided(
    teacher: TextToImage,
    noisy: Tensor,
    timesteps: Tensor,
    caption: Tensor,
    empty: Tensor,
    *,
    scale: float,
) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598) in one pass, float32 `b c h w`.

    Velocity is affine in the noise for a given noisy latent, so guidance applies to it likewise.
    """
    tokens = torch.cat([empty.expand_as(caption), caption])
    both = teacher(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), tokens).float()
    without, with_caption = both.chunk(2)
    together: Tensor = without + scale * (with_caption - without)
    return together
