"""Pair accuracy and calibration of a scorer.

The data are margins: the score of the preferred image minus the score of the other, for every pair
of a ranking. Ties of the annotator are left out. Pairs of one prompt are not
independent, so intervals are those of `imgalign.statistics`, by prompt.

Shapes: n = pairs. Margins are score differences; probabilities are of the annotator's choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt

from imgalign.statistics import Estimate, clustered_mean, clustered_rate

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

NUM_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Share of pairs in which the preferred image scores higher; an exact tie counts half.

    Example: 90 of 120 pairs right over 20 prompts.
    """

    micro: float
    """Over all pairs alike."""
    macro: float
    """Mean over prompts of the accuracy within each."""
    num_pairs: int
    num_prompts: int
    by_prompt: Interval | None = None
    """95 % interval of `micro` with prompts as clusters; None for a single prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Difference in micro accuracy to a baseline on the same pairs."""

    value: float
    by_prompt: Interval | None = None
    """95 % interval with prompts as clusters; None for a single prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Pairs with similar predicted probabilities."""

    low: float
    high: float
    num_pairs: PositiveInt
    confidence: float
    """Mean predicted probability of the image that scores higher."""
    accuracy: float
    """Share of them in which that image was the preferred one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Agreement of predicted probabilities with observed frequencies."""

    ece: float
    """Expected calibration error: mean over pairs of |confidence - accuracy| of their bin."""
    log_loss: float
    """Mean negative log-probability of the annotator's choice, in nats; log 2 by chance."""
    bins: Annotated[tuple[Bin, ...], Field(min_length=1)]


def pair_accuracy(margins: Floats, prompts: Sequence[str], *, seed: int) -> Accuracy:
    """Accuracy with its interval; `prompts` names the prompt of each pair."""
    right = outcomes(margins)
    within: dict[str, list[float]] = {}
    for prompt, outcome in zip(prompts, right.tolist(), strict=True):
        within.setdefault(prompt, []).append(outcome)
    return Accuracy(
        micro=float(right.mean()),
        macro=float(np.mean([np.mean(own) for own in within.values()])),
        num_pairs=len(right),
        num_prompts=len(within),
        by_prompt=_interval(clustered_rate(right, prompts, seed=seed)),
    )


def accuracy_gain(margins: Floats, baseline: Floats, prompts: Sequence[str], *, seed: int) -> Gain:
    """Accuracy minus that of a baseline on the same pairs, from the same bootstrap resamples."""
    difference = clustered_mean(outcomes(margins) - outcomes(baseline), prompts, seed=seed)
    return Gain(value=difference.value, by_prompt=_interval(difference))


def _interval(estimate: Estimate) -> Interval | None:
    if estimate.low is None or estimate.high is None:
        return None
    return estimate.low, estimate.high


def outcomes(margins: Floats) -> Floats:
    """1 where the preferred image scores higher, 0 where lower, 1/2 where equal."""
    return (np.sign(margins) + 1) / 2


def fit_log_odds(margins: Floats) -> float:
    """Maximum-likelihood log-odds per unit of margin, the inverse of the temperature.

    Targets are (n + 1) / (n + 2) instead of 1, as in Platt (1999), so that the estimate is finite
    when all pairs are right. Between 1e-3 and 1e3.
    """
    win = (len(margins) + 1) / (len(margins) + 2)
    low, high = np.log(1e-3), np.log(1e3)
    for _ in range(60):  # the log-likelihood is concave in the slope: bisect its derivative
        middle = (low + high) / 2
        slope = np.exp(middle)
        if float((margins * (win - sigmoid(slope * margins))).sum()) > 0:
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def calibration(margins: Floats, *, log_odds: float) -> Calibration:
    """Reliability of sigmoid(log_odds * margin) as the probability of the annotator's choice."""
    probability = sigmoid(log_odds * margins)
    confidence = np.maximum(probability, 1 - probability)
    right = outcomes(margins)
    edges = np.linspace(0.5, 1, NUM_BINS + 1)
    where = np.clip(np.digitize(confidence, edges[1:-1]), 0, NUM_BINS - 1)
    bins = tuple(
        Bin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            num_pairs=int((where == i).sum()),
            confidence=float(confidence[where == i].mean()),
            accuracy=float(right[where == i].mean()),
        )
        for i in range(NUM_BINS)
        if (where == i).any()
    )
    gaps = [each.num_pairs * abs(each.confidence - each.accuracy) for each in bins]
    return Calibration(
        ece=sum(gaps) / len(margins),
        log_loss=float(np.logaddexp(0, -log_odds * margins).mean()),
        bins=bins,
    )


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray((1 + np.tanh(x / 2)) / 2, dtype=np.float64)
