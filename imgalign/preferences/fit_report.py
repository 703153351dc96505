"""What a fit of a reward to rankings found, as report.json beside its weights holds it.

The one schema of that file: the fit writes it, the report of a run reads it. Left out: the fit
itself, and plots.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import InputError
from imgalign.files import read_json
from imgalign.preferences.accuracy import Accuracy, Calibration, Gain

REPORT_FILE = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What a reward could reach on these labels. Example: 0.73, "one annotator with the majority
    of the others, 412 pairs".
    """

    value: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the rankings that were handed in."""

    ranked: int
    all_bad: int
    """Left out: says nothing about an order."""
    skipped: int
    """Left out: no judgement."""
    unreadable: int = 0
    """Left out: an image of theirs is lost or damaged. Not among `ranked`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How scores are distributed over images."""

    mean: float
    std: float
    quantiles: tuple[float, float, float, float, float]
    """Lowest, quarter, median, three quarters, highest."""
    within_prompt_std: float
    """Root mean square over rankings of the standard deviation among their candidates: what a
    policy can gain for a given prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate` found; `lines()` says it to a person."""

    accuracy: Accuracy
    baseline: Accuracy | None
    """Zero-shot CLIP on the same pairs."""
    gain: Gain | None
    """Accuracy beyond zero-shot CLIP."""
    chance: float
    ceiling: Ceiling | None
    """What annotators reach themselves when they foretell each other."""
    share_of_ceiling: float | None
    """Accuracy divided by the ceiling."""
    num_rankings: int
    num_tied_pairs: int
    """Left out of the accuracy."""
    calibration: Calibration | None
    """None for a reward whose scores were never related to probabilities."""
    scores: Spread
    truth: Ceiling | None = None
    """What knowing exactly what is wanted would reach; of simulated people only."""
    share_of_truth: float | None = None
    """Accuracy divided by that."""
    baseline_missing: str | None = None
    """Why a fitted reward stands without zero-shot CLIP."""

    def lines(self) -> list[str]:
        """The evaluation as text, one fact per line."""
        own = self.accuracy
        lines = [
            f"held-out pair accuracy {_share(own.micro)} on {own.num_pairs} pairs of "
            f"{own.num_prompts} prompts"
            + (f", 95 % interval {_interval(own.by_prompt)}" if own.by_prompt else ""),
            f"  mean over prompts    {_share(own.macro)}",
            f"  chance               {_share(self.chance)}",
        ]
        if self.baseline and self.gain:
            interval = f" ({_interval(self.gain.by_prompt)})" if self.gain.by_prompt else ""
            lines.append(
                f"  zero-shot CLIP       {_share(self.baseline.micro)}, "
                f"so {100 * self.gain.value:+.1f} points{interval}"
            )
        elif self.baseline_missing:
            lines.append(f"  zero-shot CLIP       unknown: {self.baseline_missing}")
        if self.ceiling:
            share = self.share_of_ceiling
            reached = "" if share is None else f", of which {_share(share)} is reached"
            lines.append(
                f"  annotators' ceiling  {_share(self.ceiling.value)}{reached} "
                f"({self.ceiling.meaning})"
            )
        else:
            lines.append("  annotators' ceiling  unknown: no pair was judged by two annotators")
        if self.truth and self.share_of_truth is not None:
            lines.append(
                f"  knowing the truth    {_share(self.truth.value)}, of which "
                f"{_share(self.share_of_truth)} is reached ({self.truth.meaning})"
            )
        if self.calibration:
            lines.append(
                f"calibration error {100 * self.calibration.ece:.1f} points, "
                f"log loss {self.calibration.log_loss:.3f} nats (a coin: 0.693)"
            )
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """How one seed went."""

    seed: int
    prior_std: float
    """The smallest of the settings' with a validation loss near the lowest."""
    epochs: int
    best_epoch: int
    validation_loss: float
    start_loss: float
    """Validation loss before the first step, when the head ranks as zero-shot CLIP."""
    test_accuracy: float
    unfrozen_helped: bool | None
    """Whether unfrozen blocks lowered the validation loss; None where all stayed frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """What a fit did and how good it is on prompts it never saw; saved as report.json."""

    test: Evaluation
    train_accuracy: float
    """On the rankings of the fit; far above the test accuracy means too few rankings."""
    temperature: float
    """Utilities are divided by this to give log-odds; found on the validation prompts."""
    ece_uncalibrated: float
    """Calibration error on the test prompts at temperature 1."""
    train_scores: Spread
    """Mean 0 and standard deviation 1 over images, by construction."""
    log_tie: tuple[float, ...]
    """Log weights of ties of 2, 3, ... images, in nats."""
    counts: Counts
    num_rankings: dict[str, int]
    """Of each part of the split."""
    num_prompts: dict[str, int]
    seeds: tuple[SeedResult, ...]
    chosen_seed: int
    losses: tuple[tuple[float | None, float], ...]
    """Training and validation loss after each pass of the chosen seed, in nats per ranking; the
    former is None at the start of a phase."""
    data_hash: str
    settings: dict[str, Any]
    seconds: float

    def lines(self) -> list[str]:
        """The report as text, one fact per line."""
        sizes = ", ".join(
            f"{self.num_rankings[part]} {part} ({self.num_prompts[part]} prompts)"
            for part in ("train", "validation", "test")
        )
        left_out = f"{self.counts.all_bad} all bad and {self.counts.skipped} skipped left out"
        if self.counts.unreadable:
            left_out += f", {self.counts.unreadable} with an image that cannot be read"
        return [f"rankings: {sizes}; {left_out}", *self.test.lines()]

    def metrics(self) -> dict[str, float]:
        """The numbers that travel in the contract."""
        own = self.test
        metrics = {
            "held_out_accuracy": own.accuracy.micro,
            "held_out_accuracy_macro": own.accuracy.macro,
            "held_out_pairs": float(own.accuracy.num_pairs),
            "chance": own.chance,
        }
        if own.baseline:
            metrics["zero_shot_accuracy"] = own.baseline.micro
        if own.ceiling:
            metrics["ceiling"] = own.ceiling.value
        if own.truth:
            metrics["truth"] = own.truth.value
        if own.calibration:
            metrics["ece"] = own.calibration.ece
        return metrics


def read_fit_report(folder: Path) -> FitReport:
    """The report in a reward's folder; InputError where it is missing or is none."""
    path = folder / REPORT_FILE
    try:
        found = read_json(path)
        json.dumps(found, allow_nan=False)  # plots of infinity or NaN are none
        return TypeAdapter(FitReport).validate_python(found)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; give the folder of a reward model") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])[:200]
        raise InputError(
            f"{path}: not the report of a reward fit (at {where or 'the start'}); fit again"
        ) from None
    except ValueError as error:
        raise InputError(f"{path}: not the report of a reward fit ({error}); fit again") from None


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
