"""Commands that queue images for ranking and serve the app."""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    Strength,
    changed,
    refuse_given,
    sampler_of,
)

if TYPE_CHECKING:
    from imgalign.preferences.records import SamplerSettings
    from imgalign.preferences.store import Store

ImageFolder = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Generate nothing: queue the images below this folder. --model then names what made "
        "them, where they do not say.",
    ),
]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--texts",
        help="Generate nothing: queue the texts of this table (JSON lines or parquet), with the "
        "columns prompt and completions, or prompt and completion. --model then names what wrote "
        "them, where they do not say.",
    ),
]
ItemList = Annotated[
    Path | None,
    typer.Option(
        help="Write the ids of the items to this file, one a line, each as soon as it is queued."
    ),
]
EXAMPLES = 12
"""Prompts that the app offers: those that `imgalign candidates` begins with."""
PromptSource = Literal["any", "captions", "metadata"]
PromptsFrom = Annotated[
    PromptSource | None,
    typer.Option(help="With --from: text files beside the images, metadata in them, or any."),
]


@dataclass(frozen=True)
class Queue:
    """Where candidates are queued, and how many of a prompt are one item."""

    per_prompt: int
    overlap: int
    project: str
    database: str | None
    images: Path | None
    create: bool
    item_list: Path | None

    def check(self) -> None:
        """Refuse a queue that cannot be opened or made, before slow work; makes nothing."""
        from imgalign.preferences import validation
        from imgalign.preferences.opening import check_place

        validation.name("project", self.project)
        check_place(self.database, images=self.images, create=self.create)

    def opened(self) -> "Store":
        """The store, which is made where that is wanted."""
        from imgalign.preferences.opening import open_or_make

        return open_or_make(
            self.database, images=self.images, create=self.create, on_made=typer.echo
        )

    @contextmanager
    def listing(self) -> Iterator[Callable[[str], None]]:
        """What is to be called with the id of each item: writes the list, if one is wanted."""
        if self.item_list is None:
            yield lambda item_id: None
            return
        with self.item_list.open("w", encoding="ascii") as file:

            def write(item_id: str) -> None:
                file.write(f"{item_id}\n")
                file.flush()

            yield write

    def tell(self, lines: list[str], *, anything: bool = True) -> None:
        """Print what was queued, and what opens the app on it where there is `anything`."""
        from imgalign.preferences.queue import ranking_command

        typer.echo("\n".join(lines))
        if anything:
            typer.echo(f"rank them with `{ranking_command(self.project, self.database)}`")


def candidates(
    prompt: PromptTexts = None,
    prompts: PromptFile = None,
    folder: ImageFolder = None,
    prompts_from: PromptsFrom = None,
    texts: TextFile = None,
    storybook_prompts: Annotated[
        int, typer.Option(min=1, help="Without prompts: how many of the storybook's.")
    ] = 40,
    per_prompt: Annotated[
        int,
        typer.Option(
            min=1, max=9, help="Candidates per prompt; 1 are liked or disliked, one by one."
        ),
    ] = 4,
    seed: FirstSeed = 0,
    model: ModelUnder = None,
    adapter: Adapter = None,
    strength: Strength = 1.0,
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
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on: images in the store are not made a second time."),
    ] = False,
    item_list: ItemList = None,
) -> None:
    """Generate images, or take images or texts made elsewhere, and queue them for ranking."""
    queue = Queue(per_prompt, overlap, project, database, images, create, item_list)
    if texts is not None or folder is not None:
        generated: dict[str, object] = {"device": device, "adapter": adapter, "seed": seed}
        generated |= {"strength": strength}
        generated |= {"prompt": prompt, "prompts": prompts, "storybook_prompts": storybook_prompts}
        generated |= {"steps": steps, "guidance": guidance, "eta": eta, "scheduler": scheduler}
        generated |= {"resume": resume}
        without_effect = changed(candidates, generated)
        if texts is not None:
            without_effect |= {"--from": folder, "--prompts-from": prompts_from}
            refuse_given(without_effect, "with --texts, which generates nothing")
            queue_table(texts, queue, model=model)
        elif folder is not None:
            refuse_given(without_effect, "with --from, which generates nothing")
            queue_folder(folder, queue, prompts_from=prompts_from or "any", model=model)
        return
    refuse_given({"--prompts-from": prompts_from}, "without --from")
    if prompt or prompts:
        refuse_given(changed(candidates, {"storybook_prompts": storybook_prompts}), "with prompts")
    from imgalign.prompts import chosen_prompts
    from imgalign.storybook.scenes import candidate_prompts

    settings = sampler_of(steps=steps, guidance=guidance, eta=eta, scheduler=scheduler)
    if prompt or prompts:
        wanted = chosen_prompts(prompt or (), prompts)
    else:
        wanted = candidate_prompts(storybook_prompts)
    queue.check()
    queue_generated(
        wanted,
        queue,
        seed=seed,
        model=model,
        adapter=adapter,
        strength=strength,
        settings=settings,
        device=device,
        resume=resume,
    )


def queue_generated(
    prompts: Sequence[str],
    queue: Queue,
    *,
    seed: int,
    model: str | None,
    adapter: Path | None,
    strength: float,
    settings: "SamplerSettings",
    device: str,
    resume: bool,
) -> None:
    """Generate images and queue them, and print what came of it and what to do next."""
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.preferences.queue import known_candidates, queue_candidates
    from imgalign.runs.folder import model_under
    from imgalign.runs.progress import progress

    generator = ImageGenerator(
        model or model_under(adapter), adapter, strength=strength, device=device
    )
    # No image is made by this: settings and seeds are checked before a database is.
    last = seed + len(prompts) * queue.per_prompt - 1
    generator.generate(prompts, seeds=[last] * len(prompts), settings=settings)
    with queue.opened() as store, queue.listing() as on_item:
        known = None
        if resume:
            known = known_candidates(
                store,
                generator,
                prompts,
                per_prompt=queue.per_prompt,
                first_seed=seed,
                settings=settings,
            )
            typer.echo(f"{sum(each is not None for each in known)} images are there already")
        begun = time.monotonic()
        with progress("generating") as on_progress:
            queued = queue_candidates(
                store,
                generator,
                prompts,
                per_prompt=queue.per_prompt,
                first_seed=seed,
                settings=settings,
                project=queue.project,
                overlap=queue.overlap,
                known=known,
                on_progress=on_progress,
                on_item=on_item,
            )
    made = f"{queued.num_made} images made in {time.monotonic() - begun:.1f} s"
    queue.tell([made, *queued.lines()], anything=bool(queued.item_ids))


def queue_folder(
    folder: Path, queue: Queue, *, prompts_from: PromptSource, model: str | None
) -> None:
    """Queue images made elsewhere, and print what was left out and what to do next."""
    from imgalign.preferences.foreign.image_queue import group_images, queue_groups
    from imgalign.runs.progress import progress

    queue.check()
    with progress("reading images") as on_progress:
        found = group_images(
            folder,
            per_prompt=queue.per_prompt,
            prompts_from=prompts_from,
            model=model,
            on_progress=on_progress,
        )
    with (
        queue.opened() as store,
        queue.listing() as on_item,
        progress("storing images") as on_progress,
    ):
        queued = queue_groups(
            store,
            found,
            project=queue.project,
            overlap=queue.overlap,
            on_progress=on_progress,
            on_item=on_item,
        )
    queue.tell(queued.lines())


def queue_table(table: Path, queue: Queue, *, model: str | None) -> None:
    """Queue texts made elsewhere, and print what was left out and what to do next."""
    from imgalign.preferences.foreign.text_queue import group_texts, queue_texts
    from imgalign.runs.progress import progress

    queue.check()
    found = group_texts(table, per_prompt=queue.per_prompt, model=model)
    with (
        queue.opened() as store,
        queue.listing() as on_item,
        progress("storing texts") as on_progress,
    ):
        queued = queue_texts(
            store,
            found,
            project=queue.project,
            overlap=queue.overlap,
            on_progress=on_progress,
            on_item=on_item,
        )
    queue.tell(queued.lines())


def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; on a network, accounts are needed.")
    ] = ("127.0.0.1"),
    accounts: Annotated[
        bool,
        typer.Option(
            "--accounts",
            help="Let nobody in without an account; where there is none, print a link by which the "
            "first, an admin's, is made.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any that is free.")
    ] = 7860,
    model: Model = "storybook",
    runs: Annotated[Path, typer.Option(help="Folder of training runs.")] = Path("runs"),
    database: Database = None,
    images: Images = None,
    create: Create = False,
    project: Annotated[
        str | None,
        typer.Option(
            help="The project to begin with; without accounts the only one that is ranked, with "
            "accounts the one that annotators may rank before a lead opens others."
        ),
    ] = None,
    guidelines: Annotated[
        Path | None,
        typer.Option(help="A text file for the annotators of the project: the Rank page shows it."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which browsers reach the app; may be repeated."),
    ] = None,
    page: Annotated[
        list[str] | None,
        typer.Option(help="A page to serve, such as rank; may be repeated. All if not given."),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help='Path prefix of a reverse proxy, such as "/studio".')
    ] = "",
) -> None:
    """Serve the app: make candidates, rank them, fit a reward, align a model, compare."""
    from imgalign.preferences import address, validation
    from imgalign.storybook.scenes import candidate_prompts
    from ui.app import Settings, launch

    if project is not None:
        validation.name("project", project)
    demos = [] if address.named(database) else offered_demos(Path())
    settings = Settings(
        host=host,
        accounts=accounts,
        port=port,
        project=project,
        database=database,
        images=images,
        runs=runs,
        model=model,
        examples=candidate_prompts(EXAMPLES) if model == "storybook" else (),
        allow_hosts=tuple(allow_host or ()),
        guidelines=guidelines,
        pages=tuple(page) if page else None,
        root_path=root_path,
        demos=tuple(demos),
    )
    for folder, command in demos:
        typer.echo(f"{folder} has the rankings, the reward model and the run of a demo: {command}")
    launch(
        settings,
        create=create,
        on_made=typer.echo,
        on_listening=lambda url: typer.echo(f"imgalign is at {url} (Ctrl-C stops it)"),
        on_set_up=lambda link: typer.echo(
            f"make the first account, an admin's, at {link} (works once, within a day; on another "
            "machine put the name of this one in place of its address)"
        ),
        on_unguarded=lambda: typer.echo(UNGUARDED),
    )


UNGUARDED = (
    "without accounts: it listens on this machine only, and whoever uses it may do everything in "
    "it (--accounts lets others in)"
)


def offered_demos(folder: Path) -> list[tuple[str, str]]:
    """Each demo below a folder, and the command that opens the app on it: its rankings lie in it,
    and not here.
    """
    from imgalign.preferences.address import of_file

    found = [
        path.parent
        for path in sorted(folder.glob("*/demo.json"))
        # a name that no terminal shows as it is cannot be copied from there either
        if str(path.parent).isprintable() and (path.parent / "imgalign.db").is_file()
    ]
    return [
        (
            str(demo),
            shlex.join(
                ["imgalign", "ui", "--database", of_file(demo / "imgalign.db"), "--runs", str(demo)]
            ),
        )
        for demo in found
    ]
