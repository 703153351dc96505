import json
import math
import statistics
from itertools import product

import pytest
import torch
from drawn import normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from imgalign.advantages import (
    RunningPromptStatistics,
    centred_group_advantages,
    generalized_advantages,
    group_advantages,
    group_wins,
    kl_penalised_rewards,
    scaled_about_mean,
    whitened,
)
from imgalign.errors import CheckpointError, NumericsError

BOTH = pytest.mark.parametrize("advantages", [group_advantages, centred_group_advantages])


def test_group_advantages_count_deviations_from_the_groups_mean():
    rewards = torch.tensor([1.0, 5.0, 3.0, 5.0])
    group = torch.tensor([7, 2, 7, 2])
    assert_close(group_advantages(rewards, group), torch.tensor([-1.0, 0.0, 1.0, 0.0]))


def test_centred_advantages_keep_the_unit_of_the_reward():
    rewards = torch.tensor([1.0, 0.0, 3.0, 0.5])
    group = torch.tensor([0, 1, 0, 1])
    expected = torch.tensor([-1.0, -0.25, 1.0, 0.25])
    assert_close(centred_group_advantages(rewards, group), expected)


def test_group_advantages_match_the_standard_library():
    rewards = torch.randn(12, generator=torch.Generator().manual_seed(0))
    group = torch.arange(12) % 3
    result = group_advantages(rewards, group)
    for name in range(3):
        own = rewards[group == name].tolist()
        mean, deviation = statistics.fmean(own), statistics.pstdev(own)
        assert_close(result[group == name], torch.tensor([(r - mean) / deviation for r in own]))


@BOTH
@given(
    rewards=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20),
    num_groups=st.integers(1, 4),
)
@settings(max_examples=50, deadline=None)
def test_every_group_has_mean_zero(advantages, rewards, num_groups):
    group = torch.arange(len(rewards)) % num_groups
    result = advantages(torch.tensor(rewards), group)
    for name in group.unique():
        own = result[group == name].double()
        assert own.mean().abs() <= 1e-6 * max(1.0, own.abs().max())


def test_rewards_far_from_zero_lose_no_precision():
    rewards = 1e4 + torch.randn(999, generator=torch.Generator().manual_seed(5))
    result = group_advantages(rewards, torch.zeros(999, dtype=torch.long)).double()
    assert result.mean().abs() < 1e-6


@BOTH
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, -1e-12, 1e6])
def test_equal_rewards_give_exactly_zero(advantages, reward):
    rewards = torch.full((7,), reward)
    assert torch.equal(advantages(rewards, torch.zeros(7, dtype=torch.long)), torch.zeros(7))


def test_rewards_that_differ_by_rounding_only_count_as_equal():
    rewards = torch.tensor([0.3, 0.1 + 0.2, torch.nextafter(torch.tensor(0.3), torch.tensor(1.0))])
    assert torch.equal(group_advantages(rewards, torch.zeros(3, dtype=torch.long)), torch.zeros(3))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4, -1e4])
def test_rewards_are_equal_within_a_millionth_of_the_largest_at_any_scale_and_sign(scale):
    group = torch.zeros(2, dtype=torch.long)
    for difference, equal in ((0.99e-6, True), (1.01e-6, False)):
        rewards = scale * torch.tensor([1.0, 1.0 + difference], dtype=torch.float64)
        running = RunningPromptStatistics(window=2, min_count=2)
        assert (group_wins(rewards, group) == 0.5).all() == equal
        for found in (
            group_advantages(rewards, group),
            centred_group_advantages(rewards, group),
            running.advantages(rewards, ["a", "a"]),
        ):
            assert (found == 0).all() == equal


def test_rewards_that_are_all_zero_are_equal():
    rewards, group = torch.zeros(3), torch.zeros(3, dtype=torch.long)
    running = RunningPromptStatistics(window=3, min_count=1)
    assert torch.equal(group_wins(rewards, group), torch.full((3,), 0.5))
    assert torch.equal(group_advantages(rewards, group), torch.zeros(3))
    assert torch.equal(running.advantages(rewards, ["a"] * 3), torch.zeros(3))


@BOTH
def test_an_image_alone_in_its_group_gets_zero(advantages):
    assert torch.equal(advantages(torch.tensor([5.0, -2.0]), torch.tensor([0, 1])), torch.zeros(2))


@BOTH
def test_group_advantages_do_not_depend_on_the_order_of_the_batch(advantages):
    generator = torch.Generator().manual_seed(1)
    rewards, group = torch.randn(9, generator=generator), torch.arange(9) % 3
    order = torch.randperm(9, generator=generator)
    assert_close(advantages(rewards[order], group[order]), advantages(rewards, group)[order])


def test_group_advantages_ignore_shift_and_scale_of_the_reward():
    rewards = torch.randn(8, generator=torch.Generator().manual_seed(2))
    group = torch.arange(8) % 2
    expected = group_advantages(rewards, group)
    assert_close(group_advantages(100 * rewards + 3, group), expected, rtol=1e-4, atol=1e-5)


def test_wins_are_the_share_of_the_group_that_is_beaten():
    rewards = torch.tensor([3.0, 1.0, 1.0, 2.0, 7.0])
    group = torch.tensor([0, 0, 0, 0, 1])
    expected = torch.tensor([3.5 / 4, 1 / 4, 1 / 4, 2.5 / 4, 1 / 2])
    assert_close(group_wins(rewards, group), expected)


def test_wins_depend_on_the_order_of_rewards_alone():
    rewards, group = torch.randn(24), torch.arange(24) % 3
    wins = group_wins(rewards, group)
    assert torch.equal(group_wins((5 * rewards).exp(), group), wins)
    disaster = rewards.clone()
    disaster[rewards.argmin()] = -1e6
    assert torch.equal(group_wins(disaster, group), wins)


def test_rewards_that_differ_by_rounding_are_ties():
    rewards = torch.tensor([0.1, 0.1 + 1e-8, 0.5], dtype=torch.float64)
    wins = group_wins(rewards, torch.zeros(3, dtype=torch.long))
    assert wins.tolist() == [1 / 3, 1 / 3, 2.5 / 3]


@pytest.mark.parametrize("advantages", [group_advantages, centred_group_advantages, group_wins])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_an_error_and_not_a_zero(advantages, bad):
    message = rf"got {bad} for sample 1 \(2 of 4 are not finite\)"
    with pytest.raises(NumericsError, match=message):
        advantages(torch.tensor([0.0, bad, 1.0, -math.inf]), torch.zeros(4, dtype=torch.long))


@BOTH
def test_advantages_carry_no_gradient(advantages):
    rewards = torch.tensor([0.0, 1.0], requires_grad=True)
    assert not advantages(rewards, torch.tensor([0, 0])).requires_grad


# --- advantages of each step

GAPS = torch.tensor(
    [
        [True, True, True, True, True, True],
        [True, True, True, False, False, False],  # ends early
        [True, False, False, True, True, False],  # others spoke in between
        [False, False, True, False, False, True],
        [False, False, False, False, False, False],
    ]
)
"""Which steps of five samples count."""


def by_loop(rewards, values, mask, *, discount, smoothing):
    """GAE of the steps that count, from its definition as a sum of all later errors."""
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for row in range(len(rewards)):
        steps = mask[row].nonzero().flatten().tolist()
        reward, value = rewards[row, steps].tolist(), [*values[row, steps].tolist(), 0.0]
        errors = [r + discount * value[t + 1] - value[t] for t, r in enumerate(reward)]
        for place, step in enumerate(steps):
            advantages[row, step] = sum(
                (discount * smoothing) ** later * error
                for later, error in enumerate(errors[place:])
            )
            returns[row, step] = advantages[row, step] + value[place]
    return advantages, returns


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.95, 1.0])
def test_generalized_advantages_are_discounted_sums_of_the_errors_of_values(discount, smoothing):
    rewards, values = normal(5, 6), normal(5, 6, seed=1)
    settings = {"discount": discount, "smoothing": smoothing}
    expected = by_loop(rewards, values, GAPS, **settings)
    assert_close(generalized_advantages(rewards, values, GAPS, **settings), expected)


def test_full_smoothing_gives_the_rewards_to_come_less_the_value():
    rewards, values = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor([[0.5, 1.0, 2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = generalized_advantages(rewards, values, mask, smoothing=1.0)
    assert_close(advantages, torch.tensor([[3.0 - 0.5, 2.0 - 1.0, 4.0 - 2.0]]))
    assert_close(returns, torch.tensor([[3.0, 2.0, 4.0]]))


def test_with_one_reward_at_the_end_and_full_smoothing_they_are_that_reward_less_the_value():
    rewards, values, mask = normal(4), normal(4, 6, seed=1), GAPS[:4]
    at_the_end = kl_penalised_rewards(rewards, 0 * values, mask, coefficient=0.1)
    advantages, returns = generalized_advantages(at_the_end, values, mask, smoothing=1.0)
    assert_close(advantages[mask], (rewards[:, None] - values)[mask])
    assert_close(returns[mask], rewards[:, None].expand(4, 6)[mask])


def test_no_smoothing_gives_the_error_of_each_value_against_the_next():
    rewards, values = torch.tensor([[1.0, -2.0, 4.0]]), torch.tensor([[0.5, 1.0, 2.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, _ = generalized_advantages(rewards, values, mask, discount=0.5, smoothing=0.0)
    assert_close(advantages, torch.tensor([[1 + 0.5 - 0.5, -2 + 1.0 - 1.0, 4.0 - 2.0]]))


def test_masked_steps_change_no_advantage_wherever_they_are_and_whatever_they_hold():
    rewards, values = normal(3, 4), normal(3, 4, seed=1)
    expected = generalized_advantages(rewards, values, torch.ones(3, 4, dtype=torch.bool))
    nothing = torch.full((3, 1), math.nan, dtype=torch.float64)
    for place in range(5):
        wide, wider = (
            torch.cat([each[:, :place], nothing, each[:, place:]], dim=1)
            for each in (rewards, values)
        )
        mask = wide.isfinite()
        both = generalized_advantages(wide, wider, mask)
        for found, own in zip(both, expected, strict=True):
            assert torch.equal(found[mask].view(3, 4), own)
            assert torch.equal(found[~mask], torch.zeros(3, dtype=torch.float64))


def test_generalized_advantages_of_a_sample_are_its_own_in_any_batch_and_order():
    rewards, values, order = normal(5, 6), normal(5, 6, seed=1), torch.tensor([3, 0, 4, 2, 1])
    expected = generalized_advantages(rewards, values, GAPS)
    found = generalized_advantages(rewards[order], values[order], GAPS[order])
    for ours, own in zip(found, expected, strict=True):
        assert torch.equal(ours, own[order])


def test_long_trajectories_with_rewards_far_from_zero_lose_no_precision():
    # A sum of two thousand steps in float32 would be wrong in the fifth digit.
    rewards = (1e3 + normal(2, 2000)).float()
    values = 1e6 * normal(2, 2000, seed=1).float()
    mask = torch.ones(2, 2000, dtype=torch.bool)
    found = generalized_advantages(rewards, values, mask, smoothing=1.0)
    exact = generalized_advantages(rewards.double(), values.double(), mask, smoothing=1.0)
    for ours, own in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours, own.float(), rtol=1e-7, atol=0)


def test_advantages_and_rewards_of_steps_carry_no_gradient():
    rewards = torch.tensor([[1.0, 2.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages, returns = generalized_advantages(rewards, rewards, mask)
    penalised = kl_penalised_rewards(rewards[:, 0], rewards, mask, coefficient=1.0)
    scaled, white = scaled_about_mean(rewards, mask), whitened(rewards, mask)
    found = (advantages, returns, penalised, scaled, white)
    assert not any(each.requires_grad for each in found)


def test_advantages_of_steps_smooth_by_095_and_do_not_discount_unless_told_otherwise():
    rewards, values = normal(5, 6), normal(5, 6, seed=1)
    expected = by_loop(rewards, values, GAPS, discount=1.0, smoothing=0.95)
    assert_close(generalized_advantages(rewards, values, GAPS), expected)


# --- the KL as a part of the reward


def test_every_step_pays_for_its_log_ratio_and_the_last_one_gets_the_score():
    log_ratio = torch.tensor([[0.5, -1.0, 2.0], [1.0, 4.0, math.nan], [math.nan] * 3])
    mask = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    rewards = kl_penalised_rewards(
        torch.tensor([10.0, 20.0, 30.0]), log_ratio, mask, coefficient=0.1
    )
    expected = [[-0.05, 0.1, 10 - 0.2], [-0.1, 20 - 0.4, 0.0], [0.0, 0.0, 0.0]]
    assert_close(rewards, torch.tensor(expected))


def test_the_score_is_at_the_last_step_that_counts_also_where_gaps_are_before_it():
    rewards = kl_penalised_rewards(
        torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.zeros(5, 6), GAPS, coefficient=0.1
    )
    assert rewards.nonzero().tolist() == [[0, 5], [1, 2], [2, 4], [3, 5]]
    assert rewards.sum(dim=1).tolist() == [1.0, 2.0, 3.0, 4.0, 0.0]


def test_the_expected_sum_of_rewards_is_the_score_less_the_price_of_the_exact_kl():
    # Every text of at most three tokens over two letters and the end token, which is token 2.
    texts = [(*letters, 2)[:3] for length in range(4) for letters in product([0, 1], repeat=length)]
    policy, reference = (
        torch.softmax(normal(3, 3, seed=seed), dim=1) for seed in (0, 1)
    )  # of the next token, by position

    def log_probs(model):
        rows = [[model[t, token].log() for t, token in enumerate(text)] for text in texts]
        return torch.tensor([row + [math.nan] * (3 - len(row)) for row in rows]).double()

    own, other = log_probs(policy), log_probs(reference)
    mask, score = own.isfinite(), normal(len(texts), seed=2)
    probability, of_reference = (each.nansum(dim=1).exp() for each in (own, other))
    assert_close(probability.sum().item(), 1.0)
    kl = (probability * (probability / of_reference).log()).sum()
    rewards = kl_penalised_rewards(score, own - other, mask, coefficient=0.3)
    assert_close((probability * rewards.sum(dim=1)).sum(), (probability * score).sum() - 0.3 * kl)


# --- whitening


def test_whitened_advantages_have_mean_zero_and_deviation_one_where_steps_count():
    advantages = torch.randn(5, 4, generator=torch.Generator().manual_seed(3)) * 7 + 2
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[:, -1] = False
    result = whitened(advantages.masked_fill(~mask, math.nan), mask)
    assert torch.equal(result[~mask], torch.zeros(5))
    assert_close(result[mask].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert_close(result[mask].std(correction=0), torch.tensor(1.0))


def test_scaled_rewards_keep_their_mean_and_have_deviation_one_where_steps_count():
    rewards = 7 * normal(5, 4) + 2
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[:, -1] = False
    result = scaled_about_mean(rewards.masked_fill(~mask, math.nan), mask)
    assert_close(result[mask].mean(), rewards[mask].mean())
    assert_close(result[mask].std(correction=0).item(), 1.0)
    assert torch.equal(result[~mask], torch.zeros(5, dtype=torch.float64))
    shifted = result[mask] - rewards[mask].mean()
    assert_close(shifted, whitened(rewards, mask)[mask])


def test_scaling_leaves_rewards_that_are_all_equal_and_no_rewards_as_they_are():
    mask = torch.tensor([[True, True, False]])
    rewards = torch.tensor([[0.1, 0.1, 5.0]])
    assert torch.equal(scaled_about_mean(rewards, mask), torch.tensor([[0.1, 0.1, 0.0]]))
    assert torch.equal(scaled_about_mean(rewards, torch.zeros_like(mask)), torch.zeros(1, 3))


def test_scaling_leaves_one_reward_alone_as_it_is():
    mask, rewards = torch.tensor([[False, True, False]]), torch.tensor([[1.0, 3.0, 5.0]])
    assert torch.equal(scaled_about_mean(rewards, mask), torch.tensor([[0.0, 3.0, 0.0]]))


def test_scaled_rewards_far_from_zero_lose_no_precision():
    rewards = (1e4 + normal(9, 111)).float()
    mask = torch.ones(9, 111, dtype=torch.bool)
    found = scaled_about_mean(rewards, mask)
    assert torch.equal(found, scaled_about_mean(rewards.double(), mask).float())


# --- recent rewards of a prompt


def test_running_statistics_use_the_batch_until_a_prompt_is_known():
    running = RunningPromptStatistics(window=4, min_count=3)
    result = running.advantages(torch.tensor([0.0, 2.0, 4.0]), ["a", "a", "b"])
    deviation = math.sqrt(8 / 3)
    assert_close(result, torch.tensor([-2 / deviation, 0.0, 2 / deviation]))


def test_running_statistics_compare_a_known_prompt_with_its_own_past():
    running = RunningPromptStatistics(window=3, min_count=2)
    running.advantages(torch.tensor([100.0, 0.0, 1.0, 10.0]), ["a", "a", "a", "b"])
    # The window of 3 forgets 100; what counts is 0, 1 and the new 5: mean 2, variance 14 / 3.
    result = running.advantages(torch.tensor([5.0]), ["a"])
    assert_close(result, torch.tensor([3 / math.sqrt(14 / 3)]))


def test_running_statistics_give_zero_for_equal_rewards():
    running = RunningPromptStatistics(window=4, min_count=2)
    for _ in range(3):
        result = running.advantages(torch.tensor([0.1, 0.1, 0.7]), ["a", "a", "b"])
    assert torch.equal(result, torch.zeros(3))


def test_running_statistics_keep_32_rewards_and_count_from_16_on_as_the_authors_code_does():
    running = RunningPromptStatistics()
    past = normal(40)
    for number, reward in enumerate(past, start=1):
        batch = torch.stack([reward, reward + 7])  # the other prompt is new each time
        (found, _) = running.advantages(batch, ["a", f"b{number}"])
        own = past[max(0, number - 32) : number] if number >= 16 else batch
        assert_close(found, (reward - own.mean()) / own.std(correction=0))


def test_running_statistics_of_rewards_far_from_zero_lose_no_precision_and_carry_no_gradient():
    rewards = (1e4 + normal(16)).float().requires_grad_()
    found = RunningPromptStatistics(window=16).advantages(rewards, ["a"] * 16)
    exact = rewards.detach().double()
    expected = (exact - exact.mean()) / exact.std(correction=0)
    assert_close(found, expected.float(), rtol=1e-6, atol=1e-7)
    assert not found.requires_grad


def test_running_statistics_tell_prompts_of_equal_text_apart_by_id():
    running = RunningPromptStatistics(window=8, min_count=2)
    result = running.advantages(
        torch.tensor([0.0, 1.0, 10.0, 11.0]), ["cat#0", "cat#0", "cat#1", "cat#1"]
    )
    assert_close(result, torch.tensor([-1.0, 1.0, -1.0, 1.0]))


def test_running_statistics_go_on_exactly_after_a_round_trip_through_json():
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, 6, generator=generator)
    ids = ["a", "a", "b", "b", "b", "c"]
    running, resumed = (RunningPromptStatistics(window=4, min_count=2) for _ in range(2))
    running.advantages(first, ids)
    resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
    assert torch.equal(running.advantages(second, ids), resumed.advantages(second, ids))


def test_running_statistics_of_another_window_are_refused():
    state = RunningPromptStatistics(window=4, min_count=2).state_dict()
    with pytest.raises(CheckpointError, match="expected a window of 8, got 4"):
        RunningPromptStatistics(window=8, min_count=2).load_state_dict(state)


def test_a_count_can_be_from_one_to_the_whole_window():
    for window, min_count in ((1, 1), (4, 1), (4, 4)):
        running = RunningPromptStatistics(window=window, min_count=min_count)
        assert running.state_dict()["window"] == window
    with pytest.raises(ValueError, match="got 0 and 4"):
        RunningPromptStatistics(window=4, min_count=0)


def test_a_count_that_no_window_can_reach_is_refused():
    with pytest.raises(ValueError, match="expected 1 <= min_count <= window, got 5 and 4"):
        RunningPromptStatistics(window=4, min_count=5)


def test_running_statistics_refuse_rewards_that_are_not_finite():
    running = RunningPromptStatistics()
    with pytest.raises(NumericsError):
        running.advantages(torch.tensor([math.nan]), ["a"])
    assert running.state_dict()["rewards"] == {}
