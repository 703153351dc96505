"""Claims: DPO, IPO, KTO, rewards and label smoothing have the values and gradients of TRL."""

import pytest
import torch
import trl_losses
from drawn import normal
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from imgalign.losses import bradley_terry_loss, ipo_loss, kto_loss

CHOSEN, REJECTED = [0, 3, 2, 5, 0], [1, 4, 0, 6, 6]
PAIRS = list(zip(CHOSEN, REJECTED, strict=True))
"""Of seven samples; some are in several."""

LENGTHS = torch.tensor([3, 1, 4, 1, 5, 9, 2])
"""Tokens of each sample."""


@pytest.fixture
def log_prob() -> Tensor:
    return (3 * normal(7)).requires_grad_()


REFERENCE = 3 * normal(7, seed=1)


def same(ours: Tensor, theirs: Tensor, log_prob: Tensor) -> None:
    """Equal values, and equal gradients with respect to the log-probabilities."""
    assert_close(ours, theirs)
    gradients = [torch.autograd.grad(each, log_prob)[0] for each in (ours, theirs)]
    assert gradients[0].any()
    assert_close(*gradients)


@pytest.mark.parametrize("beta", [0.05, 1.5])
@pytest.mark.parametrize("counts", [None, LENGTHS])
def test_dpo_is_trls_sigmoid_of_sums_whatever_the_lengths_of_completions(log_prob, beta, counts):
    reward = beta * (log_prob - REFERENCE)
    ours = bradley_terry_loss(reward[CHOSEN], reward[REJECTED]).mean()
    theirs = trl_losses.pair_loss(
        log_prob, REFERENCE, PAIRS, {"sigmoid": 1.0}, beta=beta, counts=counts
    )
    same(ours, theirs, log_prob)


@pytest.mark.parametrize("beta", [0.05, 1.5])
def test_ipo_of_mean_log_ratios_is_trls_ipo_whatever_the_lengths_of_completions(log_prob, beta):
    # The authors of IPO confirmed to TRL that log-ratios are to be means over tokens.
    log_ratio = (log_prob - REFERENCE) / LENGTHS
    ours = ipo_loss(log_ratio[CHOSEN], log_ratio[REJECTED], beta=beta).mean()
    theirs = trl_losses.pair_loss(
        log_prob, REFERENCE, PAIRS, {"ipo": 1.0}, beta=beta, counts=LENGTHS
    )
    same(ours, theirs, log_prob)


def test_ipo_of_summed_log_ratios_is_trls_ipo_of_completions_of_one_token_alone(log_prob):
    log_ratio = log_prob - REFERENCE
    ours = ipo_loss(log_ratio[CHOSEN], log_ratio[REJECTED], beta=0.5).mean()
    one, several = (
        trl_losses.pair_loss(log_prob, REFERENCE, PAIRS, {"ipo": 1.0}, beta=0.5, counts=counts)
        for counts in (None, LENGTHS)
    )
    same(ours, one, log_prob)
    assert not torch.isclose(ours, several, rtol=0.1)


def test_trls_sigmoid_ignores_label_smoothing_and_ours_does_not(log_prob):
    # A known fault of TRL 1.16: of its losses only "robust", "exo_pair" and "aot" read the setting.
    # The formula is that of conservative DPO, as in the DPO authors' code and in OpenRLHF.
    reward, smoothing = 0.5 * (log_prob - REFERENCE), 0.2
    plain, smoothed = (
        trl_losses.pair_loss(
            log_prob, REFERENCE, PAIRS, {"sigmoid": 1.0}, beta=0.5, label_smoothing=each
        )
        for each in (0.0, smoothing)
    )
    assert torch.equal(plain, smoothed)
    margin = reward[CHOSEN] - reward[REJECTED]
    expected = (1 - smoothing) * -logsigmoid(margin) + smoothing * -logsigmoid(-margin)
    ours = bradley_terry_loss(reward[CHOSEN], reward[REJECTED], label_smoothing=smoothing)
    assert_close(ours, expected)
    assert not torch.isclose(ours.mean(), plain, rtol=1e-2)


def test_label_smoothing_is_that_of_trls_aot_of_one_pair(log_prob):
    # TRL's "aot" has the same formula after it has sorted the log-ratios of a batch, and of one
    # pair there is nothing to sort.
    beta, smoothing = 0.5, 0.2
    reward = beta * (log_prob - REFERENCE)
    ours = bradley_terry_loss(reward[CHOSEN], reward[REJECTED], label_smoothing=smoothing).mean()
    theirs = [
        trl_losses.pair_loss(
            log_prob, REFERENCE, [pair], {"aot": 1.0}, beta=beta, label_smoothing=smoothing
        )
        for pair in PAIRS
    ]
    same(ours, torch.stack(theirs).mean(), log_prob)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_kto_with_its_baseline_is_trls_kto(log_prob, sign):
    # The estimate of the KL is that of other samples than those of the loss, and at least 0.
    samples, liked = [0, 2, 3, 4, 6], [True, False, False, True, False]
    kl_samples, beta = [1, 2, 5], 0.3
    reference = log_prob.detach() - sign * REFERENCE
    log_ratio = log_prob - reference
    kl = log_ratio[kl_samples].mean().item()
    assert abs(kl) > 0.1
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    ours = kto_loss(
        log_ratio[samples], torch.tensor(liked), beta=beta, baseline=max(0.0, kl), **weights
    ).mean()
    theirs = trl_losses.kto_loss(
        log_prob, reference, samples, liked, kl_samples=kl_samples, beta=beta, **weights
    )
    same(ours, theirs, log_prob)


def test_the_loss_of_reward_models_is_that_of_trls_reward_trainer(log_prob):
    # Without TRL's margin and centring, which are off there too unless they are asked for.
    scores = log_prob
    ours = bradley_terry_loss(scores[CHOSEN], scores[REJECTED]).mean()
    theirs = trl_losses.reward_loss(scores[CHOSEN], scores[REJECTED])
    same(ours, theirs, log_prob)
