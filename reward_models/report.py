"""Write the report of a fit: numbers as JSON, and a plot."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imgalign.preferences.accuracy import Interval
from imgalign.preferences.fit_report import REPORT_FILE, Evaluation, FitReport
from reward_models.contract import PLOT_FILE

Sample = TypeVar("Sample", contravariant=True)


@runtime_checkable
class Fitted(Protocol[Sample]):
    """A reward model that was fitted: `ClipReward` of images, `TextReward` of texts."""

    def save(
        self,
        folder: Path,
        *,
        golden: Sequence[tuple[str, Sample]],
        data_hash: str,
        metrics: Mapping[str, float] | None,
        beside: Callable[[Path], None],
    ) -> Any:
        """Write weights, contract, golden samples and what `beside` adds."""
        ...


def save_fitted(
    reward: Fitted[Sample],
    out: Path,
    report: FitReport,
    *,
    golden: Iterable[tuple[str, str]],
    read: Callable[[str], Sample],
) -> None:
    """Write a reward model with its report beside it; `read` gives a golden sample by its id."""
    reward.save(
        out,
        golden=[(prompt, read(sample)) for prompt, sample in golden],
        data_hash=report.data_hash,
        metrics=report.metrics(),
        beside=partial(save_report, report),
    )


def save_report(report: FitReport, folder: Path) -> None:
    """Write report.json and reliability.png."""
    text = json.dumps(asdict(report), indent=2, allow_nan=False) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    draw_reliability(report.test, folder / PLOT_FILE)


def draw_reliability(evaluation: Evaluation, path: Path) -> None:
    """Plot pair accuracy beside its bounds, and a reliability diagram."""
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
        rows.append((evaluation.baseline_name, own.micro, own.by_prompt, "tab:gray"))
    own = evaluation.accuracy
    rows.append(("this reward", own.micro, own.by_prompt, "tab:blue"))
    if evaluation.ceiling:
        rows.append(
            ("annotators' agreement (ceiling)", evaluation.ceiling.value, None, "tab:green")
        )
    if evaluation.truth:
        rows.append(("Bayes-optimal accuracy", evaluation.truth.value, None, "tab:olive"))
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
    axes.set_xlabel("predicted probability (larger dots: more pairs)")
    axes.set_ylabel("observed frequency")
    axes.spines[["top", "right"]].set_visible(False)
