"""Batches of ranked samples, and what a ranking says about its candidates.

Shapes: r = rankings of a batch, k = candidates of the longest one, n = samples.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imgalign.algorithms.batches import Rollout, reward_metrics
from imgalign.policy import Data, LikelihoodPolicy
from imgalign.runs.world import World

NOTHING_PREFERRED = (
    "learning: no ranking of this iteration prefers a sample to another, so nothing is learned from"
    " it; if this comes often, raise data.rankings_per_iteration"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedBatch:
    """Samples, and rankings of them.

    Example: index ((0, 1, 2, -1),) and ranks ((1, 0, 1, -1),) is one ranking of three samples, the
    second of which is best and the others tie.
    """

    data: Data
    index: Int[Tensor, "r k"]
    """Candidates as positions in `data`; -1 where a ranking has fewer than k."""
    ranks: Int[Tensor, "r k"]
    """0 is best, equal is a tie, -1 where nothing was ranked."""
    all_bad: Bool[Tensor, " r"]
    """Judged to be all bad, without an order."""
    all_good: Bool[Tensor, " r"]
    """Judged to be all good, without an order."""
    weights: Float[Tensor, " r"]
    """How much each ranking counts."""
    scores: Float[Tensor, "r k"] | None = None
    """Of a reward model; NaN where there is none."""
    seconds: dict[str, float] | None = None
    """Under the keys of docs/metrics.md."""
    rewards: Float[Tensor, " _n"] | None = None
    """Of all samples of a policy, those without a finite one too."""
    ties: bool | None = None
    """Whether any ranking of the data that these come from has a tie; None for only these."""

    def __len__(self) -> int:
        """Samples."""
        return len(self.data)

    @property
    def num_rankings(self) -> int:
        """Rankings."""
        return len(self.index)

    @property
    def present(self) -> Bool[Tensor, "r k"]:
        """Where there is a candidate."""
        return self.index >= 0

    @property
    def may_tie(self) -> bool:
        """Whether ties are to be reckoned with."""
        return has_tie(self.ranks) if self.ties is None else self.ties

    def select(self, rankings: Int[Tensor, " s"]) -> "RankedBatch":
        """The rankings at these positions, of the same samples."""
        return replace(
            self,
            index=self.index[rankings],
            ranks=self.ranks[rankings],
            all_bad=self.all_bad[rankings],
            all_good=self.all_good[rankings],
            weights=self.weights[rankings],
            scores=None if self.scores is None else self.scores[rankings],
        )

    def metrics(self, world: World) -> dict[str, float]:
        """Of the samples and the time they took, under the keys of docs/metrics.md."""
        found = (
            {} if self.rewards is None else reward_metrics(torch.cat(world.gather(self.rewards)))
        )
        return {**found, **(self.seconds or {})}


def ranked_rollout(policy: LikelihoodPolicy, rollout: Rollout) -> RankedBatch:
    """Samples of a policy and beside it, those of each prompt ranked by rewards; equal ones tie.

    A sample without a finite reward is in no ranking.
    """
    data, rewards, prompt_ids = rollout.as_data(policy)
    groups: dict[str, list[int]] = {}
    for place, prompt_id in enumerate(prompt_ids):
        own = groups.setdefault(prompt_id, [])
        if rewards[place].isfinite():
            own.append(place)
    k = max(map(len, groups.values()), default=0)
    index = torch.full((len(groups), k), -1)
    for row, places in enumerate(groups.values()):
        index[row, : len(places)] = torch.tensor(places, dtype=torch.long)
    scores = torch.where(index >= 0, rewards[index.clamp(min=0)], torch.nan)
    better = (scores[:, None, :] > scores[:, :, None]).sum(dim=2)
    return RankedBatch(
        data=data,
        index=index,
        ranks=torch.where(index >= 0, better, -1),
        all_bad=torch.zeros(len(groups), dtype=torch.bool),
        all_good=torch.zeros(len(groups), dtype=torch.bool),
        weights=torch.ones(len(groups)),
        scores=scores,
        seconds={
            "seconds_sampling": rollout.seconds_sampling,
            "seconds_scoring": rollout.seconds_scoring,
        },
        rewards=rollout.rewards,
    )


def liked(batch: RankedBatch) -> Bool[Tensor, "r k"]:
    """The best of rankings with an order, and all candidates of those that are all good."""
    return best(batch.ranks) | (batch.present & batch.all_good[:, None])


def disliked(batch: RankedBatch) -> Bool[Tensor, "r k"]:
    """The worst of rankings with an order, and all candidates of those that are all bad."""
    return worst(batch.ranks) | (batch.present & batch.all_bad[:, None])


def best(ranks: Int[Tensor, "r k"]) -> Bool[Tensor, "r k"]:
    """The candidates that are tied for the first place, in rankings that have an order."""
    return (ranks == 0) & ordered(ranks)[:, None] if ranks.numel() else ranks == 0


def worst(ranks: Int[Tensor, "r k"]) -> Bool[Tensor, "r k"]:
    """The candidates that are tied for the last place, in rankings that have an order."""
    if not ranks.numel():
        return ranks == 0
    last = ranks.amax(dim=1, keepdim=True)
    return (ranks == last) & (ranks >= 0) & ordered(ranks)[:, None]


def has_tie(ranks: Int[Tensor, "r k"]) -> bool:
    """Whether two candidates of any ranking share a place."""
    placed = ranks.sort(dim=1).values
    return bool(((placed[:, 1:] == placed[:, :-1]) & (placed[:, 1:] >= 0)).any())


def ordered(ranks: Int[Tensor, "r k"]) -> Bool[Tensor, " r"]:
    """Rankings in which some candidate is better than another."""
    return better_pairs(ranks).flatten(1).any(dim=1)


def better_pairs(ranks: Int[Tensor, "r k"], *, extremes: bool = False) -> Bool[Tensor, "r k k"]:
    """[r, i, j]: candidate i of ranking r was ranked above j.

    `extremes`: only the best against the worst; where several tie for a place, each of them.
    """
    above = ranks[:, :, None] < ranks[:, None, :]
    present = ranks >= 0
    pairs = above & present[:, :, None] & present[:, None, :]
    if extremes:
        pairs &= (ranks == 0)[:, :, None]
        pairs &= (ranks == ranks.amax(dim=1, keepdim=True))[:, None, :]
    return pairs
