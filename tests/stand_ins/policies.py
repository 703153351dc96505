"""Every policy, as the contract suite runs it; a new one adds its row."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from lora_files import ATTENTION, kohya, random_matrices, write
from random_walk import RandomWalk
from torch.nn import Parameter

from imgalign.diffusion.config import FullDiffusionConfig, LoraDiffusionConfig
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.policy import Policy

STEPS = 4

Build = Callable[..., Any]
"""From a folder with a tiny pipeline, and settings, a fresh policy that can all there is."""


def walk(folder: Path, **settings: Any) -> RandomWalk:
    return RandomWalk(num_steps=STEPS, last_step_deterministic=True, **settings)


def diffusion(folder: Path, **settings: Any) -> DiffusionPolicy:
    """`computing_in` is the dtype of its network's computation, and no setting."""
    dtype = settings.pop("computing_in", None)
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    fields = {"num_inference_steps": STEPS, "batch_size": 4, **settings}
    kind = FullDiffusionConfig if fields.get("train") == "full" else LoraDiffusionConfig
    config = kind.model_validate(fields)
    return DiffusionPolicy(pipeline, config, dtype=dtype)


def full_in_bfloat16(folder: Path, **settings: Any) -> DiffusionPolicy:
    return diffusion(folder, train="full", computing_in=torch.bfloat16, **settings)


def from_adapter(folder: Path, **settings: Any) -> DiffusionPolicy:
    """One that starts from a LoRA with several ranks and alphas."""
    path = folder.parent / "start.safetensors"
    if not path.exists():
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        matrices = random_matrices(unet, (*ATTENTION, "conv2"), ranks={"to_v": 3})
        write(path, kohya(matrices, alphas={"to_q": 4.0}))
    return diffusion(folder, adapter=str(path), **settings)


KINDS: Mapping[str, Build] = {
    "random walk": walk,
    "diffusion": diffusion,
    "diffusion, all weights": partial(diffusion, train="full"),
}

POLICIES: Mapping[str, tuple[Build, Mapping[str, Any]]] = {
    "random walk": (walk, {}),
    "random walk, 3 steps a pass": (walk, {"steps_per_pass": 3}),
    "diffusion": (diffusion, {}),
    "diffusion, eta 0.3": (diffusion, {"eta": 0.3}),
    "diffusion, guidance 3": (diffusion, {"guidance_scale": 3.0}),
    "diffusion, 3 steps a pass": (diffusion, {"steps_per_pass": 3}),
    "diffusion, bfloat16 latents": (diffusion, {"latent_dtype": "bfloat16"}),
    "diffusion, from an adapter": (from_adapter, {}),
    "diffusion, all weights": (diffusion, {"train": "full"}),
    "diffusion, all weights, bfloat16": (full_in_bfloat16, {}),
    "diffusion, checkpointing": (diffusion, {"gradient_checkpointing": True}),
}


@torch.no_grad()
def move_weights(policy: Policy, *, by: float = 0.05) -> None:
    """As if something had been learned; the same for each policy of a kind."""
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.trainable_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(by * noise.to(parameter.device))


def frozen_parameters(policy: Policy) -> Iterable[Parameter]:
    """All that a policy holds and does not train."""
    if isinstance(policy, DiffusionPolicy):
        trained = {id(parameter) for parameter in policy.trainable_parameters()}
        for part in policy.family.parts.values():
            yield from (each for each in part.parameters() if id(each) not in trained)
