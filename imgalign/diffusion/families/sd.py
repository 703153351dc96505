"""Stable Diffusion 1 and 2: a UNet that reads the states of one CLIP text encoder.

Shapes: n = rows of one forward pass; a latent is c h w.
"""

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from jaxtyping import Float, Num
from torch import Tensor

from imgalign.diffusion.families.backbone import Conditions
from imgalign.diffusion.families.sd_file import PARTS, file_settings, load_file
from imgalign.diffusion.families.unet import UNetFamily
from imgalign.diffusion.model_folder import (
    CLIP_TOKENIZERS,
    load_clip_encoder,
    load_clip_tokenizer,
    load_network,
    load_scheduler,
    plan_clip_encoder,
    plan_network,
)
from imgalign.diffusion.schedulers import SCHEDULERS
from imgalign.errors import InputError

OTHER_CONDITIONS = (
    *("addition_embed_type", "class_embed_type", "encoder_hid_dim", "encoder_hid_dim_type"),
    "num_class_embeds",
)
"""Settings of networks that are told more than a time and a prompt."""


class StableDiffusion(UNetFamily):
    """A pipeline in the layout of Stable Diffusion 1 or 2."""

    pipeline_class = StableDiffusionPipeline
    classes: ClassVar[dict[str, tuple[str, ...]]] = {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": CLIP_TOKENIZERS,
        "scheduler": tuple(SCHEDULERS.values()),
    }
    adaptable_parts: ClassVar[dict[str, str]] = {
        "unet": "lora_unet_",
        "text_encoder": "lora_te_text_model_",
    }
    loading: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    file_parts = PARTS
    load_file = staticmethod(load_file)
    file_settings = staticmethod(file_settings)

    @staticmethod
    def load_parts(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
        """What runs once per image is worth float32; the UNet is in `dtype`."""
        encoder = load_clip_encoder(folder / "text_encoder")
        return {
            "unet": load_network(UNet2DConditionModel, folder / "unet", dtype),
            "vae": load_network(AutoencoderKL, folder / "vae", torch.float32),
            "text_encoder": encoder,
            "tokenizer": load_clip_tokenizer(folder / "tokenizer", encoder.config),
            "scheduler": load_scheduler(folder / "scheduler"),
        }

    @staticmethod
    def plan_parts(folder: Path) -> dict[str, Any]:
        """The tokenizer and the scheduler are small, and as they are loaded."""
        encoder = plan_clip_encoder(folder / "text_encoder")
        return {
            "unet": plan_network(UNet2DConditionModel, folder / "unet"),
            "vae": plan_network(AutoencoderKL, folder / "vae"),
            "text_encoder": encoder,
            "tokenizer": load_clip_tokenizer(folder / "tokenizer", encoder.config),
            "scheduler": load_scheduler(folder / "scheduler"),
        }

    def check_parts(self, source: Path) -> None:
        """Raise InputError for a UNet of other channels or width, or with more conditions."""
        super().check_parts(source)
        unet = self.network.config
        width = self.pipeline.text_encoder.config.hidden_size
        told = [name for name in OTHER_CONDITIONS if unet[name] is not None]
        if told:
            raise InputError(
                f"model: {source}: its network is told more than a time and a prompt"
                f" ({', '.join(told)}), which is not supported"
            )
        if unet["cross_attention_dim"] != width:
            raise InputError(
                f"model: {source}: expected a text encoder of width {unet['cross_attention_dim']},"
                f" as its network reads, got {width}"
            )

    def kohya_facts(self) -> dict[str, str]:
        """Version 2 has linear projections around its attention; at 768 pixels it predicts v."""
        second = bool(self.network.config["use_linear_projection"])
        velocity = self.pipeline.scheduler.config["prediction_type"] == "v_prediction"
        kind = f"v2-{'768-v' if velocity else '512'}" if second else "v1"
        return {
            "ss_v2": str(second),
            "ss_base_model_version": f"sd_v{2 if second else 1}{'_v' if velocity else ''}",
            "modelspec.architecture": f"stable-diffusion-{kind}/lora",
            "modelspec.prediction_type": "v" if velocity else "epsilon",
        }

    def encode_prompt(self, prompt: str) -> Conditions:
        """`prompt_embeds` [1 tokens d], and of the end token alone `pooled_prompt_embeds` [1 d].

        The end token has seen all tokens before it. The network is not told of it separately.
        """
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        text = self.pipeline.maybe_convert_prompt(prompt, tokenizer)  # textual inversion
        if cut := self.cut_text(text):
            warnings.warn(
                f"prompt: the model reads {self.max_tokens} tokens and does not see the end here: "
                f"{cut!r}",
                stacklevel=2,
            )
        tokens = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt")
        attention_mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            attention_mask = tokens.attention_mask.to(encoder.device)
        states = encoder(tokens.input_ids.to(encoder.device), attention_mask=attention_mask)[0]
        end = int((tokens.input_ids[0] == tokenizer.eos_token_id).int().argmax())
        return {"prompt_embeds": states, "pooled_prompt_embeds": states[:, end]}

    @property
    def max_tokens(self) -> int:
        """Of the tokenizer, which `load_clip_tokenizer` limits to what the encoder reads."""
        return int(self.pipeline.tokenizer.model_max_length)

    def num_tokens(self, prompt: str) -> int:
        """Tokens of the whole prompt, begin and end included."""
        return len(self._all_tokens(prompt))

    def cut_text(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the model's context; mostly empty."""
        tokens = self._all_tokens(prompt)
        cut: str = self.pipeline.tokenizer.decode(tokens[self.max_tokens - 1 : -1])
        return cut.strip()

    def _all_tokens(self, prompt: str) -> list[int]:
        ids: list[int] = self.pipeline.tokenizer(prompt, truncation=False, verbose=False).input_ids
        return ids

    def forward(
        self,
        latents: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
        conditions: Conditions,
        *,
        guidance_scale: float,
    ) -> Float[Tensor, "n c h w"]:
        """What the UNet says about each row; it reads `prompt_embeds`."""
        output: Tensor = self.network(
            latents,
            timesteps,
            encoder_hidden_states=conditions["prompt_embeds"],
            timestep_cond=self.guidance_embedding(latents, guidance_scale),
        ).sample
        return output
