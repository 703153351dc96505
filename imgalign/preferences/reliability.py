"""Krippendorff's alpha and Fleiss' kappa: how reliable the judgements of several annotators are.

Alpha by its definition (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): from the
matrix of coincidences within units, with ordinal, interval or nominal differences, for any number
of annotators and with missing values. Kappa (Fleiss 1971, "Measuring nominal scale agreement among
many raters") takes all differences as equal; units that not all have judged count as in Gwet 2014,
"Handbook of Inter-Rater Reliability": each as one, in what was observed and in what is expected.

Of rankings the units are ordered pairs of samples of one prompt, and the value that an annotator
gives to one is worse, equal or better, in which rankings of two and of nine candidates are alike.
Each pair is a unit in both orders, so that no result depends on which sample is called the first.

Shapes: v = values in ascending order, r = resamples.
"""

from collections.abc import Callable, Iterable, Sequence
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
class Reliability:
    """Alpha or kappa with its 95 % interval. Example: 0.41 [0.33, 0.48] of 620 pairs.

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


def fleiss_kappa(units: Iterable[Sequence[float]]) -> float | None:
    """Kappa of units, each with the values that it was given; None where it is undefined.

    A unit with fewer than two values counts nothing. Example: [[1, 1], [2, 2], [1, 2]].
    """
    given = [list(unit) for unit in units if len(unit) > 1]
    scale = sorted({value for unit in given for value in unit})
    counted = (_agreed_and_shares(unit, scale) for unit in given)
    return _defined(_kappa(sum(counted, np.zeros(len(scale) + 2))))


def ranking_alpha(rankings: Iterable[Ranking], *, seed: int = 0) -> Reliability:
    """Ordinal alpha of the order of pairs, with a bootstrap interval over prompts.

    An annotator who judged a pair several times counts once, with the most frequent opinion.
    """

    def of_pair(values: list[int]) -> Floats:
        one_way = coincidences(values, ORDERS)
        return one_way + one_way[::-1, ::-1]

    return _reliability(
        rankings, of_pair, lambda counted: _alpha(counted, ORDERS, metric="ordinal"), seed=seed
    )


def ranking_kappa(rankings: Iterable[Ranking], *, seed: int = 0) -> Reliability:
    """Fleiss' kappa of verdicts on pairs, better, worse or tie, as `ranking_alpha` counts them."""

    def of_pair(values: list[int]) -> Floats:
        turned = [-value for value in values]
        return _agreed_and_shares(values, ORDERS) + _agreed_and_shares(turned, ORDERS)

    return _reliability(rankings, of_pair, _kappa, seed=seed)


def _reliability(
    rankings: Iterable[Ranking],
    of_pair: Callable[[list[int]], Floats],
    coefficient: Callable[[Floats], Floats],
    *,
    seed: int,
) -> Reliability:
    """A coefficient of the sum of what `of_pair` says of the values of each pair."""
    by_prompt: dict[str, Floats] = {}
    num_pairs = 0
    for (prompt, *_), given in opinions(rankings).items():
        if len(given) > 1:
            num_pairs += 1
            by_prompt[prompt] = by_prompt.get(prompt, 0.0) + of_pair(list(given.values()))
    if not by_prompt:
        return Reliability(value=None, low=None, high=None, num_pairs=0, num_prompts=0)
    stacked = np.stack(list(by_prompt.values()))
    low, high = _interval(stacked, coefficient, seed=seed)
    return Reliability(
        value=_defined(coefficient(stacked.sum(axis=0))),
        low=low,
        high=high,
        num_pairs=num_pairs,
        num_prompts=len(by_prompt),
    )


def coincidences(values: Sequence[float], scale: Sequence[float]) -> Floats:
    """The coincidences `[v v]` of one unit: its pairs of values, over its number of values - 1."""
    counts = np.array([values.count(each) for each in scale], dtype=np.float64)
    if len(values) < 2:
        return np.zeros((len(scale),) * 2)
    return np.asarray((np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1))


def _agreed_and_shares(values: Sequence[float], scale: Sequence[float]) -> Floats:
    """Of one unit: the share of its pairs of values that are equal, of each value, and a one."""
    counts = np.array([values.count(each) for each in scale], dtype=np.float64)
    agreed = (counts * (counts - 1)).sum() / (len(values) * (len(values) - 1))
    return np.array([agreed, *(counts / len(values)), 1.0])


def _kappa(counted: Floats) -> Floats:
    """Kappa of sums over units `[... v + 2]`; nan where agreement is certain by chance."""
    number = np.maximum(counted[..., -1], 1.0)
    observed = counted[..., 0] / number
    expected = ((counted[..., 1:-1] / number[..., None]) ** 2).sum(axis=-1)
    possible = (counted[..., -1] > 0) & (expected < 1 - 1e-12)
    ratio = (observed - expected) / np.where(possible, 1 - expected, 1.0)
    return np.asarray(np.where(possible, ratio, np.nan))


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


def _interval(
    by_prompt: Floats, coefficient: Callable[[Floats], Floats], *, seed: int
) -> tuple[float | None, float | None]:
    if len(by_prompt) < 2:
        return None, None
    draws = resamples(len(by_prompt), seed)
    drawn = coefficient(np.tensordot(draws, by_prompt, axes=1))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.ptp(drawn) < 1e-12:
        return None, None
    tail = expanded_tail(len(by_prompt))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _defined(found: Floats) -> float | None:
    return float(found) if np.isfinite(found) else None
