"""Early stopping: where a descent ends, and what it remembers."""

import math

import pytest
import torch
from torch import nn
from worlds import in_two

from imgalign.errors import NumericsError
from imgalign.runs.world import Alone, World
from reward_models.descent import LOG_TIE_START, LOG_TIE_STD, Descent, new_log_tie, one_pass


def descend(losses: list[float], *, patience: int) -> tuple[Descent, float]:
    """A descent whose only parameter counts its passes, and the value that it ends with."""
    count = nn.Parameter(torch.zeros(()))
    descent = Descent(seed=0, log_tie=new_log_tie(2, torch.device("cpu")))

    def epoch() -> float:
        with torch.no_grad():
            count.add_(1)
        return 0.5

    descent.descend(
        [count],
        epoch=epoch,
        measure=lambda: losses[int(count.detach())],
        epochs=len(losses) - 1,
        patience=patience,
        shown=False,
        world=Alone(),
    )
    return descent, float(count.detach())


def test_it_ends_at_the_weights_of_the_lowest_validation_loss_after_its_patience():
    descent, value = descend([3.0, 2.0, 1.0, 1.5, 1.2, 0.1], patience=2)
    assert (value, descent.best_epoch, descent.validation_loss) == (2.0, 2, 1.0)
    assert [loss for _, loss in descent.losses] == [3.0, 2.0, 1.0, 1.5, 1.2]
    assert math.isnan(descent.losses[0][0])


def test_passes_that_never_help_leave_the_start():
    descent, value = descend([1.0, 2.0, 3.0], patience=5)
    assert (value, descent.best_epoch, descent.validation_loss) == (0.0, 0, 1.0)


def test_a_loss_that_is_not_finite_names_the_seed():
    with pytest.raises(NumericsError, match="validation loss is nan after 1 passes of seed 0"):
        descend([1.0, math.nan], patience=1)


@pytest.mark.parametrize("tied", [1, 30, 90])
def test_ties_start_as_often_as_they_are_where_nothing_is_told_apart(tied):
    # Pairs: at equal scores P(tie) = w / (2 + w), as Davidson has it, with log w the parameter.
    ranks = torch.tensor([[0, 0]] * tied + [[0, 1]] * (100 - tied))
    descent = Descent(seed=0, log_tie=new_log_tie(2, torch.device("cpu")))
    flat = LOG_TIE_STD**2  # the prior's pull, in rankings, is at most its slope
    descent.fit_ties(ranks, torch.ones(100))
    weight = descent.log_tie.detach().exp().item()
    share = weight / (2 + weight)
    pull = (descent.log_tie.detach() - LOG_TIE_START).item() / flat
    assert share == pytest.approx((tied - pull) / 100, abs=1e-3)


@pytest.mark.parametrize("batch_size", [7, 3, 1])
def test_two_processes_take_the_steps_of_one_whatever_their_shares(batch_size):
    """A step has seven rankings, three, or one, of which the first process has none."""
    inputs, rows = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10)

    def work(world: World) -> tuple[float, torch.Tensor]:
        weight = nn.Parameter(torch.ones(4))
        loss = one_pass(
            torch.optim.SGD([weight], lr=0.1),
            rows,
            1.0 + rows,
            batch_size=batch_size,
            generator=torch.Generator().manual_seed(1),
            losses=lambda own: (inputs[own] @ weight - 1).square(),
            penalty=lambda: weight.square().sum(),
            largest_norm=2.0,
            world=world,
        )
        return loss, weight.detach()

    loss, weight = work(Alone())
    for found, moved in in_two(work):
        assert found == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(moved, weight)
