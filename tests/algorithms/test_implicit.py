"""Claims: everything that is compared has the same draws; the push away is limited as asked; what
is measured follows from the log-ratios."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from random_walk import RandomWalk
from ranked_batches import CONFIGS, each_config, log_ratios, moved_walk, ranked, run, samples
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.implicit import DrawKey, Rows, Scored, push_limits, spread
from imgalign.algorithms.rankings import RankedBatch
from imgalign.errors import ConfigError
from imgalign.policy import LogProb
from imgalign.runs.world import Alone

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


class Sloped(RandomWalk):
    """Its output is the mean of where it ends, which all samples share."""

    def log_prob(self, data, draws):
        away = data.content["latents"] - self.moves.sum(dim=0).detach()
        return replace(super().log_prob(data, draws), slopes=away / variance_of(self))


def variance_of(policy: RandomWalk) -> Tensor:
    """Of where it ends, in each element."""
    return 1 + policy.sigma.square().sum()


ASIDE, ACROSS = torch.zeros(2, 3, 2, 2)
ASIDE[0], ACROSS[1] = 0.5, 0.5
"""Places of samples, at right angles, away from the mean of a walk that has not moved."""


def placed(*places: Tensor) -> RankedBatch:
    """Rankings of two samples at these places, the better one first."""
    batch = ranked(torch.tensor([[0, 1]] * (len(places) // 2)))
    return replace(batch, data=replace(batch.data, content={"latents": torch.stack(places)}))


def with_safeguard(keep: float | None) -> Direct:
    return Direct(CONFIGS["all pairs"].model_copy(update={"keep_chosen": keep}))


@pytest.mark.parametrize("batch_size", [64, 1])
@pytest.mark.parametrize(("keep", "limit"), [(None, 1.0), (0.25, 0.25), (0.7, 0.1), (0.0, 1 / 3)])
def test_a_gradient_is_the_pull_and_as_much_of_the_push_as_the_limit_of_its_ranking(
    keep, limit, batch_size
):
    policy = moved_walk(by=0.0, kind=Sloped, batch_size=batch_size)
    # The push of the first ranking is three times its pull, and a part at right angles; that of the
    # second one helps its pull.
    batch = placed(ASIDE, 3 * ASIDE + ACROSS, ACROSS, -ACROSS)
    algorithm = with_safeguard(keep)
    gradient = run(algorithm, policy, batch)
    pull, push = -ASIDE - ACROSS, limit * (3 * ASIDE + ACROSS) - ACROSS
    # At a margin of 0 each sample has half of its slope; divided by its 12 elements and the number
    # of rankings.
    expected = (pull + push) / variance_of(policy) / 2 / 12 / 2
    assert_close(gradient, expected.expand_as(gradient), rtol=1e-4, atol=1e-7)
    assert algorithm.metrics()["push_limit"] == pytest.approx((limit + 1) / 2)


@pytest.mark.parametrize(("keep", "sign"), [(None, 1), (0.25, -1)])
def test_a_small_step_raises_the_error_of_the_better_one_only_without_the_safeguard(keep, sign):
    policy = moved_walk(by=0.0, kind=Sloped)
    gradient = run(with_safeguard(keep), policy, placed(ASIDE, 3 * ASIDE + ACROSS))
    before, after = (
        (ASIDE - policy.moves.sum(dim=0) + step * gradient.sum(dim=0)).square().sum().item()
        for step in (0.0, 0.1)
    )
    assert sign * (after - before) > 1e-4


# --- what is measured


def test_metrics_of_training_and_of_held_out_rankings_follow_from_the_log_ratios():
    policy, batch, algorithm = moved_walk(), ranked(), Direct(CONFIGS["all pairs"])
    batch.weights.copy_(torch.tensor([1.0, 0.5, 2.0]))
    first, second, third = log_ratios(policy, batch).detach().tolist()
    pairs = [
        [(first[better], first[worse]) for better in range(4) for worse in range(better + 1, 4)],
        [(second[better], second[worse]) for better in (0, 1) for worse in (2, 3)],
        [(third[better], third[worse]) for better, worse in ((1, 2), (1, 0), (2, 0))],
    ]
    each = [0.5 * torch.tensor([better - worse for better, worse in own]) for own in pairs]
    margins = torch.cat(each)
    losses = [-own.sigmoid().log().mean().item() for own in each]
    measured = {
        "preference_loss": (losses[0] + 0.5 * losses[1] + 2 * losses[2]) / 3.5,
        "implicit_accuracy": sum(margin > 0 for margin in margins.tolist()) / 13,
        "implicit_margin": margins.mean().item(),
        "chosen_log_ratio": (first[0] + second[0] + second[1] + third[1]) / 4,
        "rejected_log_ratio": (first[3] + second[2] + second[3] + third[0]) / 4,
    }
    only_training = {
        "negative_margins": sum(margin < 0 for margin in margins.tolist()) / 13,
        "gradient_factor": (1 / (1 + margins.exp())).mean().item(),
        "push_limit": 1.0,
        "beta": 0.5,
    }
    held_out = algorithm.held_out(policy, batch, world=Alone())
    assert held_out is not None
    run(algorithm, policy, batch)
    # Log-ratios are small differences of large float32 numbers.
    assert algorithm.metrics() == pytest.approx(measured | only_training, rel=1e-3)
    expected = {f"held_out_{name}": value for name, value in measured.items()}
    assert held_out.metrics == pytest.approx(expected, rel=1e-3)
    assert held_out.loss == pytest.approx(measured["preference_loss"], rel=1e-3)
