"""What the Generate page does: images of a checkpoint and its base, of prompts and their rewrites.

All images of a prompt and seed start from the same noise. Left out: the page (pages/generate.py),
and the process that trains.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgalign.errors import InputError
from imgalign.preferences.records import SamplerSettings
from imgalign.preferences.store import Store
from imgalign.runs.checkpoint import step_of
from imgalign.runs.trained import of_language
from ui.libraries import load_libraries
from ui.runs import Runs
from ui.shelf import Shelf

if TYPE_CHECKING:
    from imgalign.diffusion.generate import ImageGenerator
    from imgalign.language.rewriting import Rewrite, Rewriter

BASE_ONLY = ""
NO_REWRITER = ""
SHIPPED = "storybook"
MOST_IMAGES = 128
MOST_STEPS = 200
MOST_GUIDANCE = 20.0
MOST_ANNOTATORS = 50
LARGEST_SEED = 2**53
"""From there on a browser's numbers are no longer exact."""
PAIRS, REWRITES, TOGETHER = (
    *("base against aligned", "plain against rewritten", "all images of a prompt"),
)
GROUP = 4
"""The fewest candidates per ranking when all images of a prompt are ranked together."""
MAX_IMAGES = 9
"""Candidates that the keys 1 to 9 can rank."""
REWRITTEN: Mapping[str, str] = {"base": "base_rewritten", "aligned": "aligned_rewritten"}
"""The row of rewritten prompts below each row of plain ones."""
ROWS = tuple(row for plain, rewritten in REWRITTEN.items() for row in (plain, rewritten))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Images to generate. `adapter` is "run/step-000040", or empty for the base model alone."""

    adapter: str
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sampler: SamplerSettings
    rewriter: str = NO_REWRITER
    """What rewrites the prompts: SHIPPED, or "run/step-000040" of a language model."""
    lock: str = ""
    """Words to keep, separated by commas; empty is every word that says something."""


class LoadedModels:
    """The one image model in memory, and the one rewriter: those of the latest request."""

    def __init__(self) -> None:
        self._generator: ImageGenerator | None = None
        self._rewriter: tuple[str, Rewriter] | None = None
        self.lock = threading.Lock()
        """Held while images are generated, so that no other request switches model or adapter."""

    def get(self, model: str, adapter: Path | None) -> "ImageGenerator":
        """The model with this adapter, or alone; another model is dropped before it is loaded."""
        load_libraries()
        from imgalign.diffusion.generate import ImageGenerator

        if self._generator is None or self._generator.model != model:
            self._generator = None
            self._generator = ImageGenerator(model)
        self._generator.use(adapter)
        return self._generator

    def rewriter(self, name: str) -> "Rewriter":
        """A rewriter by what `load_rewriter` takes; another is dropped before it is loaded."""
        load_libraries()
        from imgalign.language.rewriting import load_rewriter

        if self._rewriter is None or self._rewriter[0] != name:
            self._rewriter = None
            self._rewriter = name, load_rewriter(name)
        return self._rewriter[1]


def checkpoints(runs: Runs, model: str) -> list[tuple[str, str]]:
    """(label, value) of everything that can be compared with the base, the newest run first."""
    return [(f"Base model only ({model})", BASE_ONLY), *_steps(runs, language=False)]


def rewriters(runs: Runs) -> list[tuple[str, str]]:
    """(label, value) of everything that can rewrite prompts, the newest run first."""
    shipped = ("With the storybook's model", SHIPPED)
    return [("No", NO_REWRITER), shipped, *_steps(runs, language=True)]


def requested(
    adapter: str | None,
    prompts: str,
    first_seed: float | None,
    count: float | None,
    steps: float | None,
    guidance: float | None,
    rewriter: str | None = NO_REWRITER,
    lock: str | None = None,
) -> Request:
    """The form as a Request; InputError says what to change.

    A hidden field gives None, and so does a list of a page that is still loading.
    """
    lines = tuple(dict.fromkeys(line.strip() for line in prompts.split("\n") if line.strip()))
    if not lines:
        raise InputError("prompts: write at least one, or pick an example")
    if adapter is None or rewriter is None:
        raise InputError("the page was still loading; press Generate again")
    if first_seed is None or count is None or steps is None or guidance is None:
        raise InputError("numbers: fill in images each, first seed, steps and guidance")
    number = _whole("images each", count, least=1, below=MOST_IMAGES + 1)
    start = _whole("first seed", first_seed, least=0, below=LARGEST_SEED - number)
    if not 1 <= guidance <= MOST_GUIDANCE:
        raise InputError(f"guidance: expected 1 (off) to {MOST_GUIDANCE:g}, got {guidance:g}")
    images = len(lines) * number * (2 if adapter else 1) * (2 if rewriter else 1)
    if images > MOST_IMAGES:
        raise InputError(f"{images} images: expected at most {MOST_IMAGES} at a time")
    return Request(
        adapter=adapter,
        prompts=lines,
        seeds=tuple(range(start, start + number)),
        sampler=SamplerSettings(
            num_inference_steps=_whole("steps", steps, least=1, below=MOST_STEPS + 1),
            guidance_scale=guidance,
        ),
        rewriter=rewriter,
        lock=(lock or "").strip(),
    )


def generate(
    request: Request, *, model: str, runs: Runs, shelf: Shelf, loaded: LoadedModels
) -> Iterator[dict[str, Any]]:
    """Generate the images, base first, yielding the page's view after each image.

    All rows use the same seeds, so they start from the same noise. A prompt that its rewriter left
    as it is has the same images in both rows.
    """
    base, adapter = model, None
    if request.adapter:
        base, adapter = _resolve(runs, request.adapter)
    rewriter = _resolve_rewriter(runs, request.rewriter)
    groups: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "unread": "",
            "rewrite": None,
            "seeds": [{"seed": seed, **dict.fromkeys(ROWS)} for seed in request.seeds],
        }
        for prompt in request.prompts
    ]
    cells = [(group, cell) for group in groups for cell in group["seeds"]]
    sides: list[tuple[str, Path | None]] = [("base", None)]
    sides += [("aligned", adapter)] if adapter else []
    total, done = len(sides) * len(cells) * (2 if rewriter else 1), 0

    def view(doing: str) -> dict[str, Any]:
        return {
            "groups": groups,
            "has_aligned": adapter is not None,
            "has_rewritten": rewriter is not None,
            "checkpoint": request.adapter,
            "rewriter": request.rewriter,
            "done": done,
            "total": total,
            "share": done / total,
            "doing": doing,
            "failed": "",
            "stopped": "",
        }

    with loaded.lock:
        for side, its_adapter in sides:
            yield view(f"Loading the {side} model")
            generator = loaded.get(base, its_adapter)
            if rewriter is not None and groups[0]["rewrite"] is None:
                yield view("Rewriting the prompts")
                found = _rewrites(request, loaded.rewriter(rewriter), generator)
                for group, rewrite in zip(groups, found, strict=True):
                    group["rewrite"] = shown_rewrite(rewrite)
            wanted = [(side, group, cell, group["prompt"]) for group, cell in cells]
            if rewriter is not None:
                wanted += [
                    (REWRITTEN[side], group, cell, group["rewrite"]["text"])
                    for group, cell in cells
                    if group["rewrite"]["changed"]
                ]
            images = generator.generate(
                [text for *_, text in wanted],
                seeds=[cell["seed"] for _, _, cell, _ in wanted],
                settings=request.sampler,
            )
            for (row, group, cell, _), made in zip(wanted, images, strict=True):
                kept = made.asked_as(group["prompt"], rewriter=str(rewriter))
                cell[row] = shelf.put(kept.image, kept.provenance)
                done += 1
                if row == side:
                    group["unread"] = made.unread
                    if rewriter is not None and not group["rewrite"]["changed"]:
                        cell[REWRITTEN[side]] = cell[side]
                        done += 1
                yield view(f"Generating with the {side} model")


def shown_rewrite(rewrite: "Rewrite") -> dict[str, Any]:
    """A rewrite as the page shows it."""
    return {
        "text": rewrite.text,
        "changed": rewrite.changed,
        "difference": [list(part) for part in rewrite.difference],
        "said": rewrite.lines(),
    }


def send(
    store: Store,
    shelf: Shelf,
    value: dict[str, Any] | None,
    *,
    how: str,
    overlap: float | None,
    project: str = "default",
) -> int:
    """Store the images with their provenance, queue items to rank, and return their number.

    `how` is PAIRS or REWRITES (items of two images of one seed) or TOGETHER (items of about GROUP
    candidates). The prompt of an item is what was asked, also where an image is of its rewrite.
    Equal images of an item are one candidate; an item with fewer than two is left out.
    """
    annotators = _whole("annotators per item", overlap, least=1, below=MOST_ANNOTATORS + 1)
    if not value or not value["groups"]:
        raise InputError("nothing to send: generate images first")
    if how == PAIRS and not value["has_aligned"]:
        raise InputError(f"{PAIRS}: choose a checkpoint and generate first, or send them together")
    if how == REWRITES and not value.get("has_rewritten"):
        raise InputError(f"{REWRITES}: switch rewriting on and generate first")
    # Everything is looked up before anything is stored: all of it is sent, or nothing.
    items = [
        (group["prompt"], [shelf.get(image_id) for image_id in chosen])
        for group in value["groups"]
        for chosen in _candidates(group["seeds"], how)
    ]
    source = f"generate: {value['checkpoint'] or 'base'}"
    source += f", rewritten by {value['rewriter']}" if value.get("has_rewritten") else ""
    queued = 0
    for prompt, kept in items:
        image_ids = list(dict.fromkeys(store.add_image(k.png, k.provenance) for k in kept))
        if len(image_ids) >= 2:
            store.add_item(prompt, image_ids, source=source, project=project, overlap=annotators)
            queued += 1
    return queued


def restore(shelf: Shelf, last: str) -> dict[str, Any] | None:
    """The view before a reload, if all of its images are still in memory."""
    try:
        value = json.loads(last)
        ids = [
            cell[row]
            for group in value["groups"]
            for cell in group["seeds"]
            for row in ROWS
            if cell.get(row) is not None
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return value if ids and all(isinstance(i, str) and shelf.has(i) for i in ids) else None


def _rewrites(
    request: Request, rewriter: "Rewriter", generator: "ImageGenerator"
) -> list["Rewrite"]:
    """The rewrite of each prompt, as seeds of its images begin, that the image model can read."""
    from imgalign.language.locking import check_lock, parse_lock

    lock = parse_lock(request.lock) if request.lock else "content"
    check_lock(lock, request.prompts)
    return rewriter.rewrite(
        request.prompts, seed=request.seeds[0], lock=lock, unread=generator.family.cut_text
    )


def _steps(runs: Runs, *, language: bool) -> Iterator[tuple[str, str]]:
    """(label, value) of the checkpoints of runs of one kind of model."""
    for run in runs.all():
        for step in reversed(run.adapters):
            if of_language(runs.path(run.name) / step) == language:
                mark = " (best)" if step == run.best else ""
                yield f"{run.name}, iteration {step_of(Path(step))}{mark}", f"{run.name}/{step}"


def _candidates(seeds: Sequence[Mapping[str, Any]], how: str) -> list[list[str]]:
    """Image ids of each item: pairs, or about equal groups of GROUP and more, of whole seeds."""
    rows = {
        PAIRS: (tuple(REWRITTEN), tuple(REWRITTEN.values())),
        REWRITES: tuple(REWRITTEN.items()),
    }
    if how in rows:
        pairs = [[cell.get(row) for row in pair] for cell in seeds for pair in rows[how]]
        return [[each for each in pair if each] for pair in pairs if all(pair)]
    units = [[cell[row] for row in ROWS if cell.get(row)] for cell in seeds]
    units = [unit for unit in units if unit]
    number = min(max(sum(map(len, units)) // GROUP, 1), len(units))
    bounds = [len(units) * part // number for part in range(number + 1)] if units else [0]
    groups = [list(chain.from_iterable(units[i:j])) for i, j in pairwise(bounds)]
    assert all(len(group) <= MAX_IMAGES for group in groups)
    return groups


def _whole(name: str, value: float | None, *, least: int, below: int) -> int:
    """A number of the form; InputError unless it is a whole one in the range."""
    if value is None or not (least <= value < below and value == int(value)):
        raise InputError(
            f"{name}: expected a whole number from {least} to {below - 1}, got {value}"
        )
    return int(value)


def _resolve(runs: Runs, value: str) -> tuple[str, Path]:
    """The base model and the adapter folder of "run/step-000040"."""
    from imgalign.runs.folder import model_under

    adapter = _checkpoint(runs, value)
    return model_under(adapter), adapter


def _resolve_rewriter(runs: Runs, value: str) -> str | None:
    """What `load_rewriter` takes; None where nothing is rewritten."""
    if value in (NO_REWRITER, SHIPPED):
        return value or None
    return str(_checkpoint(runs, value))


def _checkpoint(runs: Runs, value: str) -> Path:
    """The folder of "run/step-000040"."""
    name, _, step = value.partition("/")
    if step not in runs.run(name).adapters:
        raise InputError(f"{value}: no such checkpoint any more; choose another")
    return runs.path(name) / step
