"""What a fit did, as numbers, text and a plot."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reward_models.contract import PLOT_FILE, REPORT_FILE
from reward_models.evaluate import Counts, Evaluation, Spread
from reward_models.measures import Interval


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
    losses: tuple[tuple[float, float], ...]
    """Training and validation loss after each pass of the chosen seed, in nats per ranking."""
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

    def save(self, folder: Path) -> None:
        """Write report.json and reliability.png."""
        text = json.dumps(_finite(asdict(self)), indent=2, allow_nan=False) + "\n"
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
        draw_reliability(self.test, folder / PLOT_FILE)


def draw_reliability(evaluation: Evaluation, path: Path) -> None:
    """A picture of the accuracy beside its bounds, and of confidence against truth."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_accuracy(left, evaluation)
    _draw_bins(right, evaluation)
    figure.savefig(path, dpi=150)


def _draw_accuracy(axes: Axes, evaluation: Evaluation) -> None:
    rows: list[tuple[str, float, Interval | None, str]] = [
        ("chance", evaluation.chance, None, "0.75")
    ]
    if evaluation.baseline:
        own = evaluation.baseline
        rows.append(("zero-shot CLIP", own.micro, own.by_prompt or own.wilson, "tab:gray"))
    own = evaluation.accuracy
    rows.append(("this reward", own.micro, own.by_prompt or own.wilson, "tab:blue"))
    if evaluation.ceiling:
        rows.append(("annotators' ceiling", evaluation.ceiling.value, None, "tab:green"))
    if evaluation.truth:
        rows.append(("knowing the truth", evaluation.truth.value, None, "tab:olive"))
    for place, (_, value, interval, colour) in enumerate(rows):
        axes.barh(place, value, color=colour)
        if interval:
            axes.plot(interval, (place, place), color="black", linewidth=1.5)
        axes.text(0.01, place, f"{100 * value:.1f} %", va="center", color="white", weight="bold")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"pair accuracy, {own.num_pairs} held-out pairs, 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_bins(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot((0.5, 1), (0.5, 1), color="0.75", linewidth=1)
    if evaluation.calibration:
        bins = evaluation.calibration.bins
        largest = max(each.num_pairs for each in bins)
        axes.plot([b.confidence for b in bins], [b.accuracy for b in bins], color="tab:blue")
        axes.scatter(
            [b.confidence for b in bins],
            [b.accuracy for b in bins],
            s=[10 + 150 * b.num_pairs / largest for b in bins],
            color="tab:blue",
        )
        axes.set_title(f"calibration error {100 * evaluation.calibration.ece:.1f} points", size=10)
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(min(0.4, *axes.get_ylim()), 1.02)
    axes.set_xlabel("predicted probability of the preference (larger dot: more pairs)")
    axes.set_ylabel("share that came true")
    axes.spines[["top", "right"]].set_visible(False)


def _finite(value: Any) -> Any:
    """JSON has no NaN: the training loss before any training becomes null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
