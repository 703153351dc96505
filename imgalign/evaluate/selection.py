"""Prompts and seeds of a comparison, without those that the run was trained or selected on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from imgalign.errors import InputError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import read_prompts
from imgalign.runs.folder import run_prompts

log = logging.getLogger(__name__)


@runtime_checkable
class DrawPrompts(Protocol):
    """A source of prompts, such as `imgalign.storybook.scenes.evaluation_prompts`."""

    def __call__(self, num_prompts: int, *, seed: int, held_out: bool) -> Sequence[str]:
        """`num_prompts` distinct prompts; a smaller number gives the first of a larger one.

        `held_out` asks for unseen combinations, which no training on this source contains.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """One prompt and seed per pair, the pairs of a prompt next to each other."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    num_left_out: int
    """Prompts left out because the run was trained or selected on them."""


def select_prompts(
    settings: EvaluateConfig, known: frozenset[str], *, draw: DrawPrompts | None = None
) -> Selection:
    """Prompts and seeds of each pair, without prompts in `known`; InputError if none is left.

    `draw` gives the prompts where the settings name no file of them. A prompt that differs from a
    known one only in case and spacing is known.
    """
    keys = set(map(prompt_key, known))
    if settings.prompts is not None:
        candidates: Sequence[str] = read_prompts(settings.prompts)
        wanted = len(candidates)
    elif draw is not None:
        wanted = settings.num_prompts
        candidates = draw(
            wanted + len(known), seed=settings.prompt_seed, held_out=settings.unseen_combinations
        )
    else:
        raise InputError("prompts: expected a text file with one prompt per line, got none")
    left_out = sum(prompt_key(prompt) in keys for prompt in candidates[:wanted])
    fresh = [prompt for prompt in candidates if prompt_key(prompt) not in keys][:wanted]
    if not fresh:
        raise InputError(
            f"{settings.prompts}: the run was trained or selected on each of its {wanted} prompts; "
            "evaluate on others"
        )
    if left_out:
        log.info("%d prompts left out: the run was trained or selected on them", left_out)
    prompts = tuple(prompt for prompt in fresh for _ in range(settings.images_per_prompt))
    seeds = range(settings.first_seed, settings.first_seed + len(prompts))
    return Selection(prompts=prompts, seeds=tuple(seeds), num_left_out=left_out)


def known_prompts(run: Path) -> frozenset[str]:
    """All prompts that a run was trained, stopped or selected on."""
    training, held_out = run_prompts(run)
    return frozenset(training + held_out)
