"""Train the storybook's autoencoder: 64x64 images to 16x16 latents of 8 channels and back.

An `AutoencoderKL` whose reconstruction loss is L1 on pixels plus L1 on their differences along both
axes (outlines matter more than their area). Instead of a learned posterior width, which slows the
start of training, noise of LATENT_NOISE standard deviations is added to the latents, so that the
decoder tolerates small errors of a diffusion model. Afterwards `standardise` gives every latent
channel mean 0 and variance 1. Left out: perceptual and adversarial losses.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from imgalign.runs.world import Alone, World
from imgalign.storybook.train.data import TrainingImages, load_images
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, part_of, say, train

LATENT_CHANNELS = 8
LATENT_NOISE = 0.05
POSTERIOR_LOG_VARIANCE = -10.0
"""Of the shipped encoder: samples of its posterior then equal the mean for all purposes."""
BATCH = 16


def build_autoencoder() -> Any:
    """The architecture with random weights: 0.5 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        use_quant_conv=True,
        use_post_quant_conv=True,
    )


def load_autoencoder(folder: Path) -> Any:
    """A trained autoencoder. Its type is Any because diffusers' models are untyped."""
    return AutoencoderKL.from_pretrained(folder)


def train_autoencoder(
    data: Path,
    out: Path,
    *,
    num_samples: int,
    learning_rate: float,
    decoder_only: bool,
    batch: int = BATCH,
    world: World | None = None,
) -> None:
    """Train on `data`, resume if `out` has state, write `out/vae` in diffusers' format.

    With `decoder_only` the encoder stays frozen and training starts from the weights in `out/vae`.
    """
    world = world or Alone()
    torch.manual_seed(0)
    dataset = load_images(data)
    vae = build_autoencoder()
    folder = out
    if decoder_only:
        vae = load_autoencoder(out / "vae")
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
        folder = out / "decoder"
    vae.train()

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        own, share = part_of(world, len(indices))
        images = batch_images(dataset, np.sort(indices)[own])
        with native_precision():
            latents = vae.encode(images).latent_dist.mean
            whole = torch.cat(world.gather(latents.detach()))
            latents = latents + torch.randn_like(whole)[own] * (LATENT_NOISE * whole.std())
            decoded = vae.decode(latents).sample.float()
        pixels, edges = l1_loss(decoded, images), edge_loss(decoded, images)
        error = world.total(share * mse_loss(decoded.detach().clamp(-1, 1), images).item() / 4)
        return share * (pixels + 0.5 * edges), {
            "pixels": share * pixels.item(),
            "edges": share * edges.item(),
            "psnr": share * -10 * torch.tensor(error).log10().item(),
        }

    def save(step: int) -> None:
        shipped = copy.deepcopy(vae).eval()
        if not decoder_only:
            standardise(shipped, dataset)
        shipped.save_pretrained(out / "vae")
        some = np.arange(min(256, len(dataset)))
        say(f"{out}: psnr {psnr(shipped, dataset, some):.2f} dB at step {step}")

    train(
        folder,
        vae,
        loss,
        num_images=len(dataset),
        schedule=Schedule(num_steps=num_samples // batch, learning_rate=learning_rate),
        batch=batch,
        decay=0.999,
        on_save=save,
        world=world,
    )


def batch_images(dataset: TrainingImages, indices: Indices) -> Tensor:
    """Images as float `b 3 h w` in [-1, 1]."""
    pixels = torch.from_numpy(dataset.images[np.sort(indices)])
    # The files are channels last, which costs a third of the speed of training here.
    return pixels.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1


def edge_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """L1 between the differences of neighbouring pixels, along both axes."""
    down = l1_loss(decoded.diff(dim=-2), images.diff(dim=-2))
    across = l1_loss(decoded.diff(dim=-1), images.diff(dim=-1))
    return down + across


@torch.no_grad()
def standardise(vae: Any, dataset: TrainingImages, num: int = 1024) -> None:
    """Fold each latent channel's mean and scale into the 1x1 convolutions around the latents.

    They are those of the first `num` images, or of all where there are fewer.
    """
    num = min(num, len(dataset))
    encoded = [
        vae.encode(batch_images(dataset, part)).latent_dist.mean
        for part in np.array_split(np.arange(num), max(1, num // 64))
    ]
    mean, scale = torch.cat(encoded).mean((0, 2, 3)), torch.cat(encoded).std((0, 2, 3))
    inside, outside = vae.quant_conv, vae.post_quant_conv
    inside.weight[:LATENT_CHANNELS] /= scale[:, None, None, None]
    inside.bias[:LATENT_CHANNELS] = (inside.bias[:LATENT_CHANNELS] - mean) / scale
    inside.weight[LATENT_CHANNELS:] = 0
    inside.bias[LATENT_CHANNELS:] = POSTERIOR_LOG_VARIANCE
    outside.bias += (outside.weight[:, :, 0, 0] * mean).sum(1)
    outside.weight *= scale[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def psnr(vae: Any, dataset: TrainingImages, indices: Indices) -> float:
    """Peak signal-to-noise ratio of reconstructions in dB, from the mean squared error of all."""
    errors = []
    for part in np.array_split(indices, max(1, len(indices) // 64)):
        images = batch_images(dataset, part)
        decoded = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        errors.append(mse_loss(decoded, images) / 4)
    return float(-10 * torch.log10(torch.stack(errors).mean()))
