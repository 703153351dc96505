"""The command that takes an aligned model to other tools."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from imgalign.cli.options import ModelUnder


def export(
    run: Annotated[
        Path, typer.Argument(help="A run (its best checkpoint), a checkpoint, or any LoRA.")
    ],
    layout: Annotated[
        Literal["diffusers", "peft", "kohya", "merged"],
        typer.Option(
            "--format",
            help="kohya is for ComfyUI, AUTOMATIC1111 and Forge; merged is a whole pipeline.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder; export/ in the run if not given.")
    ] = None,
    model: ModelUnder = None,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Of the weights; as trained if not given, and float32 if merged."),
    ] = None,
) -> None:
    """Write an aligned model for other tools, with a model card beside it."""
    from imgalign.diffusion.export import export_weights
    from imgalign.report.card import model_card
    from imgalign.runs.progress import progress

    with progress("exporting") as on_progress:
        made = export_weights(
            run,
            layout,
            card=model_card,
            out=out,
            model=model,
            dtype=dtype,
            on_progress=on_progress,
        )
    typer.echo("\n".join(made.lines()))
