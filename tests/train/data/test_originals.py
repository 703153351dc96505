"""Claims: a share of each group is the prompt as it is, scored like rewrites. Methods that learn
from given samples learn from it, and a policy gradient only compares with it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from language_runs import write_talker
from policies import language
from torch import Tensor
from torch.testing import assert_close

from imgalign.advantages import group_advantages
from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.policy_gradient import GRPOConfig, PolicyGradient
from imgalign.algorithms.rankings import ranked_rollout
from imgalign.algorithms.supervised import Supervised, SupervisedConfig
from imgalign.config import load_config
from imgalign.errors import ConfigError, InputError
from imgalign.language.policy import LanguagePolicy
from imgalign.prompts import Prompts, training_seed
from imgalign.runs.world import Alone
from imgalign.train.config import TrainConfig
from imgalign.train.data.rollouts import Rollouts, RolloutsConfig
from imgalign.train.data.source import Parts

PROMPTS = ("a boat", "the green tree", "a red house")
LENGTH = 24


class Same:
    """Likes texts that are the prompt most, and others by their length; remembers what it saw."""

    def __init__(self):
        self.seen: list[tuple[str, str]] = []

    def score(self, *, prompts: Sequence[str], samples: Sequence[str]) -> Tensor:
        pairs = list(zip(prompts, samples, strict=True))
        self.seen += pairs
        return torch.tensor([100.0 if one == two else float(len(two)) for one, two in pairs])


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> LanguagePolicy:
    folder = write_talker(tmp_path_factory.mktemp("talker") / "model")
    return language(folder, max_new_tokens=LENGTH, batch_size=4)


def source(policy: LanguagePolicy, reward: Any, *, share: float = 0.5, size: int = 4) -> Rollouts:
    config = RolloutsConfig(prompts_per_iteration=2, group_size=size, original_share=share)
    return config.build(
        Parts(
            policy=policy,
            reward=reward,
            prompts=Prompts(PROMPTS, ()),
            run=Path(),
            seed=3,
            world=Alone(),
        )
    )


def test_a_share_of_each_group_is_the_prompt_scored_for_itself(policy):
    reward = Same()
    rollout = source(policy, reward).batch(1)
    assert len(rollout) == 4
    data = rollout.beside.data
    assert data.prompt_ids == [each for each in dict.fromkeys(rollout.prompt_ids) for _ in "ab"]
    assert rollout.beside.rewards.tolist() == [100.0] * 4
    assert [one for one, two in reward.seen if one == two] == data.prompt_ids[::2]
    expected = policy.encode(data.prompts, data.prompts)
    assert torch.equal(data.content["tokens"], expected.content["tokens"])
    assert rollout.metrics(Alone())["beside_reward_mean"] == 100.0
    assert rollout.metrics(Alone())["reward_max"] < 100.0


def test_the_samples_of_the_policy_have_the_seeds_that_they_have_without_originals(policy):
    rollout, plain = (source(policy, Same(), share=share).batch(1) for share in (0.5, 0.0))
    assert plain.beside is None
    seeds = [seed for trajectory in rollout.batch for seed in trajectory.seeds]
    assert seeds == [training_seed(3, 8 + number) for number in (0, 1, 4, 5)]


@pytest.mark.parametrize(("share", "size", "count"), [(0.01, 4, 1), (0.5, 4, 2), (0.125, 8, 1)])
def test_above_zero_there_is_at_least_one(share, size, count):
    assert RolloutsConfig(original_share=share, group_size=size).num_originals == count


def test_originals_are_candidates_of_their_rankings(policy):
    rollout = source(policy, Same(), share=0.25).batch(0)
    ranked = ranked_rollout(policy, rollout)
    assert ranked.index.tolist() == [[0, 1, 2, 6], [3, 4, 5, 7]]
    assert ranked.ranks[:, 3].tolist() == [0, 0]
    assert (ranked.ranks[:, :3] > 0).all()
    best = ranked.data.select([6, 7])
    assert torch.equal(best.content["tokens"], rollout.beside.data.content["tokens"])


def test_the_best_of_a_group_may_be_the_prompt_as_it_is(policy):
    rollout = source(policy, Same(), share=0.25).batch(0)
    data, weights = Supervised(SupervisedConfig()).weighted(policy, rollout, Alone())
    assert torch.equal(data.content["tokens"], rollout.beside.data.content["tokens"])
    assert weights.tolist() == [4.0, 4.0]


def graded(rollout: Rollout, own: list[float], beside: list[float]) -> Rollout:
    given = replace(rollout.beside, rewards=torch.tensor(beside))
    return replace(rollout, rewards=torch.tensor(own), beside=given)


@pytest.mark.parametrize("kind", ["group", "rank"])
def test_a_policy_gradient_compares_with_originals_and_does_not_learn_from_them(policy, kind):
    rollout = source(policy, Same(), share=0.25).batch(0)
    rewards = [1.0, 2.0, 3.0, 5.0, 5.0, 8.0]
    rollout = graded(rollout, rewards, [6.0, 0.0])
    config = GRPOConfig.model_validate({"baseline": {"kind": kind, "normalise": "none"}})
    assessment = PolicyGradient(config, seed=0).assess(policy, rollout, world=Alone())
    rows = zip(torch.cat(assessment.advantages), rollout_masks(assessment), strict=True)
    found = torch.stack([own[there].mean() for own, there in rows])
    if kind == "group":  # less the mean of all four: 3 and 4.5
        expected = [-2.0, -1.0, 0.0, 0.5, 0.5, 3.5]
    else:  # quarters of the group that are beaten, a tie and itself by half, less the mean of 1/2
        expected = [-3 / 8, -1 / 8, 1 / 8, 0.0, 0.0, 3 / 8]
    assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)
    assert sum(map(len, assessment.batch)) == 6


def rollout_masks(assessment: Any) -> Tensor:
    return torch.cat([trajectory.mask for trajectory in assessment.batch])


def test_with_originals_a_group_is_standardised_over_all_of_it(policy):
    rollout = graded(source(policy, Same(), share=0.25).batch(0), [1.0, 2.0, 3.0] * 2, [6.0, 2.0])
    assessment = PolicyGradient(GRPOConfig(), seed=0).assess(policy, rollout, world=Alone())
    found = [
        own[there][0].item()
        for own, there in zip(
            torch.cat(assessment.advantages), rollout_masks(assessment), strict=True
        )
    ]
    both = [
        group_advantages(torch.tensor([1.0, 2.0, 3.0, last]), torch.zeros(4).long())[:3]
        for last in (6.0, 2.0)
    ]
    assert found == pytest.approx(torch.cat(both).tolist(), abs=1e-6)


def test_an_original_without_a_finite_reward_changes_nothing(policy):
    rollout = graded(
        source(policy, Same(), share=0.25).batch(0), [1.0, 2.0, 3.0] * 2, [torch.nan] * 2
    )
    alone = replace(rollout, beside=None)
    one, other = (
        PolicyGradient(GRPOConfig(), seed=0).assess(policy, each, world=Alone())
        for each in (rollout, alone)
    )
    assert_close(torch.cat(one.advantages), torch.cat(other.advantages))
    assert ranked_rollout(policy, rollout).index.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_prompt_that_is_too_long_for_a_sample_is_refused_at_the_start(policy):
    parts = Parts(
        policy=policy,
        reward=Same(),
        prompts=Prompts((*PROMPTS, "a boat and a boat and a boat and a boat"), ()),
        run=Path(),
        seed=3,
        world=Alone(),
    )
    RolloutsConfig().build(parts)
    with pytest.raises(InputError, match=r"policy\.max_new_tokens is 24"):
        RolloutsConfig(original_share=0.1).build(parts)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "whose samples are images and no prompts"),
        (["policy.kind=language", "algorithm={name: ppo}"], "which compares with no group"),
        (["policy.kind=language", "data.group_size=1"], "and none of the policy"),
    ],
)
def test_a_share_without_effect_is_refused(overrides, message):
    with pytest.raises(ConfigError, match=r"data\.original_share") as error:
        load_config(TrainConfig, None, ["data.original_share=0.5", *overrides])
    assert message in str(error.value)
