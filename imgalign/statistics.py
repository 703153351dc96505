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
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Clusters = Sequence[Hashable] | Ints
"""The cluster of each observation, by any name; whole numbers from 0 in an array are quickest."""

RESAMPLES = 4000
Z95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 %, on both sides."""
LEVEL = 0.95
GRID = np.linspace(0.0, 1.0, 201)[1:-1]
"""Means that `confidence_sequence` tells apart."""
BETS = np.linspace(0.0, 1.0, 22)[1:-1]
"""Shares of the wealth that `betting_wealth` puts on each observation, side by side."""
LARGEST_LOG = 600.0
"""Larger wealth than exp of this is as good as the largest that a float holds."""
TABLE = 8
"""Numbers for each observation up to which a table of all numbers is quicker than sorting."""
KEPT = 32
"""Sequences of values whose interval is kept: a vote changes few of those on a page, or none."""
FIRST_PORTION, LARGEST_PORTION = 64, 8192
"""Values that are bet on between two looks at the wealth: twice as many each time."""


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


def two_way_rate(outcomes: Floats | Sequence[float], clusters: "TwoWay") -> Estimate:
    """Mean of outcomes in [0, 1] clustered two ways, such as by prompt and by annotator.

    With a single cluster on the second side the interval is for that cluster alone. Wilson's
    interval for as many independent observations as have this variance (Dean and Pagano 2015), with
    the quantile of Student's t; never narrower than if all were independent. Where all clusters
    agree the variance is 0: each is then one observation, as in `clustered_rate`.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    mean = float(outcomes.mean())
    if clusters.num_one < 2:
        return Estimate(value=mean)

    def variance(sums: Floats) -> Floats:
        return np.asarray((sums**2).sum() / len(outcomes) ** 2 * len(sums) / (len(sums) - 1))

    found, degrees = clusters.variance([outcomes - mean], variance)
    spread = float(found)
    effective = degrees + 1.0
    if spread > 1e-12:
        effective = min(mean * (1 - mean) / spread, float(len(outcomes)))
    z = t_quantile(1 - (1 - LEVEL) / 2, degrees=degrees)
    low, high = wilson_interval(mean * effective, effective, z=z)
    return Estimate(value=mean, low=low, high=high)


@dataclass(frozen=True, slots=True)
class TwoWay:
    """Observations clustered two ways, such as by prompt and by annotator.

    A cell is a prompt and an annotator that occur together. Sums over prompts and over annotators
    are sums over cells, so that observations are gone through once, however many there are.
    """

    cell: Ints
    """Of each observation, from 0."""
    one: Ints
    """Of each cell, from 0."""
    other: Ints

    @classmethod
    def of(cls, one: Clusters, other: Clusters) -> "TwoWay":
        """Observations with these clusters."""
        firsts, seconds = (
            distinct(side)[1] if isinstance(side, np.ndarray) else _numbered(side)
            for side in (one, other)
        )
        num_seconds = int(seconds.max(initial=0)) + 1
        cells, cell = distinct(firsts * num_seconds + seconds)
        return cls(cell, *np.divmod(cells, num_seconds))

    @property
    def num_one(self) -> int:
        """How many clusters there are on the first side."""
        return int(self.one.max(initial=-1)) + 1

    @property
    def num_other(self) -> int:
        """How many clusters there are on the second side."""
        return int(self.other.max(initial=-1)) + 1

    def at(self, places: Ints) -> "TwoWay":
        """Those observations alone."""
        cells, cell = distinct(self.cell[places])
        return TwoWay(cell, distinct(self.one[cells])[1], distinct(self.other[cells])[1])

    def variance(
        self, scores: Sequence[Floats], variance: Callable[[Floats], Floats]
    ) -> tuple[Floats, int]:
        """Variance of estimates clustered two ways, and its degrees of freedom.

        `scores` has one or more columns with a number of each observation, and `variance(sums)` is
        the variance clustered one way, from the sums of clusters (clusters x columns). The two-way
        one is the sum of both less that of cells, which the sum counts twice (Cameron, Gelbach and
        Miller 2011). With few clusters that may be below either of the two: the largest is kept.
        With a single cluster on one side only the first is used.
        """
        of_cells = _sums(self.cell, scores)
        by_one = variance(_sums(self.one, of_cells.T))
        if self.num_one < 2 or self.num_other < 2:
            return by_one, self.num_one - 1
        by_other, by_cell = variance(_sums(self.other, of_cells.T)), variance(of_cells)
        spread = np.maximum.reduce([by_one, by_other, by_one + by_other - by_cell])
        return np.asarray(spread), min(self.num_one, self.num_other) - 1


def _sums(numbers: Ints, columns: Iterable[Floats]) -> Floats:
    """Of each column the sums by number."""
    found = [np.bincount(numbers, column) for column in columns]
    return np.stack(found, axis=1, dtype=np.float64)


def confidence_sequence(values: Floats | Sequence[float]) -> Estimate:
    """Mean of values in [0, 1], with an interval that holds however often one looks.

    Under the mean m no bet gains: whoever bets on each value in turn, before seeing it, has 20
    times the stake at any time with a probability of at most 1/20 (Ville's inequality). So the
    interval holds the means against which that never happened, at no number of values so far
    (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting",
    doi:10.1093/jrsssb/qkad009, the hedged capital process with a grid of bets). That asks of the
    values only that each has the mean m given those before: independent prompts, for instance.

    Values are in the order in which they were observed. With `GRID` steps, rounded outwards. The
    same as from `betting_wealth` of all means, which takes long for many values: here the search
    goes from both ends to the first mean that is left, and leaves a mean once it is ruled out.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ValueError(f"expected one value in [0, 1] or more, got {values}")
    return _sequence_of(values.tobytes())


@lru_cache(maxsize=KEPT)
def _sequence_of(content: bytes) -> Estimate:
    """The interval of values that are given as bytes, so that equal ones are recognised."""
    values = np.frombuffer(content)
    portions = _portions(values)
    step = GRID[1] - GRID[0]
    below: list[int] = []
    for mean in GRID:
        if not (side := _ruled_out(portions, mean)):
            low = mean - step
            high = next(m for m in GRID[::-1] if not _ruled_out(portions, m)) + step
            break
        below.append(side)
    else:
        low, high = _between(float(values.mean()), np.array(below))
    return Estimate(
        value=float(values.mean()), low=max(0.0, float(low)), high=min(1.0, float(high))
    )


def _portions(values: Floats) -> list[tuple[Floats, Ints]]:
    """Distinct values of each portion, and which of them comes when."""
    found, start, size = [], 0, FIRST_PORTION
    while start < len(values):
        found.append(np.unique(values[start : start + size], return_inverse=True))
        start, size = start + size, min(2 * size, LARGEST_PORTION)
    return found


def _ruled_out(portions: Sequence[tuple[Floats, Ints]], mean: float) -> int:
    """1 if values are higher than under this mean, -1 if they are lower, 0 if that is not known."""
    enough = 1 / (1 - LEVEL)
    reached = np.zeros(2 * len(BETS))
    for distinct, places in portions:
        wealth = _log_gains(distinct, mean)[places]
        wealth[0] += reached
        np.cumsum(wealth, axis=0, out=wealth)
        # The mean of all bets is never more than the best of them.
        rich = wealth[wealth.max(axis=1) > math.log(enough) - 1e-6]
        if len(rich):
            rich = np.exp(np.minimum(rich, LARGEST_LOG))
            won = rich[rich.mean(axis=1) >= enough]
            if len(won):
                above, below = won[0, : len(BETS)], won[0, len(BETS) :]
                return 1 if above.sum() > below.sum() else -1
        reached = wealth[-1]
    return 0


def _between(mean: float, sides: Ints) -> tuple[float, float]:
    """Bounds where every mean of `GRID` is ruled out.

    Many values rule out even the two means of the grid that the true one lies between. Otherwise
    values drift, against the assumption: then nothing is known.
    """
    place = int(np.searchsorted(GRID, mean))
    if (sides[:place] > 0).all() and (sides[place:] < 0).all():
        around = np.concatenate([[0.0], GRID, [1.0]])
        return float(around[place]), float(around[place + 1])
    return 0.0, 1.0


def betting_wealth(values: Floats, means: Floats) -> Floats:
    """Wealth after each value, from a stake of 1, of who bets against each mean.

    Half the stake bets on values above the mean and half on values below, each in equal parts by
    every share in `BETS`. (n values, k means in (0, 1)) to n x k.
    """
    found = np.empty((len(values), len(means)))
    for column, mean in enumerate(means):
        wealth = np.cumsum(_log_gains(values, mean), axis=0)
        found[:, column] = np.exp(np.minimum(wealth, LARGEST_LOG)).mean(axis=1)
    return found


def _log_gains(values: Floats, mean: float) -> Floats:
    """The logarithm of what each value does to each bet: those above the mean, then those below."""
    gain = (values - mean)[:, None]
    return np.hstack([np.log1p(BETS * gain / mean), np.log1p(-BETS * gain / (1 - mean))])


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
    rows = _numbered(clusters)
    if not len(values) or len(rows) != len(values):
        raise ValueError(f"expected a cluster for each value, got {len(rows)} for {len(values)}")
    sizes = np.asarray(np.bincount(rows), dtype=np.float64)
    return np.asarray(np.bincount(rows, weights=values), dtype=np.float64), sizes


def distinct(numbers: Ints) -> tuple[Ints, Ints]:
    """As `np.unique` with `return_inverse`, of whole numbers from 0, mostly without sorting."""
    if not len(numbers) or numbers.max() > TABLE * len(numbers):
        found, places = np.unique(numbers, return_inverse=True)
        return found, places
    there = np.zeros(int(numbers.max()) + 1, dtype=bool)
    there[numbers] = True
    found = np.flatnonzero(there)
    if len(found) == len(there):
        return found, np.asarray(numbers, dtype=np.int64)
    place_of = np.empty(len(there), dtype=np.int64)
    place_of[found] = np.arange(len(found))
    return found, place_of[numbers]


def _numbered(clusters: Sequence[Hashable]) -> Ints:
    """The cluster of each observation as a number from 0, in order of first appearance."""
    index = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    return np.array([index[name] for name in clusters], dtype=np.int64)


def wilson_interval(successes: float, count: float, *, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927); (0, 1) when nothing was counted."""
    if count == 0:
        return 0.0, 1.0
    rate = successes / count
    centre = rate + z * z / (2 * count)
    spread = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
