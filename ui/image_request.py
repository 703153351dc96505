"""What the form of the Generate page asks for: its limits, its choices, and what is wrong in it.

Left out: making the images (generation.py) and the page (pages/generate.py).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from imgalign.errors import InputError
from imgalign.preferences.records import SamplerSettings, at_strength
from imgalign.runs.checkpoint import step_of
from imgalign.runs.trained import of_language
from ui.runs import Runs

BASE_ONLY = ""
LORAS = ".loras"
"""What stands for a run where a form names a LoRA that was sent: ".loras/NAME" (loras.py)."""
NO_REWRITER = ""
SHIPPED = "storybook"
MOST_COMPARED = 3
MOST_IMAGES = 128
MOST_STEPS = 200
MOST_GUIDANCE = 20.0
LARGEST_SEED = 2**53
"""From there on a browser's numbers are no longer exact."""
WHOLE = re.compile(r"[-+]?[0-9]{1,30}")
LONGEST_SHOWN = 40
"""Characters of a wrong number that a message repeats."""

Typed = float | str | None
"""A number as the form gives it: text where a browser would round it, None where it is empty."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A checkpoint to compare with the base model, "run/step-000040", and how strongly.

    Or a LoRA that was sent, ".loras/NAME".
    """

    checkpoint: str
    strength: float = 1.0

    @property
    def name(self) -> str:
        """Example: "first, iteration 40 at 0.6"."""
        run, _, step = self.checkpoint.partition("/")
        if run == LORAS:
            return at_strength(step, self.strength)
        number = step_of(Path(step)) if re.fullmatch(r"step-\d+", step) else step
        return at_strength(f"{run}, iteration {number}", self.strength)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Images to generate; without anything to compare, those of the base model alone."""

    compared: tuple[Compared, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sampler: SamplerSettings
    rewriter: str = NO_REWRITER
    """What rewrites the prompts: SHIPPED, or "run/step-000040" of a language model."""
    lock: str = ""
    """Words to keep, separated by commas; empty is every word that says something."""


def requested(
    adapter: str | None,
    prompts: str | None,
    first_seed: Typed,
    count: Typed,
    steps: Typed,
    guidance: float | None,
    rewriter: str | None = NO_REWRITER,
    lock: str | None = None,
    *,
    more: Sequence[str | None] = (),
    strengths: Sequence[float | None] = (),
    negative: str | None = None,
) -> Request:
    """The form as a Request; InputError says what to change.

    `more` are checkpoints to compare beside `adapter`, `strengths` those of all of them, 1 where
    none is given; `negative` is what guidance leads away from. A hidden field gives None, and so
    does a list of a page that is still loading.
    """
    lines = tuple(
        dict.fromkeys(line.strip() for line in (prompts or "").split("\n") if line.strip())
    )
    if not lines:
        raise InputError("prompts: write at least one, or pick an example")
    if adapter is None or rewriter is None:
        raise InputError("the page was still loading; press Generate again")
    numbers = {"images each": count, "first seed": first_seed, "steps": steps, "guidance": guidance}
    empty = [name for name, value in numbers.items() if value is None or not str(value).strip()]
    if empty:
        raise InputError(f"{', '.join(empty)}: fill in a number")
    number = whole("images each", count, least=1, below=MOST_IMAGES + 1)
    start = whole("first seed", first_seed, least=0, below=LARGEST_SEED - number)
    if guidance is None or not 1 <= guidance <= MOST_GUIDANCE:
        raise InputError(f"guidance: expected 1 (off) to {MOST_GUIDANCE:g}, got {guidance:g}")
    away = " ".join((negative or "").split())
    if away and guidance == 1:
        raise InputError(
            "negative prompt: without effect while guidance is 1 (off); raise guidance, or empty it"
        )
    compared = _compared([adapter, *more], strengths)
    images = len(lines) * number * (1 + len(compared)) * (2 if rewriter else 1)
    if images > MOST_IMAGES:
        raise InputError(
            f"{images} images: expected at most {MOST_IMAGES} at a time; take fewer prompts,"
            " images each or checkpoints"
        )
    return Request(
        compared=compared,
        prompts=lines,
        seeds=tuple(range(start, start + number)),
        sampler=SamplerSettings(
            num_inference_steps=whole("steps", steps, least=1, below=MOST_STEPS + 1),
            guidance_scale=guidance,
            negative_prompt=away,
        ),
        rewriter=rewriter,
        lock=(lock or "").strip(),
    )


def checkpoints(runs: Runs, model: str) -> list[tuple[str, str]]:
    """(label, value) of everything that can be compared with the base, the newest run first."""
    return [(f"Base model only ({model})", BASE_ONLY), *_steps(runs, language=False)]


def recommended(runs: Runs) -> str:
    """What the newest run is best used at, as `checkpoints` names it; else the base alone."""
    found = (
        f"{run.name}/{step}"
        for run in runs.all()
        if (step := run.recommended) and not of_language(runs.path(run.name) / step)
    )
    return next(found, BASE_ONLY)


def rewriters(runs: Runs) -> list[tuple[str, str]]:
    """(label, value) of everything that can rewrite prompts, the newest run first."""
    shipped = ("With the storybook's model", SHIPPED)
    return [("No", NO_REWRITER), shipped, *_steps(runs, language=True)]


def checkpoint_folder(runs: Runs, value: str) -> Path:
    """The folder of "run/step-000040"; InputError where there is no such checkpoint."""
    name, _, step = value.partition("/")
    if step not in runs.run(name).adapters:
        raise InputError(f"{value}: no such checkpoint any more; choose another")
    return runs.path(name) / step


def _compared(
    chosen: Sequence[str | None], strengths: Sequence[float | None]
) -> tuple[Compared, ...]:
    found = [
        Compared(value, 1.0 if strength is None else strength)
        for value, strength in zip_longest(chosen, strengths)
        if value
    ]
    if len(found) > MOST_COMPARED:
        raise InputError(
            f"compare with: expected at most {MOST_COMPARED} checkpoints, got {len(found)}"
        )
    for index, each in enumerate(found):
        if each in found[:index]:
            raise InputError(f"compare with: {each.name} is chosen twice; choose another")
    return tuple(found)


def _steps(runs: Runs, *, language: bool) -> Iterator[tuple[str, str]]:
    """(label, value) of the checkpoints of runs of one kind of model."""
    for run in runs.all():
        for step in reversed(run.adapters):
            if of_language(runs.path(run.name) / step) == language:
                mark = " (best)" if step == run.best else ""
                value = f"{run.name}/{step}"
                yield f"{Compared(value).name}{mark}", value


def whole(name: str, value: Typed, *, least: int, below: int) -> int:
    """A number of the form; InputError unless it is a whole one in the range."""
    number = value
    if isinstance(value, str):
        number = int(value) if WHOLE.fullmatch(value.strip()) else None
    if isinstance(number, int | float) and least <= number < below and number == int(number):
        return int(number)
    got = str(value).strip()
    got = got if len(got) <= LONGEST_SHOWN else f"{got[:LONGEST_SHOWN]} …"
    raise InputError(f"{name}: expected a whole number from {least} to {below - 1}, got {got}")
