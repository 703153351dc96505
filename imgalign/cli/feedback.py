"""`imgalign feedback`: an AI judge ranks the items of a queue."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imgalign.cli.options import Database, Device, Images, Project, changed, refuse_given

if TYPE_CHECKING:
    from imgalign.feedback.judge import Judge


def feedback(
    judge: Annotated[
        str,
        typer.Option(
            help="A language model: storybook, a folder or a hub name; with --url the name that "
            "the server has for it."
        ),
    ],
    constitution: Annotated[
        Path, typer.Option(help="YAML file of principles; picture_prompts and images are shipped.")
    ],
    url: Annotated[
        str | None,
        typer.Option(
            help="Base URL of an OpenAI-compatible server, such as http://127.0.0.1:8080/v1; its "
            "key, if it wants one, is read from IMGALIGN_JUDGE_KEY."
        ),
    ] = None,
    project: Project = "default",
    limit: Annotated[int | None, typer.Option(min=1, help="Judge at most so many items.")] = None,
    timeout: Annotated[float, typer.Option(help="With --url: seconds for one reply.")] = 120.0,
    retries: Annotated[int, typer.Option(help="With --url: attempts after the first.")] = 5,
    parallel: Annotated[int, typer.Option(help="With --url: questions at once.")] = 4,
    max_tokens: Annotated[
        int, typer.Option(help="With --url: longest reply; a model that thinks needs many.")
    ] = 1024,
    image_size: Annotated[
        int, typer.Option(help="With --url: pixels to which the longer side is reduced.")
    ] = 512,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Without --url: questions per forward pass.")
    ] = 8,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Without --url.")
    ] = "auto",
    device: Device = "auto",
    database: Database = None,
    images: Images = None,
) -> None:
    """Let an AI judge rank the items of a queue, by the principles of a constitution."""
    from imgalign.feedback.asking import ask_about_queue
    from imgalign.feedback.constitution import load_constitution
    from imgalign.feedback.summary import summary_of
    from imgalign.preferences.store import Store
    from imgalign.runs.progress import progress, working

    principles = load_constitution(constitution)
    with Store.open(database, images=images, create=False) as store:
        asked: Judge
        if url is None:
            settings = {"timeout": timeout, "retries": retries, "parallel": parallel}
            settings |= {"max_tokens": max_tokens, "image_size": image_size}
            refuse_given(changed(feedback, settings), "without --url")
            from imgalign.feedback.local import LocalJudge

            with working(f"loading {judge}"):
                asked = LocalJudge(judge, device=device, dtype=dtype, batch_size=batch_size)
        else:
            local = {"batch_size": batch_size, "dtype": dtype, "device": device}
            refuse_given(changed(feedback, local), "with --url")
            from imgalign.config import checked
            from imgalign.feedback.endpoint import KEY, EndpointConfig, EndpointJudge

            config = checked(
                EndpointConfig,
                timeout=timeout,
                retries=retries,
                parallel=parallel,
                max_tokens=max_tokens,
                image_size=image_size,
            )
            asked = EndpointJudge(url, judge, key=os.environ.get(KEY), config=config)
        try:
            with progress("judging") as on_progress:
                outcome = ask_about_queue(
                    store, asked, principles, project=project, limit=limit, on_progress=on_progress
                )
        except KeyboardInterrupt:
            typer.echo("stopped; what is judged is kept, and the same command goes on", err=True)
            raise
        found = summary_of(store, outcome.annotator, project=project, left_open=outcome.left_open)
        typer.echo("\n".join(found.lines()))
