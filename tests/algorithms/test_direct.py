"""Claims: implicit rewards compare policy and pretrained model with the same draws; each objective
is the published one at the start and in its gradient; a batch can be cut in any way."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from drawn import normal
from random_walk import RandomWalk
from ranked_batches import (
    CONFIGS,
    RANKS,
    each_config,
    log_ratios,
    moved_walk,
    ranked,
    run,
)
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import Parameter
from torch.testing import assert_close

from imgalign.algorithms.beta import PerNatConfig
from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.direct import TIE_RATE, TIE_START, Direct
from imgalign.algorithms.objectives import (
    AnyDirectConfig,
    DPOConfig,
    has_preference,
    objective,
)
from imgalign.algorithms.rankings import (
    RankedBatch,
    best,
    worst,
)
from imgalign.errors import CheckpointError
from imgalign.policy import LogProb

# --- at the start


AT_START = {
    # 24 orders; of pairs log 2; a margin of 0 where 1 was asked for; a half of each sample.
    "ranking": math.log(24),
    "all pairs": math.log(2),
    "best and worst": math.log(2),
    "ipo": 0.25,
    "kto": 0.5,
    "cardinal": 0.0,
}
"""The loss of one ranking of four where policy and pretrained model agree."""


def test_the_tables_of_the_direct_methods_leave_out_none():
    tried = {type(config) for config in CONFIGS.values()}
    missing = {kind.__name__ for kind in get_args(AnyDirectConfig)} - {t.__name__ for t in tried}
    assert not missing, f"add rows to CONFIGS of tests/stand_ins/ranked_batches.py: {missing}"
    assert CONFIGS.keys() == AT_START.keys(), "add to AT_START the losses of new rows of CONFIGS"


@each_config
def test_the_loss_of_a_policy_that_is_the_pretrained_model_is_known(name):
    expected, algorithm = AT_START[name], Direct(CONFIGS[name])
    run(algorithm, moved_walk(by=0.0), ranked(RANKS[:1]))
    assert algorithm.metrics()["preference_loss"] == pytest.approx(expected, abs=1e-6)
    assert algorithm.metrics()["implicit_accuracy"] == 0.5
    assert algorithm.metrics()["gradient_factor"] == 0.5


@each_config
def test_the_first_step_raises_the_best_against_the_worst(name):
    policy, batch = moved_walk(by=0.0), ranked()
    gradient = run(Direct(CONFIGS[name]), policy, batch)
    with torch.no_grad():
        policy.shift.sub_(0.1 * gradient / gradient.norm())
    ratio = log_ratios(policy, batch).detach()
    assert ratio[best(RANKS)].mean() > ratio[worst(RANKS)].mean()


@each_config
def test_the_first_gradient_is_the_same_whatever_beta(name):
    """As docs/algorithms/direct.md says: an objective is one of beta times log-ratios."""
    batch, policy = ranked(), moved_walk(by=0.0)
    configs = [
        CONFIGS[name].model_copy(update={"beta": PerNatConfig(value=beta)}) for beta in (0.05, 5.0)
    ]
    small, large = (run(Direct(config), policy, batch) for config in configs)
    assert small.abs().max() > 1e-3
    assert_close(small, large)


# --- its gradient


TEMPERATURE, LARGEST = 0.7, 2.0
"""Of the regression on scores."""
ALL_PAIRS = ("all pairs", "ipo")
"""Rows of CONFIGS that do not compare the best with the worst alone."""


def expected_loss(name: str, ratio: Tensor, batch: RankedBatch, *, beta: float) -> Tensor:
    """The published loss of each ranking, written out for one ranking at a time."""
    losses = []
    for number, (row, ranks) in enumerate(zip(ratio, batch.ranks.tolist(), strict=True)):
        groups = [[i for i, rank in enumerate(ranks) if rank == place] for place in range(4)]
        groups = [group for group in groups if group]
        pairs = [
            (i, j)
            for place, group in enumerate(groups)
            for i in group
            for other in groups[place + 1 :]
            for j in other
            if name in ALL_PAIRS or (place == 0 and other is groups[-1])
        ]
        margins = torch.stack([row[i] - row[j] for i, j in pairs])
        if name == "ipo":
            losses.append((beta**2 * (margins - 1 / (2 * beta)) ** 2).mean())
        elif name == "kto":
            liked = 1 - torch.sigmoid(beta * row[groups[0]])
            disliked = 1 - torch.sigmoid(-beta * row[groups[-1]])
            losses.append(torch.cat([liked, disliked]).mean())
        elif name == "cardinal":
            k = sum(rank >= 0 for rank in ranks)
            wanted = [math.exp(score / TEMPERATURE) for score in batch.scores[number, :k].tolist()]
            advantages = [each / sum(wanted) - 1 / k for each in wanted]
            reward = beta * row[:k]
            gained = sum(own * each for own, each in zip(advantages, reward, strict=True))
            losses.append((k - 1) / (2 * LARGEST) * reward.square().mean() - gained)
        elif name in ("all pairs", "best and worst"):
            losses.append(-torch.sigmoid(beta * margins).log().mean())
        else:
            pytest.fail(f"write here the published loss of {name!r}, a row of CONFIGS")
    return torch.stack(losses)


@pytest.mark.parametrize("draws", [1, 2])
# Whole rankings are compared with other implementations, in tests/core/test_plackett_luce.py.
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "ranking"])
def test_loss_and_gradient_are_those_of_the_paper(name, draws):
    policy, batch = moved_walk(), ranked()
    changes: dict[str, object] = {"draws": draws}
    if name == "cardinal":
        changes |= {"temperature": TEMPERATURE, "largest": LARGEST}
    algorithm = Direct(CONFIGS[name].model_copy(update=changes))
    gradient = run(algorithm, policy, batch)
    loss = expected_loss(name, log_ratios(policy, batch), batch, beta=0.5).mean()
    assert algorithm.metrics()["preference_loss"] == pytest.approx(loss.item(), rel=1e-5)
    (expected,) = torch.autograd.grad(loss, policy.shift)
    # Divided by beta and by the 12 elements of a sample.
    assert_close(gradient, expected / (0.5 * 12), rtol=1e-4, atol=1e-7)


def test_a_like_and_a_dislike_cost_their_weights_times_the_chance_of_the_other():
    third = 2 * math.log(3)  # times beta, the log-odds of 3 to 1
    log_ratio = torch.tensor([[1 + third, 1 - third], [1 + third, 1.0], [1 + third, 1.0]])
    batch = ranked(torch.tensor([[0, 1], [-1, -1], [-1, -1]]), all_good=[1], all_bad=[2])
    weights = {"desirable_weight": 3.0, "undesirable_weight": 0.5}
    config = CONFIGS["kto"].model_copy(update=weights)
    losses = objective(config, log_ratio, batch, beta=0.5, log_tie=torch.zeros(0), baseline=1.0)
    expected = [(3 / 4 + 0.5 / 4) / 2, (3 / 4 + 3 / 2) / 2, (0.5 * 3 / 4 + 0.5 / 2) / 2]
    assert_close(losses, torch.tensor(expected))


WITH_ALL_BAD = torch.cat([RANKS, torch.full((1, 4), -1)])


@each_config
def test_the_gradient_of_each_objective_matches_finite_differences(name):
    batch = ranked(WITH_ALL_BAD, all_bad=[3])
    batch = batch.select(has_preference(CONFIGS[name], batch).nonzero().squeeze(1))
    ratio = normal(batch.num_rankings, 4).requires_grad_()
    ties = normal(3, seed=1).requires_grad_()

    def losses(ratio: Tensor, ties: Tensor) -> Tensor:
        return objective(CONFIGS[name], ratio, batch, beta=0.5, log_tie=ties, baseline=0.2)

    assert gradcheck(losses, (ratio, ties))
    (gradient,) = torch.autograd.grad(losses(ratio, ties).sum(), ratio)
    assert not gradient[~batch.present].any()
    assert gradient[batch.present].any()


@each_config
@pytest.mark.parametrize("sft", [0.0, 0.3])
def test_an_iteration_has_the_gradient_of_its_objective_by_finite_differences(name, sft):
    config = CONFIGS[name].model_copy(update={"sft": sft})
    batch, algorithm, policy = ranked(WITH_ALL_BAD, all_bad=[3]), Direct(config), moved_walk()
    batch.weights.copy_(torch.tensor([1.0, 0.5, 2.0, 1.5]))
    gradient = run(algorithm, policy, batch)
    learned = batch.select(has_preference(config, batch).nonzero().squeeze(1))

    def loss(shift: Tensor, ties: Tensor) -> Tensor:
        moved = moved_walk()
        moved.shift = Parameter(shift)
        ratio = log_ratios(moved, learned).detach()
        each = objective(config, ratio, learned, beta=0.5, log_tie=ties, baseline=0.0)
        for row, ranks in enumerate(learned.ranks):
            if sft and ranks.max() > 0:
                each[row] -= sft * 0.5 * ratio[row][ranks == 0].mean()
        return (learned.weights * each).sum() / learned.weights.sum()

    shift = policy.shift.detach().double()
    ties = torch.full((3,), TIE_START, dtype=torch.float64)
    expected = slopes(lambda moved: loss(moved, ties), shift)
    # Divided by beta and by the 12 elements of a sample; log-ratios are float32.
    assert_close(gradient.double(), expected / (0.5 * 12), rtol=1e-3, atol=1e-6)
    found = (TIE_START - torch.tensor(algorithm.log_tie).double()) / TIE_RATE
    assert_close(found, slopes(lambda moved: loss(shift, moved), ties), rtol=1e-4, atol=1e-6)


def slopes(function: Callable[[Tensor], Tensor], place: Tensor) -> Tensor:
    """The gradient by central differences."""
    steps = 1e-5 * torch.eye(place.numel(), dtype=place.dtype).view(-1, *place.shape)
    found = [(function(place + step) - function(place - step)) / 2e-5 for step in steps]
    return torch.stack(found).view_as(place)


def test_a_ranking_of_two_is_dpo():
    policy, batch = moved_walk(), ranked(torch.tensor([[0, 1], [1, 0]]))
    listwise, pairwise = Direct(CONFIGS["ranking"]), Direct(CONFIGS["all pairs"])
    assert_close(run(listwise, policy, batch), run(pairwise, policy, batch))
    assert listwise.metrics()["preference_loss"] == pytest.approx(
        pairwise.metrics()["preference_loss"]
    )


@each_config
def test_a_constant_added_to_both_models_changes_nothing(name):
    class Shifted(RandomWalk):
        def log_prob(self, data, draws):
            found = super().log_prob(data, draws)
            return LogProb(
                values=found.values + 100, kind=found.kind, num_elements=found.num_elements
            )

    plain, shifted = moved_walk(), Shifted(num_steps=3, batch_size=64)
    with torch.no_grad():
        shifted.shift.copy_(plain.shift)
    assert_close(
        run(Direct(CONFIGS[name]), shifted, ranked()),
        run(Direct(CONFIGS[name]), plain, ranked()),
        rtol=1e-3,
        atol=1e-6,
    )


@each_config
def test_the_order_of_candidates_and_rankings_changes_nothing(name):
    batch, policy = ranked(), moved_walk()
    rows, columns = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    mixed = RankedBatch(
        data=batch.data,
        index=batch.index[rows][:, columns],
        ranks=batch.ranks[rows][:, columns],
        all_bad=batch.all_bad[rows],
        all_good=batch.all_good[rows],
        weights=batch.weights,
        scores=batch.scores[rows][:, columns],
    )
    expected = run(Direct(CONFIGS[name]), policy, batch)
    assert_close(run(Direct(CONFIGS[name]), policy, mixed), expected)


@each_config
@pytest.mark.parametrize("batch_size", [1, 3, 4, 5, 8])
def test_a_batch_may_be_cut_anywhere_even_within_a_ranking(name, batch_size):
    config = CONFIGS[name].model_copy(update={"draws": 2})
    expected = run(Direct(config), moved_walk(), ranked())
    cut = run(Direct(config), moved_walk(batch_size=batch_size), ranked())
    assert_close(cut, expected)


@each_config
def test_a_ranking_of_twice_the_weight_counts_as_two(name):
    doubled = ranked()
    doubled.weights[0] = 2.0
    twice = doubled.select(torch.tensor([0, 0, 1, 2]))
    twice.weights[:] = 1.0
    policy = moved_walk()
    assert_close(
        run(Direct(CONFIGS[name]), policy, doubled), run(Direct(CONFIGS[name]), policy, twice)
    )


# --- state


def test_it_goes_on_exactly_from_its_state():
    config = DPOConfig.model_validate({"beta": {"kind": "auto", "steps": 2}})
    one, other = Direct(config), Direct(config)
    for seed in range(3):
        run(one, moved_walk(by=0.1 * (seed + 1)), ranked())
    other.load_state_dict(one.state_dict())
    assert_close(run(other, moved_walk(), ranked()), run(one, moved_walk(), ranked()))
    assert other.state_dict() == one.state_dict()


def test_the_state_of_another_algorithm_is_refused():
    with pytest.raises(CheckpointError, match="of another algorithm"):
        Direct(DPOConfig()).load_state_dict({"kl": {}})
    with pytest.raises(CheckpointError, match="beta"):
        Direct(DPOConfig()).load_state_dict(Direct(CONFIGS["ipo"]).state_dict() | {"beta": {}})


def test_every_kind_is_built_from_its_settings():
    for config in CONFIGS.values():
        assert isinstance(build_algorithm(config, seed=0), Direct)
