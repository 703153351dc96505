"""What diffusers alone makes of a model folder and LoRA weights, without imgalign."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor


def drawn_by_diffusers(
    model: Path, lora: Path, prompts: Sequence[str], *, seeds: Sequence[int], eta: float = 0.0
) -> Tensor:
    """Images in [0, 1] of four steps, without guidance."""
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(lora)
    images: Tensor = pipeline(
        list(prompts),
        num_inference_steps=4,
        eta=eta,
        guidance_scale=1.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="pt",
    ).images
    return images
