"""What a comparison asks for: prompts and seeds that the run never learned from or chose by."""

import logging
from dataclasses import dataclass
from pathlib import Path

from imgalign.config import load_config
from imgalign.errors import InputError
from imgalign.evaluate.comparison import FormName
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import Drift
from imgalign.preferences.splits import prompt_key
from imgalign.prompts import read_prompts
from imgalign.runs.checkpoint import STEP, find_adapter, step_of
from imgalign.runs.folder import CONFIG, METRICS, run_prompts
from imgalign.runs.metrics import read_metrics
from imgalign.storybook import scenes
from imgalign.train.config import TrainConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subjects:
    """One prompt and seed per pair, the pairs of a prompt next to each other."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    num_left_out: int
    """Prompts that would have been used, had the run not known them."""


def choose_subjects(settings: EvaluateConfig, known: frozenset[str]) -> Subjects:
    """Prompts and seeds of each pair, without prompts in `known`; InputError if none is left.

    A prompt that differs from a known one only in case and spacing is known.
    """
    keys = set(map(prompt_key, known))
    if settings.prompts is None:
        held_out = settings.held_out_combinations
        drawn = scenes.evaluation_prompts(
            settings.num_prompts + len(known), seed=settings.prompt_seed, held_out=held_out
        )
        left_out = sum(prompt_key(prompt) in keys for prompt in drawn[: settings.num_prompts])
        fresh = [prompt for prompt in drawn if prompt_key(prompt) not in keys][
            : settings.num_prompts
        ]
    else:
        drawn = read_prompts(settings.prompts)
        fresh = [prompt for prompt in drawn if prompt_key(prompt) not in keys]
        left_out = len(drawn) - len(fresh)
    if not fresh:
        raise InputError(
            f"{settings.prompts}: the run learned from, or chose by, each of its {len(drawn)} "
            "prompts; evaluate on others"
        )
    if left_out:
        log.info("%d prompts left out: the run knew them", left_out)
    prompts = tuple(prompt for prompt in fresh for _ in range(settings.images_per_prompt))
    seeds = range(settings.first_seed, settings.first_seed + len(prompts))
    return Subjects(prompts=prompts, seeds=tuple(seeds), num_left_out=left_out)


def known_prompts(run: Path) -> frozenset[str]:
    """All prompts that a run learned from or was stopped and selected by."""
    training, held_out = run_prompts(run)
    return frozenset(training + held_out)


def drift_of(run: Path, adapter: Path) -> Drift | None:
    """The KL of a checkpoint of a run, where its metrics tell.

    On held-out prompts at that very step; else what the next round found on its training images,
    before its update, which is of the same weights.
    """
    folder = find_adapter(adapter)
    if not STEP.fullmatch(folder.name):
        return None
    step, budget = step_of(folder), load_config(TrainConfig, run / CONFIG).kl_budget_nats
    for key, at, what in (("held_out_kl", step, "held-out"), ("kl", step + 1, "training")):
        for record in read_metrics(run / METRICS):
            value = record.get(key)
            if record["step"] == at and isinstance(value, int | float):
                source = f"{what} prompts, step {step}"
                return Drift(nats=float(value), budget_nats=budget, source=source)
    return None


def form_of(prompt: str) -> FormName:
    """What kind of thing a prompt asks for; text outside the storybook's grammar is free text."""
    try:
        spec = scenes.parse_prompt(prompt)
    except ValueError:
        return "free text"
    if spec.relation is not None:
        return "two in a relation"
    return "one object" if spec.count == 1 else "several of a kind"
