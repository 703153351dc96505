"""The result of a comparison: saved to and loaded from evaluation.json, and printed as text."""

import json
import math
import shlex
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import InputError
from imgalign.evaluate.comparison import Change, Pair, Summary, interval, percent
from imgalign.evaluate.drift import Drift
from imgalign.evaluate.origin import Origin
from imgalign.files import read_json, write_atomically
from imgalign.preferences.records import Samples, at_strength
from imgalign.runs.folder import run_of
from imgalign.statistics import Estimate

FOLDER = "evaluation"
"""Inside a run."""
FILE = "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Mean distance between two samples of one prompt. A fall means that they become alike."""

    change: Change
    space: str
    """The space of the distance. Example: "CLIP features"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One side of the comparison."""

    model: str
    adapter: str | None
    adapter_hash: str | None
    strength: float = 1.0
    """How strongly the adapter was applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A blind comparison of an aligned checkpoint with its base."""

    base: Checkpoint
    aligned: Checkpoint
    oracle_meaning: str | None
    """What the oracle reward is, in words; None without one."""
    num_prompts: int
    images_per_prompt: int
    num_left_out: int
    """Prompts left out because the run was trained or selected on them."""
    summary: Summary
    diversity: Diversity | None
    drift: Drift | None
    pairs: tuple[Pair, ...]
    """In the order of the samples."""
    settings: dict[str, Any]
    origin: Origin
    oracle_tie: float = 0.0
    """Samples whose oracle rewards differ by at most this much are a tie."""
    images: str = "."
    """The folder of the images or texts, relative to that of evaluation.json."""
    samples: Samples = "images"
    """What was compared."""
    length: Change | None = None
    """Words of a text; None for images."""

    @property
    def sample(self) -> str:
        """What was compared, in the singular. Example: "image"."""
        return self.samples.removesuffix("s")

    def verdict(self) -> str:
        """The result in one sentence, with its interval."""
        judged, by = self.summary.win_rate, ""
        if judged is None:
            judged, by = self.summary.proxy_win_rate, " by the reward model it was trained on"
        if judged is None:
            count = len(self.pairs)
            return (
                f"{count} pairs of {self.samples} were generated; no reward was given to judge them"
            )
        verb = "beats" if judged.rate.value != 0.5 else "equals"
        scale = self.settings.get("baseline_guidance_scale")
        base = "the base" if self.base.adapter is None else "what it started from"
        base += "" if scale is None else f" at guidance {scale:g}"
        return (
            f"{at_strength('Aligned', self.aligned.strength)} {verb} {base} in "
            f"{percent(judged.rate.value)} of {judged.num_pairs} blind comparisons{by}"
            f" ({interval(judged.rate)})"
        )

    def lines(self) -> list[str]:
        """The result as text, one fact per line."""
        own = self.summary
        lines = [self.verdict()]
        if own.win_rate:
            rate = own.win_rate.rate
            if (rate.low or 0.0) <= 0.5 <= (1.0 if rate.high is None else rate.high):
                lines.append("  the interval includes an even 50 %: this may be chance")
            low, high = own.win_rate.wilson
            alike = f" (at most {self.oracle_tie:g} apart)" if self.oracle_tie else ""
            lines.append(
                f"  {own.win_rate.wins} wins, {own.win_rate.ties} ties{alike}, "
                f"{own.win_rate.losses} losses over {self.num_prompts} prompts; if all pairs were "
                f"independent, {percent(low)} to {percent(high)}"
            )
        rows = {"oracle": own.oracle, "reward": own.proxy}
        lines += [f"{name:<13}{moved(each)}" for name, each in rows.items() if each]
        if own.faithful:
            lines.append(f"{'faithful':<13}{moved_share(own.faithful)}")
        if self.diversity:
            lines.append(f"{'diversity':<13}{moved(self.diversity.change)}, {self.diversity.space}")
        if self.length:
            lines.append(f"{'length':<13}{moved(self.length)}, words of a text")
        if self.drift:
            budget = self.drift.budget_nats
            within = "" if budget is None else f" of {budget:g} allowed"
            lines.append(f"{'KL':<13}{self.drift.nats:.2f} nats per {self.sample}{within}")
        if own.overoptimisation:
            gap = own.overoptimisation
            lines.append(
                f"{'gap':<13}reward {gap.proxy_gain.value:+.2f}, "
                f"oracle {gap.oracle_gain.value:+.2f} standard deviations of the base"
            )
        for part in own.by_slice:
            if part.win_rate:
                rate = part.win_rate.rate
                lines.append(
                    f"  {part.name}: {percent(rate.value)} of {part.num_pairs} ({interval(rate)})"
                )
        return lines

    def save(self, folder: Path) -> Path:
        """Write evaluation.json atomically, and return its path."""
        path = folder / FILE
        content = TypeAdapter(Evaluation).dump_python(self, mode="json")
        write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
        return path


def load_evaluation(path: Path) -> Evaluation:
    """Load what `Evaluation.save` wrote, from the file, its folder, or its run.

    InputError where there is none or it cannot be read.
    """
    places = (path, path / FILE, path / FOLDER / FILE)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        command = shlex.join(["imgalign", "evaluate", str(path)])
        raise InputError(f"{path}: no {FILE} here; make one with `{command}`")
    try:
        values = read_json(file)
        json.dumps(values, allow_nan=False)  # Python reads NaN and 1e999, which `save` never wrote
        found = TypeAdapter(Evaluation).validate_python(values)
        count = found.num_prompts * found.images_per_prompt
        if not 0 < count == len(found.pairs):
            raise ValueError(f"expected {count} pairs, got {len(found.pairs)}")
        return found
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{file}: not an evaluation of this version (at {where or 'the start'}); evaluate again"
        ) from None
    except ValueError as error:
        raise InputError(f"{file}: damaged ({error}); evaluate again") from None


def evaluation_folder(adapter: Path, *, strength: float = 1.0) -> Path:
    """Folder of the evaluation of trained weights: in their run, or beside those from elsewhere.

    That at another strength than 1 has a name of its own, such as "evaluation-0.6".
    """
    name = FOLDER if strength == 1 else f"{FOLDER}-{strength:g}"
    return (run_of(adapter) or (adapter if adapter.is_dir() else adapter.parent)) / name


def refuse_foreign(
    path: Path, *, keys: Set[str] = frozenset({"pairs", "summary", "origin"})
) -> None:
    """InputError for an existing file that imgalign did not make: one without these keys.

    All versions of the file have them; the default is those of evaluation.json.
    """
    try:
        values = read_json(path)
    except FileNotFoundError:
        return
    except ValueError:
        values = None
    if not (isinstance(values, dict) and keys <= values.keys()):
        raise InputError(
            f"{path}: was not made by imgalign, so it is not replaced; choose another folder"
        )


def images_of(out: Path) -> str | None:
    """The folder of images that evaluation.json in `out` names; None without one."""
    try:
        values = read_json(out / FILE)
    except (FileNotFoundError, ValueError):
        return None
    return str(values.get("images")) if isinstance(values, dict) else None


def moved(change: Change) -> str:
    """Example: "5.10 -> 5.92, by +0.82 (+0.61 to +1.03)"."""
    largest = max(abs(change.before.value), abs(change.after.value))
    digits = 2 - math.floor(math.log10(largest)) if largest > 0 else 2
    digits = min(max(digits, 0), 6)
    return (
        f"{change.before.value:.{digits}f} -> {change.after.value:.{digits}f}, "
        f"by {change.difference.value:+.{digits}f}{bounds(change.difference, digits=digits)}"
    )


def moved_share(change: Change) -> str:
    """Example: "61 % -> 74 %, by +13 points (+6 to +20)"."""
    points = change.difference
    return (
        f"{percent(change.before.value)} -> {percent(change.after.value)}, "
        f"by {100 * points.value:+.0f} points{bounds(points, scale=100, digits=0)}"
    )


def bounds(estimate: Estimate, *, scale: float = 1.0, digits: int = 2) -> str:
    """Example: " (+0.61 to +1.03)"; empty without bounds."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f" ({scale * estimate.low:+.{digits}f} to {scale * estimate.high:+.{digits}f})"
