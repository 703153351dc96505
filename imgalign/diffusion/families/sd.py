"""Stable Diffusion 1 and 2: one CLIP text encoder, a UNet, a process with fixed noise levels.

Shapes: n = rows of one forward pass; a latent is c h w.
"""

import logging
import warnings
from functools import cache
from typing import Any, ClassVar

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float, Num
from torch import Tensor

from imgalign.diffusion.families.backbone import Conditions, Family
from imgalign.diffusion.kernels import DDIMKernel, ddim_kernel
from imgalign.diffusion.model_folder import load_folder
from imgalign.diffusion.schedulers import MODEL, SCHEDULERS, build_scheduler, check_levels, name_of
from imgalign.diffusion.single_file import load_file
from imgalign.errors import InputError

log = logging.getLogger(__name__)


class StableDiffusion(Family):
    """A pipeline in the layout of Stable Diffusion 1 or 2."""

    pipeline_class = StableDiffusionPipeline
    network_name = "unet"
    adaptable_parts = ("unet", "text_encoder")
    target_modules = ("to_q", "to_k", "to_v", "to_out.0")
    """The projections of every attention layer, as in diffusers' own training scripts."""

    loading: ClassVar[dict[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    load = staticmethod(load_folder)
    load_file = staticmethod(load_file)

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        super().__init__(pipeline)
        self.embeds_guidance = self.network.config["time_cond_proj_dim"] is not None

    def kernel(self, num_inference_steps: int, *, eta: float) -> DDIMKernel:
        """The steps of a DDIM sampler with the noise levels this model was trained on."""
        own = name_of(self.pipeline.scheduler)
        check_levels(self.pipeline.scheduler.config)
        if own != "ddim":
            _say_once(f"the model comes with the scheduler {own}; images are sampled with ddim")
        if self.pipeline.scheduler.config.get("thresholding"):
            _say_once(
                "the model's scheduler_config.json has thresholding on, which is for images and not"
                " for latents; images are sampled without it"
            )
        # Latents have no bounds, so the pipeline ignores the clipping that is DDIM's default.
        scheduler = DDIMScheduler.from_config(
            self.pipeline.scheduler.config, clip_sample=False, thresholding=False
        )
        return ddim_kernel(scheduler, num_inference_steps, eta=eta, device=self.device)

    def scheduler_name(self, wanted: str) -> str:
        """The name in SCHEDULERS of what is wanted: such a name, or "model" for the model's own."""
        if wanted == MODEL:
            return name_of(self.pipeline.scheduler)
        if wanted not in SCHEDULERS:
            raise InputError(
                f"scheduler: expected {MODEL} or one of {', '.join(SCHEDULERS)}, got {wanted!r}"
            )
        return wanted

    def scheduler(self, name: str) -> Any:
        """A scheduler of the library with this model's noise levels, by its name in SCHEDULERS."""
        return build_scheduler(SCHEDULERS[name], self.pipeline.scheduler.config)

    @property
    def pixel_unit(self) -> int:
        """Each level of the UNet but the last halves the latent."""
        scale: int = self.pipeline.vae_scale_factor
        halvings = len(self.network.config["block_out_channels"]) - 1
        return scale << halvings

    def encode_prompt(self, prompt: str) -> Conditions:
        """`prompt_embeds` [1 tokens d], and of the end token alone `pooled_prompt_embeds` [1 d].

        The end token has seen all tokens before it. The network is not told of it separately.
        """
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        text = self.pipeline.maybe_convert_prompt(prompt, tokenizer)  # textual inversion
        if cut := self.cut_text(text):
            limit = tokenizer.model_max_length
            warnings.warn(
                f"prompt: the model reads {limit} tokens and does not see the end here: {cut!r}",
                stacklevel=2,
            )
        tokens = tokenizer(text, padding="max_length", truncation=True, return_tensors="pt")
        attention_mask = None
        if getattr(encoder.config, "use_attention_mask", False):
            attention_mask = tokens.attention_mask.to(encoder.device)
        states = encoder(tokens.input_ids.to(encoder.device), attention_mask=attention_mask)[0]
        end = int((tokens.input_ids[0] == tokenizer.eos_token_id).int().argmax())
        return {"prompt_embeds": states, "pooled_prompt_embeds": states[:, end]}

    def cut_text(self, prompt: str) -> str:
        """The end of the prompt that does not fit into the model's context; mostly empty."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        cut: str = tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1])
        return cut.strip()

    def forward(
        self,
        latents: Float[Tensor, "n c h w"],
        timesteps: Num[Tensor, " n"],
        conditions: Conditions,
        *,
        guidance_scale: float,
    ) -> Float[Tensor, "n c h w"]:
        """What the UNet says about each row; it reads `prompt_embeds`."""
        guidance = None
        if self.embeds_guidance:
            scales = torch.full((len(latents),), guidance_scale - 1)
            size = self.network.config["time_cond_proj_dim"]
            guidance = self.pipeline.get_guidance_scale_embedding(scales, embedding_dim=size)
            guidance = guidance.to(latents.device, latents.dtype)
        output: Tensor = self.network(
            latents,
            timesteps,
            encoder_hidden_states=conditions["prompt_embeds"],
            timestep_cond=guidance,
        ).sample
        return output


@cache
def _say_once(fact: str) -> None:
    log.warning("%s", fact)
