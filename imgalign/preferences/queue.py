"""The queue for ranking: prompts and a generator in, items of K candidates in the store out."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from imgalign.errors import InputError
from imgalign.images import png
from imgalign.preferences.address import shown
from imgalign.preferences.records import Generated, SamplerSettings
from imgalign.preferences.store import Store


@runtime_checkable
class Generator(Protocol):
    """Makes images; `imgalign.diffusion.generate.ImageGenerator` is one."""

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        settings: SamplerSettings,
        on_progress: Callable[[float], None],
    ) -> Iterable[Generated]:
        """One image per prompt and seed, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """What was queued, and what was left out because it is equal."""

    item_ids: list[str]
    num_equal: int
    """Images that are equal to another of their prompt."""
    without: list[str]
    """Prompts without an item, because all their images are equal."""

    def lines(self) -> list[str]:
        """For a terminal. Example: "40 items are queued"."""
        found = [f"{len(self.item_ids)} items are queued"]
        if self.num_equal:
            found.append(f"{self.num_equal} images are equal to another of their prompt: left out")
        if self.without:
            found.append(
                f"{len(self.without)} prompts have no item, all their images are equal: "
                f"{self.without[0]!r}"
            )
        return found


def queue_candidates(
    store: Store,
    generator: Generator,
    prompts: Sequence[str],
    *,
    per_prompt: int,
    first_seed: int,
    settings: SamplerSettings,
    project: str = "default",
    source: str = "candidates",
    overlap: int = 1,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Queued:
    """Generate `per_prompt` images of each prompt, store them, and queue one item per prompt.

    Image i of the whole call has seed `first_seed` + i. Equal images of a prompt are one candidate.
    What is stored is kept when the call is interrupted; the same call again makes the same images
    and adds nothing twice.
    """
    if per_prompt < 2:
        raise InputError(f"per_prompt: expected at least 2 images to choose from, got {per_prompt}")
    each = [prompt for prompt in prompts for _ in range(per_prompt)]
    images = generator.generate(
        each,
        seeds=range(first_seed, first_seed + len(each)),
        settings=settings,
        on_progress=on_progress,
    )
    item_ids, without, num_equal = [], [], 0
    for prompt, own in zip(prompts, in_groups(images, per_prompt), strict=True):
        stored = [store.add_image(png(image.image), image.provenance) for image in own]
        different = list(dict.fromkeys(stored))
        num_equal += len(stored) - len(different)
        if len(different) < 2:
            without.append(prompt)
            continue
        item_ids.append(
            store.add_item(prompt, different, source=source, project=project, overlap=overlap)
        )
    return Queued(item_ids=item_ids, num_equal=num_equal, without=without)


def in_groups(images: Iterable[Generated], size: int) -> Iterator[list[Generated]]:
    """Consecutive lists of `size`."""
    group: list[Generated] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []


def ranking_command(project: str, database: str | None) -> str:
    """What opens the app on a queue, with stars for a password.

    Example: "imgalign ui --project cats".
    """
    options = ["--project", project] if project != "default" else []
    options += ["--database", shown(database)] if database else []
    return shlex.join(["imgalign", "ui", *options])
