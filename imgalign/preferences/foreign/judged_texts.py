"""Rankings of texts from a table in the form of the store's own judgements.

What fits a reward or measures one takes judgements, wherever they come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from imgalign.preferences.foreign.records import RankedTexts, TextRanking
from imgalign.preferences.records import ELSEWHERE, Ranking, TieGroups, utc_now
from imgalign.preferences.texts import text_id


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedTexts:
    """Judgements, and their texts by id."""

    rankings: tuple[Ranking, ...]
    texts: Mapping[str, str]
    weights: Mapping[str, float]
    """Importance of a judgement, by its id."""


def as_judgements(found: RankedTexts) -> JudgedTexts:
    """The rankings of a table as judgements of one annotator, who is not known.

    Texts that a row does not rank are left out of its judgement.
    """
    rankings = tuple(_judgement(number, each) for number, each in enumerate(found.rankings))
    texts = {text_id(text): text for each in found.rankings for text in each.texts}
    weights = {
        ranking.ranking_id: each.weight
        for ranking, each in zip(rankings, found.rankings, strict=True)
    }
    return JudgedTexts(rankings=rankings, texts=texts, weights=weights)


def _judgement(number: int, given: TextRanking) -> Ranking:
    there = [place for place, rank in enumerate(given.ranks) if given.all_bad or rank >= 0]
    return Ranking(
        ranking_id=str(number),
        prompt=given.prompt,
        sample_ids=tuple(text_id(given.texts[place]) for place in there),
        samples="texts",
        order=tuple(range(len(there))),
        ranking=None if given.all_bad else _groups([given.ranks[place] for place in there]),
        verdict="all_bad" if given.all_bad else "ranked",
        reason=None,
        annotator=ELSEWHERE,
        group=ELSEWHERE,
        created_at=utc_now(),
    )


def _groups(ranks: list[int]) -> TieGroups:
    """Example: ranks 1, 0, 1 give ((1,), (0, 2))."""
    return tuple(
        tuple(place for place, own in enumerate(ranks) if own == rank)
        for rank in sorted(set(ranks))
    )
