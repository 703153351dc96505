"""A text-to-image model as a policy: denoising steps are actions, its network is what is trained.

Left out: settings (config.py), how steps become distributions (denoising.py), what is trained and
what the reference is (weights.py), what differs between model families (families/), every
algorithm.

Shapes: b = images, t = denoising steps, s = chosen steps, d = features; a latent is c h w.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import interpolate

from imgalign.diffusion.config import AnyDiffusionConfig, FullDiffusionConfig
from imgalign.diffusion.denoising import Denoiser
from imgalign.diffusion.families.table import family_of
from imgalign.diffusion.parity import noiseless_difference
from imgalign.diffusion.planned import refuse_long_prompts
from imgalign.diffusion.weights import NetworkWeights, adapter_from, fresh_adapter
from imgalign.environment import dtype_named
from imgalign.policy import (
    Check,
    Data,
    Draws,
    Images,
    LogProb,
    Steps,
    Trajectory,
    concatenate,
    draws_of,
)
from imgalign.prompts import normal_noise, seed_generators
from imgalign.runs.weights import HoldsWeights, TrainedWeights

DEFAULT_RANK = 8

FITTED = "covered"
"""How `fit_images` brings images to a size, for the name of what is kept of it: another way needs
another name."""


class DiffusionPolicy(HoldsWeights):
    """A pipeline whose trained weights start as its reference; implements `Policy`.

    The pipeline belongs to the policy from then on. `seed` decides the weights of a fresh adapter.
    `dtype` is what the network computes in, by default what its weights are in. ConfigError for
    layers that cannot be adapted, and for an adapter that cannot be started from.
    """

    default_clip_nats = 1.6
    """1e-4 per latent element, the field's habit, on a 4x64x64 latent."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        config: AnyDiffusionConfig,
        *,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.config = config
        self.family = family_of(pipeline, dtype=dtype)
        network = self.family.network
        self.latent_shape = self.family.latent_shape(*self.family.image_size())
        self.denoiser = Denoiser(
            family=self.family,
            kernel=self.family.kernel(config.num_inference_steps, eta=config.eta),
            guidance_scale=config.guidance_scale,
            latent_dtype=dtype_named(config.latent_dtype),
        )
        self.weights = self._initial_weights(seed)
        # Dropout would make sampling and re-scoring disagree; nothing else depends on this.
        network.eval()
        if config.gradient_checkpointing:
            self.family.keep_fewer_activations()

    def _initial_weights(self, seed: int) -> TrainedWeights:
        config = self.config
        if isinstance(config, FullDiffusionConfig):
            return NetworkWeights(self.family)
        if config.channels_last:
            self.family.network.to(memory_format=torch.channels_last)
        if config.adapter is not None:
            return adapter_from(
                self.family,
                Path(config.adapter),
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                target_modules=config.target_modules,
            )
        rank = config.lora_rank or DEFAULT_RANK
        return fresh_adapter(
            self.family,
            rank=rank,
            alpha=config.lora_alpha or rank,
            target_modules=config.target_modules or self.family.target_modules,
            seed=seed,
        )

    @property
    def batch_size(self) -> int:
        """Images in one forward pass of the network."""
        return self.config.batch_size

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        prompt_ids: Sequence[str] | None = None,
    ) -> Trajectory:
        """Make one image per prompt and seed, `batch_size` at a time.

        A seed gives the same image in any batch, up to float32 rounding of the network. InputError
        for an empty prompt, NumericsError where the network gives numbers that are not finite.
        """
        ids = prompts if prompt_ids is None else prompt_ids
        assert len(prompts) == len(seeds) == len(ids) > 0
        size = self.config.batch_size
        batches = [slice(start, start + size) for start in range(0, len(prompts), size)]
        return concatenate(
            [self._sample(prompts[each], seeds=seeds[each], ids=ids[each]) for each in batches]
        )

    def _sample(
        self, prompts: Sequence[str], *, seeds: Sequence[int], ids: Sequence[str]
    ) -> Trajectory:
        path = self.denoiser.sample(prompts, seeds=seeds, latent_shape=self.latent_shape)
        return Trajectory(
            prompts=list(prompts),
            prompt_ids=list(ids),
            seeds=list(seeds),
            log_probs=path.log_probs,
            mask=self.denoiser.mask.expand_as(path.log_probs).clone(),
            replay={"latents": path.latents},
        )

    def decode(self, trajectory: Trajectory) -> Images:
        """The finished latents as images."""
        return self.family.decode(self._latents(trajectory)[:, -1])

    def preview(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> Images:
        """As `generate` with as many steps and the same guidance: no noise but the first."""
        kernel = self.denoiser.kernel.deterministic()
        deterministic = replace(self.denoiser, kernel=kernel)
        path = deterministic.sample(prompts, seeds=seeds, latent_shape=self.latent_shape)
        return self.family.decode(path.latents[:, -1])

    def units(self, trajectory: Trajectory) -> list[Int[Tensor, " s"]]:
        """One step at a time, as they were sampled, or `steps_per_pass` of them."""
        steps = torch.arange(self.config.num_inference_steps)
        return list(torch.split(steps, self.config.steps_per_pass))

    def step_distributions(self, trajectory: Trajectory, steps: Steps) -> Independent[Normal]:
        """What each chosen step could have become, in float32: [b s] Normals over latents.

        All b x s rows go through the network at once; choose few images and steps to save memory.
        A masked step has standard deviation 1: leave it out of any sum by `trajectory.mask`.
        """
        index = self._indices(steps)
        latents = self._latents(trajectory)
        return self.denoiser.distributions(latents[:, index], trajectory.prompts, index)

    def actions(self, trajectory: Trajectory, steps: Steps) -> Float[Tensor, "b s c h w"]:
        """The latents after these steps."""
        return self._latents(trajectory)[:, self._indices(steps) + 1]

    def features(self, trajectory: Trajectory, steps: Steps) -> Mapping[str, Tensor]:
        """`prompt` [b d], the text encoder's summary of each prompt, and `timestep` [s] in [0, 1).

        1 would be pure noise. Both float32.
        """
        kernel = self.denoiser.kernel
        timesteps = kernel.timesteps[self._indices(steps)]
        return {
            "prompt": self.family.pooled(trajectory.prompts).float(),
            "timestep": timesteps.float() / kernel.num_train_timesteps,
        }

    @cached_property
    def encoding(self) -> str:
        """By the encoder's weights and scale, the images' size, and what it computes in and on."""
        width, height = self.family.image_size()
        weights = self.family.encoder_hash()
        where = f"{self.family.dtype}-{self.family.device.type}".removeprefix("torch.")
        return f"{weights[:16]}-{width}x{height}-{FITTED}-{where}"

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], samples: Images) -> Data:
        """Images as latents; each is scaled to cover the model's size, and cut at its middle."""
        width, height = self.family.image_size()
        fitting = fit_images(samples.to(self.family.device), width=width, height=height)
        latents = self.family.encode_images(fitting)
        return Data(prompts=list(prompts), prompt_ids=list(prompts), content={"latents": latents})

    def given(self, trajectory: Trajectory) -> Data:
        """The finished latents."""
        return Data(
            prompts=trajectory.prompts,
            prompt_ids=trajectory.prompt_ids,
            content={"latents": self._latents(trajectory)[:, -1]},
        )

    def elements(self, data: Data) -> Float[Tensor, " b"]:
        """Those of a latent."""
        latents = data.content["latents"]
        return torch.full((len(latents),), float(latents[0].numel()))

    def draw(
        self, data: Data, *, seeds: Sequence[int], levels: Sequence[float] | None = None
    ) -> Draws:
        """A noise level of `noise_levels` and standard normal noise for each latent."""
        assert len(data) == len(seeds)
        drawn = draws_of(seeds, data.content["latents"].shape[1:], levels=levels)
        lowest, highest = self.config.noise_levels
        return replace(
            drawn,
            levels=lowest + (highest - lowest) * drawn.levels,
            noise=data.content.get("noise", drawn.noise),
        )

    def starting_noise(self, seeds: Sequence[int]) -> Mapping[str, Tensor]:
        """The latents with which `sample` and `generate` begin."""
        return {"noise": normal_noise(seed_generators(seeds), self.latent_shape)}

    @property
    def averages_log_ratios(self) -> bool:
        """No: all latents have the same number of elements."""
        return False

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        """-|error|^2 / 2 of the network's prediction at one noise level, by `likelihood_error`.

        Up to a constant the log-density of the target, or of the noise, under a Gaussian of
        variance 1 around the prediction; of the noise, its mean over all levels is the ELBO with
        the weights of arXiv:2006.11239, eq. 14. Without classifier-free guidance, as in
        pretraining; only a network that embeds its guidance is told the scale.
        """
        kernel, device = self.denoiser.kernel, self.family.device
        clean, noise = data.content["latents"].to(device), draws.noise.to(device)
        timesteps = kernel.training_timesteps(draws.levels)
        prediction = self.family.predict(
            kernel.corrupt(clean, noise, timesteps),
            timesteps,
            self.family.encode(data.prompts),
            guidance_scale=self.config.guidance_scale,
        )
        error = prediction - kernel.target(clean, noise, timesteps)
        scale = kernel.error_scale(timesteps, of=self.config.likelihood_error)
        return LogProb(
            values=-(scale * error).flatten(1).square().sum(dim=1) / 2,
            kind="elbo",
            num_elements=error[0].numel(),
            slopes=-scale.square() * error.detach(),
        )

    def refuse_prompts(self, prompts: Sequence[str]) -> None:
        """InputError for prompts that the model would not read to the end, unless they may be."""
        refuse_long_prompts(prompts, self.family, self.config)

    def checks(self) -> list[Check]:
        """Rule 6: a step at eta 0 is the library's own; rule 4: what is frozen stays frozen."""
        largest = noiseless_difference(self.denoiser, self.latent_shape)
        return [
            Check(
                name="a step at eta 0 is the library's",
                measured=f"up to {largest:.2g} apart",
                expected="under 0.0001",
                passed=largest < 1e-4,
                cure="the settings of the model's scheduler are not understood; report them",
            ),
            self.check_frozen(self.family.parts.values()),
        ]

    def save(self, folder: Path) -> None:
        """Write what is trained, in the layout of the library.

        An adapter is pytorch_lora_weights.safetensors, which `pipe.load_lora_weights(folder)`
        reads. The one that it started from is written in the same way, into the folder reference/.
        All weights are a folder of the network's name, which `from_pretrained` of its class reads.
        What it remembers is written likewise, into remembered/.
        """
        self.weights.save(folder)

    def _latents(self, trajectory: Trajectory) -> Float[Tensor, "b states c h w"]:
        latents = trajectory.replay["latents"]
        assert latents.shape[1] == self.config.num_inference_steps + 1
        return latents.to(self.family.device)

    def _indices(self, steps: Steps) -> Int[Tensor, " s"]:
        if isinstance(steps, slice):
            return torch.arange(self.config.num_inference_steps, device=self.family.device)[steps]
        return steps.to(self.family.device)


def fit_images(
    images: Float[Tensor, "b 3 h w"], *, width: int, height: int
) -> Float[Tensor, "b 3 {height} {width}"]:
    """Images scaled so that they cover a size, and cut to it at their middle."""
    scale = max(width / images.shape[3], height / images.shape[2])
    if scale != 1:
        rows, columns = round(images.shape[2] * scale), round(images.shape[3] * scale)
        images = interpolate(
            images, (max(rows, height), max(columns, width)), mode="bicubic", antialias=True
        ).clamp(0, 1)
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]
