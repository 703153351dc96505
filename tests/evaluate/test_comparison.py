"""Blind comparison: what is counted, and what is hidden from the judge."""

import numpy as np
import pytest
import torch
from evaluations import NoisyImages, brightness, compare, flat

from imgalign.errors import NumericsError
from imgalign.evaluate.comparison import Pair, Summary, correlation, summarise
from imgalign.evaluate.judging import (
    Judge,
    cosine_distance,
    image_distance,
    mean_distances,
    pixel_distance,
)


def judged(
    *oracle: tuple[float, float], proxy=None, faithful=None, oracle_tie=0.0, kind=None
) -> Summary:
    """The summary of pairs of as many prompts."""
    return summarise(
        [
            Pair(
                prompt=f"{number}",
                seed=number,
                slice=kind,
                oracle=each,
                proxy=proxy[number] if proxy else None,
                faithful=faithful[number] if faithful else None,
            )
            for number, each in enumerate(oracle)
        ],
        seed=0,
        oracle_tie=oracle_tie,
    )


# --- what is counted


def test_equal_images_win_exactly_half(adapter, tmp_path):
    class Same(NoisyImages):
        def use(self, adapter, *, strength=1.0):
            pass

    def rounding(*, prompts, samples):
        # as a network does: a score depends on its place in the batch and the batch's size
        place = torch.arange(len(samples)) * 1e-7 + len(samples) * 1e-6
        return samples.mean((1, 2, 3)) + place

    found = compare(adapter, tmp_path / "out", load=Same, oracle=rounding).summary
    assert found.win_rate.rate.value == 0.5
    assert (found.win_rate.wins, found.win_rate.ties, found.win_rate.losses) == (0, 12, 0)
    assert found.oracle.difference.value == 0


def test_a_tie_counts_half():
    found = judged((0, 1), (0, 1), (1, 0), (1, 1)).win_rate
    assert found.rate.value == 2.5 / 4
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)


def test_what_no_judge_can_tell_apart_is_a_tie_in_the_win_rate_and_in_no_other_number():
    # All images a little better, as a shift of all light makes them, and one pair much worse.
    shifted = [(0.0, 0.03)] * 9 + [(0.5, 0.0)]
    proxy = [(0.0, 0.03)] * 10
    sharp = judged(*shifted, proxy=proxy)
    blunt = judged(*shifted, proxy=proxy, oracle_tie=0.03, kind="any")
    assert (sharp.win_rate.rate.value, blunt.win_rate.rate.value) == (0.9, 0.45)
    assert (blunt.win_rate.wins, blunt.win_rate.ties, blunt.win_rate.losses) == (0, 9, 1)
    assert blunt.by_slice[0].win_rate == blunt.win_rate
    assert blunt.oracle == sharp.oracle
    assert blunt.proxy_win_rate == sharp.proxy_win_rate


def test_nobody_is_fooled_where_the_judge_sees_a_tie():
    proxy = [(0.0, 1.0), (0.5, 1.0)] * 3
    worse = [(0.01, 0.0), (0.02, 0.01)] * 3
    assert judged(*worse, proxy=proxy).overoptimisation.fooled.value == 1.0
    assert judged(*worse, proxy=proxy, oracle_tie=0.03).overoptimisation.fooled.value == 0.0


def test_just_above_the_tie_is_a_win_and_a_loss():
    found = judged((0.0, 0.031), (0.031, 0.0), (0.0, 0.031), oracle_tie=0.03).win_rate
    assert (found.wins, found.ties, found.losses) == (2, 0, 1)


def test_interval_beside_the_clustered_one_is_wilsons():
    found = judged(*[(0, 1)] * 8, *[(1, 0)] * 2).win_rate
    # 8 of 10 at 95 %: Brown, Cai & DasGupta (2001), or any calculator
    assert found.wilson == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_interval_is_wider_when_pairs_of_a_prompt_agree():
    outcomes = [(0.0, 1.0)] * 24 + [(1.0, 0.0)] * 8

    def found(prompts):
        pairs = [
            Pair(prompt=prompt, seed=0, oracle=oracle)
            for prompt, oracle in zip(prompts, outcomes, strict=True)
        ]
        return summarise(pairs, seed=0).win_rate.rate

    alone, grouped = found([f"{i}" for i in range(32)]), found([f"{i // 4}" for i in range(32)])
    assert alone.value == grouped.value == 0.75
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_difference_is_paired():
    # Prompts differ by far more than sides do, and by the same amount on both sides.
    found = judged(*[(10.0 * i, 10.0 * i + 1) for i in range(12)]).oracle
    assert (found.difference.low, found.difference.value, found.difference.high) == (1, 1, 1)
    assert found.before.high - found.before.low > 30


def test_gains_are_in_standard_deviations_of_the_base():
    oracle = [(0.0, 1.0), (2.0, 3.0)]  # deviation 1, gain 1
    proxy = [(0.0, 30.0), (20.0, 50.0)]  # deviation 10, gain 3
    found = judged(*oracle, proxy=proxy).overoptimisation
    assert found.oracle_gain.value == pytest.approx(1)
    assert found.proxy_gain.value == pytest.approx(3)
    assert found.gap.value == pytest.approx(2)
    assert found.fooled.value == 0


def test_fooled_are_the_pairs_that_only_the_reward_likes_better():
    oracle = [(1.0, 0.0), (0.0, 1.0), (2.0, 0.0), (1.0, 0.0)]
    proxy = [(0.0, 1.0), (0.0, 1.0), (3.0, 4.0), (1.0, 0.0)]
    assert judged(*oracle, proxy=proxy).overoptimisation.fooled.value == 0.5


def test_faithfulness_is_the_share_that_is_verified():
    faithful = [(True, True), (False, True), (False, True), (True, False)]
    found = judged(*[(0.0, 0.0)] * 4, faithful=faithful).faithful
    assert (found.before.value, found.after.value, found.difference.value) == (0.5, 0.75, 0.25)


def test_what_was_not_measured_is_none(adapter, tmp_path):
    found = compare(adapter, tmp_path / "out")
    own = found.summary
    assert own.win_rate is own.oracle is own.proxy is own.faithful is own.overoptimisation is None
    assert found.oracle_meaning is found.drift is None
    assert "no reward was given" in found.verdict()


def test_correlation_of_a_constant_is_unknown():
    assert correlation(np.ones(3), np.arange(3.0)) is None
    assert correlation(np.arange(3.0), -np.arange(3.0)) == pytest.approx(-1)


def test_every_kind_of_prompt_is_a_comparison_of_its_own():
    kinds = ["short", "long", "short", "short"]
    wins = [(0.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    pairs = [
        Pair(prompt=f"{number // 2}", seed=number, slice=kind, oracle=oracle)
        for number, (kind, oracle) in enumerate(zip(kinds, wins, strict=True))
    ]
    short, long = summarise(pairs, seed=0).by_slice
    assert (short.name, short.num_prompts, short.num_pairs) == ("short", 2, 3)
    assert (long.name, long.num_prompts, long.num_pairs) == ("long", 1, 1)
    assert short.win_rate.rate.value == pytest.approx(2.5 / 3)
    assert long.win_rate.rate.value == 0


def test_without_kinds_of_prompts_there_are_no_numbers_of_each():
    assert judged((0, 1), (1, 0)).by_slice == ()


def test_slices_of_the_caller_name_the_kind_of_every_pair(adapter, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a red cat\nhello\n")
    found = compare(adapter, tmp_path / "out", settings={"prompts": file})
    kinds = {"a red cat": "one object", "hello": "free text"}
    assert len(found.pairs) == 4
    assert all(pair.slice == kinds[pair.prompt] for pair in found.pairs)


# --- blindness


def test_swapping_the_sides_turns_the_win_rate_around():
    rng = np.random.default_rng(0)
    values = rng.integers(3, size=(20, 2)).astype(float)
    there = judged(*map(tuple, values.tolist())).win_rate
    back = judged(*map(tuple, values[:, ::-1].tolist())).win_rate
    assert there.rate.value == 1 - back.rate.value
    assert (there.wins, there.ties, there.losses) == (back.losses, back.ties, back.wins)
    assert there.wilson == pytest.approx((1 - back.wilson[1], 1 - back.wilson[0]))


def test_the_order_in_which_a_pair_is_shown_changes_nothing():
    prompts = [f"{i}" for i in range(9)]
    base = [flat(10 * i) for i in range(9)]
    aligned = [flat(200 - 15 * i) for i in range(9)]
    one, other = (
        Judge(prompts=prompts, base=base, aligned=aligned, seed=seed).scores(
            brightness, name="oracle reward"
        )
        for seed in (0, 1)
    )
    assert one == other
    assert one[3] == pytest.approx((30 / 255, 155 / 255))


def test_a_judge_that_prefers_what_comes_first_is_fair_to_both_sides():
    shown = []

    def biased(*, prompts, samples):
        shown.append(samples[:, 0, 0, 0])
        return torch.full((len(samples),), -float(len(shown)))

    count = 400
    judge = Judge(
        prompts=["a cat"] * count, base=[flat(0)] * count, aligned=[flat(255)] * count, seed=0
    )
    scores = judge.scores(biased, name="oracle reward")
    share = sum(aligned > base for base, aligned in scores) / count
    assert share == pytest.approx(0.5, abs=0.1)  # four standard deviations of fair coins
    assert {0.0, 1.0} == set(torch.cat(shown[: len(shown) // 2]).tolist())


def test_every_judge_meets_the_same_prompt_with_both_images():
    seen = []

    def note(*, prompts, samples):
        seen.extend(zip(prompts, samples[:, 0, 0, 0].mul(255).round().int().tolist(), strict=True))
        return torch.zeros(len(samples))

    judge = Judge(prompts=["x", "y"], base=[flat(1), flat(2)], aligned=[flat(3), flat(4)], seed=5)
    judge.scores(note, name="oracle reward")
    assert sorted(seen) == [("x", 1), ("x", 3), ("y", 2), ("y", 4)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error_that_names_the_prompt(bad):
    judge = Judge(prompts=["x", "y"], base=[flat(1)] * 2, aligned=[flat(2)] * 2, seed=0)
    with pytest.raises(
        NumericsError, match=r"oracle reward: expected a finite number, got \w+ for 'y'"
    ):
        judge.scores(lambda prompts, samples: torch.tensor([0.0, bad]), name="oracle reward")


def test_a_score_for_each_image_is_expected():
    judge = Judge(prompts=["x"], base=[flat(1)], aligned=[flat(2)], seed=0)
    with pytest.raises(
        NumericsError, match=r"one number for each of 1 samples, got shape \[1, 1\]"
    ):
        judge.scores(lambda prompts, samples: torch.zeros(1, 1), name="oracle reward")


# --- diversity


def test_diversity_is_a_mean_over_pairs_of_a_prompt():
    images = [flat(0), flat(255), flat(0), flat(7)]

    def of_pixels(own):
        return image_distance(own, None)

    # pairs of "a" differ by 1, 0 and 1; "b" has one image and no distance
    assert mean_distances(images, ["a", "a", "a", "b"], of_pixels) == pytest.approx({"a": 2 / 3})


def test_distances_of_known_vectors():
    assert cosine_distance(torch.tensor([[1.0, 0.0], [0.0, 5.0]])) == pytest.approx(1)
    assert cosine_distance(torch.tensor([[1.0, 1.0], [3.0, 3.0]])) == pytest.approx(0, abs=1e-12)
    halves = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.5)])
    assert pixel_distance(halves) == pytest.approx(0.5)


def test_diversity_of_single_images_is_unknown(adapter, tmp_path):
    assert compare(adapter, tmp_path / "out", settings={"images_per_prompt": 1}).diversity is None
