"""Claims: everything that is compared has the same draws; the push away is limited as asked."""

from itertools import pairwise

import pytest
import torch
from random_walk import RandomWalk
from ranked_batches import CONFIGS, each_config, moved_walk, ranked, run, samples
from torch import Tensor

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.implicit import DrawKey, Rows, Scored, push_limits, spread
from imgalign.errors import ConfigError
from imgalign.policy import LogProb
from imgalign.train.world import Alone

# --- draws


class Noisy(RandomWalk):
    """Log-densities with a noise of the draws, which records them."""

    def __init__(self) -> None:
        super().__init__(num_steps=3, batch_size=64)
        self.seen: list[tuple[bool, Tensor]] = []

    def log_prob(self, data, draws):
        found = super().log_prob(data, draws)
        self.seen.append((self.taken_on is None, draws.noise))
        noise = 100 * draws.noise.flatten(1).mean(dim=1)
        return LogProb(
            values=found.values + noise, kind=found.kind, num_elements=found.num_elements
        )


@each_config
def test_all_candidates_of_a_ranking_have_the_same_draws_under_both_models(name):
    policy = Noisy()
    run(Direct(CONFIGS[name]), policy, ranked())
    (_, reference), (_, current) = policy.seen
    assert {on for on, _ in policy.seen} == {False, True}
    assert torch.equal(reference, current)
    # Rankings of four, four and three candidates, one after the other in some order.
    different, sizes = torch.unique_consecutive(current, dim=0, return_counts=True)
    assert sorted(sizes.tolist()) == [3, 4, 4]
    assert len(torch.unique(different, dim=0)) == 3


def test_held_out_rankings_are_scored_with_the_same_draws_every_time():
    policy, algorithm = Noisy(), Direct(CONFIGS["all pairs"])
    first = algorithm.held_out(policy, ranked(), world=Alone())
    again = algorithm.held_out(policy, ranked(), world=Alone())
    assert first is not None
    assert first == again
    assert all(name.startswith("held_out_") for name in first.metrics)
    draws = [noise for _, noise in policy.seen]
    assert torch.equal(draws[0], draws[-1])


@pytest.mark.parametrize("base", [0, 1, 2**61])
@pytest.mark.parametrize("count", [4, 16, 50])
def test_noise_levels_of_a_batch_are_spread_evenly_wherever_it_begins(base, count):
    # Steps of the golden ratio leave no gap of more than phi / n between neighbours on the circle.
    for first in (0, 7, 1000):
        levels = sorted(spread(base, first + place) for place in range(count))
        gaps = [(after - before) % 1 for before, after in pairwise([*levels, levels[0]])]
        assert 0 <= levels[0] < levels[-1] < 1
        assert max(gaps) < 2.0 / count


def test_other_batches_have_other_noise_levels():
    assert len({spread(base, 0) for base in range(50)}) == 50


def test_held_out_rankings_have_draws_of_their_own_whatever_a_run_draws_besides():
    measured = []
    for seed in range(2):
        torch.manual_seed(seed)
        algorithm, policy = Direct(CONFIGS["all pairs"]), Noisy()
        generator = torch.Generator().manual_seed(seed)
        for _ in algorithm.losses(policy, ranked(), world=Alone(), generator=generator):
            pass
        policy.seen.clear()
        algorithm.held_out(policy, ranked(), world=Alone())
        measured.append(torch.cat([noise for _, noise in policy.seen]))
    assert torch.equal(*measured)


# --- memory


class Counting(RandomWalk):
    """Records the rows of each forward pass, and whether they have gradients."""

    def __init__(self, *, batch_size: int) -> None:
        super().__init__(num_steps=3, batch_size=batch_size)
        self.rows: list[tuple[int, bool]] = []

    def log_prob(self, data, draws):
        self.rows.append((len(data), torch.is_grad_enabled()))
        return super().log_prob(data, draws)


@each_config
@pytest.mark.parametrize("batch_size", [1, 3, 4, 7])
def test_no_forward_pass_has_more_rows_than_the_policys_batch_size(name, batch_size):
    # Rankings of four, four and three candidates with two draws: eight rows are above each size.
    policy = Counting(batch_size=batch_size)
    algorithm = Direct(CONFIGS[name].model_copy(update={"draws": 2}))
    generator, before = torch.Generator().manual_seed(0), 0
    for loss in algorithm.losses(policy, ranked(), world=Alone(), generator=generator):
        with_gradients = sum(rows for rows, graph in policy.rows if graph)
        assert 0 < with_gradients - before <= batch_size  # one graph at a time, not all together
        before = with_gradients
        assert loss.value is not None
    algorithm.held_out(policy, ranked(), world=Alone())
    assert max(rows for rows, _ in policy.rows) <= batch_size


# --- the safeguard


def scored(slopes: Tensor) -> Scored:
    values = torch.zeros(len(slopes))
    return Scored(
        log_prob=LogProb(values=values, kind="elbo", num_elements=2, slopes=slopes),
        log_ratio=values,
    )


def rows_of_one(count: int) -> Rows:
    return Rows(
        data=samples(count),
        keys=[DrawKey(0, 0.0)] * count,
        ranking=torch.zeros(count, dtype=torch.long),
        candidate=torch.arange(count),
        draw=torch.zeros(count, dtype=torch.long),
    )


@pytest.mark.parametrize(
    ("loser", "keep", "expected"),
    [
        ([2.0, 0.0], 0.0, 0.5),  # half of a push of twice the size leaves the pull at nothing
        ([2.0, 0.0], 0.5, 0.25),  # and a quarter of it leaves a half
        ([0.5, 0.0], 0.0, 1.0),  # less than the pull: no limit
        ([0.0, 9.0], 0.9, 1.0),  # at right angles
        ([-1.0, 0.0], 0.9, 1.0),  # it helps
    ],
)
def test_the_push_is_limited_to_what_leaves_a_share_of_the_pull(loser, keep, expected):
    slopes = torch.tensor([[1.0, 0.0], loser])
    limit = push_limits(torch.tensor([[-1.0, 1.0]]), scored(slopes), rows_of_one(2), keep=keep)
    assert limit.tolist() == pytest.approx([expected])


def test_a_policy_without_slopes_cannot_have_the_safeguard():
    config = CONFIGS["ranking"].model_copy(update={"keep_chosen": 0.5})
    with pytest.raises(ConfigError, match=r"algorithm\.keep_chosen"):
        run(Direct(config), moved_walk(), ranked())
