"""Commands that queue images for ranking and serve the app."""

from pathlib import Path
from typing import Annotated

import typer

from imgalign.cli.options import (
    Adapter,
    Create,
    Database,
    Device,
    Eta,
    FirstSeed,
    Guidance,
    Images,
    Model,
    ModelUnder,
    Project,
    PromptFile,
    PromptTexts,
    Scheduler,
    Steps,
    sampler_of,
)


def candidates(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    storybook_prompts: Annotated[
        int, typer.Option(min=1, help="Without prompts: how many of the storybook's.")
    ] = 40,
    per_prompt: Annotated[int, typer.Option(min=2, max=9, help="Candidates per prompt.")] = 4,
    seed: FirstSeed = 0,
    model: ModelUnder = None,
    adapter: Adapter = None,
    steps: Steps = 20,
    guidance: Guidance = 1.0,
    eta: Eta = 0.0,
    scheduler: Scheduler = "ddim",
    overlap: Annotated[int, typer.Option(min=1, help="Annotators per item.")] = 1,
    project: Project = "default",
    database: Database = None,
    images: Images = None,
    create: Create = False,
    device: Device = "auto",
) -> None:
    """Generate images and queue them for ranking."""
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.preferences.queue import queue_candidates, ranking_command
    from imgalign.preferences.store import open_or_make
    from imgalign.prompts import chosen_prompts
    from imgalign.runs.folder import model_under
    from imgalign.runs.progress import progress
    from imgalign.storybook.scenes import candidate_prompts

    settings = sampler_of(steps=steps, guidance=guidance, eta=eta, scheduler=scheduler)
    if prompt or prompts:
        texts = chosen_prompts(prompt or (), prompts)
    else:
        texts = candidate_prompts(storybook_prompts)
    with open_or_make(database, images=images, create=create, on_made=typer.echo) as store:
        generator = ImageGenerator(model or model_under(adapter), adapter, device=device)
        with progress("generating") as on_progress:
            queued = queue_candidates(
                store,
                generator,
                texts,
                per_prompt=per_prompt,
                first_seed=seed,
                settings=settings,
                project=project,
                overlap=overlap,
                on_progress=on_progress,
            )
    typer.echo("\n".join(queued.lines()))
    if queued.item_ids:
        typer.echo(f"rank them with `{ranking_command(project, database)}`")


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    model: Model = "storybook",
    runs: Annotated[Path, typer.Option(help="Folder of training runs.")] = Path("runs"),
    database: Database = None,
    images: Images = None,
    create: Create = False,
    project: Project = "default",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which browsers reach the app; may be repeated."),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help='Path prefix of a reverse proxy, such as "/studio".')
    ] = "",
) -> None:
    """Serve the app: the Rank, Train and Generate pages."""
    from imgalign.preferences.store import open_or_make
    from ui.app import Settings, launch

    open_or_make(database, images=images, create=create, on_made=typer.echo).close()
    settings = Settings(
        host=host,
        port=port,
        project=project,
        database=database,
        images=images,
        runs=runs,
        model=model,
        allow_hosts=tuple(allow_host or ()),
        root_path=root_path,
    )
    launch(settings, on_listening=lambda url: typer.echo(f"imgalign is at {url} (Ctrl-C stops it)"))
