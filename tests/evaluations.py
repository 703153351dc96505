"""Evaluations of pictures made of noise, which an adapter makes brighter, and their judges."""

from pathlib import Path

import numpy as np
from PIL import Image

from imgalign.evaluate import EvaluateConfig, evaluate
from imgalign.generate import Generated
from imgalign.preferences.records import Provenance

SIDE = 4


def flat(value: int) -> Image.Image:
    """A picture of one grey."""
    return Image.new("RGB", (SIDE, SIDE), (value, value, value))


def noisy_images(model, adapter, prompts, *, seeds, on_progress=lambda _: None, **settings):
    """Pictures decided by prompt and seed alone; with an adapter, 40 of 255 brighter."""
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), start=1):
        noise = np.random.default_rng([seed, len(prompt)]).integers(100, size=(SIDE, SIDE, 3))
        pixels = (noise + (40 if adapter else 0)).astype(np.uint8)
        yield Generated(
            image=Image.fromarray(pixels),
            provenance=Provenance(
                model=model,
                adapter=None if adapter is None else str(adapter),
                adapter_hash=None if adapter is None else "0" * 64,
                prompt=prompt,
                seed=seed,
                scheduler="ddim",
                width=SIDE,
                height=SIDE,
                steps=settings["steps"],
                guidance_scale=settings["guidance_scale"],
                eta=settings["eta"],
            ),
        )
        on_progress(number / len(prompts))


def brightness(*, prompts, samples):
    return samples.mean((1, 2, 3))


class Brightness:
    """A reward model that agrees with the gold measure of these tests."""

    def score(self, *, prompts, samples):
        return 10 * samples.mean((1, 2, 3))


def bright_enough(*, prompts, samples):
    return samples.mean((1, 2, 3)) > 0.25


def flat_features(samples):
    return samples.flatten(1)


def compare(adapter: Path, out: Path | None, *, made=noisy_images, settings=None, **measures):
    settings = {"num_prompts": 6, "images_per_prompt": 2} | (settings or {})
    return evaluate(EvaluateConfig(aligned=adapter, **settings), out=out, generate=made, **measures)
