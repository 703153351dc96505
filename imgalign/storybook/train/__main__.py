"""Command line of the training scripts; `--help` lists them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from imgalign.cli.program import run_program

WORK = Path("storybook")

PROGRAM = "python -m imgalign.storybook.train"

app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, help="Train the models of the storybook."
)

Data = Annotated[Path, typer.Option(help="Folder of training pictures.")]
Out = Annotated[
    Path, typer.Option(help="Folder for weights, log and state; resumed if it has any.")
]
Samples = Annotated[int, typer.Option(help="Training samples to see in all.", min=1)]
Rate = Annotated[float, typer.Option(help="Peak learning rate.")]
Trained = Annotated[Path, typer.Option(help="Folder of the trained pipeline.")]


@app.command()
def data(
    out: Out = WORK / "data",
    pictures: Annotated[int, typer.Option(help="How many to draw.", min=1)] = 120_000,
    seed: int = 0,
    held_out: Annotated[bool, typer.Option(help="Only held-out combinations.")] = False,
) -> None:
    """Draw training pictures."""
    from imgalign.storybook.train.data import draw_pictures

    draw_pictures(out, num_pictures=pictures, seed=seed, held_out=held_out)


@app.command()
def autoencoder(
    data: Data = WORK / "data",
    out: Out = WORK / "autoencoder",
    samples: Samples = 200_000,
    learning_rate: Rate = 1.5e-3,
    decoder_only: Annotated[
        bool, typer.Option(help="Keep the latents; improve the decoder of OUT/vae.")
    ] = False,
) -> None:
    """Train the autoencoder."""
    from imgalign.storybook.train.autoencoder import train_autoencoder

    train_autoencoder(
        data, out, num_samples=samples, learning_rate=learning_rate, decoder_only=decoder_only
    )


@app.command()
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

    train_pipeline(data, autoencoder, out, num_samples=samples, learning_rate=learning_rate)


@app.command()
def tokenizer(
    folder: Annotated[Path, typer.Argument(help="Folder with tokenizer.json.")],
) -> None:
    """Write vocab.json and merges.txt beside tokenizer.json, for transformers 4."""
    from imgalign.storybook.tokenizer import write_separate_files

    write_separate_files(folder)


@app.command()
def distil(
    data: Data = WORK / "data",
    pipeline: Trained = WORK / "pipeline" / "pipeline",
    out: Out = WORK / "distilled",
    samples: Samples = 30_000,
    learning_rate: Rate = 3e-4,
    guidance_scale: Annotated[float, typer.Option(help="Of the teacher.")] = 2.5,
) -> None:
    """Teach the pipeline to draw without guidance what it draws with it."""
    from imgalign.storybook.train.distil import distil_pipeline

    distil_pipeline(
        data,
        pipeline,
        out,
        guidance_scale=guidance_scale,
        num_samples=samples,
        learning_rate=learning_rate,
    )


@app.command()
def redraw(
    data: Data = WORK / "data",
    pipeline: Trained = WORK / "pipeline" / "pipeline",
    out: Annotated[Path, typer.Option(help="File for the redrawn pictures.")] = WORK
    / "redrawn.npy",
    pictures: Annotated[int, typer.Option(help="How many of the first ones.", min=1)] = 16_000,
    strength: Annotated[
        float, typer.Option(help="How far into noise at most; 0 is the autoencoder alone.")
    ] = 0.5,
) -> None:
    """Redraw training pictures in the text-to-image model's hand, for CLIP and verifier."""
    from imgalign.storybook.train.redraw import redraw_pictures

    redraw_pictures(data, pipeline, out, num_pictures=pictures, strength=strength)


@app.command()
def clip(
    data: Data = WORK / "data",
    out: Out = WORK / "clip",
    samples: Samples = 600_000,
    learning_rate: Rate = 1e-3,
    reconstructions: Annotated[Path | None, typer.Option(help="What `redraw` wrote.")] = None,
) -> None:
    """Train the CLIP."""
    from imgalign.storybook.train.clip import train_clip

    train_clip(
        data,
        out,
        num_samples=samples,
        learning_rate=learning_rate,
        reconstructions=reconstructions,
    )


@app.command()
def verifier(
    data: Data = WORK / "data",
    out: Out = WORK / "verifier",
    samples: Samples = 200_000,
    learning_rate: Rate = 2e-3,
    reconstructions: Annotated[Path | None, typer.Option(help="What `redraw` wrote.")] = None,
    refused: Annotated[
        Path | None, typer.Option(help="uint8 [n 64 64 3] of pictures that nobody could read.")
    ] = None,
) -> None:
    """Train the verifier."""
    from imgalign.storybook.train.verifier import train_verifier

    train_verifier(
        data,
        out,
        num_samples=samples,
        learning_rate=learning_rate,
        reconstructions=reconstructions,
        refused=refused,
    )


if __name__ == "__main__":
    sys.exit(run_program(app, PROGRAM))
