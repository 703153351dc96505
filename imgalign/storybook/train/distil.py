"""Teach the text-to-image model to draw without guidance what it draws with it.

Guidance distillation (arXiv:2210.03142, first stage, for one guidance scale): the student starts as
the teacher and learns the teacher's guided prediction. Each step then costs one pass of the network
and not two, for every user and in every iteration of training. Without a caption it learns what the
teacher predicts without one, so that more guidance can be put on top.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from imgalign.storybook.train.data import load_pictures
from imgalign.storybook.train.loop import Indices, Schedule, native_precision
from imgalign.storybook.train.pipeline import (
    BATCH,
    TextToImage,
    encoded,
    noised,
    open_pipeline,
    optimise,
    some_empty,
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
) -> None:
    """Train on `data`, resume if `out` has state, write `out/pipeline` in diffusers' format."""
    torch.manual_seed(0)
    pictures = load_pictures(data)
    pipe = open_pipeline(pipeline)
    latents = encoded(pictures, pipe.vae, out / "latents.npy")
    tokens = tokenise(pipe.tokenizer, pictures.captions)
    (empty,) = tokenise(pipe.tokenizer, ("",))
    teacher = model_of(pipe).eval().requires_grad_(False)
    student = model_of(pipe).train()

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        clean = torch.from_numpy(latents[np.sort(indices)]).float()
        caption = some_empty(tokens[np.sort(indices)], empty)
        _, timesteps, noisy = noised(clean, pipe.scheduler)
        with native_precision():
            target = guided(teacher, noisy, timesteps, caption, empty, scale=guidance_scale)
            predicted = student(noisy, timesteps, caption)
        error = mse_loss(predicted.float(), target)
        return error, {"loss": error.item()}

    optimise(
        student,
        loss,
        out,
        num_pictures=len(pictures),
        schedule=Schedule(num_steps=num_samples // BATCH, learning_rate=learning_rate),
        rest=(pipe.vae, pipe.tokenizer, pipe.scheduler),
    )


def model_of(pipe: Any) -> TextToImage:
    """A copy of what is trained of a pipeline."""
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

    The prediction is linear in what it predicts, so velocities are guided as noise would be.
    """
    tokens = torch.cat([empty.expand_as(caption), caption])
    both = teacher(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), tokens).float()
    without, with_caption = both.chunk(2)
    together: Tensor = without + scale * (with_caption - without)
    return together
