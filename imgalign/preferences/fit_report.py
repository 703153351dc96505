"""The report of a reward fit, which is saved as report.json beside the weights.

The schema of that file, for the fit that writes it and the reports that read it; field names are
those on disk. Left out: the fit itself, and plots.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from imgalign.errors import InputError
from imgalign.files import read_json
from imgalign.preferences.accuracy import Accuracy, Calibration, Gain
from imgalign.preferences.records import Samples

REPORT_FILE = "report.json"
ZERO_SHOT = "zero-shot CLIP"
"""The baseline of rewards of images: what a fit starts from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """An upper bound on pair accuracy, and how it was measured.

    Example: 0.73, "one annotator with the majority of the others, 412 pairs".
    """

    value: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedFrom:
    """Which rankings of the store something learned from; None for all projects, or all groups.

    Example: those of project "cats", by annotators of the group "warm".
    """

    project: str | None = None
    group: str | None = None

    def __str__(self) -> str:
        """Example: "project cats, group warm"."""
        project = "all projects" if self.project is None else f"project {self.project}"
        return project if self.group is None else f"{project}, group {self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of the rankings that were given, by verdict."""

    ranked: int
    all_bad: int
    """Left out: no order."""
    skipped: int
    """Left out: no judgement."""
    unreadable: int = 0
    """Left out: an image is lost or damaged, or a text does not fit the model. Not among
    `ranked`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Distribution of scores over samples."""

    mean: float
    std: float
    quantiles: tuple[float, float, float, float, float]
    """Lowest, quarter, median, three quarters, highest."""
    within_prompt_std: float
    """Root mean square over rankings of the standard deviation among their candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Pair accuracy of a reward on held-out rankings, beside baselines and upper bounds."""

    accuracy: Accuracy
    baseline: Accuracy | None
    """The baseline on the same pairs: zero-shot CLIP, or preferring the longer text."""
    gain: Gain | None
    """Accuracy beyond the baseline."""
    chance: float
    ceiling: Ceiling | None
    """The annotators' agreement: how well they predict each other."""
    share_of_ceiling: float | None
    """Accuracy divided by the annotators' agreement."""
    num_rankings: int
    num_tied_pairs: int
    """Left out of the accuracy."""
    calibration: Calibration | None
    """None for a reward without calibrated scores."""
    scores: Spread
    truth: Ceiling | None = None
    """The Bayes-optimal accuracy, that of the oracle reward; for simulated annotators only."""
    share_of_truth: float | None = None
    """Accuracy divided by the Bayes-optimal accuracy."""
    baseline_name: str = ZERO_SHOT
    """What the baseline is."""
    baseline_missing: str | None = None
    """Why a fitted reward has no baseline to compare with."""

    def lines(self) -> list[str]:
        """The evaluation as text, one fact per line."""
        own = self.accuracy
        lines = [
            f"held-out pair accuracy {_share(own.micro)} on {own.num_pairs} pairs of "
            f"{own.num_prompts} prompts"
            + (f", 95 % interval {_interval(own.by_prompt)}" if own.by_prompt else ""),
            _row("mean over prompts", _share(own.macro)),
            _row("chance", _share(self.chance)),
        ]
        if self.baseline and self.gain:
            interval = f" ({_interval(self.gain.by_prompt)})" if self.gain.by_prompt else ""
            lines.append(
                _row(
                    self.baseline_name,
                    f"{_share(self.baseline.micro)}, "
                    f"so {100 * self.gain.value:+.1f} points{interval}",
                )
            )
        elif self.baseline_missing:
            lines.append(_row(self.baseline_name, f"unknown: {self.baseline_missing}"))
        agreement = "unknown: no pair was judged by two annotators"
        if self.ceiling:
            agreement = _bound(self.ceiling, self.share_of_ceiling)
        lines.append(_row("annotators' agreement (ceiling)", agreement))
        if self.truth:
            lines.append(_row("Bayes-optimal accuracy", _bound(self.truth, self.share_of_truth)))
        if self.calibration:
            lines.append(
                f"calibration error {100 * self.calibration.ece:.1f} points, "
                f"log loss {self.calibration.log_loss:.3f} nats (chance: 0.693)"
            )
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """Result of one seed."""

    seed: int
    prior_std: float | None
    """The value that was chosen from the settings' `prior_stds`; None for rewards of texts."""
    epochs: int
    best_epoch: int
    validation_loss: float
    start_loss: float
    """Validation loss before the first step: of zero-shot CLIP, or of equal scores of texts."""
    test_accuracy: float
    unfrozen_helped: bool | None
    """Whether training the unfrozen blocks lowered the validation loss; None without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A held-out pair, to be looked at. Example: probability 0.04: the reward prefers `worse`."""

    prompt: str
    better: str
    """SHA-256 of the sample that a person preferred."""
    worse: str
    probability: float
    """What the reward gives to that preference, without ties."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport:
    """Settings, losses and test accuracy of a fit; saved as report.json."""

    test: Evaluation
    train_accuracy: float
    """Pair accuracy on the training split; far above that of the test split: too few rankings."""
    temperature: float
    """Utilities divided by this are log-odds; fitted on the validation split."""
    ece_uncalibrated: float
    """Calibration error on the test split at temperature 1."""
    train_scores: Spread
    """Mean 0 and standard deviation 1 over samples, by construction."""
    log_tie: tuple[float, ...]
    """Log weights of ties of 2, 3, ... samples, in nats."""
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
    samples: Samples = "images"
    """What it scores."""
    disagreements: tuple[Judged, ...] = ()
    """The held-out pairs, one of a prompt, of which the reward is surest and people were of another
    mind; the surest first."""
    agreements: tuple[Judged, ...] = ()
    """Those of which it is surest with people."""
    learned_from: LearnedFrom | None = None
    """None for rankings of a file, and in reports of earlier versions."""

    def lines(self) -> list[str]:
        """The report as text, one fact per line."""
        sizes = ", ".join(
            f"{self.num_rankings[part]} {part} ({self.num_prompts[part]} prompts)"
            for part in ("train", "validation", "test")
        )
        left_out = f"{self.counts.all_bad} all bad and {self.counts.skipped} skipped left out"
        if self.counts.unreadable:
            left_out += f", {self.counts.unreadable} with a sample that cannot be read"
        return [f"rankings: {sizes}; {left_out}", *self.test.lines()]

    def metrics(self) -> dict[str, float]:
        """The numbers that the contract keeps."""
        own = self.test
        metrics = {
            "held_out_accuracy": own.accuracy.micro,
            "held_out_accuracy_macro": own.accuracy.macro,
            "held_out_pairs": float(own.accuracy.num_pairs),
            "chance": own.chance,
        }
        if own.baseline:
            metrics["baseline_accuracy"] = own.baseline.micro
        if own.ceiling:
            metrics["ceiling"] = own.ceiling.value
        if own.truth:
            metrics["truth"] = own.truth.value
        if own.calibration:
            metrics["ece"] = own.calibration.ece
        return metrics


def read_fit_report(folder: Path) -> FitReport:
    """Read the report in a reward's folder; InputError where it is missing or invalid."""
    path = folder / REPORT_FILE
    try:
        found = read_json(path)
        json.dumps(found, allow_nan=False)  # infinity and NaN cannot be plotted
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


def _row(name: str, text: str) -> str:
    return f"  {name:<32} {text}"


def _bound(bound: Ceiling, share: float | None) -> str:
    reached = "" if share is None else f", of which {_share(share)} is reached"
    return f"{_share(bound.value)}{reached} ({bound.meaning})"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _interval(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
