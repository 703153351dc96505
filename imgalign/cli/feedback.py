"""`imgalign feedback`: an AI judge ranks the items of a queue."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
    from imgalign.runs.progress import progress

    of_endpoint = {"timeout": timeout, "retries": retries, "parallel": parallel}
    of_endpoint |= {"max_tokens": max_tokens, "image_size": image_size}
    of_local = {"batch_size": batch_size, "dtype": dtype, "device": device}
    if url is None:
        refuse_given(changed(feedback, of_endpoint), "without --url")
    else:
        refuse_given(changed(feedback, of_local), "with --url")
    principles = load_constitution(constitution)
    with Store.open(database, images=images, create=False) as store:
        asked = _endpoint(url, judge, of_endpoint) if url is not None else _local(judge, of_local)
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


def _endpoint(url: str, model: str, settings: Mapping[str, object]) -> "Judge":
    from imgalign.config import checked
    from imgalign.feedback.endpoint import KEY, EndpointConfig, EndpointJudge

    config = checked(EndpointConfig, **settings)
    return EndpointJudge(url, model, key=os.environ.get(KEY), config=config)


def _local(name: str, settings: Mapping[str, Any]) -> "Judge":
    from imgalign.feedback.local import LocalJudge
    from imgalign.runs.progress import working

    with working(f"loading {name}"):
        return LocalJudge(name, **settings)
