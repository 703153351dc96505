"""`imgalign storybook ...`: the synthetic storybook domain."""

from pathlib import Path
from typing import Annotated

import typer

from imgalign.cli.options import (
    Database,
    Images,
    Project,
    Taste,
)


def rank(
    group: Annotated[Taste, typer.Option(help="Group of simulated annotators.")] = "cosy",
    annotators: Annotated[int, typer.Option(min=1, help="How many simulated annotators.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the annotators.")] = 0,
    project: Project = "default",
    database: Database = None,
    images: Images = None,
) -> None:
    """Rank the queued items by simulated annotators."""
    from imgalign.preferences.store import Store
    from imgalign.runs.progress import progress
    from imgalign.storybook.simulate import annotators_of, rank_queue

    with (
        Store.open(database, images=images, create=False, seed=seed) as store,
        progress("ranking") as on_progress,
    ):
        done = rank_queue(
            store,
            annotators_of(group, annotators, seed=seed),
            project=project,
            seed=seed,
            on_progress=on_progress,
        )
    typer.echo(
        f"{done.num_rankings} rankings, {done.num_all_bad} times all bad, "
        f"{done.num_skipped} skipped"
    )


def draw(
    prompt: Annotated[list[str], typer.Argument(help='Such as "a red cat on a blue house".')],
    out: Annotated[Path, typer.Option(help="PNG file.")] = Path("storybook.png"),
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another layout.")] = 0,
    size: Annotated[int, typer.Option(min=16, max=2048, help="Pixels per side.")] = 256,
) -> None:
    """Draw a prompt of the storybook, as its training images are drawn."""
    from imgalign.images import check_png, write_png
    from imgalign.storybook.drawing import draw_prompt

    check_png(out)
    write_png(draw_prompt(" ".join(prompt), seed=seed, size=size), out)
    typer.echo(out)
