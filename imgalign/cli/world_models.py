"""`imgalign storybook train ...`: the models of the storybook domain."""

from pathlib import Path
from typing import Annotated

import typer

from imgalign.cli.program import together

WORK = Path("storybook")
GO_ON = "start the same command again, which continues from the last save"
"""What to do after one of several processes has died."""

Data = Annotated[Path, typer.Option(help="Folder of training images.")]
Out = Annotated[
    Path, typer.Option(help="Folder for weights, log and state; resumed if it has any.")
]
Samples = Annotated[int, typer.Option(help="Training samples in all.", min=1)]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
Trained = Annotated[Path, typer.Option(help="Folder of the trained pipeline.")]


def data(
    out: Out = WORK / "data",
    num_images: Annotated[
        int, typer.Option("--images", "--pictures", help="How many to draw.", min=1)
    ] = 120_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images.")] = 0,
    held_out: Annotated[bool, typer.Option(help="Draw held-out combinations only.")] = False,
) -> None:
    """Draw training images."""
    from imgalign.storybook.train.data import draw_images

    draw_images(out, num_images=num_images, seed=seed, held_out=held_out)


def autoencoder(
    data: Data = WORK / "data",
    out: Out = WORK / "autoencoder",
    samples: Samples = 200_000,
    learning_rate: Rate = 1.5e-3,
    decoder_only: Annotated[
        bool, typer.Option(help="Freeze the encoder; go on training the decoder of OUT/vae.")
    ] = False,
) -> None:
    """Train the autoencoder."""
    from imgalign.storybook.train.autoencoder import train_autoencoder

    with together(cure=GO_ON) as world:
        train_autoencoder(
            data,
            out,
            num_samples=samples,
            learning_rate=learning_rate,
            decoder_only=decoder_only,
            world=world,
        )


def pipeline(
    data: Data = WORK / "data",
    autoencoder: Annotated[Path, typer.Option(help="Folder of the trained autoencoder.")] = WORK
    / "autoencoder"
    / "vae",
    out: Out = WORK / "pipeline",
    samples: Samples = 1_250_000,
    learning_rate: Rate = 1e-3,
) -> None:
    """Train the UNet and the text encoder."""
    from imgalign.storybook.train.pipeline import train_pipeline

    with together(cure=GO_ON) as world:
        train_pipeline(
            data, autoencoder, out, num_samples=samples, learning_rate=learning_rate, world=world
        )


def tokenizer(
    folder: Annotated[Path, typer.Argument(help="Folder with tokenizer.json.")],
) -> None:
    """Write vocab.json and merges.txt beside tokenizer.json, for transformers 4."""
    from imgalign.diffusion.tokenizer_files import write_separate_files

    write_separate_files(folder)


def distil(
    data: Data = WORK / "data",
    pipeline: Trained = WORK / "pipeline" / "pipeline",
    out: Out = WORK / "distilled",
    samples: Samples = 30_000,
    learning_rate: Rate = 3e-4,
    guidance_scale: Annotated[float, typer.Option(help="Guidance scale of the teacher.")] = 2.5,
) -> None:
    """Distil classifier-free guidance into the pipeline."""
    from imgalign.storybook.train.distil import distil_pipeline

    with together(cure=GO_ON) as world:
        distil_pipeline(
            data,
            pipeline,
            out,
            guidance_scale=guidance_scale,
            num_samples=samples,
            learning_rate=learning_rate,
            world=world,
        )


def redraw(
    data: Data = WORK / "data",
    pipeline: Trained = WORK / "pipeline" / "pipeline",
    out: Annotated[Path, typer.Option(help="File for the resulting images.")] = WORK
    / "redrawn.npy",
    num_images: Annotated[
        int, typer.Option("--images", "--pictures", help="How many, from the first on.", min=1)
    ] = 16_000,
    strength: Annotated[
        float, typer.Option(help="Largest SDEdit strength; 0 is the autoencoder alone.")
    ] = 0.5,
) -> None:
    """Apply SDEdit to training images, so that CLIP and verifier see the model's own style."""
    from imgalign.storybook.train.sdedit import sdedit_images

    sdedit_images(data, pipeline, out, num_images=num_images, strength=strength)


def clip(
    data: Data = WORK / "data",
    out: Out = WORK / "clip",
    samples: Samples = 600_000,
    learning_rate: Rate = 1e-3,
    reconstructions: Annotated[Path | None, typer.Option(help="What `redraw` wrote.")] = None,
) -> None:
    """Train the CLIP."""
    from imgalign.storybook.train.clip import train_clip

    with together(cure=GO_ON) as world:
        train_clip(
            data,
            out,
            num_samples=samples,
            learning_rate=learning_rate,
            reconstructions=reconstructions,
            world=world,
        )


def verifier(
    data: Data = WORK / "data",
    out: Out = WORK / "verifier",
    samples: Samples = 200_000,
    learning_rate: Rate = 2e-3,
    reconstructions: Annotated[Path | None, typer.Option(help="What `redraw` wrote.")] = None,
    refused: Annotated[
        Path | None, typer.Option(help="uint8 [n 64 64 3] of unreadable images.")
    ] = None,
) -> None:
    """Train the verifier."""
    from imgalign.storybook.train.verifier import train_verifier

    with together(cure=GO_ON) as world:
        train_verifier(
            data,
            out,
            num_samples=samples,
            learning_rate=learning_rate,
            reconstructions=reconstructions,
            refused=refused,
            world=world,
        )


def language(
    out: Out = WORK / "language",
    num_texts: Annotated[int, typer.Option("--texts", help="Pretraining texts.", min=1)] = 110_000,
    learning_rate: Rate = 3e-3,
) -> None:
    """Pretrain the language model."""
    from imgalign.storybook.train.language import train_language

    with together(cure=GO_ON) as world:
        train_language(out, num_texts=num_texts, learning_rate=learning_rate, world=world)
