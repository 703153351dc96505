"""Claims: the reference of implicit rewards follows the policy at the times that are set, never
beyond its bound; whatever else compares with the pretrained model goes on to do so."""

from itertools import pairwise

import pytest
import torch
from random_walk import RandomWalk
from ranked_batches import CONFIGS, FIXED, RANKS, log_ratios, moved_walk, ranked, run
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.objectives import DPOConfig, KTOConfig
from imgalign.algorithms.rankings import best
from imgalign.algorithms.refresh import Refresh, RefreshConfig
from imgalign.errors import CheckpointError
from imgalign.runs.world import Alone


def refreshed(*, every: int = 1, max_nats: float = 1e6) -> Direct:
    refresh = {"every": every, "max_nats": max_nats}
    return Direct(DPOConfig.model_validate({"beta": FIXED, "refresh": refresh}))


def step(algorithm: Direct, policy: RandomWalk, *, size: float = 0.5) -> Tensor:
    """One optimizer step, of plain gradient descent; the log-ratios to the pretrained before it."""
    before = log_ratios(policy, ranked()).detach()
    gradient = run(algorithm, policy, ranked())
    with torch.no_grad():
        policy.shift.sub_(size * gradient / gradient.norm())
    return before


def size_of(log_ratio: Tensor) -> float:
    return log_ratio[best(RANKS)].abs().mean().item()


def test_every_so_many_steps_it_refreshes_if_the_sum_of_distances_stays_within_the_bound():
    policy = RandomWalk(num_steps=3)
    refresh = Refresh(RefreshConfig(every=3, max_nats=1.0))
    taken = []
    for number, size in enumerate(
        [9, 9, 0.4, 9, 9, 0.5, 0, 0, 0.2, 0, 0, None, 0, 0, 0.1], start=1
    ):
        with torch.no_grad():
            policy.shift.fill_(number)
        refresh.after_scoring(policy, size)
        taken.append(int(policy.remembered[0].mean()) if policy.remembered else 0)
    # 0.4 + 0.5 + 0.2 is too much, 0.4 + 0.5 + 0.1 is not; of the fourth time nothing is known.
    assert taken == [0, 0, 3, 3, 3, 6, 6, 6, 6, 6, 6, 6, 6, 6, 15]
    assert refresh.distance == pytest.approx(1.0)


def test_implicit_rewards_are_of_the_policy_that_was_taken_before_its_step():
    policy, algorithm = moved_walk(), refreshed(every=2)
    ratios = [step(algorithm, policy) for _ in range(3)]
    # At the third step the reference is the policy that the second one started from.
    found = algorithm.metrics()["chosen_log_ratio"]
    expected = (ratios[2] - ratios[1])[best(RANKS)].mean().item()
    assert abs(expected) > 0.01
    assert found == pytest.approx(expected, rel=1e-3)
    assert algorithm.metrics()["reference_distance"] == pytest.approx(size_of(ratios[1]), rel=1e-4)


def test_the_distance_that_is_counted_bounds_the_true_one():
    policy, algorithm = moved_walk(by=0.0), refreshed()
    ratios, counted = [], []
    for _ in range(6):
        ratios.append(step(algorithm, policy))
        counted.append(algorithm.metrics()["reference_distance"])
    apart = [after - before for before, after in pairwise(ratios)]
    assert counted[0] == 0
    assert counted[-1] == pytest.approx(sum(map(size_of, apart)), rel=1e-3)
    assert 0 < size_of(ratios[-1]) < counted[-1]
    bounded = refreshed(max_nats=counted[2])
    policy = moved_walk(by=0.0)
    distances = []
    for _ in range(6):
        step(bounded, policy)
        distances.append(bounded.metrics()["reference_distance"])
    assert distances[:3] == counted[:3]
    assert max(distances) == counted[2]


def test_held_out_rankings_keep_the_pretrained_model_as_their_reference():
    policy, algorithm = moved_walk(), refreshed()
    step(algorithm, policy)
    assert policy.remembered
    plain = Direct(CONFIGS["ranking"])
    plain.log_tie = list(algorithm.log_tie)
    found, expected = (
        each.held_out(policy, ranked(), world=Alone()) for each in (algorithm, plain)
    )
    assert found == expected
    assert found is not None
    assert_close(
        found.metrics["held_out_chosen_log_ratio"],
        log_ratios(policy, ranked())[best(RANKS)].mean().item(),
        rtol=0,
        atol=1e-5,
    )


def test_where_nothing_is_chosen_the_reference_stays():
    config = {"beta": FIXED, "refresh": {"every": 1, "max_nats": 1e6}}
    policy, algorithm = moved_walk(), Direct(KTOConfig.model_validate(config))
    run(algorithm, policy, ranked(torch.full((2, 3), -1), all_bad=[0, 1]))
    assert not policy.remembered


def test_a_run_with_a_refresh_does_not_go_on_without_and_none_from_one_without():
    with_one, without = refreshed(), Direct(CONFIGS["ranking"])
    for one, other in ((with_one, without), (without, with_one)):
        with pytest.raises(CheckpointError):
            one.load_state_dict(other.state_dict())
    with pytest.raises(CheckpointError, match="refresh"):
        with_one.load_state_dict({**with_one.state_dict(), "refresh": {"steps": 1}})
