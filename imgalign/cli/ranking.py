"""Commands that queue images for ranking and serve the app."""

from pathlib import Path
from typing import Annotated, Literal

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
    changed,
    refuse_given,
    sampler_of,
)

ImageFolder = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Generate nothing: queue the images below this folder. --model then names what made "
        "them, where they do not say.",
    ),
]
PromptSource = Literal["any", "captions", "metadata"]
PromptsFrom = Annotated[
    PromptSource | None,
    typer.Option(help="With --from: text files beside the images, metadata in them, or any."),
]


def candidates(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    folder: ImageFolder = None,
    prompts_from: PromptsFrom = None,
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
    """Generate images, or take those of a folder, and queue them for ranking."""
    if folder is not None:
        generated: dict[str, object] = {"device": device, "adapter": adapter, "seed": seed}
        generated |= {"prompt": prompt, "prompts": prompts, "storybook_prompts": storybook_prompts}
        generated |= {"steps": steps, "guidance": guidance, "eta": eta, "scheduler": scheduler}
        refuse_given(changed(candidates, generated), "with --from, which generates nothing")
        queue_folder(
            folder,
            per_prompt=per_prompt,
            prompts_from=prompts_from or "any",
            model=model,
            overlap=overlap,
            project=project,
            database=database,
            images=images,
            create=create,
        )
        return
    refuse_given({"--prompts-from": prompts_from}, "without --from")
    if prompt or prompts:
        refuse_given(changed(candidates, {"storybook_prompts": storybook_prompts}), "with prompts")
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.preferences.opening import open_or_make
    from imgalign.preferences.queue import queue_candidates, ranking_command
    from imgalign.prompts import chosen_prompts
    from imgalign.runs.folder import model_under
    from imgalign.runs.progress import progress
    from imgalign.storybook.scenes import candidate_prompts

    settings = sampler_of(steps=steps, guidance=guidance, eta=eta, scheduler=scheduler)
    if prompt or prompts:
        texts = chosen_prompts(prompt or (), prompts)
    else:
        texts = candidate_prompts(storybook_prompts)
    check_queue(project, database, images, create)
    generator = ImageGenerator(model or model_under(adapter), adapter, device=device)
    # No image is made by this: settings and seeds are checked before a database is.
    last = seed + len(texts) * per_prompt - 1
    generator.generate(texts, seeds=[last] * len(texts), settings=settings)
    with (
        open_or_make(database, images=images, create=create, on_made=typer.echo) as store,
        progress("generating") as on_progress,
    ):
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


def check_queue(project: str, database: str | None, images: Path | None, create: bool) -> None:
    """Refuse a queue that cannot be opened or made, before slow work; makes nothing."""
    from imgalign.preferences import validation
    from imgalign.preferences.opening import check_place

    validation.name("project", project)
    check_place(database, images=images, create=create)


def queue_folder(
    folder: Path,
    *,
    per_prompt: int,
    prompts_from: PromptSource,
    model: str | None,
    overlap: int,
    project: str,
    database: str | None,
    images: Path | None,
    create: bool,
) -> None:
    """Queue images made elsewhere, and print what was left out and what to do next."""
    from imgalign.preferences.foreign.image_queue import group_images, queue_groups
    from imgalign.preferences.opening import open_or_make
    from imgalign.preferences.queue import ranking_command
    from imgalign.runs.progress import progress

    check_queue(project, database, images, create)
    with progress("reading images") as on_progress:
        found = group_images(
            folder,
            per_prompt=per_prompt,
            prompts_from=prompts_from,
            model=model,
            on_progress=on_progress,
        )
    with (
        open_or_make(database, images=images, create=create, on_made=typer.echo) as store,
        progress("storing images") as on_progress,
    ):
        queued = queue_groups(
            store, found, project=project, overlap=overlap, on_progress=on_progress
        )
    typer.echo("\n".join(queued.lines()))
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
    from imgalign.preferences import validation
    from ui.app import Settings, launch

    validation.name("project", project)
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
    launch(
        settings,
        create=create,
        on_made=typer.echo,
        on_listening=lambda url: typer.echo(f"imgalign is at {url} (Ctrl-C stops it)"),
    )
