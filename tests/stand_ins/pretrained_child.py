"""One of the processes that pretrain together: pretrained_child.py INPUTS OUT.

Each of `TRAINERS` takes two steps or a few from `INPUTS`, which `make_inputs` wrote.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from imgalign.runs.world import World, join_world
from imgalign.storybook.train.autoencoder import build_autoencoder, train_autoencoder
from imgalign.storybook.train.clip import train_clip
from imgalign.storybook.train.data import draw_images
from imgalign.storybook.train.distil import distil_pipeline
from imgalign.storybook.train.language import train_language
from imgalign.storybook.train.pipeline import train_pipeline
from imgalign.storybook.train.verifier import draw_free_scenes, train_verifier

STEPS = 2
RATE = 1e-3
BATCH = 5
"""Odd, so that two processes have unequal shares."""
NORMALISED = 11
"""Of networks with batch normalisation."""


def make_inputs(inputs: Path) -> None:
    """Images, free scenes, an autoencoder and a pipeline, of random weights or nearly so."""
    draw_images(inputs / "data", num_images=40, seed=0)
    draw_free_scenes(inputs / "free", num_images=8, seed=0, workers=1)
    build_autoencoder().save_pretrained(inputs / "vae")
    pipeline(inputs, inputs / "trained", num_samples=BATCH)


def autoencoder(
    inputs: Path, out: Path, *, num_samples: int = STEPS * BATCH, world: World | None = None
) -> None:
    train_autoencoder(
        inputs / "data",
        out,
        num_samples=num_samples,
        learning_rate=RATE,
        batch=BATCH,
        decoder_only=False,
        world=world,
    )


def pipeline(
    inputs: Path, out: Path, *, num_samples: int = STEPS * BATCH, world: World | None = None
) -> None:
    train_pipeline(
        inputs / "data",
        inputs / "vae",
        out,
        num_samples=num_samples,
        learning_rate=RATE,
        batch=BATCH,
        world=world,
    )


def distil(inputs: Path, out: Path, *, world: World | None = None) -> None:
    distil_pipeline(
        inputs / "data",
        inputs / "trained" / "pipeline",
        out,
        guidance_scale=2.5,
        num_samples=STEPS * BATCH,
        learning_rate=RATE,
        batch=BATCH,
        world=world,
    )


def language(inputs: Path, out: Path, *, world: World | None = None) -> None:
    train_language(out, num_texts=700, learning_rate=RATE, world=world)


ON_NORMALISED: Any = {
    "num_samples": STEPS * NORMALISED,
    "learning_rate": RATE,
    "batch": NORMALISED,
}
"""Of the two that normalise a batch."""


def clip(inputs: Path, out: Path, *, world: World | None = None) -> None:
    train_clip(
        inputs / "data",
        out,
        world=world,
        **ON_NORMALISED,
    )


def verifier(inputs: Path, out: Path, *, world: World | None = None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if world is None or world.index == 0:
        (out / "free").symlink_to(inputs / "free")
    if world is not None:
        world.wait()
    train_verifier(
        inputs / "data",
        out,
        world=world,
        **ON_NORMALISED,
    )


TRAINERS: dict[str, Callable[..., None]] = {
    "autoencoder": autoencoder,
    "pipeline": pipeline,
    "distil": distil,
    "language": language,
    "clip": clip,
    "verifier": verifier,
}


def main() -> None:
    inputs, out, world = Path(sys.argv[1]), Path(sys.argv[2]), join_world(cure="start it again")
    for name, trainer in TRAINERS.items():
        trainer(inputs, out / name, world=world)


if __name__ == "__main__":
    main()
