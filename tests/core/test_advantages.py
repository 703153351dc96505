import json
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from imgalign.advantages import (
    RunningPromptStatistics,
    centred_group_advantages,
    group_advantages,
    group_wins,
    value_advantages,
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


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_an_error_and_not_a_zero(advantages, bad):
    with pytest.raises(NumericsError, match=r"for image 1 \(1 of 3 are not finite\)"):
        advantages(torch.tensor([0.0, bad, 1.0]), torch.zeros(3, dtype=torch.long))


@BOTH
def test_advantages_carry_no_gradient(advantages):
    rewards = torch.tensor([0.0, 1.0], requires_grad=True)
    assert not advantages(rewards, torch.tensor([0, 0])).requires_grad


def test_value_advantages_are_what_the_value_did_not_expect_at_each_step():
    result = value_advantages(torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 1.0], [2.0, 3.0]]))
    assert_close(result, torch.tensor([[0.5, 0.0], [0.0, -1.0]]))


def test_whitened_advantages_have_mean_zero_and_deviation_one_where_steps_count():
    advantages = torch.randn(5, 4, generator=torch.Generator().manual_seed(3)) * 7 + 2
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[:, -1] = False
    result = whitened(advantages.masked_fill(~mask, math.nan), mask)
    assert torch.equal(result[~mask], torch.zeros(5))
    assert_close(result[mask].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    assert_close(result[mask].std(correction=0), torch.tensor(1.0))


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


def test_a_count_that_no_window_can_reach_is_refused():
    with pytest.raises(ValueError, match="expected 1 <= min_count <= window, got 5 and 4"):
        RunningPromptStatistics(window=4, min_count=5)


def test_running_statistics_refuse_rewards_that_are_not_finite():
    running = RunningPromptStatistics()
    with pytest.raises(NumericsError):
        running.advantages(torch.tensor([math.nan]), ["a"])
    assert running.state_dict()["rewards"] == {}
