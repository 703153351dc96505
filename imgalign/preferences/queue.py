"""The queue for ranking: prompts and a generator in, items of K candidates in the store out."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from imgalign.errors import InputError
from imgalign.images import png
from imgalign.preferences.address import shown
from imgalign.preferences.records import Generated, Provenance, SamplerSettings
from imgalign.preferences.store import Store
from imgalign.preferences.stored import stored_images
from imgalign.preferences.wording import counted, there_are


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


@runtime_checkable
class PlanningGenerator(Generator, Protocol):
    """A generator that tells what it would make."""

    def provenances(
        self, prompts: Sequence[str], *, seeds: Sequence[int], settings: SamplerSettings
    ) -> Sequence[Provenance]:
        """What `generate` would write of each image, but for the time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """What was queued, and what was left out because it is equal."""

    item_ids: list[str]
    num_equal: int
    """Images that are equal to another of their prompt."""
    without: list[str]
    """Prompts without an item, because all their images are equal."""
    num_made: int
    """Images that were made by this call, equal ones included."""

    def lines(self) -> list[str]:
        """For a terminal. Example: "40 items are queued"."""
        found = [f"{there_are(len(self.item_ids), 'item')} queued"]
        if self.num_equal:
            equal = there_are(self.num_equal, "image")
            found.append(f"{equal} equal to another of their prompt: left out")
        if self.without:
            found.append(
                f"without an item, because all their images are equal: "
                f"{counted(len(self.without), 'prompt')}, the first {self.without[0]!r}"
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
    known: Sequence[str | None] | None = None,
    on_progress: Callable[[float], None] = lambda _: None,
    on_item: Callable[[str], None] = lambda _: None,
) -> Queued:
    """Generate `per_prompt` images of each prompt, store them, and queue one item per prompt.

    With one image of each they are liked or disliked, and not ranked.
    Image i of the whole call has seed `first_seed` + i. Equal images of a prompt are one candidate.
    What is stored is kept when the call is interrupted; the same call again makes the same images
    and adds nothing twice, and those that `known` gives the ids of (`known_candidates`) are not
    made again. `on_item` gets the id of each item once it is queued.
    """
    each, seeds = _each(prompts, per_prompt=per_prompt, first_seed=first_seed)
    there = [None] * len(each) if known is None else list(known)
    missing = [place for place, image_id in enumerate(there) if image_id is None]
    images = iter(
        generator.generate(
            [each[place] for place in missing],
            seeds=[seeds[place] for place in missing],
            settings=settings,
            on_progress=on_progress,
        )
    )
    item_ids, without, num_equal = [], [], 0
    for number, prompt in enumerate(prompts):
        own = there[number * per_prompt : (number + 1) * per_prompt]
        stored = [_stored(store, next(images)) if image is None else image for image in own]
        different = list(dict.fromkeys(stored))
        num_equal += len(stored) - len(different)
        if len(different) < min(per_prompt, 2):
            without.append(prompt)
            continue
        item_ids.append(
            store.add_item(prompt, different, source=source, project=project, overlap=overlap)
        )
        on_item(item_ids[-1])
    return Queued(item_ids=item_ids, num_equal=num_equal, without=without, num_made=len(missing))


def known_candidates(
    store: Store,
    generator: PlanningGenerator,
    prompts: Sequence[str],
    *,
    per_prompt: int,
    first_seed: int,
    settings: SamplerSettings,
) -> list[str | None]:
    """Of each image that `queue_candidates` would make, the id where the store has it.

    Those made with the same settings, by a model of the same name: whether a folder still holds the
    model that it held then is not known here.
    """
    each, seeds = _each(prompts, per_prompt=per_prompt, first_seed=first_seed)
    return stored_images(store, generator.provenances(each, seeds=seeds, settings=settings))


def _each(
    prompts: Sequence[str], *, per_prompt: int, first_seed: int
) -> tuple[list[str], Sequence[int]]:
    """Prompt and seed of each image."""
    if per_prompt < 1:
        raise InputError(f"per_prompt: expected at least 1 image, got {per_prompt}")
    each = [prompt for prompt in prompts for _ in range(per_prompt)]
    return each, range(first_seed, first_seed + len(each))


def _stored(store: Store, made: Generated) -> str:
    return store.add_image(png(made.image), made.provenance)


def ranking_command(project: str, database: str | None) -> str:
    """What opens the app on a queue, with stars for a password.

    Example: "imgalign ui --project cats".
    """
    options = ["--project", project] if project != "default" else []
    options += ["--database", shown(database)] if database else []
    return shlex.join(["imgalign", "ui", *options])
