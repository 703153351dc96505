"""Train the storybook's text-to-image model: UNet and text encoder jointly, from scratch.

The result is a `StableDiffusionPipeline`: CLIP tokenizer and text encoder, UNet with
cross-attention, DDIM scheduler. v-prediction (arXiv:2202.00512) on a schedule that ends in pure
noise, sampled with trailing timesteps (arXiv:2305.08891), so that very dark and very bright images
are possible. A tenth of the captions is empty, for classifier-free guidance (arXiv:2207.12598).
Latents are computed once, before training.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from imgalign.errors import InputError
from imgalign.files import read_json
from imgalign.runs.world import Alone, World, in_turn
from imgalign.storybook.scenes import vocabulary
from imgalign.storybook.tokenizer import build_tokenizer
from imgalign.storybook.train.autoencoder import LATENT_CHANNELS, batch_images, load_autoencoder
from imgalign.storybook.train.data import TrainingImages, load_images
from imgalign.storybook.train.loop import Indices, Schedule, native_precision, part_of, say, train

CONTEXT = 16
"""Tokens of a prompt, both ends included; the longest prompt of the grammar has 13."""
TEXT_WIDTH = 128
BATCH = 64
EMPTY_CAPTIONS = 0.1


class TextToImage(nn.Module):
    """The trainable parts of the pipeline: UNet and text encoder."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=4 * TEXT_WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT,
                projection_dim=TEXT_WIDTH,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        self.unet: Any = UNet2DConditionModel(
            sample_size=16,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            block_out_channels=(48, 96, 160),
            layers_per_block=1,
            # Attention at the outer level would cost more than all the rest.
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=(
                1,
                3,
                5,
            ),  # despite its name, diffusers reads this as heads per level
            norm_num_groups=16,
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted velocity, `b c h w`."""
        text = self.text_encoder(tokens).last_hidden_state
        predicted: Tensor = self.unet(noisy, timesteps, text).sample
        return predicted


def build_scheduler() -> Any:
    """The noise schedule that training and sampling share."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def train_pipeline(
    data: Path,
    autoencoder: Path,
    out: Path,
    *,
    num_samples: int,
    learning_rate: float,
    batch: int = BATCH,
    world: World | None = None,
) -> None:
    """Train on `data`, resume if `out` has state, write `out/pipeline` in diffusers' format."""
    world = world or Alone()
    torch.manual_seed(0)
    dataset = load_images(data)
    vae = load_autoencoder(autoencoder).eval()
    latents = in_turn(world, lambda: encoded(dataset, vae, out / "latents.npy"))
    tokenizer = in_turn(
        world, lambda: build_tokenizer(vocabulary(), out / "tokenizer", max_length=CONTEXT)
    )
    tokens = tokenise(tokenizer, dataset.captions)
    (empty,) = tokenise(tokenizer, ("",))
    model = TextToImage(tokenizer).train()
    scheduler = build_scheduler()

    def velocity(batch: Noisy) -> Tensor:
        wanted: Tensor = scheduler.get_velocity(batch.clean, batch.noise, batch.timesteps)
        return wanted

    optimise(
        model,
        velocity,
        out,
        latents=latents,
        tokens=tokens,
        empty=empty,
        schedule=Schedule(num_steps=num_samples // batch, learning_rate=learning_rate),
        batch=batch,
        rest=(vae, tokenizer, scheduler),
        world=world,
    )


def open_pipeline(
    folder: Path,
    kind: type[StableDiffusionPipeline | StableDiffusionImg2ImgPipeline] = StableDiffusionPipeline,
) -> Any:
    """The pipeline that `train_pipeline` wrote, as `kind`; InputError when it is missing."""
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"{folder}: expected a trained pipeline here; train one with "
            "`imgalign storybook train pipeline`"
        )
    load: Callable[[Path], Any] = kind.from_pretrained  # the library gives it no types
    return load(folder)


def some_empty(captions: Tensor, empty: Tensor) -> Tensor:
    """Token ids [b CONTEXT] with a share of EMPTY_CAPTIONS replaced by the empty caption's."""
    return torch.where(torch.rand(len(captions), 1) < EMPTY_CAPTIONS, empty, captions)


def noised(clean: Tensor, scheduler: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, a random timestep for each latent, and the latents with that noise added.

    Timesteps are logit-normal (arXiv:2403.03206, section 3.1), which favours medium noise.
    """
    noise = torch.randn_like(clean)
    share = torch.randn(len(clean)).sigmoid()
    timesteps = (share * scheduler.config.num_train_timesteps).long()
    return noise, timesteps, scheduler.add_noise(clean, noise, timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noisy:
    """Latents of a batch with noise added, and their captions."""

    clean: Tensor
    """`b c h w`, as `noise` and `latents`."""
    noise: Tensor
    timesteps: Tensor
    latents: Tensor
    """With the noise of their timesteps."""
    caption: Tensor
    """Token ids, `b CONTEXT`; some are those of the empty caption."""

    def part(self, own: slice) -> "Noisy":
        """Some of them."""
        return Noisy(
            clean=self.clean[own],
            noise=self.noise[own],
            timesteps=self.timesteps[own],
            latents=self.latents[own],
            caption=self.caption[own],
        )


def optimise(
    model: TextToImage,
    target: Callable[[Noisy], Tensor],
    out: Path,
    *,
    latents: NDArray[np.float16],
    tokens: Tensor,
    empty: Tensor,
    schedule: Schedule,
    batch: int,
    rest: tuple[Any, CLIPTokenizer, Any],
    world: World,
) -> None:
    """Train in the folder `out` to predict `target`; at each save write `out/pipeline`.

    `latents` and `tokens` are those of all images, `empty` of the empty caption. `rest` are the
    frozen parts of the pipeline: autoencoder, tokenizer, scheduler.
    """

    def loss(indices: Indices) -> tuple[Tensor, dict[str, float]]:
        clean = torch.from_numpy(latents[np.sort(indices)]).float()
        caption = some_empty(tokens[np.sort(indices)], empty)
        noise, timesteps, noisy = noised(clean, rest[-1])
        whole = Noisy(clean=clean, noise=noise, timesteps=timesteps, latents=noisy, caption=caption)
        own, share = part_of(world, len(indices))
        part = whole.part(own)
        wanted = target(part)
        # Channels-last would cost 2 ms more a sample (one core, AVX-512).
        with native_precision():
            predicted = model(part.latents, part.timesteps, part.caption)
        error = mse_loss(predicted.float(), wanted)
        return share * error, {"loss": share * error.item()}

    def save(step: int) -> None:
        say(f"{out}: writing the pipeline of step {step}")
        write_pipeline(model, *rest, out / "pipeline")

    train(
        out,
        model,
        loss,
        num_images=len(latents),
        schedule=schedule,
        batch=batch,
        decay=0.999,
        on_save=save,
        world=world,
    )


def write_pipeline(
    model: TextToImage,
    vae: Any,
    tokenizer: CLIPTokenizer,
    scheduler: Any,
    folder: Path,
) -> None:
    """Write a folder that `StableDiffusionPipeline.from_pretrained` loads.

    UNet and autoencoder are stored in half precision, which diffusers loads as float32; the text
    encoder in float32, because transformers would keep the stored type.
    """
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    for part, name in ((vae, "vae"), (model.unet, "unet")):
        half = type(part).from_pretrained(folder / name, torch_dtype=torch.float16)
        half.save_pretrained(folder / name)
        config = read_json(folder / name / "config.json")
        config.pop("_name_or_path", None)  # the path on the training machine
        text = json.dumps(config, indent=2, sort_keys=True)
        (folder / name / "config.json").write_text(f"{text}\n", encoding="utf-8")


def encoded(dataset: TrainingImages, vae: Any, cache: Path) -> NDArray[np.float16]:
    """Latents of all images, float16 [n c h w], computed once and cached in the file `cache`."""
    if not cache.is_file():
        cache.parent.mkdir(parents=True, exist_ok=True)
        parts = []
        with torch.no_grad():
            for indices in np.array_split(np.arange(len(dataset)), -(-len(dataset) // 256)):
                posterior = vae.encode(batch_images(dataset, indices)).latent_dist
                parts.append((posterior.mean * vae.config.scaling_factor).half().numpy())
        np.save(cache, np.concatenate(parts))
    latents: NDArray[np.float16] = np.load(cache)
    return latents


def tokenise(tokenizer: CLIPTokenizer, captions: tuple[str, ...]) -> Tensor:
    """Token ids [n CONTEXT], padded."""
    batch = tokenizer(
        list(captions),
        padding="max_length",
        max_length=CONTEXT,
        truncation=True,
        return_tensors="pt",
    )
    ids: Tensor = batch.input_ids
    return ids
