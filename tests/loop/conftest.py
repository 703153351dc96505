"""Loops on the tiny model, so small that a round takes seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from imgalign.config import load_config
from imgalign.loop.config import LoopConfig

Settings: TypeAlias = Callable[..., LoopConfig]

TRAINING = (
    *("policy.num_inference_steps=2", "policy.batch_size=8", "policy.lora_rank=1"),
    *("policy.dtype=float32", "policy.target_modules=[to_q, to_v]", "run.device=cpu"),
    *("data.held_out.num_prompts=1", "data.held_out.images_per_prompt=1"),
    *("run.iterations=1", "run.measure_every=1", "run.checkpoint_every=1"),
    *("run.samples.num_prompts=1", "run.samples.images_per_prompt=1"),
)
CANDIDATES = ["a red house", "a blue tree", "a green boat", "two red boat", "the house"]
CANDIDATES += ["the blue house", "the red tree", "the green tree", "two house", "two tree"]
CANDIDATES += ["a blue boat", "a green house", "a red tree", "the boat", "the tree"]
# Fewer prompts, all won, would not be enough to tell a win from chance.
COMPARED = ["a red boat", "a green tree", "two green house", "the blue boat", "the red house"]


@pytest.fixture(scope="session")
def prompt_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of prompts to rank and of prompts to compare, in words that the tiny model knows."""
    folder = tmp_path_factory.mktemp("prompts")
    ranked, compared = folder / "ranked.txt", folder / "compared.txt"
    ranked.write_text("\n".join(CANDIDATES) + "\n")
    compared.write_text("\n".join(COMPARED) + "\n")
    return ranked, compared


@pytest.fixture(scope="session")
def settings(tiny_pipeline_folder: Path, prompt_files: tuple[Path, Path]) -> Settings:
    """Settings of a loop on the tiny model; overrides change them."""

    def made(*overrides: str, training: tuple[str, ...] = ()) -> LoopConfig:
        model = f"policy.model={tiny_pipeline_folder}"
        changes: list[Any] = [model, *TRAINING, *training]
        ranked, compared = prompt_files
        return load_config(
            LoopConfig,
            None,
            [
                f"align.overrides={changes}",
                "ask.kind=people",
                f"candidates={{prompts: {ranked}, num_prompts: 5, per_prompt: 2}}",
                "candidates.sampler={num_inference_steps: 2, eta: 1.0}",
                f"compare={{prompts: {compared}, images_per_prompt: 1}}",
                "compare.sampler.num_inference_steps=2",
                *overrides,
            ],
        )

    return made
