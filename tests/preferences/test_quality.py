"""What the judgements of an annotator say of them, counted by hand."""

from typing import Any

import pytest
from numpy.testing import assert_allclose
from scipy.stats import binomtest
from written_rankings import ranking

from imgalign.preferences.quality import (
    AnnotatorQuality,
    Share,
    as_expected,
    project_quality,
)
from imgalign.preferences.records import Ranking, TieGroups


def quality_of(who: str, rankings: list[Ranking], **options: Any) -> AnnotatorQuality:
    found = project_quality(rankings, **({"gold": {}} | options))
    return next(each for each in found.annotators if each.annotator == who)


def skip(who: str, **fields: Any) -> Ranking:
    return ranking(who, "a>b", verdict="skipped", ranking=None, reason="unsafe", **fields)


def test_votes_are_counted_without_skips_and_their_time_is_the_median():
    timed = [ranking("ann", "a>b", prompt=f"{ms}", client_ms=ms) for ms in (1000, 3500, 90_000)]
    found = quality_of("ann", [*timed, ranking("ann", "a>b"), skip("ann", client_ms=1)])
    assert (found.num_votes, found.num_skipped, found.median_seconds) == (4, 1, 3.5)
    assert quality_of("bob", [ranking("bob", "a>b")]).median_seconds is None


def test_those_with_the_most_votes_come_first():
    judged = [ranking("bob", "a>b"), ranking("ann", "a>b"), ranking("ann", "a>b", prompt="q")]
    found = project_quality(judged, gold={}).annotators
    assert [each.annotator for each in found] == ["ann", "bob"]


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("c>a>b", ((2,), (0, 1)), True),
        ("c>ab", ((2,), (0, 1)), True),
        ("ac>b", ((2,), (0, 1)), False),
        ("a>c>b", ((2,), (0, 1)), False),
        ("a>b>c", ((0,), (1,), (2,)), True),
        ("a>c>b", ((0,), (1,), (2,)), False),
        ("a>bc", ((0,), (1,), (2,)), False),
    ],
)
def test_an_answer_is_as_expected_if_it_has_every_strict_preference(
    text: str, expected: TieGroups, right: bool
):
    assert as_expected(ranking("ann", text).ranking, expected) is right


def test_gold_answers_are_a_share_with_wilsons_interval_and_skips_are_none():
    gold: dict[str, TieGroups] = {f"g{n}": ((0,), (1,)) for n in range(12)}
    judged = [ranking("ann", "a>b", item_id=f"g{n}") for n in range(8)]
    judged += [ranking("ann", "b>a", item_id="g8"), skip("ann", item_id="g9")]
    judged += [
        ranking("ann", "a>b", item_id="g10", verdict="all_bad", ranking=None),
        ranking("ann", "b>a", item_id="another"),
    ]
    found = quality_of("ann", judged, gold=gold).gold
    interval = binomtest(8, 10).proportion_ci(0.95, method="wilson")
    assert (found.value, found.count) == (0.8, 10)
    assert_allclose((found.low, found.high), (interval.low, interval.high), atol=1e-12)


def test_self_consistency_is_the_share_of_pairs_with_the_order_of_the_first_time():
    judged = [
        ranking("ann", "a>b>c", item_id="1"),
        ranking("ann", "a>bc", item_id="2"),  # bc is a tie now
        ranking("ann", "c>a", item_id="3", images="ca"),
        ranking("ann", "a>b", item_id="4", prompt="q"),  # of another prompt
        ranking("bob", "c>b>a", item_id="1"),
    ]
    found = quality_of("ann", judged).self_consistency
    assert (found.value, found.count) == (2 / 4, 4)
    assert quality_of("bob", judged).self_consistency == Share(
        value=None, low=0.0, high=1.0, count=0
    )


def test_position_bias_is_how_often_the_first_place_wins_against_chance():
    shown: dict[str, Any] = {"order": (1, 0), "images": "ab"}
    judged = [ranking("ann", "b>a", prompt=f"{n}", **shown) for n in range(30)]
    judged += [ranking("ann", "a>b", prompt=f"{n}", **shown) for n in range(30, 40)]
    judged += [ranking("ann", "ab", prompt="tied", **shown)]
    found = quality_of("ann", judged)
    assert (found.first_place.value, found.first_place.count, found.chance) == (0.75, 40, 0.5)
    assert found.position_bias
    balanced = quality_of("ann", judged[20:40])
    assert (balanced.first_place.value, balanced.position_bias) == (0.5, False)


def test_a_tie_for_the_best_is_shared_and_chance_is_that_of_each_set():
    judged = [
        ranking("ann", "ab>cd"),  # the first place is one of two best
        ranking("ann", "b>a", prompt="q"),
    ]
    found = quality_of("ann", judged)
    assert (found.first_place.value, found.chance) == (0.25, (1 / 4 + 1 / 2) / 2)
    nothing = quality_of("ann", [skip("ann")])
    assert (nothing.first_place.value, nothing.chance, nothing.position_bias) == (None, None, False)


def test_who_is_excluded_is_compared_and_nobody_is_with_them():
    judged = [
        *(ranking(who, "a>b", prompt=p) for who in ("ann", "bob") for p in "pqr"),
        *(ranking("eve", "b>a", prompt=p) for p in "pqr"),
    ]
    mixed = project_quality(judged, gold={})
    assert mixed.alpha.value is not None
    assert mixed.alpha.value < 0.5
    found = project_quality(judged, gold={}, excluded={"eve"})
    shares = {
        each.annotator: (each.agreement.value, each.agreement.count) for each in found.annotators
    }
    assert shares == {"ann": (1.0, 3), "bob": (1.0, 3), "eve": (0.0, 6)}
    assert found.alpha.value == 1.0


def test_without_judgements_there_is_nobody():
    found = project_quality([], gold={})
    assert (found.annotators, found.alpha.value) == ((), None)
