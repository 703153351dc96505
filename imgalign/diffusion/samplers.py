"""What makes finished latents from prompts and seeds: our own kernel, or a library's scheduler.

Left out: images (generate.py), and log-probabilities of steps (denoising.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from jaxtyping import Float
from torch import Tensor

from imgalign.diffusion.denoising import Denoiser, check_finite
from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.schedulers import sample, set_steps, takes
from imgalign.errors import InputError
from imgalign.preferences.records import SamplerSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LibrarySampler:
    """As a `Denoiser`, with steps of a scheduler of the library, which have no density.

    InputError where the scheduler has no place for these settings.
    """

    family: Family
    scheduler: Any
    num_inference_steps: int
    eta: float = 0.0
    guidance_scale: float = 1.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        limit = self.scheduler.config["num_train_timesteps"]
        if not 1 <= self.num_inference_steps <= limit:
            raise InputError(
                f"num_inference_steps: expected 1 to {limit}, got {self.num_inference_steps}"
            )
        if self.eta and not takes(self.scheduler, "eta"):
            raise InputError(
                f"eta: expected 0, as {type(self.scheduler).__name__} has none, got {self.eta:g}"
            )
        set_steps(self.scheduler, self.num_inference_steps, self.family.device)

    def __len__(self) -> int:
        """The number of network calls for one batch; some schedulers make two a step."""
        return len(self.scheduler.timesteps)

    def finished(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        latent_shape: tuple[int, int, int],
        on_step: Callable[[], None],
    ) -> Float[Tensor, "b c h w"]:
        """One latent per prompt and seed; randomness as in `Denoiser.sample`."""
        negative = None
        if self.guidance_scale != 1.0:
            negative = self.family.encode([self.negative_prompt])
        latents = sample(
            self.scheduler,
            partial(
                self.family.predict,
                conditions=self.family.encode(prompts),
                negative=negative,
                guidance_scale=self.guidance_scale,
            ),
            num_inference_steps=self.num_inference_steps,
            seeds=seeds,
            latent_shape=latent_shape,
            eta=self.eta,
            device=self.family.device,
            on_step=on_step,
        )
        check_finite(latents, prompts, seeds)
        return latents


Sampler: TypeAlias = Denoiser | LibrarySampler


def build_sampler(family: Family, settings: SamplerSettings) -> Sampler:
    """What the settings mean for a model; InputError for what it cannot do."""
    name = family.scheduler_name(settings.scheduler)
    if name == family.kernel_scheduler:
        return Denoiser(
            family=family,
            kernel=family.kernel(settings.num_inference_steps, eta=settings.eta),
            guidance_scale=settings.guidance_scale,
            negative_prompt=settings.negative_prompt,
        )
    return LibrarySampler(
        family=family,
        scheduler=family.scheduler(name),
        num_inference_steps=settings.num_inference_steps,
        eta=settings.eta,
        guidance_scale=settings.guidance_scale,
        negative_prompt=settings.negative_prompt,
    )
