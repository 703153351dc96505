"""Claims: an iteration of DPO, IPO and KTO on given rankings has the loss and the gradient with
respect to the policy's weights that TRL has on the same pairs and samples."""

import pytest
import torch
import trl_losses
from random_walk import RandomWalk
from ranked_batches import CONFIGS, RANKS, UnevenWalk, moved_walk, num_elements, ranked, run
from torch import Tensor
from torch.testing import assert_close

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.rankings import RankedBatch

BETA, ELEMENTS = 0.5, 12
"""Of the settings, and of a sample."""

OF_TWO = torch.tensor([[0, 1], [1, 0], [0, 1]])
PAIRS = [(0, 1), (3, 2), (4, 5)]
"""Rankings of two samples each, and the samples as pairs."""


def log_probs(policy: RandomWalk, batch: RankedBatch) -> tuple[Tensor, Tensor]:
    """Of all samples under the policy, differentiable, and under the pretrained model."""
    draws = policy.draw(batch.data, seeds=[0] * len(batch))
    with torch.no_grad(), policy.using("reference"):
        reference = policy.log_prob(batch.data, draws).values
    return policy.log_prob(batch.data, draws).values, reference


def pairs(batch: RankedBatch, row: int, *, extremes: bool = False) -> list[tuple[int, int]]:
    """The pairs of one ranking, the better sample first."""
    there = [
        (rank, sample)
        for rank, sample in zip(batch.ranks[row].tolist(), batch.index[row].tolist(), strict=True)
        if rank >= 0
    ]
    last = max(rank for rank, _ in there)
    return [
        (better, worse)
        for rank, better in there
        for other, worse in there
        if rank < other and (not extremes or (rank == 0 and other == last))
    ]


def same(
    algorithm: Direct,
    policy: RandomWalk,
    batch: RankedBatch,
    loss: Tensor,
    *,
    elements: int = ELEMENTS,
) -> None:
    """An iteration has this loss, and its gradient over beta and the elements of a sample."""
    gradient = run(algorithm, policy, batch)
    assert algorithm.metrics()["preference_loss"] == pytest.approx(loss.item(), rel=1e-5)
    (expected,) = torch.autograd.grad(loss, policy.shift)
    assert expected.any()
    # Log-ratios are small differences of large float32 numbers.
    assert_close(gradient, expected / (BETA * elements), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "loss_type", "scale"),
    [
        ("all pairs", "sigmoid", 1.0),
        ("best and worst", "sigmoid", 1.0),
        ("ipo", "ipo", BETA**2),  # here (beta * margin - 1/2)^2
    ],
)
def test_pairs_of_rankings_are_compared_as_by_trl(name, loss_type, scale):
    policy, batch = moved_walk(), ranked()
    own, reference = log_probs(policy, batch)
    losses = [
        trl_losses.pair_loss(
            own,
            reference,
            pairs(batch, row, extremes=name == "best and worst"),
            {loss_type: 1.0},
            beta=BETA,
        )
        for row in range(len(RANKS))
    ]
    same(Direct(CONFIGS[name]), policy, batch, scale * torch.stack(losses).mean())


def test_pairs_of_samples_of_different_lengths_are_compared_by_their_means_as_by_trls_ipo():
    policy, batch = moved_walk(kind=UnevenWalk), ranked()
    own, reference = log_probs(policy, batch)
    losses = [
        trl_losses.pair_loss(
            *(own, reference, pairs(batch, row), {"ipo": 1.0}),
            beta=BETA,
            counts=num_elements(batch.data).long(),
        )
        for row in range(len(RANKS))
    ]
    # The elements of a sample are inside the mean already.
    loss = BETA**2 * torch.stack(losses).mean()
    same(Direct(CONFIGS["ipo"]), policy, batch, loss, elements=1)


def test_whole_rankings_of_two_are_compared_as_by_trls_dpo():
    policy, batch = moved_walk(), ranked(OF_TWO)
    own, reference = log_probs(policy, batch)
    loss = trl_losses.pair_loss(own, reference, PAIRS, {"sigmoid": 1.0}, beta=BETA)
    same(Direct(CONFIGS["ranking"]), policy, batch, loss)


def test_labels_are_smoothed_as_by_trls_aot_of_one_pair():
    # The only loss of TRL that smooths labels by this formula; see core/test_against_trl.py.
    policy, batch = moved_walk(), ranked(OF_TWO)
    own, reference = log_probs(policy, batch)
    losses = [
        trl_losses.pair_loss(own, reference, [pair], {"aot": 1.0}, beta=BETA, label_smoothing=0.2)
        for pair in PAIRS
    ]
    config = CONFIGS["all pairs"].model_copy(update={"label_smoothing": 0.2})
    same(Direct(config), policy, batch, torch.stack(losses).mean())


def test_fine_tuning_on_the_best_is_mixed_in_as_trls_sft():
    # Here it is of the implicit reward, beta times a log-ratio, and there of the log-probability.
    policy, batch, weight = moved_walk(), ranked(OF_TWO), 0.3
    own, reference = log_probs(policy, batch)
    loss = trl_losses.pair_loss(
        own, reference, PAIRS, {"sigmoid": 1.0, "sft": weight * BETA}, beta=BETA
    )
    config = CONFIGS["all pairs"].model_copy(update={"sft": weight})
    same(Direct(config), policy, batch, loss + weight * BETA * reference[[0, 3, 4]].mean())


@pytest.mark.parametrize("towards", [0.3, -0.3])
def test_likes_and_dislikes_are_judged_as_by_trls_kto(towards):
    # TRL estimates the KL on mismatched samples of the batch, and here it is the mean over all
    # candidates of the last step. So TRL is given those, and weights stay between two iterations.
    policy, batch = moved_walk(), ranked()
    with torch.no_grad():
        policy.shift.add_(towards * batch.data.content["latents"].mean(dim=0))
    own, reference = log_probs(policy, batch)
    kl = (own - reference).mean().item()
    assert kl * towards > 0.01  # both sides of 0, which is the least that the baseline can be
    losses = []
    for ranks, index in zip(batch.ranks.tolist(), batch.index.tolist(), strict=True):
        rated = [place for place, rank in enumerate(ranks) if rank in (0, max(ranks))]
        losses.append(
            trl_losses.kto_loss(
                *(own, reference, [index[place] for place in rated]),
                [ranks[place] == 0 for place in rated],
                kl_samples=range(len(batch)),
                beta=BETA,
            )
        )
    algorithm = Direct(CONFIGS["kto"])
    run(algorithm, policy, batch)
    assert algorithm.baseline == pytest.approx(max(0.0, kl), rel=1e-4)
    same(algorithm, policy, batch, torch.stack(losses).mean())


@pytest.mark.parametrize("likes", [[0, 2], [0, 1, 2, 3], []])
def test_samples_liked_or_disliked_one_by_one_are_judged_as_by_trls_kto(likes):
    dislikes = [place for place in range(4) if place not in likes]
    policy = moved_walk()
    batch = ranked(torch.full((4, 1), -1), all_good=likes, all_bad=dislikes)
    own, reference = log_probs(policy, batch)
    loss = trl_losses.kto_loss(
        *(own, reference, range(4), [place in likes for place in range(4)]),
        kl_samples=range(4),
        beta=BETA,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    )
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.5}
    algorithm = Direct(CONFIGS["kto"].model_copy(update=weights))
    run(algorithm, policy, batch)  # after which it has TRL's estimate of the KL
    same(algorithm, policy, batch, loss)
