"""Sampling from a diffusion model, and scoring what was sampled with the same arithmetic.

`Denoiser.distributions` is the only place where a network's output becomes a distribution.
Sampling draws from it, training scores with it again, so that the two agree bit for bit as long as
as many rows go through the network at once. Left out: weights and adapters (policy.py).

Shapes: b = images, t = denoising steps, s = chosen steps; a latent is c h w.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from imgalign.diffusion.families.backbone import Family
from imgalign.diffusion.kernels import Kernel
from imgalign.errors import InputError, NumericsError
from imgalign.prompts import normal_noise, seed_generators


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Denoised:
    """The latents of every denoising step, and the log-probability of each step."""

    log_probs: Float[Tensor, "b t"]
    """Of each step, in nats; 0 where it is masked."""
    latents: Float[Tensor, "b t+1 c h w"]
    """From pure noise to the finished latent, float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Denoiser:
    """A model together with all settings that decide what it samples from a seed.

    `latent_dtype` is what a latent is rounded to before anything is computed from it; the rounded
    latent is the sample, whose log-probability is taken and from which the next step starts.
    """

    family: Family
    kernel: Kernel
    guidance_scale: float = 1.0
    negative_prompt: str = ""
    latent_dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        """The number of network calls for one batch."""
        return len(self.kernel)

    @property
    def mask(self) -> Bool[Tensor, " t"]:
        """True where a step has a density."""
        return self.kernel.mask

    def distributions(
        self,
        latents: Float[Tensor, "b s c h w"],
        prompts: Sequence[str],
        steps: Int[Tensor, " s"],
    ) -> Distribution:
        """What latents become in these steps: batch shape [b s], event shape [c h w].

        All b x s rows go through the network at once. A masked step has its true mean and, since
        no density belongs to it, standard deviation 1.
        """
        num_images, num_steps = latents.shape[:2]
        conditions = self.family.encode(prompts)
        negative = None
        if self.guidance_scale != 1.0:
            negative = self.family.encode([self.negative_prompt])
        steps = steps.to(self.kernel.timesteps.device).repeat(num_images)
        rows = latents.flatten(0, 1)
        output = self.family.predict(
            rows,
            self.kernel.timesteps[steps],
            {name: rows.repeat_interleave(num_steps, 0) for name, rows in conditions.items()},
            negative=negative,
            guidance_scale=self.guidance_scale,
        )
        mean, std = self.kernel.step(output, rows, steps)
        std = torch.where(std > 0, std, torch.ones_like(std))
        normal = Normal(
            mean.view_as(latents),
            std.view(num_images, num_steps, 1, 1, 1).expand_as(latents),
            validate_args=False,  # NaN is refused where it first shows, at the end of sampling
        )
        return Independent(normal, 3, validate_args=False)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        latent_shape: tuple[int, int, int],
        on_step: Callable[[], None] = lambda: None,
    ) -> Denoised:
        """Denoise one image per prompt and seed, all in one batch.

        `on_step` is called after each step. InputError for an empty prompt, NumericsError where the
        network gives numbers that are not finite.

        Everything random about an image comes from one CPU generator with its seed: first the
        initial latent, then the noise of each step, in float32. So a seed means the same image in
        any batch and on any device, up to the rounding of the network. In float32 on the CPU it is
        exactly the image that the library's own pipeline makes from such generators.
        """
        check_prompts(prompts)
        device = self.family.device
        generators = seed_generators(seeds)

        def noise() -> Float[Tensor, "b c h w"]:
            return normal_noise(generators, latent_shape).to(device)

        latents = [self._stored(noise())]
        log_probs = []
        noisy = self.mask.tolist()
        for step in torch.arange(len(self.kernel)).view(-1, 1):
            where = self.distributions(latents[-1].unsqueeze(1), prompts, step)
            mean = where.mean.squeeze(1)
            if noisy[step]:
                # A sum, not `sample`: torch would draw from its global generator.
                following = self._stored(mean + where.stddev.squeeze(1) * noise())
            else:
                following = self._stored(mean)
            log_prob = where.log_prob(following.unsqueeze(1))
            log_probs.append(log_prob if noisy[step] else torch.zeros_like(log_prob))
            latents.append(following)
            on_step()
        check_finite(latents[-1], prompts, seeds)
        return Denoised(latents=torch.stack(latents, dim=1), log_probs=torch.cat(log_probs, dim=1))

    def finished(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        latent_shape: tuple[int, int, int],
        on_step: Callable[[], None],
    ) -> Float[Tensor, "b c h w"]:
        """The last latents that `sample` reaches."""
        denoised = self.sample(prompts, seeds=seeds, latent_shape=latent_shape, on_step=on_step)
        return denoised.latents[:, -1]

    def _stored(self, latents: Tensor) -> Tensor:
        return latents.to(self.latent_dtype).float()


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise InputError for a prompt without a word or with a NUL, naming where it stands."""
    for index, prompt in enumerate(prompts):
        if not prompt.strip():
            raise InputError(f"prompts: number {index + 1} of {len(prompts)} is empty")
        if "\0" in prompt:
            raise InputError(f"prompts: number {index + 1} of {len(prompts)} holds a NUL character")


def check_finite(
    latents: Float[Tensor, "b c h w"], prompts: Sequence[str], seeds: Sequence[int]
) -> None:
    """Raise NumericsError for latents that are not finite, naming their prompts and seeds."""
    broken = ~latents.isfinite().flatten(1).all(dim=1)
    if broken.any():
        which = ", ".join(
            f"seed {seed} ({prompt!r})"
            for seed, prompt, bad in zip(seeds, prompts, broken.tolist(), strict=True)
            if bad
        )
        raise NumericsError(
            f"sampling: the network gave numbers that are not finite for {which};"
            " lower the learning rate, or use float32 or bfloat16 instead of float16"
        )
