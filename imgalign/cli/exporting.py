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
        Literal["diffusers", "peft", "kohya", "merged", "transformers"],
        typer.Option(
            "--format",
            help="Images: diffusers, peft, kohya (ComfyUI, AUTOMATIC1111, Forge), or merged, a "
            "whole pipeline. Texts: peft, or transformers, a whole model, as is merged.",
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
    from imgalign.language.export import export_language
    from imgalign.report.card import model_card
    from imgalign.runs.folder import samples_under
    from imgalign.runs.progress import progress
    from imgalign.runs.trained import find_weights

    texts = samples_under(find_weights(run)) == "texts"
    with progress("exporting") as on_progress:
        made = (export_language if texts else export_weights)(
            run,
            layout,
            card=model_card,
            out=out,
            model=model,
            dtype=dtype,
            on_progress=on_progress,
        )
    typer.echo("\n".join(made.lines()))
