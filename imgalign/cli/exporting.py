"""The command that takes an aligned model to other tools."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgalign.cli.options import ModelUnder

if TYPE_CHECKING:
    from imgalign.evaluate.votes import VoteResult


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
    database: Annotated[
        str | None,
        typer.Option(
            help="Whose blind votes the card tells, as a SQLAlchemy URL; IMGALIGN_DATABASE or "
            "imgalign.db here if not given."
        ),
    ] = None,
) -> None:
    """Write an aligned model for other tools, with a model card beside it."""
    from functools import partial

    from imgalign.diffusion.export import export_weights
    from imgalign.language.export import export_language
    from imgalign.report.card import model_card
    from imgalign.runs.folder import samples_under
    from imgalign.runs.progress import progress
    from imgalign.runs.trained import find_weights

    texts = samples_under(find_weights(run)) == "texts"
    votes = None if texts else votes_on(run, model=model, database=database)
    with progress("exporting") as on_progress:
        made = (export_language if texts else export_weights)(
            run,
            layout,
            card=partial(model_card, votes=votes),
            out=out,
            model=model,
            dtype=dtype,
            on_progress=on_progress,
        )
    typer.echo("\n".join(made.lines()))


def votes_on(run: Path, *, model: str | None, database: str | None) -> "list[VoteResult] | None":
    """The blind votes on what is exported, counted and kept beside it; None without a database.

    Only a database that `--database` names must be there.
    """
    import logging

    from imgalign.errors import ImgalignError
    from imgalign.evaluate.origin import command_line
    from imgalign.evaluate.votes import keep_votes
    from imgalign.preferences import address
    from imgalign.preferences.store import Store

    if not (address.named(database) or Path("imgalign.db").exists()):
        return None
    try:
        with Store.open(database, create=False) as store:
            return keep_votes(run, store, command=command_line(), model=model)
    except ImgalignError as error:
        if database is not None:
            raise
        logging.getLogger(__name__).warning("blind votes are not counted: %s", error)
        return None
