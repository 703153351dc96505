"""Statistics of a blind comparison: judged pairs, and numbers with intervals computed from them.

Every number can be recomputed from the pairs that are saved with it. Intervals are at 95 %, by
bootstrap over prompts (statistics.py), and differences are of the two samples of a pair. Left out:
generating and judging them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from imgalign.statistics import Estimate, Floats, clustered_mean, clustered_rate, wilson_interval

Sides = tuple[float, float]
"""A number of the base's sample and of the aligned one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two samples of one prompt and seed, as judged.

    Example: oracle (5.2, 6.4) says that the oracle reward is 5.2 for the base's sample and 6.4 for
    the aligned one; None where it was not measured.
    """

    prompt: str
    seed: int
    slice: str | None = None
    """Kind of prompt, as the caller names it. Example: "two in a relation"."""
    oracle: Sides | None = None
    proxy: Sides | None = None
    """By the reward model that training maximised."""
    faithful: tuple[bool, bool] | None = None
    """Whether the sample has what the prompt says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often the aligned sample is better; a tie counts half.

    Example: rate 0.83 (0.76 to 0.89) of 156 wins, 8 ties and 28 losses.
    """

    rate: Estimate
    wilson: tuple[float, float]
    """95 % interval as if all pairs were independent; too narrow where prompts matter."""
    wins: int
    ties: int
    losses: int

    @property
    def num_pairs(self) -> int:
        """Ties included."""
        return self.wins + self.ties + self.losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A mean before and after; the difference is paired, so its interval is the one to trust."""

    before: Estimate
    after: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Overoptimisation:
    """Gain of the proxy reward beside that of the oracle (Gao et al. 2022, arXiv:2210.10760).

    Gains are in standard deviations over the base's samples, so that the two can be compared.
    """

    proxy_gain: Estimate
    oracle_gain: Estimate
    gap: Estimate
    """Proxy gain minus oracle gain."""
    fooled: Estimate
    """Share of pairs in which the reward prefers the aligned sample and the oracle the base's."""
    agreement_before: float | None
    """Correlation of proxy and oracle over the base's samples; None where either is constant."""
    agreement_after: float | None
    """Over the aligned samples: a fall means that training left those the reward can judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """The comparison on prompts of one kind."""

    name: str
    num_prompts: int
    num_pairs: int
    win_rate: WinRate | None
    oracle: Change | None
    faithful: Change | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All numbers that follow from the pairs."""

    win_rate: WinRate | None
    """By the oracle reward; None without one."""
    proxy_win_rate: WinRate | None
    oracle: Change | None
    proxy: Change | None
    faithful: Change | None
    """Fractions verified."""
    overoptimisation: Overoptimisation | None
    by_slice: tuple[SliceResult, ...]
    """In the order in which the kinds of prompts first occur; empty where there are none."""


def summarise(pairs: Sequence[Pair], *, seed: int, oracle_tie: float = 0.0) -> Summary:
    """Summarise judged pairs; `seed` is that of the bootstrap behind the intervals.

    Samples whose oracle rewards differ by at most `oracle_tie` are a tie.
    """
    slices = dict.fromkeys(pair.slice for pair in pairs if pair.slice is not None)
    return Summary(
        win_rate=win_rate(pairs, oracle_of, seed=seed, tie=oracle_tie),
        proxy_win_rate=win_rate(pairs, proxy_of, seed=seed),
        oracle=change(pairs, oracle_of, seed=seed),
        proxy=change(pairs, proxy_of, seed=seed),
        faithful=change(pairs, faithful_of, seed=seed, of=clustered_rate),
        overoptimisation=overoptimisation(pairs, seed=seed, oracle_tie=oracle_tie),
        by_slice=tuple(
            slice_result(
                [pair for pair in pairs if pair.slice == name],
                name,
                seed=seed,
                oracle_tie=oracle_tie,
            )
            for name in slices
        ),
    )


def slice_result(pairs: Sequence[Pair], name: str, *, seed: int, oracle_tie: float) -> SliceResult:
    """The comparison on some of its pairs."""
    return SliceResult(
        name=name,
        num_prompts=len({pair.prompt for pair in pairs}),
        num_pairs=len(pairs),
        win_rate=win_rate(pairs, oracle_of, seed=seed, tie=oracle_tie),
        oracle=change(pairs, oracle_of, seed=seed),
        faithful=change(pairs, faithful_of, seed=seed, of=clustered_rate),
    )


def oracle_of(pair: Pair) -> Sides | None:
    """Oracle reward of both samples."""
    return pair.oracle


def proxy_of(pair: Pair) -> Sides | None:
    """Score of both samples by the reward model."""
    return pair.proxy


def faithful_of(pair: Pair) -> Sides | None:
    """Whether both samples are faithful, as numbers."""
    return None if pair.faithful is None else (float(pair.faithful[0]), float(pair.faithful[1]))


Side = Callable[[Pair], Sides | None]


def win_rate(
    pairs: Sequence[Pair], measure: Side, *, seed: int, tie: float = 0.0
) -> WinRate | None:
    """How often `measure` prefers the aligned sample; None where no pair was measured.

    A difference of at most `tie` is a tie: without such a tolerance, a shift of all samples that is
    too small to see would decide every pair.
    """
    values, prompts = table(pairs, measure)
    if not len(values):
        return None
    difference = values[:, 1] - values[:, 0]
    order = np.where(abs(difference) <= tie, 0.0, np.sign(difference))
    outcomes = (order + 1) / 2
    return WinRate(
        rate=clustered_rate(outcomes, prompts, seed=seed),
        wilson=wilson_interval(float(outcomes.sum()), len(outcomes)),
        wins=int((order > 0).sum()),
        ties=int((order == 0).sum()),
        losses=int((order < 0).sum()),
    )


def change(
    pairs: Sequence[Pair],
    measure: Side,
    *,
    seed: int,
    of: Callable[..., Estimate] = clustered_mean,
) -> Change | None:
    """Means of both sides and of the differences within pairs; None where nothing was measured.

    `of` estimates each side's mean: `clustered_rate` where values are 0 or 1.
    """
    values, prompts = table(pairs, measure)
    if not len(values):
        return None
    return Change(
        before=of(values[:, 0], prompts, seed=seed),
        after=of(values[:, 1], prompts, seed=seed),
        difference=clustered_mean(values[:, 1] - values[:, 0], prompts, seed=seed),
    )


def overoptimisation(
    pairs: Sequence[Pair], *, seed: int, oracle_tie: float = 0.0
) -> Overoptimisation | None:
    """Proxy gain beside oracle gain; None unless both were measured and both vary at the base."""
    both = [pair for pair in pairs if pair.oracle is not None and pair.proxy is not None]
    oracle, prompts = table(both, oracle_of)
    proxy, _ = table(both, proxy_of)
    if not len(both) or not (np.ptp(oracle[:, 0]) > 0 and np.ptp(proxy[:, 0]) > 0):
        return None
    oracle_gain = (oracle[:, 1] - oracle[:, 0]) / oracle[:, 0].std()
    proxy_gain = (proxy[:, 1] - proxy[:, 0]) / proxy[:, 0].std()
    fooled = ((proxy_gain > 0) & (oracle[:, 1] - oracle[:, 0] < -oracle_tie)).astype(np.float64)
    return Overoptimisation(
        proxy_gain=clustered_mean(proxy_gain, prompts, seed=seed),
        oracle_gain=clustered_mean(oracle_gain, prompts, seed=seed),
        gap=clustered_mean(proxy_gain - oracle_gain, prompts, seed=seed),
        fooled=clustered_rate(fooled, prompts, seed=seed),
        agreement_before=correlation(oracle[:, 0], proxy[:, 0]),
        agreement_after=correlation(oracle[:, 1], proxy[:, 1]),
    )


def correlation(one: Floats, other: Floats) -> float | None:
    """Pearson's correlation; None where one side is constant."""
    if not (np.ptp(one) > 0 and np.ptp(other) > 0):
        return None
    return float(np.corrcoef(one, other)[0, 1])


def table(pairs: Sequence[Pair], measure: Side) -> tuple[Floats, list[str]]:
    """Base and aligned values of the pairs that were measured, and the prompt of each."""
    measured = [(pair.prompt, sides) for pair in pairs if (sides := measure(pair)) is not None]
    values = np.array([sides for _, sides in measured], dtype=np.float64).reshape(-1, 2)
    return values, [prompt for prompt, _ in measured]


def percent(value: float, *, digits: int = 0) -> str:
    """Example: 0.834 is "83 %"."""
    return f"{100 * value:.{digits}f} %"


def interval(estimate: Estimate) -> str:
    """Example: "95 % interval 76 to 89 %", of a share."""
    if estimate.low is None or estimate.high is None:
        return "no interval from a single prompt"
    return f"95 % interval {100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"
