"""Evaluations of images made of noise, which an adapter makes brighter, and their judges."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import Evaluation
from imgalign.evaluate.judging import Measures
from imgalign.evaluate.run import evaluate
from imgalign.evaluate.sides import LoadGenerator
from imgalign.preferences.records import Generated, Provenance, SamplerSettings
from imgalign.storybook.oracle import slice_of
from imgalign.storybook.scenes import evaluation_prompts

SIDE = 4
HASH = "5e" * 32
"""Of the adapter that these images are made with."""


def flat(value: int) -> Image.Image:
    """An image of one grey."""
    return Image.new("RGB", (SIDE, SIDE), (value, value, value))


class NoisyImages:
    """Images decided by prompt and seed alone; with an adapter, 40 of 255 brighter."""

    side = SIDE

    def __init__(self, model: str, *, device: str = "cpu", dtype: str = "float32") -> None:
        self.model = model
        self.adapter: Path | None = None
        self.strength = 1.0

    def use(self, adapter: Path | None, *, strength: float = 1.0) -> None:
        self.adapter, self.strength = adapter, strength

    def pixels(self, prompt: str, seed: int) -> np.ndarray:
        noise = np.random.default_rng([seed, len(prompt)]).integers(
            100, size=(self.side, self.side, 3)
        )
        return noise + (int(40 * self.strength) if self.adapter else 0)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        settings: SamplerSettings,
        on_progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Generated]:
        for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), start=1):
            yield Generated(
                image=Image.fromarray(self.pixels(prompt, seed).astype(np.uint8)),
                provenance=Provenance(
                    model=self.model,
                    adapter=None if self.adapter is None else str(self.adapter),
                    adapter_hash=None if self.adapter is None else HASH,
                    prompt=prompt,
                    seed=seed,
                    scheduler="ddim",
                    width=self.side,
                    height=self.side,
                    steps=settings.num_inference_steps,
                    guidance_scale=settings.guidance_scale,
                    eta=settings.eta,
                ),
            )
            on_progress(number / len(prompts))


def brightness(*, prompts: Sequence[str], samples: Tensor) -> Tensor:
    return samples.mean((1, 2, 3))


class Brightness:
    """A reward model that agrees with the oracle reward of these tests."""

    def score(self, *, prompts: Sequence[str], samples: Tensor) -> Tensor:
        return 10 * samples.mean((1, 2, 3))


def bright_enough(*, prompts: Sequence[str], samples: Tensor) -> Tensor:
    return samples.mean((1, 2, 3)) > 0.25


def flat_features(samples: Tensor) -> Tensor:
    return samples.flatten(1)


def compare(
    adapter: Path,
    out: Path | None,
    *,
    load: LoadGenerator = NoisyImages,
    settings: Mapping[str, Any] | None = None,
    **measures: Any,
) -> Evaluation:
    few = {"images_per_prompt": 2} | ({} if "prompts" in (settings or {}) else {"num_prompts": 6})
    settings = {**few, **(settings or {})}
    return evaluate(
        EvaluateConfig(aligned=adapter, **settings),
        measures=Measures(slices=slice_of, **measures),
        draw_prompts=evaluation_prompts,
        out=out,
        load=load,
    )
