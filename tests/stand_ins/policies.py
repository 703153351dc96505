"""Every policy, as the contract suite runs it; a new one adds its row."""

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from lora_files import ATTENTION, kohya, random_matrices, write
from peft import LoraConfig, get_peft_model
from random_walk import RandomWalk
from tiny_language import LETTERS, TEMPLATE, build_tokenizer, write_language_model
from torch.nn import Parameter
from transformers import AutoModelForCausalLM

from imgalign.diffusion.config import FullDiffusionConfig, LoraDiffusionConfig
from imgalign.diffusion.policy import DiffusionPolicy
from imgalign.language.config import FullLanguageConfig, LoraLanguageConfig
from imgalign.language.loading import load_language_model
from imgalign.language.policy import LanguagePolicy
from imgalign.policy import Policy

STEPS = 4
SPREAD = 0.2
"""Of the weights of language models, ten times the usual: so a token depends on those before it."""

Models = Mapping[str, Path]
"""Folders of tiny models: "pipeline", and language models by the names of their classes."""

Build = Callable[..., Any]
"""From tiny models, and settings, a fresh policy that can all there is."""


def of(model: str, build: Callable[..., Policy], **settings: Any) -> Build:
    """A row: a policy of one of the tiny models, with settings that a test may change."""
    return lambda models, **changes: build(models[model], **{**settings, **changes})


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


def from_adapter(folder: Path, **settings: Any) -> DiffusionPolicy:
    """One that starts from a LoRA with several ranks and alphas."""
    path = folder.parent / "start.safetensors"
    if not path.exists():
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        matrices = random_matrices(unet, (*ATTENTION, "conv2"), ranks={"to_v": 3})
        write(path, kohya(matrices, alphas={"to_q": 4.0}))
    return diffusion(folder, adapter=str(path), **settings)


def language(folder: Path, **settings: Any) -> LanguagePolicy:
    """`computing_in` is the dtype of its network's computation, and no setting."""
    dtype = settings.pop("computing_in", None)
    attention = settings.get("attention", "sdpa")
    loaded = load_language_model(str(folder), device=torch.device("cpu"), attention=attention)
    # Two texts in a pass, so that four images or texts are more than one pass of every policy.
    fields = {"max_new_tokens": STEPS, "batch_size": 2, **settings}
    kind = FullLanguageConfig if fields.get("train") == "full" else LoraLanguageConfig
    return LanguagePolicy(loaded, kind.model_validate(fields), dtype=dtype)


def from_peft(folder: Path, **settings: Any) -> LanguagePolicy:
    """One that starts from a LoRA that peft wrote."""
    path = folder.parent / f"{folder.name}-adapter"
    if not path.exists():
        write_peft_adapter(folder, path)
    return language(folder, adapter=str(path), **settings)


def write_peft_adapter(folder: Path, path: Path, **settings: Any) -> None:
    """A LoRA of a language model with random matrices, as plain peft saves it."""
    usual: dict[str, Any] = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"}
    with peft_as_it_is():
        model = AutoModelForCausalLM.from_pretrained(folder)
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **usual | settings))
        randomize(each for each in adapted.parameters() if each.requires_grad)
        adapted.save_pretrained(str(path))


@contextmanager
def peft_as_it_is() -> Iterator[None]:
    """Inside, peft may warn: it asks transformers what that has renamed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_language_models(folder: Path) -> Models:
    """Language models with random weights whose texts are a few letters and often end.

    They differ in their classes, and one has a chat template, one padding and ties embeddings.
    """
    plain, chat, padding = (
        build_tokenizer(letters=LETTERS, **settings)
        for settings in ({}, {"template": TEMPLATE}, {"pad": "own", "begin": True})
    )
    return {
        "llama": write_language_model(folder / "llama", "llama", plain, spread=SPREAD),
        "qwen2": write_language_model(folder / "qwen2", "qwen2", chat, spread=SPREAD),
        "qwen3": write_language_model(folder / "qwen3", "qwen3", plain, spread=SPREAD),
        "gpt2": write_language_model(folder / "gpt2", "gpt2", padding, tied=True, spread=SPREAD),
    }


KINDS: Mapping[str, Build] = {
    "random walk": of("pipeline", walk),
    "diffusion": of("pipeline", diffusion),
    "diffusion, all weights": of("pipeline", diffusion, train="full"),
    "language": of("llama", language),
    "language, all weights": of("gpt2", language, train="full"),
}

OF_IMAGES: Mapping[str, Build] = {
    "random walk": of("pipeline", walk),
    "random walk, 3 steps a pass": of("pipeline", walk, steps_per_pass=3),
    "diffusion": of("pipeline", diffusion),
    "diffusion, eta 0.3": of("pipeline", diffusion, eta=0.3),
    "diffusion, guidance 3": of("pipeline", diffusion, guidance_scale=3.0),
    "diffusion, 3 steps a pass": of("pipeline", diffusion, steps_per_pass=3),
    "diffusion, bfloat16 latents": of("pipeline", diffusion, latent_dtype="bfloat16"),
    "diffusion, from an adapter": of("pipeline", from_adapter),
    "diffusion, all weights": of("pipeline", diffusion, train="full"),
    "diffusion, all weights, bfloat16": of(
        "pipeline", diffusion, train="full", computing_in=torch.bfloat16
    ),
    "diffusion, checkpointing": of("pipeline", diffusion, gradient_checkpointing=True),
}
OF_TEXTS: Mapping[str, Build] = {
    "language, llama": of("llama", language),
    "language, qwen2": of("qwen2", language),
    "language, qwen3": of("qwen3", language),
    "language, gpt2": of("gpt2", language),
    "language, temperature 0.7": of("qwen2", language, temperature=0.7),
    "language, bfloat16": of("qwen2", language, computing_in=torch.bfloat16),
    "language, eager attention": of("llama", language, attention="eager"),
    "language, from an adapter": of("llama", from_peft),
    "language, all weights": of("gpt2", language, train="full"),
    "language, all weights, bfloat16": of(
        "llama", language, train="full", computing_in=torch.bfloat16
    ),
    "language, checkpointing": of("llama", language, gradient_checkpointing=True),
}
POLICIES: Mapping[str, Build] = {**OF_IMAGES, **OF_TEXTS}

SCORED_OTHERWISE = ("random walk, 3 steps a pass", "diffusion, 3 steps a pass")
"""Those that score several steps in a pass that they sample one by one; their rows are rounded in
another order. All others score again bit for bit."""

ROUNDED = {"language, bfloat16": 0.2, "language, all weights, bfloat16": 0.2}
"""How far apart, in nats, the same text may score beside other texts, where padding moves it to
another place and the network computes with 8 bits."""


def move_weights(policy: Policy, *, by: float = 0.05) -> None:
    """As if something had been learned; the same for each policy of a kind."""
    randomize(policy.trainable_parameters(), by=by)


@torch.no_grad()
def randomize(parameters: Iterable[Parameter], *, by: float = 0.05) -> None:
    """Add noise of one seed."""
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.add_(by * noise.to(parameter.device))


def frozen_parameters(policy: Policy) -> Iterable[Parameter]:
    """All that a policy holds and does not train."""
    trained = {id(parameter) for parameter in policy.trainable_parameters()}
    parts = []
    if isinstance(policy, DiffusionPolicy):
        parts = list(policy.family.parts.values())
    if isinstance(policy, LanguagePolicy):
        parts = [policy.network.model]
    held = itertools.chain.from_iterable(part.parameters() for part in parts)
    return (parameter for parameter in held if id(parameter) not in trained)
