"""What Stable Diffusion 1, 2 and XL share: a UNet, and a process with fixed noise levels.

Training samples with DDIM at the levels that the model was trained on; images may be sampled with
any scheduler of such a process (arXiv:2006.11239). Left out: text encoders, and what the UNet is
told of a prompt.

Shapes: n = rows of one forward pass, d = features.
"""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.kernels import DDIMKernel, ddim_kernel
from imgalign.diffusion.schedulers import MODEL, SCHEDULERS, build_scheduler, check_levels, name_of
from imgalign.errors import InputError

log = logging.getLogger(__name__)


class UNetFamily(Family):
    """A family whose network is a UNet that is asked at one of a fixed number of noise levels."""

    network_name = "unet"
    kernel_scheduler = "ddim"
    target_modules = ("to_q", "to_k", "to_v", "to_out.0")
    """The projections of every attention layer, as in diffusers' own training scripts."""

    def __init__(self, pipeline: DiffusionPipeline, *, dtype: torch.dtype | None = None) -> None:
        super().__init__(pipeline, dtype=dtype)
        self.embeds_guidance = self.network.config["time_cond_proj_dim"] is not None

    def check_parts(self, source: Path) -> None:
        """Raise InputError for a UNet with other channels than the autoencoder's latents."""
        unet, latent = self.network.config, self.pipeline.vae.config["latent_channels"]
        if (unet["in_channels"], unet["out_channels"]) != (latent, latent):
            raise InputError(
                f"model: {source}: expected a network from {latent} channels to {latent}, as its"
                f" vae has, got {unet['in_channels']} to {unet['out_channels']}"
            )

    @property
    def pixel_unit(self) -> int:
        """Each level of the UNet but the last halves the latent."""
        scale: int = self.pipeline.vae_scale_factor
        halvings = len(self.network.config["block_out_channels"]) - 1
        return scale << halvings

    def kernel(self, num_inference_steps: int, *, eta: float) -> DDIMKernel:
        """The steps of a DDIM sampler with the noise levels this model was trained on."""
        own = name_of(self.pipeline.scheduler)
        check_levels(self.pipeline.scheduler.config)
        if own != self.kernel_scheduler:
            _say_once(f"the model comes with the scheduler {own}; images are sampled with ddim")
        if self.pipeline.scheduler.config.get("thresholding"):
            _say_once(
                "the model's scheduler_config.json has thresholding on, which is for images and not"
                " for latents; images are sampled without it"
            )
        scheduler = self.scheduler_of_kernel()
        return ddim_kernel(scheduler, num_inference_steps, eta=eta, device=self.device)

    def scheduler_of_kernel(self) -> Any:
        """The library's DDIM with this model's noise levels."""
        # Latents have no bounds, so the pipeline ignores the clipping that is DDIM's default.
        return DDIMScheduler.from_config(
            self.pipeline.scheduler.config, clip_sample=False, thresholding=False
        )

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

    def guidance_embedding(
        self, latents: Float[Tensor, "n c h w"], guidance_scale: float
    ) -> Float[Tensor, "n d"] | None:
        """What a UNet that embeds its guidance is told beside the time; None for others."""
        if not self.embeds_guidance:
            return None
        scales = torch.full((len(latents),), guidance_scale - 1)
        size = self.network.config["time_cond_proj_dim"]
        embedding: Tensor = self.pipeline.get_guidance_scale_embedding(scales, embedding_dim=size)
        return embedding.to(latents.device, latents.dtype)


@cache
def _say_once(fact: str) -> None:
    log.warning("%s", fact)
