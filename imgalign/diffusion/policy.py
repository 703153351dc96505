"""A text-to-image model as a policy: denoising steps are actions, LoRA weights are what is trained.

The pretrained weights never change, so the reference is the same model with its adapter switched
off. Left out: how steps become distributions (denoising.py), what differs between model families
(families/), every algorithm.

Shapes: b = images, t = denoising steps, s = chosen steps, d = features; a latent is c h w.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.training_utils import cast_training_params
from jaxtyping import Float, Int
from peft import LoraConfig
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn import Parameter

from imgalign.config import Config
from imgalign.diffusion.attention import first_line
from imgalign.diffusion.denoising import Denoiser
from imgalign.diffusion.families.table import family_of
from imgalign.environment import dtype_named
from imgalign.errors import ConfigError
from imgalign.policy import Steps, Trajectory, concatenate

ADAPTER = "policy"


class PolicyConfig(Config):
    """How images are sampled during training, and which weights may change."""

    num_steps: Annotated[int, Field(ge=2)] = 10
    """Denoising steps per image; the last adds no noise, and nothing is learned from it. Ten are
    enough to learn from (arXiv:2505.05470); generate with as many as you like afterwards."""

    eta: Annotated[float, Field(ge=1e-3, le=1)] = 1.0
    """Noise of the sampler: 1 is DDPM's. Near 0, steps are nearly deterministic and hard to
    explore from; below 0.001 their density is beyond float32."""

    guidance_scale: Annotated[float, Field(ge=1)] = 1.0
    """Classifier-free guidance; 1 is off. Off, a step costs half and the ratio is less noisy; the
    policy learns what guidance would have added."""

    lora_rank: PositiveInt = 8
    """Rank of the trained matrices; more is more capacity and more memory."""

    lora_alpha: PositiveInt | None = None
    """The adapter is scaled by alpha / rank. None is the rank itself, a scale of 1, which is what
    tools assume that do not read it from the file."""

    lora_targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Ends of the names of the layers to train; None is the attention projections."""

    batch_size: PositiveInt = 8
    """Images per forward pass of the network while sampling. Re-scoring as many rows at once gives
    bit for bit the same log-probabilities."""

    latent_dtype: Literal["float32", "bfloat16"] = "float32"
    """What latents are rounded to before their log-probability is taken."""

    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them: less memory, a third slower."""


class DiffusionPolicy:
    """A pipeline with a fresh LoRA adapter that starts as the identity; implements `Policy`.

    The pipeline belongs to the policy from then on. `seed` decides the initial adapter weights.
    """

    def __init__(self, pipeline: DiffusionPipeline, config: PolicyConfig, *, seed: int = 0) -> None:
        self.config = config
        self.family = family_of(pipeline)
        network = self.family.network
        self.latent_shape = self.family.latent_shape(*self.family.image_size())
        self.denoiser = Denoiser(
            family=self.family,
            kernel=self.family.kernel(config.num_steps, eta=config.eta),
            guidance_scale=config.guidance_scale,
            latent_dtype=dtype_named(config.latent_dtype),
        )
        targets = config.lora_targets or self.family.target_modules
        for target in targets:
            if not any(
                name == target or name.endswith(f".{target}") for name, _ in network.named_modules()
            ):
                raise ConfigError(f"lora_targets: the network has no layer called {target!r}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            lora = LoraConfig(
                r=config.lora_rank,
                lora_alpha=config.lora_alpha or config.lora_rank,
                target_modules=list(targets),
            )
            try:
                network.add_adapter(lora, ADAPTER)
            except ValueError as error:  # a layer of a kind that LoRA cannot adapt
                raise ConfigError(f"lora_targets: {first_line(error)}") from None
        cast_training_params(network, dtype=torch.float32)
        # Dropout would make sampling and re-scoring disagree; nothing else depends on this.
        network.eval()
        if config.gradient_checkpointing:
            network.enable_gradient_checkpointing()

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
            samples=self.family.decode(path.latents[:, -1]),
            log_probs=path.log_probs,
            mask=self.denoiser.mask.expand_as(path.log_probs).clone(),
            replay={"latents": path.latents},
        )

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

    def log_prob(self, trajectory: Trajectory, steps: Steps) -> Float[Tensor, "b s"]:
        """Of the latents that the trajectory went through, under the present weights.

        0 at a masked step.
        """
        index = self._indices(steps)
        latents = self._latents(trajectory)
        return self.denoiser.log_prob(
            latents[:, index], latents[:, index + 1], trajectory.prompts, index
        )

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

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy is the pretrained model: adapters off, no second copy."""
        network = self.family.network
        network.disable_adapters()
        try:
            yield
        finally:
            network.enable_adapters()

    def trainable_parameters(self) -> list[Parameter]:
        """The adapter's matrices, float32, in the order of the network's layers."""
        named = self.family.network.named_parameters()
        return [parameter for name, parameter in named if f".{ADAPTER}." in name]

    def train(self) -> None:
        """Change nothing: the network has no behaviour that is wanted in training only."""

    def eval(self) -> None:
        """Change nothing, as `train`."""

    def save(self, folder: Path) -> None:
        """Write pytorch_lora_weights.safetensors, which `pipe.load_lora_weights(folder)` reads."""
        self.family.save_lora(folder, ADAPTER)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; CheckpointError where it is missing or does not fit."""
        self.family.load_lora(folder, ADAPTER)

    def _latents(self, trajectory: Trajectory) -> Float[Tensor, "b states c h w"]:
        latents = trajectory.replay["latents"]
        assert latents.shape[1] == self.config.num_steps + 1
        return latents.to(self.family.device)

    def _indices(self, steps: Steps) -> Int[Tensor, " s"]:
        if isinstance(steps, slice):
            return torch.arange(self.config.num_steps, device=self.family.device)[steps]
        return steps.to(self.family.device)
