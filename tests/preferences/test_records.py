import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgalign.preferences.records import (
    Ranking,
    SamplerSettings,
    pairs,
    ranks,
    tie_groups,
    tied_pairs,
)


def make(ranking: Any, *, num_images: int = 4, prompt: str = "a red fox") -> Ranking:
    return Ranking(
        ranking_id="r",
        prompt=prompt,
        sample_ids=tuple(f"image {i}" for i in range(num_images)),
        order=tuple(range(num_images)),
        ranking=ranking,
        verdict="ranked" if ranking else "all_bad",
        reason=None,
        annotator="ann",
        group="default",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_inference_steps": 0},
        {"guidance_scale": 0.5},
        {"guidance_scale": math.nan},
        {"eta": 1.5},
        {"eta": -0.1},
        {"eta": math.nan},
        {"width": 0},
        {"height": -8},
        {"negative_prompt": "fog", "guidance_scale": 1.0},
        {"steps": 20},
    ],
)
def test_sampler_settings_that_no_model_can_do_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplerSettings(**wrong)


def test_pairs_and_ranks_of_the_example_in_the_docstring():
    ranking = make(((2,), (0, 1), (3,)))
    assert pairs(ranking) == [(2, 0), (2, 1), (2, 3), (0, 3), (1, 3)]
    assert tied_pairs(ranking) == [(0, 1)]
    assert ranks(ranking) == (1, 1, 0, 2)


def test_nothing_is_derived_from_what_was_not_ranked():
    ranking = make(None)
    assert pairs(ranking) == tied_pairs(ranking) == []
    assert ranks(ranking) == (-1, -1, -1, -1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=7))
def test_tie_groups_pairs_and_ranks_say_the_same(scores: list[int]):
    ranking = make(tie_groups([float(score) for score in scores]), num_images=len(scores))
    num = len(scores)
    assert len(pairs(ranking)) + len(tied_pairs(ranking)) == num * (num - 1) // 2
    assert all(scores[i] > scores[j] for i, j in pairs(ranking))
    assert all(scores[i] == scores[j] for i, j in tied_pairs(ranking))
    levels = sorted(set(scores), reverse=True)
    assert ranks(ranking) == tuple(levels.index(score) for score in scores)


def test_scores_within_the_tolerance_tie():
    assert tie_groups([0.0, 1.0, 0.95], tolerance=0.1) == ((1, 2), (0,))
    assert tie_groups([]) == ()
