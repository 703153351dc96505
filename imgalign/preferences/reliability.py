"""Krippendorff's alpha: how reliable the judgements of several annotators are.

By its definition (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): from the matrix
of coincidences within units, with ordinal, interval or nominal differences, for any number of
annotators and with missing values. Of rankings the units are ordered pairs of samples of one
prompt, and the value that an annotator gives to one is worse, equal or better: an ordinal scale of
three, on which rankings of two and of nine candidates are alike. Each pair is a unit in both
orders, so that the result does not depend on which sample is called the first.

Shapes: v = values in ascending order, r = resamples.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from imgalign.preferences.agreement import opinions
from imgalign.preferences.records import Ranking
from imgalign.statistics import expanded_tail, resamples

Floats: TypeAlias = npt.NDArray[np.float64]
Metric: TypeAlias = Literal["nominal", "ordinal", "interval"]

ORDERS = (-1.0, 0.0, 1.0)
"""What an annotator can say of an ordered pair: worse, equal, better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alpha:
    """Krippendorff's alpha with its 95 % interval. Example: 0.41 [0.33, 0.48] of 620 pairs.

    1 is perfect agreement, 0 that of chance, below 0 is systematic disagreement. `value` is None
    without pairs that two have judged, and where all are equal; the bounds are None with a single
    prompt, and where no two annotators differ in anything, so that nothing varies.
    """

    value: float | None
    low: float | None
    high: float | None
    num_pairs: int
    """Pairs that two or more annotators have judged."""
    num_prompts: int


def krippendorff_alpha(
    units: Iterable[Sequence[float]], *, metric: Metric = "ordinal"
) -> float | None:
    """Alpha of units, each with the values that it was given; None where it is undefined.

    A unit with fewer than two values counts nothing. Example: [[1, 1], [2, 2], [1, 2]].
    """
    given = [list(unit) for unit in units]
    scale = sorted({value for unit in given if len(unit) > 1 for value in unit})
    counted = sum((coincidences(unit, scale) for unit in given), np.zeros((len(scale),) * 2))
    return _defined(_alpha(counted, scale, metric=metric))


def ranking_alpha(rankings: Iterable[Ranking], *, seed: int = 0) -> Alpha:
    """Ordinal alpha of the order of pairs, with a bootstrap interval over prompts.

    An annotator who judged a pair several times counts once, with the most frequent opinion.
    """
    by_prompt: dict[str, Floats] = defaultdict(lambda: np.zeros((3, 3)))
    num_pairs = 0
    for (prompt, *_), of_pair in opinions(rankings).items():
        if len(of_pair) < 2:
            continue
        num_pairs += 1
        one_way = coincidences(list(of_pair.values()), ORDERS)
        by_prompt[prompt] += one_way + one_way[::-1, ::-1]
    if not by_prompt:
        return Alpha(value=None, low=None, high=None, num_pairs=0, num_prompts=0)
    stacked = np.stack(list(by_prompt.values()))
    value = _defined(_alpha(stacked.sum(axis=0), ORDERS, metric="ordinal"))
    low, high = _interval(stacked, seed=seed)
    return Alpha(value=value, low=low, high=high, num_pairs=num_pairs, num_prompts=len(by_prompt))


def coincidences(values: Sequence[float], scale: Sequence[float]) -> Floats:
    """The coincidences `[v v]` of one unit: its pairs of values, over its number of values - 1."""
    counts = np.array([values.count(each) for each in scale], dtype=np.float64)
    if len(values) < 2:
        return np.zeros((len(scale),) * 2)
    return np.asarray((np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1))


def _alpha(counted: Floats, scale: Sequence[float], *, metric: Metric) -> Floats:
    """Alpha of matrices of coincidences `[... v v]`; nan where no disagreement is expected."""
    totals = counted.sum(axis=-1)
    number = totals.sum(axis=-1)
    differences = _differences(totals, np.asarray(scale, dtype=np.float64), metric)
    observed = (counted * differences).sum(axis=(-1, -2))
    expected = (totals[..., :, None] * totals[..., None, :] * differences).sum(axis=(-1, -2))
    possible = expected > 0
    ratio = (number - 1) * observed / np.where(possible, expected, 1.0)
    return np.asarray(np.where(possible, 1 - ratio, np.nan))


def _differences(totals: Floats, scale: Floats, metric: Metric) -> Floats:
    """Squared differences of values `[... v v]`; ordinal ones count the values in between."""
    if metric == "nominal":
        return 1 - np.eye(len(scale))
    # The ordinal difference of the definition is that of the middle ranks of two values.
    places = np.cumsum(totals, axis=-1) - totals / 2 if metric == "ordinal" else scale
    return np.asarray((places[..., :, None] - places[..., None, :]) ** 2)


def _interval(by_prompt: Floats, *, seed: int) -> tuple[float | None, float | None]:
    if len(by_prompt) < 2:
        return None, None
    draws = resamples(len(by_prompt), seed)
    drawn = _alpha(np.tensordot(draws, by_prompt, axes=1), ORDERS, metric="ordinal")
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.ptp(drawn) < 1e-12:
        return None, None
    tail = expanded_tail(len(by_prompt))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _defined(alpha: Floats) -> float | None:
    return float(alpha) if np.isfinite(alpha) else None
