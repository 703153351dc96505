"""Claims: what counts to direct methods: ties, all bad, likes, rankings of held-out prompts."""

import math
from dataclasses import replace

import pytest
import torch
from ranked_batches import (
    CONFIGS,
    RANKS,
    moved_walk,
    ranked,
    run,
)
from torch.testing import assert_close

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.direct import TIE_START, Direct
from imgalign.algorithms.objectives import (
    DPOConfig,
)
from imgalign.algorithms.rankings import (
    best,
    better_pairs,
    has_tie,
    ranked_rollout,
    worst,
)
from imgalign.errors import NumericsError
from imgalign.runs.world import Alone


def test_all_that_is_judged_all_bad_is_disliked_by_kto_and_left_out_by_others():
    ranks = torch.tensor([[0, 1], [-1, -1]])
    batch = ranked(ranks, all_bad=[1])
    policy = moved_walk()
    only = ranked(ranks[:1])
    for name in ("ranking", "all pairs", "ipo"):
        gradient = run(Direct(CONFIGS[name]), policy, batch)
        assert_close(gradient, run(Direct(CONFIGS[name]), policy, only))
    kto = Direct(CONFIGS["kto"])
    gradient = run(kto, policy, batch)
    assert not torch.allclose(gradient, run(Direct(CONFIGS["kto"]), policy, only))


def test_where_no_image_is_preferred_to_another_what_compares_them_is_not_measured():
    bad = ranked(torch.tensor([[-1, -1]]), all_bad=[0])
    kto = Direct(CONFIGS["kto"])
    run(kto, moved_walk(), bad)
    measured = kto.held_out(moved_walk(), bad, world=Alone())
    assert measured is not None
    for found in (kto.metrics(), measured.metrics):
        names = {name.removeprefix("held_out_") for name in found}
        assert {"preference_loss", "rejected_log_ratio"} <= names
        assert not {"implicit_accuracy", "implicit_margin", "chosen_log_ratio"} & names
    ties = ranked(torch.tensor([[0, 0, 0]]))
    for name in ("ranking", "all pairs", "ipo", "kto"):
        assert Direct(CONFIGS[name]).held_out(moved_walk(), ties, world=Alone()) is None


def test_ties_alone_teach_pairwise_methods_nothing_and_that_is_said(caplog):
    batch, generator = ranked(torch.tensor([[0, 0, 0]])), torch.Generator().manual_seed(0)
    for name in ("all pairs", "best and worst", "ipo", "kto"):
        algorithm, policy = Direct(CONFIGS[name]), moved_walk()
        run(algorithm, policy, ranked())
        caplog.clear()
        assert not list(algorithm.losses(policy, batch, world=Alone(), generator=generator))
        assert algorithm.metrics() == {}
        assert "no ranking of this iteration prefers a sample to another" in caplog.text


def test_samples_without_any_finite_reward_end_a_run():
    policy = moved_walk()
    trajectory = policy.sample(["a", "a"], seeds=[0, 1])
    rollout = Rollout(batch=[trajectory], rewards=torch.full((2,), torch.nan))
    algorithm, generator = Direct(CONFIGS["ranking"]), torch.Generator().manual_seed(0)
    with pytest.raises(NumericsError, match="no sample of this iteration has a finite reward"):
        list(algorithm.losses(policy, rollout, world=Alone(), generator=generator))


def test_ties_become_as_likely_as_they_are():
    # Two of three rankings of two equals are ties: delta / (2 + delta) = 2/3, so delta = 4.
    batch = ranked(torch.tensor([[0, 0], [0, 0], [0, 1]]))
    algorithm, policy = Direct(CONFIGS["ranking"]), moved_walk(by=0.0)
    for _ in range(100):
        run(algorithm, policy, batch)
    assert algorithm.log_tie == pytest.approx([math.log(4)], abs=0.01)


def test_a_held_out_loss_moves_with_the_policy_alone():
    """What ties weigh is learned from the first step on, and would let any loss fall."""
    algorithm, policy, measured = Direct(CONFIGS["ranking"]), moved_walk(), ranked(RANKS)
    before = algorithm.held_out(policy, measured, world=Alone())
    for _ in range(5):
        run(algorithm, policy, ranked(RANKS[1:]))
    assert max(algorithm.log_tie) > TIE_START + 0.5
    after = algorithm.held_out(policy, measured, world=Alone())
    assert before.loss == after.loss
    with torch.no_grad():
        policy.shift.mul_(1.5)
    assert algorithm.held_out(policy, measured, world=Alone()).loss != before.loss


def test_a_held_out_loss_of_likes_and_dislikes_moves_with_the_policy_alone():
    """Its baseline is the mean log-ratio of what is held out, and not that of the last step."""
    measured = ranked(torch.tensor([[0, 1, 2], [-1, -1, -1]]), all_bad=[1])
    algorithm, policy = Direct(CONFIGS["kto"]), moved_walk()
    with torch.no_grad():  # towards all samples, so that the baseline is above its least, 0
        policy.shift.add_(0.1 * measured.data.content["latents"].mean(dim=0))
    before = algorithm.held_out(policy, measured, world=Alone())
    run(algorithm, policy, ranked(RANKS))
    assert algorithm.baseline > 0
    assert algorithm.held_out(policy, measured, world=Alone()).loss == before.loss


def test_there_is_no_held_out_loss_to_compare_until_beta_is_fixed_but_at_the_start():
    beta = {"kind": "auto", "steps": 2}
    algorithm = Direct(DPOConfig.model_validate({"compare": "all_pairs", "beta": beta}))
    start = algorithm.held_out(moved_walk(by=0.0), ranked(), world=Alone())
    assert start.loss == pytest.approx(math.log(2))
    policy, losses = moved_walk(), []
    for _ in range(3):
        found = algorithm.held_out(policy, ranked(), world=Alone())
        assert found.metrics.get("held_out_preference_loss") == found.loss
        assert "held_out_implicit_accuracy" in found.metrics
        losses.append(found.loss)
        run(algorithm, policy, ranked())
    assert losses[:2] == [None, None]
    assert abs(losses[2] - math.log(2)) > 1e-3


def test_ties_are_reckoned_with_where_any_ranking_of_the_data_has_one():
    batch = replace(ranked(torch.tensor([[0, 1, 2]])), ties=True)
    algorithm, policy = Direct(CONFIGS["ranking"]), moved_walk(by=0.0)
    run(algorithm, policy, batch)
    assert len(algorithm.log_tie) == 2
    assert algorithm.metrics()["preference_loss"] > math.log(6)
    alone = Direct(CONFIGS["ranking"])
    run(alone, policy, replace(batch, ties=None))
    assert alone.log_tie == []
    assert alone.metrics()["preference_loss"] == pytest.approx(math.log(6))


@pytest.mark.parametrize(
    ("ranks", "tied"),
    [([[0, 1, 2]], False), ([[0, 1, 1]], True), ([[0, -1, -1]], False), ([[-1, 2, 0, 2]], True)],
)
def test_a_tie_is_of_two_that_were_ranked(ranks, tied):
    assert has_tie(torch.tensor(ranks)) is tied


def test_the_best_and_worst_of_a_ranking_share_their_places():
    assert best(RANKS).tolist()[1] == [True, True, False, False]
    assert worst(RANKS).tolist()[1] == [False, False, True, True]
    assert better_pairs(RANKS).sum().item() == 6 + 4 + 3
    assert better_pairs(RANKS, extremes=True).sum().item() == 1 + 4 + 1
    assert not best(torch.tensor([[0, 0]])).any()  # nothing is worse


def test_samples_of_a_policy_are_ranked_by_their_rewards_within_a_prompt():
    policy = moved_walk()
    trajectory = policy.sample(["a", "b", "a", "b", "a"], seeds=range(5))
    rewards = torch.tensor([0.5, 1.0, 2.0, math.nan, 0.5])
    batch = ranked_rollout(policy, Rollout(batch=[trajectory], rewards=rewards))
    assert batch.index.tolist() == [[0, 2, 4], [1, -1, -1]]
    assert batch.ranks.tolist() == [[1, 0, 1], [0, -1, -1]]
