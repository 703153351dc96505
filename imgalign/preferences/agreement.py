"""Inter-annotator agreement on pairs, the ceiling of a reward model's pair accuracy.

The unit is one strict preference between two images of one prompt. A pair that either side called
a tie is left out and counted apart. Intervals are Wilson's at 95 %, which treat pairs as
independent; pairs of one ranking are not, so the intervals are somewhat narrow.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from imgalign.preferences.records import Ranking, pairs, tied_pairs
from imgalign.statistics import wilson_interval

# (prompt, image, image) with the images in ascending order
Pair = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of `count` comparisons that agreed, with its 95 % interval; nan if there were none.

    `num_tied` further comparisons were left out because one side called a tie.
    """

    rate: float
    low: float
    high: float
    count: int
    num_tied: int


def pair_agreement(rankings: Iterable[Ranking]) -> Agreement:
    """How often two annotators prefer the same image of a pair that both have judged.

    Every two annotators count once per pair. The opinion of an annotator who judged a pair several
    times is the most frequent one.
    """
    tally = _Tally()
    for of_pair in opinions(rankings).values():
        for one, other in combinations(of_pair.values(), 2):
            tally.add(one, other)
    return tally.result()


def agreement_between(some: Iterable[Ranking], others: Iterable[Ranking]) -> Agreement:
    """How often one of some annotators prefers the same of a pair as one of the others.

    Every two of them who have judged a pair count once; such as an AI judge and a person.
    """
    tally = _Tally()
    of_others = opinions(others)
    for pair, of_pair in opinions(some).items():
        for other in of_others.get(pair, {}).values():
            for one in of_pair.values():
                tally.add(one, other)
    return tally.result()


def agreement_with_others(
    rankings: Iterable[Ranking], *, without: Collection[str] = ()
) -> dict[str, Agreement]:
    """How often each annotator prefers the same of a pair as each other one who judged it.

    By annotator who ranked anything; those in `without` are nobody's others.
    """
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    for of_pair in opinions(rankings).values():
        for annotator, own in of_pair.items():
            tally = tallies[annotator]
            for other, opinion in of_pair.items():
                if other != annotator and other not in without:
                    tally.add(own, opinion)
    return {annotator: tally.result() for annotator, tally in tallies.items()}


def annotator_ceiling(rankings: Iterable[Ranking], *, min_others: int = 2) -> Agreement:
    """How often one annotator agrees with the majority of all others who judged the pair.

    This is the accuracy of a perfect model of the consensus against a single annotator, and so the
    ceiling of a reward model tested on single judgements. Pairs with fewer than `min_others`
    other annotators are left out; a split majority counts as tied.
    """
    tally = _Tally()
    for of_pair in opinions(rankings).values():
        if len(of_pair) - 1 < min_others:
            continue
        total = sum(of_pair.values())
        for own in of_pair.values():
            tally.add(own, _sign(total - own))
    return tally.result()


@dataclass(slots=True)
class _Tally:
    agreed: int = 0
    count: int = 0
    num_tied: int = 0

    def add(self, one: int, other: int) -> None:
        if one == 0 or other == 0:
            self.num_tied += 1
            return
        self.count += 1
        self.agreed += one == other

    def result(self) -> Agreement:
        rate = self.agreed / self.count if self.count else math.nan
        low, high = wilson_interval(self.agreed, self.count)
        return Agreement(rate, low, high, self.count, self.num_tied)


def pair_orders(ranking: Ranking) -> dict[Pair, int]:
    """Order of each pair: +1 where its first image is preferred, -1 the second, 0 for a tie."""
    votes: dict[Pair, int] = {}
    images = ranking.sample_ids
    for better, worse in pairs(ranking):
        first, second = sorted((images[better], images[worse]))
        votes[ranking.prompt, first, second] = 1 if first == images[better] else -1
    for one, other in tied_pairs(ranking):
        first, second = sorted((images[one], images[other]))
        votes[ranking.prompt, first, second] = 0
    return votes


def opinions(rankings: Iterable[Ranking]) -> Mapping[Pair, dict[str, int]]:
    """Order that each annotator gives to each pair, as `pair_orders` has it."""
    sums: dict[Pair, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for ranking in rankings:
        for pair, vote in pair_orders(ranking).items():
            sums[pair][ranking.annotator] += vote
    return {
        pair: {annotator: _sign(total) for annotator, total in by_annotator.items()}
        for pair, by_annotator in sums.items()
    }


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
