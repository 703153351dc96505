"""Claims: DPO, IPO, KTO and label smoothing have the values and gradients of TRL."""

import pytest
import torch
import trl_losses
from drawn import normal
from torch import Tensor
from torch.testing import assert_close

from imgalign.losses import bradley_terry_loss, ipo_loss, kto_loss

CHOSEN, REJECTED = [0, 3, 2, 5, 0], [1, 4, 0, 6, 6]
PAIRS = list(zip(CHOSEN, REJECTED, strict=True))
"""Of seven samples; some are in several."""


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
def test_dpo_is_trls_sigmoid(log_prob, beta):
    reward = beta * (log_prob - REFERENCE)
    ours = bradley_terry_loss(reward[CHOSEN], reward[REJECTED]).mean()
    theirs = trl_losses.pair_loss(log_prob, REFERENCE, PAIRS, {"sigmoid": 1.0}, beta=beta)
    same(ours, theirs, log_prob)


@pytest.mark.parametrize("beta", [0.05, 1.5])
def test_ipo_is_trls_ipo_of_completions_of_one_token(log_prob, beta):
    # TRL divides log-ratios by the number of tokens; here they are summed and there is one token.
    log_ratio = log_prob - REFERENCE
    ours = ipo_loss(log_ratio[CHOSEN], log_ratio[REJECTED], beta=beta).mean()
    theirs = trl_losses.pair_loss(log_prob, REFERENCE, PAIRS, {"ipo": 1.0}, beta=beta)
    same(ours, theirs, log_prob)


def test_label_smoothing_is_that_of_trls_aot_of_one_pair(log_prob):
    # TRL's "sigmoid" ignores label_smoothing. Its "aot" has the same formula after it has sorted
    # the log-ratios of a batch, and of one pair there is nothing to sort.
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
