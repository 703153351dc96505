from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
import torch

from imgalign.preferences.fit_report import Ceiling
from imgalign.preferences.records import Ranking
from reward_models.evaluate import (
    agreement_on,
    annotator_agreement,
    evaluate,
    judged,
    score_samples,
)

IMAGES = {str(i): torch.full((3, 4, 4), i / 10) for i in range(10)}


@dataclass
class Brightness:
    """A reward of another kind: it reads no prompt and keeps the sizes of its batches."""

    batches: list[int]
    sign: float = 1.0

    def score(self, *, prompts, samples):
        assert len(prompts) == len(samples)
        self.batches.append(len(samples))
        return self.sign * samples.mean((1, 2, 3))


def make_ranking(groups, *, prompt="a fox", images="0369", annotator="ann"):
    return Ranking(
        ranking_id="0",
        prompt=prompt,
        sample_ids=tuple(images),
        order=(0, 1, 2, 3),
        ranking=groups,
        verdict="ranked",
        reason=None,
        annotator=annotator,
        group="",
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
    )


BRIGHTEST_FIRST = make_ranking(((3,), (2,), (1,), (0,)))
ONE_TIE = make_ranking(((3,), (1, 2), (0,)), prompt="a cat")
DARKEST_FIRST = make_ranking(((0,), (1,), (2,), (3,)), prompt="a house")


@pytest.fixture
def result():
    """A reward that is right, half right and wrong, beside one of the opposite sign."""
    return evaluate(
        Brightness([]),
        [BRIGHTEST_FIRST, ONE_TIE, DARKEST_FIRST],
        IMAGES.__getitem__,
        baseline=Brightness([], sign=-1.0),
        ceiling=Ceiling(value=0.8, meaning="told"),
    )


def test_any_reward_is_compared_with_the_annotators_beside_a_baseline(result):
    assert result.accuracy.num_pairs == 6 + 5 + 6
    assert result.accuracy.micro == pytest.approx(11 / 17)
    assert result.accuracy.macro == pytest.approx(2 / 3)
    assert result.baseline.micro == pytest.approx(6 / 17)
    assert result.gain.value == pytest.approx(5 / 17)
    assert result.share_of_ceiling == pytest.approx(11 / 17 / 0.8)
    assert result.num_tied_pairs == 1
    assert result.calibration is None


def test_the_report_has_the_number_its_count_and_what_it_stands_beside(result):
    first, macro, chance, baseline, ceiling = result.lines()
    # Of three prompts one is all wrong and one all right: that says nothing of others.
    assert first == (
        "held-out pair accuracy 64.7 % on 17 pairs of 3 prompts, 95 % interval 0.0 to 100.0"
    )
    assert "66.7 %" in macro
    assert "50.0 %" in chance
    assert "35.3 %, so +29.4 points" in baseline
    assert "80.0 %, of which 80.9 % is reached (told)" in ceiling


def test_an_unknown_ceiling_is_said_to_be_unknown():
    result = evaluate(Brightness([]), [BRIGHTEST_FIRST], IMAGES.__getitem__)
    assert "unknown: no pair was judged by two annotators" in result.lines()[-1]


def test_the_ceiling_of_three_annotators_is_agreement_with_the_majority_of_the_others():
    three = [
        BRIGHTEST_FIRST,
        replace(BRIGHTEST_FIRST, annotator="b"),
        replace(BRIGHTEST_FIRST, annotator="c", ranking=((0,), (1,), (2,), (3,))),
    ]
    ceiling = annotator_agreement(three)
    # a and b face a split majority, which is no opinion; c is against both others on all 6 pairs.
    assert ceiling.value == 0.0
    assert "majority" in ceiling.meaning
    assert annotator_agreement(three[:2]) == Ceiling(
        value=1.0, meaning="two annotators with each other, 6 pairs"
    )
    assert annotator_agreement(three[:1]) is None


def test_annotators_who_always_disagree_are_not_unknown():
    other = replace(BRIGHTEST_FIRST, annotator="b", ranking=((0,), (1,), (2,), (3,)))
    result = evaluate(Brightness([]), [BRIGHTEST_FIRST, other], IMAGES.__getitem__)
    line = next(line for line in result.lines() if "ceiling" in line)
    assert "0.0 % (two annotators with each other, 6 pairs)" in line


def test_a_ceiling_from_other_prompts_says_so():
    elsewhere = [replace(BRIGHTEST_FIRST, annotator=name) for name in "ab"]
    assert agreement_on(elsewhere, elsewhere) == annotator_agreement(elsewhere)
    far = agreement_on(elsewhere[:1], elsewhere)
    assert far is not None
    assert far.meaning == "two annotators with each other, 6 pairs, of other prompts"
    assert agreement_on(elsewhere[:1], elsewhere[:1]) is None


def test_verdicts_are_told_apart():
    rankings = [
        BRIGHTEST_FIRST,
        replace(BRIGHTEST_FIRST, verdict="all_bad", ranking=None),
        replace(BRIGHTEST_FIRST, verdict="skipped", ranking=None, reason="broken"),
        replace(BRIGHTEST_FIRST, ranking=((0, 1, 2, 3),)),
    ]
    ranked, counts = judged(rankings)
    assert ranked == [rankings[0], rankings[3]]
    assert (counts.ranked, counts.all_bad, counts.skipped) == (2, 1, 1)


def test_each_image_of_a_prompt_is_scored_once():
    reward = Brightness([])
    evaluate(reward, [BRIGHTEST_FIRST] * 3, IMAGES.__getitem__)
    assert sum(reward.batches) == 4


def test_images_of_different_sizes_keep_their_order():
    sizes = [4, 4, 8, 4]
    pairs = [("a fox", torch.full((3, s, s), i / 10)) for i, s in enumerate(sizes)]
    reward = Brightness([])
    assert score_samples(reward, pairs) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert reward.batches == [2, 1, 1]
