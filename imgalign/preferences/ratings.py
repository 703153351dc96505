"""Scores of models (or images) from rankings: Bradley-Terry, Plackett-Luce with ties, Elo.

Scores are log-worths in nats with mean 0: item i beats item j with probability
sigmoid(score_i - score_j). Elo has its own scale. Intervals are at 95 %. Judgements of one prompt
are correlated, and so are those of one annotator: the first two methods use the sandwich estimator
clustered by both (Cameron, Gelbach and Miller 2011), Elo the bootstrap over prompts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float

from imgalign.errors import InputError
from imgalign.preferences.choice import (
    Choices,
    cluster_scores,
    covariance,
    estimate,
    sandwich,
)
from imgalign.preferences.judged import Judged, Judgements
from imgalign.statistics import TwoWay, t_quantile

# One stage with more alternatives than this would not fit in memory.
MAX_ALTERNATIVES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two items, and the standard error of the difference of their scores, in nats."""

    one: str
    other: str
    error: float


@dataclass(frozen=True, slots=True)
class Ratings:
    """Scores with 95 % intervals, in the order of `items` (alphabetical).

    `num_comparisons` counts the pairs of each item. The intervals are from `num_clusters` prompts
    and, if there are several, `num_annotators` annotators; with a single prompt they are infinite.
    `log_tie[d]` is the log-prevalence of ties among d items, where ties are modelled.
    `least_certain` are the two items whose next comparison tells most; not known of Elo.
    """

    items: tuple[str, ...]
    score: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    num_comparisons: tuple[int, ...]
    num_clusters: int
    num_annotators: int = 1
    log_tie: dict[int, float] = field(default_factory=dict)
    least_certain: Difference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wins:
    """How often each of `items` was preferred to each other, without a model.

    `won[i][j]` of `pairs[i][j]` pairs went to item i against item j; a tie is half a win each.
    """

    items: tuple[str, ...]
    won: tuple[tuple[float, ...], ...]
    pairs: tuple[tuple[int, ...], ...]


def wins_of(judgements: Judgements) -> Wins:
    """Wins over every pair of different items within every judgement, items by name."""
    judged = Judged.of(judgements)
    won: Counter[tuple[str, str]] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for groups, times in zip(judged.groups, judged.times(), strict=True):
        ranked = [(who, rank) for rank, group in enumerate(groups) for who in group]
        for (one, its), (other, theirs) in combinations(ranked, 2):
            if one == other:
                continue
            halves = 1 if its == theirs else 2 * (its < theirs)
            for row, gained in (((one, other), halves), ((other, one), 2 - halves)):
                won[row] += times * gained
                pairs[row] += times
    names = tuple(sorted({name for pair in pairs for name in pair}))
    return Wins(
        items=names,
        won=tuple(tuple(won[i, j] / 2 for j in names) for i in names),
        pairs=tuple(tuple(pairs[i, j] for j in names) for i in names),
    )


def bradley_terry(judgements: Judgements, *, ridge: float = 0.0, intervals: bool = True) -> Ratings:
    """Bradley-Terry scores (1952) of every pair within every judgement; a tie is half a win each.

    `ridge` is the precision of a normal prior on the scores, in 1/nats^2; 0 is maximum likelihood.
    Without `intervals` these are infinite, and the same scores are there sooner.
    Raises InputError if the comparisons are not connected, or if some scores would be infinite.
    """
    judged = Judged.of(judgements)
    names, counts = _check_connected(judged, ridge=ridge)
    rows: dict[tuple[int, int], list[tuple[int, float, int]]] = defaultdict(list)
    for kind, groups in enumerate(judged.groups):
        for better, worse, tied in pairs_of(groups):
            i, j = sorted((names[better], names[worse]))
            won = 0 if names[better] == i else 1
            if tied:
                rows[i, j] += [(0, 0.5, kind), (1, 0.5, kind)]
            else:
                rows[i, j].append((won, 1.0, kind))
    blocks = [_block(np.eye(2), pair, found) for pair, found in sorted(rows.items())]
    return _fitted(blocks, names, counts, judged, tie_orders=(), ridge=ridge, intervals=intervals)


def plackett_luce(judgements: Judgements, *, ridge: float = 0.0, intervals: bool = True) -> Ratings:
    """Davidson-Luce scores: Plackett-Luce with ties (Firth, Kosmidis and Turner 2019).

    From the items that remain, a tie group C is picked next with probability proportional to
    delta_|C| * (product of the worths in C)^(1/|C|). Only tie orders that occur are modelled, so
    without ties this is Plackett-Luce, and with two items Bradley-Terry. `ridge` and `intervals` as
    in `bradley_terry`, the ridge on the tie parameters too. Raises InputError as that does.
    """
    judged = Judged.of(judgements)
    names, counts = _check_connected(judged, ridge=ridge)
    tie_orders = tuple(sorted({len(group) for groups in judged.groups for group in groups} - {1}))
    shapes: dict[int, tuple[list[tuple[int, ...]], Float[np.ndarray, "a l"]]] = {}
    rows: dict[tuple[int, ...], list[tuple[int, float, int]]] = defaultdict(list)
    for kind, groups in enumerate(judged.groups):
        remaining = [names[name] for group in groups for name in group]
        for group in groups:
            if len(remaining) == 1:
                break  # no choice is left
            order = sorted(range(len(remaining)), key=lambda i: (remaining[i], i))
            key = tuple(remaining[i] for i in order)
            if len(key) not in shapes:
                subsets = _subsets(len(key), tie_orders)
                shapes[len(key)] = subsets, _features(subsets, len(key), tie_orders)
            # The group stands first in `remaining`; find its places in the sorted key.
            members = tuple(sorted(order.index(i) for i in range(len(group))))
            rows[key].append((shapes[len(key)][0].index(members), 1.0, kind))
            remaining = remaining[len(group) :]
    tie_index = tuple(len(names) + d for d in range(len(tie_orders)))
    blocks = [
        _block(shapes[len(key)][1], key + tie_index, found) for key, found in sorted(rows.items())
    ]
    return _fitted(
        blocks, names, counts, judged, tie_orders=tie_orders, ridge=ridge, intervals=intervals
    )


def elo(
    judgements: Judgements,
    *,
    k: float = 32.0,
    initial: float = 1000.0,
    num_resamples: int = 400,
    seed: int = 0,
) -> Ratings:
    """Elo ratings after all judgements in the order given; 400 points are odds of 10 to 1.

    The pairs of one judgement are updated at once, a tie is half a win. Ratings depend on the order
    and weigh recent judgements more: prefer Bradley-Terry to compare models. Intervals are
    percentiles over resampled prompts. Raises InputError if the comparisons are not connected.
    """
    judged = Judged.of(judgements)
    names, counts = _check_connected(judged, ridge=1.0)
    first, of_cluster = np.unique(judged.clusters, return_index=True, return_inverse=True)[1:]
    of_cluster = np.argsort(np.argsort(first))[of_cluster]  # in order of first appearance
    size = len(first)
    games = [_games(groups, names) for groups in judged.groups]
    draws = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), num_resamples)
    # Row 0 is the data itself; the others play a judgement as often as its prompt was drawn.
    times = np.vstack([np.ones(size, dtype=np.int64), draws])
    rating = np.full((len(times), len(names)), initial)
    for kind, cluster in zip(judged.kind.tolist(), of_cluster.tolist(), strict=True):
        difference, result = games[kind]
        for turn in range(int(times[:, cluster].max())):
            plays = np.flatnonzero(times[:, cluster] > turn)
            now = rating[plays]
            expected = 1 / (1 + 10 ** (-(now @ difference) / 400))
            rating[plays] = now + k * (result - expected) @ difference.T
    low, high = np.full(len(names), -np.inf), np.full(len(names), np.inf)
    if size > 1 and num_resamples:
        low, high = np.quantile(rating[1:], (0.025, 0.975), axis=0)
    return Ratings(
        items=tuple(names),
        score=tuple(rating[0].tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        num_comparisons=tuple(counts[name] for name in names),
        num_clusters=size,
    )


def _games(
    groups: Sequence[tuple[str, ...]], names: dict[str, int]
) -> tuple[Float[np.ndarray, "p g"], Float[np.ndarray, " g"]]:
    """Of every pair, 1 at the better one and -1 at the worse one, and the result: 1, or 1/2."""
    found = pairs_of(groups)
    difference = np.zeros((len(names), len(found)))
    for game, (better, worse, _) in enumerate(found):
        difference[names[better], game] = 1.0
        difference[names[worse], game] = -1.0
    return difference, np.array([0.5 if tied else 1.0 for _, _, tied in found])


def _fitted(
    blocks: list[Choices],
    names: dict[str, int],
    counts: Counter[str],
    judged: Judged,
    *,
    tie_orders: tuple[int, ...],
    ridge: float,
    intervals: bool,
) -> Ratings:
    """Estimates, and their intervals if asked for.

    Clusters in `blocks` are the places in `judged.groups`.
    """
    times = np.array(judged.times(), dtype=np.float64)
    all_of_them = [replace(each, weights=each.weights * times[each.clusters]) for each in blocks]
    size = len(names)
    theta = estimate(
        all_of_them, num_parameters=size + len(tie_orders), num_centred=size, ridge=ridge
    )
    items = tuple(names)
    scored = Ratings(
        items=items,
        score=tuple(theta[:size].tolist()),
        low=(-float("inf"),) * size,
        high=(float("inf"),) * size,
        num_comparisons=tuple(counts[name] for name in names),
        num_clusters=0,
        log_tie=dict(zip(tie_orders, theta[size:].tolist(), strict=True)),
    )
    if not intervals:
        return scored
    scores = cluster_scores(theta, blocks, len(times))

    def variance(summed: Float[np.ndarray, "c p"]) -> Float[np.ndarray, " p"]:
        found = sandwich(theta, all_of_them, scores=summed, num_centred=size, ridge=ridge)
        return np.diag(found)

    clusters = TwoWay.of(judged.clusters, judged.annotators)
    spread, degrees = clusters.variance([each[judged.kind] for each in scores.T], variance)
    half = (t_quantile(0.975, degrees=degrees) * np.sqrt(spread))[:size]
    by_model = covariance(theta, all_of_them, num_centred=size, ridge=ridge)
    return replace(
        scored,
        low=tuple((theta[:size] - half).tolist()),
        high=tuple((theta[:size] + half).tolist()),
        num_clusters=clusters.num_one,
        num_annotators=clusters.num_other,
        least_certain=least_certain(items, by_model[:size, :size]),
    )


def least_certain(names: Sequence[str], covariance: Float[np.ndarray, "k k"]) -> Difference:
    """The two of k >= 2 items with the largest variance of the difference of their scores.

    By the model's own covariance, not the sandwich: what was compared once or twice has few
    residuals, from which no spread can be told, and little information, which the model sees.
    """
    own = np.diag(covariance)
    variance = np.triu(own[:, None] + own[None, :] - 2 * covariance, k=1)
    one, other = divmod(int(variance.argmax()), len(names))
    return Difference(
        one=names[one], other=names[other], error=float(np.sqrt(variance[one, other]))
    )


def _check_connected(judged: Judged, *, ridge: float) -> tuple[dict[str, int], Counter[str]]:
    """Parameter index and number of pairs of every name, once all can be compared."""
    counts: Counter[str] = Counter()
    beaten_by: dict[str, set[str]] = defaultdict(set)
    beats: dict[str, set[str]] = defaultdict(set)
    for groups, times in zip(judged.groups, judged.times(), strict=True):
        for name in (name for group in groups for name in group):
            beats[name]  # access adds the name to the defaultdict
        for better, worse, tied in pairs_of(groups):
            counts[better] += times
            counts[worse] += times
            beats[better].add(worse)
            beaten_by[worse].add(better)
            if tied:
                beats[worse].add(better)
                beaten_by[better].add(worse)
    if len(beats) < 2:
        raise InputError(f"ratings: expected at least 2 items to compare, got {len(beats)}")
    names = {name: index for index, name in enumerate(sorted(beats))}
    islands = _islands(names, beats, beaten_by)
    if len(islands) > 1:
        shown = "; ".join(_shown(island) for island in islands[:4])
        more = f"; and {len(islands) - 4} more" if len(islands) > 4 else ""
        raise InputError(
            f"ratings: these {len(islands)} groups of items were never compared with each other: "
            f"{shown}{more}; rank items of different groups together"
        )
    if ridge == 0:
        first = next(iter(names))
        for reach, does in ((beats, "never lose to"), (beaten_by, "never win against")):
            reached = _reachable(first, reach)
            rest = set(names) - reached
            if rest:
                raise InputError(
                    f"ratings: {_shown(rest)} {does} {_shown(reached)}, so their scores are "
                    "infinite; rank more, or use a ridge of 0.1"
                )
    return names, counts


def _islands(
    names: Iterable[str], beats: dict[str, set[str]], beaten_by: dict[str, set[str]]
) -> list[set[str]]:
    met = {name: beats.get(name, set()) | beaten_by.get(name, set()) for name in names}
    islands: list[set[str]] = []
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            islands.append(_reachable(name, met))
            seen |= islands[-1]
    return islands


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    reached, frontier = {start}, [start]
    while frontier:
        new = edges.get(frontier.pop(), set()) - reached
        reached |= new
        frontier.extend(new)
    return reached


def _shown(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:5])
    return f"{{{first}}}" if len(names) <= 5 else f"{{{first}, ... {len(names) - 5} more}}"


def pairs_of(groups: Sequence[tuple[str, ...]]) -> list[tuple[str, str, bool]]:
    """(better, worse, whether they tie) of different names."""
    found = [
        (better, worse, False)
        for above, below in combinations(groups, 2)
        for better in above
        for worse in below
        if better != worse
    ]
    for group in groups:
        found += [(one, other, True) for one, other in combinations(group, 2) if one != other]
    return found


def _block(
    features: Float[np.ndarray, "a l"],
    index: tuple[int, ...],
    found: list[tuple[int, float, int]],
) -> Choices:
    chosen, weights, clusters = zip(*found, strict=True)
    return Choices(
        features,
        np.array(index, dtype=np.int64),
        np.array(chosen, dtype=np.int64),
        np.array(weights, dtype=np.float64),
        np.array(clusters, dtype=np.int64),
    )


def _subsets(size: int, tie_orders: tuple[int, ...]) -> list[tuple[int, ...]]:
    orders = [order for order in (1, *tie_orders) if order <= size]
    if sum(comb(size, order) for order in orders) > MAX_ALTERNATIVES:
        raise InputError(
            f"ratings: ties of {orders[-1]} among {size} items are too many to enumerate; "
            "rate by Bradley-Terry"
        )
    return [subset for order in orders for subset in combinations(range(size), order)]


def _features(
    subsets: list[tuple[int, ...]], size: int, tie_orders: tuple[int, ...]
) -> Float[np.ndarray, "a l"]:
    """Log-weight of each subset as a linear function of (log-worths, log tie prevalences)."""
    features = np.zeros((len(subsets), size + len(tie_orders)))
    for row, subset in enumerate(subsets):
        features[row, list(subset)] = 1 / len(subset)
        if len(subset) > 1:
            features[row, size + tie_orders.index(len(subset))] = 1.0
    return features
