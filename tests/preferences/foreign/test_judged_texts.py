"""Rankings of a table of texts as judgements, as what fits a reward takes them."""

import hashlib

from imgalign.preferences.foreign.judged_texts import as_judgements
from imgalign.preferences.foreign.records import RankedTexts, TextRanking
from imgalign.preferences.records import pairs, ranks, tied_pairs


def judged(*rankings: TextRanking):
    return as_judgements(RankedTexts(name="x", rankings=rankings))


def test_the_order_of_texts_is_that_of_their_ranks_and_ties_stay_ties():
    given = TextRanking(prompt="p", texts=("a", "b", "c"), ranks=(1, 0, 1), weight=2.0)
    found = judged(given, given)
    first, second = found.rankings
    assert [found.texts[sample] for sample in first.sample_ids] == ["a", "b", "c"]
    assert ranks(first) == (1, 0, 1)
    assert (pairs(first), tied_pairs(first)) == ([(1, 0), (1, 2)], [(0, 2)])
    assert (first.samples, first.verdict, first.prompt) == ("texts", "ranked", "p")
    assert first.ranking_id != second.ranking_id
    assert found.weights == {first.ranking_id: 2.0, second.ranking_id: 2.0}


def test_a_text_is_named_by_the_hash_of_its_bytes():
    found = judged(TextRanking(prompt="p", texts=("ü", "b"), ranks=(0, 1)))
    digest = hashlib.sha256(b"\xc3\xbc").hexdigest()
    assert found.rankings[0].sample_ids[0] == digest
    assert found.texts[digest] == "ü"


def test_texts_without_a_rank_are_left_out_of_the_judgement():
    (found,) = judged(TextRanking(prompt="p", texts=("a", "b", "c"), ranks=(1, -1, 0))).rankings
    assert (len(found.sample_ids), ranks(found)) == (2, (1, 0))


def test_all_bad_is_a_verdict_on_every_text():
    bad = TextRanking(prompt="p", texts=("a", "b"), ranks=(-1, -1), all_bad=True)
    (found,) = judged(bad).rankings
    assert (found.verdict, found.ranking, len(found.sample_ids)) == ("all_bad", None, 2)
