"""A pipeline of the size of Stable Diffusion 1.5 with random weights; nothing is fetched.

The tokenizer is the shipped one, so the text encoder's vocabulary is smaller than CLIP's; it reads
77 tokens all the same. Left out: everything that measures.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from imgalign.diffusion.model_names import STORYBOOK

TOKENS = 77
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE: dict[str, Any] = {
    "sample_size": 512,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
TINY: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "block_out_channels": (32, 64, 64, 64),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "layers_per_block": 1,
    },
    "vae": {"sample_size": 64, "block_out_channels": (32,) * 4, "layers_per_block": 1},
    "text": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
}
"""Changes that make everything small, to try a benchmark out."""


def build(device: torch.device, dtype: torch.dtype, *, tiny: bool = False) -> Any:
    """The pipeline with its UNet in `dtype` and all else in float32, as training loads one."""
    changes = TINY if tiny else {"unet": {}, "vae": {}, "text": {}}
    tokenizer = CLIPTokenizer.from_pretrained(STORYBOOK / "tokenizer", model_max_length=TOKENS)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        text = CLIPTextConfig(
            **TEXT | changes["text"],
            vocab_size=len(tokenizer),
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        parts = {
            "unet": UNet2DConditionModel(**UNET | changes["unet"]).to(dtype),
            "vae": AutoencoderKL(**VAE | changes["vae"]),
            "text_encoder": CLIPTextModel(text),
        }
    pipeline = StableDiffusionPipeline(
        **{name: part.to(device) for name, part in parts.items()},
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(pipeline: Any, folder: Path) -> None:
    """Write a pipeline such that older releases of transformers read it too.

    They know the tokenizer's file but not the way its class is named since release 5, and the text
    encoder's weights by longer names: without these they draw weights at random.
    """
    pipeline.save_pretrained(folder)
    file = folder / "text_encoder" / "model.safetensors"
    weights = {
        f"text_model.{name.removeprefix('text_model.')}": w for name, w in load_file(file).items()
    }
    save_file(weights, file, metadata={"format": "pt"})
    for name, change in (
        ("model_index.json", {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]}),
        ("tokenizer/tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    ):
        file = folder / name
        written = json.loads(file.read_text(encoding="utf-8")) | change
        file.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
