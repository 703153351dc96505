from datetime import UTC, datetime

import pytest

from imgalign.preferences.records import Ranking
from imgalign.preferences.splits import prompt_position, three_way_split


def prompts(num: int) -> list[Ranking]:
    """Two rankings of each of "prompt 0", "prompt 1", ..."""
    return [
        Ranking(
            ranking_id=f"{prompt} {repeat}",
            prompt=f"prompt {prompt}",
            sample_ids=("a", "b"),
            order=(0, 1),
            ranking=((0,), (1,)),
            verdict="ranked",
            reason=None,
            annotator="ann",
            group="default",
            created_at=datetime(2026, 11, 22, tzinfo=UTC),
        )
        for repeat in range(2)
        for prompt in range(num)
    ]


def split_by_prompt(
    rankings: list[Ranking], *, fraction: float, seed: int
) -> tuple[list[Ranking], list[Ranking]]:
    split = three_way_split(rankings, validation=0.0, test=fraction, seed=seed)
    return split.train, split.test


def test_a_prompt_is_on_one_side_only():
    train, held_out = split_by_prompt(prompts(200), fraction=0.3, seed=0)
    assert len(train) + len(held_out) == 400
    assert not {r.prompt for r in train} & {r.prompt for r in held_out}
    # 60 of 200 expected, standard deviation 6.5
    assert 34 <= len({r.prompt for r in held_out}) <= 86


def test_a_prompt_stays_on_its_side_when_others_arrive():
    few, many = (split_by_prompt(prompts(n), fraction=0.3, seed=0)[1] for n in (50, 200))
    assert {r.prompt for r in few} == {r.prompt for r in many if int(r.prompt.split()[1]) < 50}


def test_a_larger_held_out_set_contains_the_smaller():
    small, large = (split_by_prompt(prompts(200), fraction=f, seed=0)[1] for f in (0.1, 0.4))
    assert {r.prompt for r in small} < {r.prompt for r in large}


def test_the_seed_chooses_other_prompts():
    zero, one = (split_by_prompt(prompts(200), fraction=0.3, seed=s)[1] for s in (0, 1))
    assert {r.prompt for r in zero} != {r.prompt for r in one}


def test_positions_never_change():
    # From sha256("0\na red fox"): a new release must not move prompts between train and test.
    assert prompt_position("a red fox", seed=0) == 0xB28210CC847E / 2**48
    assert prompt_position("  A  red FOX ", seed=0) == prompt_position("a red fox", seed=0)


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.3), (0.0, 0.3), (0.7, 0.3), (0, 0)])
def test_three_ways_share_no_prompt_and_lose_none(validation: float, test: float):
    split = three_way_split(prompts(200), validation=validation, test=test, seed=3)
    parts = [{r.prompt for r in part} for part in (split.train, split.validation, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200
    alone = split_by_prompt(prompts(200), fraction=test, seed=3)[1]
    assert split.test == alone


def test_fractions_beyond_one_are_refused():
    with pytest.raises(ValueError, match="fractions within"):
        three_way_split([], validation=0.6, test=0.5, seed=0)
