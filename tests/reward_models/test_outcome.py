"""What a report has to be looked at: the pairs of which a reward is surest."""

import math
from datetime import UTC, datetime

import pytest

from imgalign.preferences.records import Ranking, TieGroups
from reward_models.outcome import SHOWN, to_look_at


def judged(prompt: str, groups: TieGroups) -> Ranking:
    count = sum(map(len, groups))
    return Ranking(
        ranking_id=prompt,
        prompt=prompt,
        sample_ids=tuple(f"{prompt}-{place}" for place in range(count)),
        order=tuple(range(count)),
        ranking=groups,
        verdict="ranked",
        reason=None,
        annotator="ann",
        group="g",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_the_surest_pair_of_each_prompt_is_shown_for_and_against():
    rankings = [judged("a", ((0,), (1,), (2,))), judged("b", ((1,), (0,))), judged("c", ((0, 1),))]
    scores = [[0.0, 1.0, -3.0], [0.5, -2.0], [9.0, -9.0]]
    found = to_look_at(rankings, scores, log_odds=2.0)
    against, agreed = found["disagreements"], found["agreements"]
    assert [(each.better, each.worse) for each in against] == [("b-1", "b-0"), ("a-0", "a-1")]
    assert [each.probability for each in against] == [
        pytest.approx(1 / (1 + math.exp(2 * 2.5))),
        pytest.approx(1 / (1 + math.exp(2 * 1.0))),
    ]
    assert [(each.better, each.worse) for each in agreed] == [("a-1", "a-2")]
    assert agreed[0].probability == pytest.approx(1 / (1 + math.exp(-2 * 4.0)))


def test_there_are_few_and_scores_far_apart_are_no_overflow():
    rankings = [judged(f"{number}", ((1,), (0,))) for number in range(30)]
    scores = [[1000.0 * number, 0.0] for number in range(30)]
    found = to_look_at(rankings, scores, log_odds=5.0)
    assert len(found["disagreements"]) == SHOWN
    assert found["disagreements"][0].probability == 0
    assert found["agreements"] == ()
