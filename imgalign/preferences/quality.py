"""How well each annotator of a project judges, from their stored judgements.

Speed, answers to gold and attention items, self-consistency, position bias and agreement with the
others; attention items are in votes, speed and their own share alone.
Each share has Wilson's 95 % interval, which takes its observations as independent; pairs of one
ranking are not, so those of agreement and self-consistency are somewhat narrow.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from imgalign.preferences.agreement import Agreement, agreement_with_others, pair_orders
from imgalign.preferences.records import Ranking, TieGroups, strict_pairs
from imgalign.preferences.reliability import Reliability, ranking_alpha, ranking_kappa
from imgalign.statistics import wilson_interval

NOTHING = Agreement(float("nan"), 0.0, 1.0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of `count` observations with its 95 % interval. Example: 0.9 [0.6, 0.98] of 10.

    `value` is None where nothing was observed.
    """

    value: float | None
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, successes: float, count: int) -> "Share":
        """Successes in `count` observations; one that is shared by a tie counts in part."""
        low, high = wilson_interval(successes, count)
        return cls(value=successes / count if count else None, low=low, high=high, count=count)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorQuality:
    """What the judgements of one annotator say of them."""

    annotator: str
    num_votes: int
    """Judgements that are no skips."""
    num_skipped: int
    median_seconds: float | None
    """Of a vote; None where no page measured it."""
    gold: Share
    """Gold items that were answered as expected, skips left out."""
    attention: Share
    """Attention items whose one image that belongs was ranked best; skips, and items that are
    withdrawn, left out."""
    self_consistency: Share
    """Pairs that were judged again in another item and got the same order, ties included."""
    first_place: Share
    """Rankings whose best candidate stood in the first place of the screen; a tie of n for the
    best counts 1/n."""
    chance: float | None
    """What `first_place` is without a position bias: the mean of 1/K; None without rankings."""
    agreement: Share
    """Pairs ordered as by another annotator, counted for each of them; ties left out."""

    @property
    def position_bias(self) -> bool:
        """Whether the interval of `first_place` leaves out what chance would give."""
        return self.chance is not None and not (
            self.first_place.low <= self.chance <= self.first_place.high
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectQuality:
    """The annotators of a project, those with the most votes first, and their reliability."""

    annotators: tuple[AnnotatorQuality, ...]
    alpha: Reliability
    kappa: Reliability


def project_quality(
    rankings: Iterable[Ranking],
    *,
    gold: Mapping[str, TieGroups],
    excluded: Collection[str] = (),
    withdrawn: Collection[str] = (),
    seed: int = 0,
) -> ProjectQuality:
    """Quality of all annotators of some standing judgements.

    `gold` has the expected order of gold items, in candidates; `withdrawn` are attention items that
    tell nothing of who judged them. Those who are excluded are among
    them, and compared with the others, but nobody is with them; alpha and kappa are without them.
    """
    by_annotator: dict[str, list[Ranking]] = {annotator: [] for annotator in excluded}
    for ranking in rankings:
        by_annotator.setdefault(ranking.annotator, []).append(ranking)
    everything = [each for own in by_annotator.values() for each in own if not each.is_attention]
    agreement = agreement_with_others(everything, without=excluded)
    found = [
        _quality(
            annotator,
            own,
            gold=gold,
            withdrawn=withdrawn,
            agreement=agreement.get(annotator, NOTHING),
        )
        for annotator, own in by_annotator.items()
    ]
    counted = [each for each in everything if each.annotator not in excluded]
    return ProjectQuality(
        annotators=tuple(sorted(found, key=lambda each: (-each.num_votes, each.annotator))),
        alpha=ranking_alpha(counted, seed=seed),
        kappa=ranking_kappa(counted, seed=seed),
    )


def as_expected(given: TieGroups | None, expected: TieGroups) -> bool:
    """Whether an answer has every strict preference of an expected order, both in candidates.

    What the expected order ties may be in any order. Example: ((2,), (0, 1)) only asks that
    candidate 2 is the best. None, as for all bad, is not as expected.
    """
    return set(strict_pairs(expected)) <= set(strict_pairs(given or ()))


def best_first(num_candidates: int) -> TieGroups:
    """The expected order of an attention item: its first candidate is the best."""
    return ((0,), tuple(range(1, num_candidates)))


def _quality(
    annotator: str,
    rankings: Sequence[Ranking],
    *,
    gold: Mapping[str, TieGroups],
    withdrawn: Collection[str],
    agreement: Agreement,
) -> AnnotatorQuality:
    given = [each for each in rankings if each.verdict != "skipped"]
    timed = [each.client_ms / 1000 for each in given if each.client_ms is not None]
    attentive = [
        as_expected(each.ranking, best_first(len(each.order)))
        for each in given
        if each.is_attention and each.item_id not in withdrawn
    ]
    ordinary = [each for each in given if not each.is_attention]
    expected = [
        as_expected(each.ranking, gold[each.item_id]) for each in ordinary if each.item_id in gold
    ]
    first_place, chance = _first_place(ordinary)
    return AnnotatorQuality(
        annotator=annotator,
        num_votes=len(given),
        num_skipped=len(rankings) - len(given),
        median_seconds=median(timed) if timed else None,
        gold=Share.of(sum(expected), len(expected)),
        attention=Share.of(sum(attentive), len(attentive)),
        self_consistency=_self_consistency(ordinary),
        first_place=first_place,
        chance=chance,
        agreement=Share(
            value=agreement.rate if agreement.count else None,
            low=agreement.low,
            high=agreement.high,
            count=agreement.count,
        ),
    )


def _self_consistency(rankings: Sequence[Ranking]) -> Share:
    """Each later order of a pair against the first; `rankings` are in the order of their time."""
    first: dict[tuple[str, str, str], int] = {}
    same = []
    for ranking in rankings:
        for pair, order in pair_orders(ranking).items():
            if pair in first:
                same.append(order == first[pair])
            else:
                first[pair] = order
    return Share.of(sum(same), len(same))


def _first_place(rankings: Sequence[Ranking]) -> tuple[Share, float | None]:
    """How often the first place wins, and by chance; rankings of one tie group say nothing."""
    wins, chances = [], []
    for ranking in rankings:
        groups = ranking.ranking or ()
        if len(groups) < 2:
            continue
        best = groups[0]
        wins.append((ranking.order[0] in best) / len(best))
        chances.append(1 / len(ranking.order))
    return Share.of(sum(wins), len(wins)), fmean(chances) if chances else None
