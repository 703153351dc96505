"""Means and rates with 95 % intervals where observations come in clusters.

Images of one prompt resemble each other, so 48 prompts with 4 seeds each are not 192 independent
observations. Intervals here are from a bootstrap over whole clusters, with percentiles widened as a
t interval is wider than a normal one (Hesterberg 2015, section 3.3, the "expanded percentile"
interval): plain percentiles are too narrow with few prompts. Votes are clustered by prompt and by
annotator: their intervals use the two-way variance. `confidence_sequence` may be looked at after
every observation, and work may stop when it says enough; the others hold for a number that was
fixed before. Left out: other tests of significance, and anything that reads a file.

Shapes: n = observations, c = clusters.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 4000
Z95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 %, on both sides."""
LEVEL = 0.95
GRID = np.linspace(0.0, 1.0, 201)[1:-1]
"""Means that `confidence_sequence` tells apart."""
BETS = np.linspace(0.0, 1.0, 22)[1:-1]
"""Shares of the wealth that `betting_wealth` puts on each observation, side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval. Example: value 0.83, low 0.76, high 0.89.

    Without bounds where there is a single cluster.
    """

    value: float
    low: float | None = None
    high: float | None = None


def clustered_mean(
    values: Floats | Sequence[float], clusters: Sequence[Hashable], *, seed: int
) -> Estimate:
    """Mean over observations, with an interval by bootstrap over clusters.

    `clusters` names the cluster of each observation. Equal seeds give equal bounds, whatever the
    order of the observations, as long as clusters first appear in the same one.
    """
    sums, sizes = _totals(np.asarray(values, dtype=np.float64), clusters)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) < 2:
        return Estimate(value=mean)
    draws = resamples(len(sums), seed)
    tail = expanded_tail(len(sums))
    low, high = np.quantile((draws @ sums) / (draws @ sizes), [tail, 1 - tail])
    return Estimate(value=mean, low=float(low), high=float(high))


def clustered_rate(
    outcomes: Floats | Sequence[float], clusters: Sequence[Hashable], *, seed: int
) -> Estimate:
    """Mean of outcomes in [0, 1]: 1 a success, 0 a failure, 1/2 a tie.

    Where all clusters have the same rate, a bootstrap interval has no width. Wilson's interval,
    with each cluster as one observation, replaces it: 10 prompts without a failure do not prove a
    rate of 1.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    sums, sizes = _totals(outcomes, clusters)
    rates = sums / sizes
    if len(rates) > 1 and np.ptp(rates) == 0:
        low, high = wilson_interval(float(rates.sum()), len(rates))
        return Estimate(value=float(rates[0]), low=low, high=high)
    return clustered_mean(outcomes, clusters, seed=seed)


def two_way_rate(
    outcomes: Floats | Sequence[float], one: Sequence[Hashable], other: Sequence[Hashable]
) -> Estimate:
    """Mean of outcomes in [0, 1] clustered two ways, such as by prompt and by annotator.

    `one` and `other` name the clusters of each observation; with a single cluster of `other` the
    interval is for that cluster alone. Wilson's interval for as many independent observations as
    have this variance (Dean and Pagano 2015), with the quantile of Student's t; never narrower than
    if all were independent. Where all clusters agree the variance is 0: each is then one
    observation, as in `clustered_rate`.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    mean = float(outcomes.mean())
    if len(set(one)) < 2:
        return Estimate(value=mean)

    def variance(clusters: Sequence[Hashable]) -> Floats:
        sums, _ = _totals(outcomes - mean, clusters)
        return np.asarray((sums**2).sum() / len(outcomes) ** 2 * len(sums) / (len(sums) - 1))

    found, degrees = two_way_variance(variance, one, other)
    spread = float(found)
    effective = degrees + 1.0
    if spread > 1e-12:
        effective = min(mean * (1 - mean) / spread, float(len(outcomes)))
    z = t_quantile(1 - (1 - LEVEL) / 2, degrees=degrees)
    low, high = wilson_interval(mean * effective, effective, z=z)
    return Estimate(value=mean, low=low, high=high)


def two_way_variance(
    variance: Callable[[Sequence[Hashable]], Floats],
    one: Sequence[Hashable],
    other: Sequence[Hashable],
) -> tuple[Floats, int]:
    """Variance of estimates clustered two ways, and its degrees of freedom.

    `variance(clusters)` is the variance clustered one way, and the two-way one the sum of both less
    that of their intersection, which the sum counts twice (Cameron, Gelbach and Miller 2011). With
    few clusters that may be below either of the two: the largest is kept. With a single cluster on
    one side only `one` is used.
    """
    spread, num_one, num_other = variance(one), len(set(one)), len(set(other))
    if num_one < 2 or num_other < 2:
        return spread, num_one - 1
    by_other, by_both = variance(other), variance(list(zip(one, other, strict=True)))
    return combined_variance(spread, by_other, by_both), min(num_one, num_other) - 1


def combined_variance(by_one: Floats, by_other: Floats, by_both: Floats) -> Floats:
    """The largest of both one-way variances and the two-way one, as `two_way_variance` has it."""
    return np.asarray(np.maximum.reduce([by_one, by_other, by_one + by_other - by_both]))


def confidence_sequence(values: Floats | Sequence[float]) -> Estimate:
    """Mean of values in [0, 1], with an interval that holds however often one looks.

    Under the mean m no bet gains: whoever bets on each value in turn, before seeing it, has 20
    times the stake at any time with a probability of at most 1/20 (Ville's inequality). So the
    interval holds the means against which that never happened, at no number of values so far
    (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting",
    doi:10.1093/jrsssb/qkad009, the hedged capital process with a grid of bets). That asks of the
    values only that each has the mean m given those before: independent prompts, for instance.

    Values are in the order in which they were observed. With `GRID` steps, rounded outwards.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ValueError(f"expected one value in [0, 1] or more, got {values}")
    possible = GRID[betting_wealth(values, GRID).max(axis=0) < 1 / (1 - LEVEL)]
    step = GRID[1] - GRID[0]
    low, high = 0.0, 1.0
    if len(possible):
        low, high = float(possible.min() - step), float(possible.max() + step)
    # No mean is left where values drift, against the assumption: then nothing is known.
    return Estimate(value=float(values.mean()), low=max(0.0, low), high=min(1.0, high))


def betting_wealth(values: Floats, means: Floats) -> Floats:
    """Wealth after each value, from a stake of 1, of who bets against each mean.

    Half the stake bets on values above the mean and half on values below, each in equal parts by
    every share in `BETS`. (n values, k means in (0, 1)) to n x k.
    """
    found = np.empty((len(values), len(means)))
    for column, mean in enumerate(means):
        gain = (values - mean)[:, None]
        above = np.cumsum(np.log1p(BETS * gain / mean), axis=0)
        below = np.cumsum(np.log1p(-BETS * gain / (1 - mean)), axis=0)
        # Larger than what a float holds is as good as the largest that it holds.
        found[:, column] = np.exp(np.minimum(np.hstack([above, below]), 600.0)).mean(axis=1)
    return found


@lru_cache(maxsize=8)
def resamples(num_clusters: int, seed: int) -> Floats:
    """How often each cluster is drawn in each resample; the same for every number of a result."""
    shares = np.full(num_clusters, 1 / num_clusters)
    draws = np.random.default_rng(seed).multinomial(num_clusters, shares, size=RESAMPLES)
    return np.asarray(draws, dtype=np.float64)


def expanded_tail(num_clusters: int) -> float:
    """Share of resamples beyond each bound, such that the interval is as wide as a t interval.

    0.025 for many clusters and less for few: 0.0085 for 10.
    """
    quantile = t_quantile(1 - (1 - LEVEL) / 2, degrees=num_clusters - 1)
    return NormalDist().cdf(-math.sqrt(num_clusters / (num_clusters - 1)) * quantile)


def t_quantile(probability: float, *, degrees: int) -> float:
    """Quantile of Student's t: exact to 2 degrees of freedom, then within 0.2 %.

    By its expansion about the normal (Abramowitz & Stegun 26.7.5). Infinite with 0 degrees.
    """
    if degrees < 1:
        return math.inf
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        inside = 2 * probability - 1
        return inside * math.sqrt(2 / (1 - inside**2))
    z = NormalDist().inv_cdf(probability)
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, start=1))


def _totals(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and size of each cluster, in order of first appearance."""
    index = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    rows = np.array([index[name] for name in clusters], dtype=np.int64)
    if not len(values) or len(rows) != len(values):
        raise ValueError(f"expected a cluster for each value, got {len(rows)} for {len(values)}")
    sizes = np.asarray(np.bincount(rows), dtype=np.float64)
    return np.asarray(np.bincount(rows, weights=values), dtype=np.float64), sizes


def wilson_interval(successes: float, count: float, *, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927); (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    rate = successes / count
    centre = rate + z * z / (2 * count)
    spread = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
