"""Passes over the training rankings until the validation loss stops falling.

Shared by the fits of images and of texts; knows losses, parameters and rows, and no model.

Shapes: n = rankings. Losses are in nats per ranking.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from imgalign.errors import NumericsError
from imgalign.losses import plackett_luce_loss
from imgalign.runs.progress import ProgressLine
from imgalign.runs.world import World, writes_files

LOG_TIE_START = -1.0
LOG_TIE_STD = 2.0
"""Standard deviation of the normal prior of each log tie weight, with mean LOG_TIE_START. It bounds
the weight of tie sizes that do not occur in the data."""

SCALAR_LR_FACTOR = 10
"""Learning rate of single numbers such as the log tie weights, relative to that of the weights:
Adam changes a parameter by about its learning rate per step, and these have larger values."""

EVALUATION_BATCH = 256


@dataclass(slots=True, kw_only=True)
class Descent:
    """Losses of one seed on the way, and its best epoch."""

    seed: int
    log_tie: nn.Parameter
    """Log weights of ties of 2 .. k samples."""
    losses: list[tuple[float, float]] = field(default_factory=list)
    """Training and validation loss at the start and after each pass; the former NaN at the start
    of a phase."""
    best_epoch: int = 0
    validation_loss: float = math.inf

    def descend(
        self,
        trained: Sequence[nn.Parameter],
        *,
        epoch: Callable[[], float],
        measure: Callable[[], float],
        epochs: int,
        patience: int,
        shown: bool,
        world: World,
    ) -> None:
        """Passes until `patience` of them have not lowered the validation loss.

        `epoch` trains for one pass and returns its mean loss, `measure` returns the validation
        loss; the first process's decides for all. Ends at the values of `trained` where the
        validation loss was lowest; `shown` shows the progress. NumericsError for a loss that is not
        finite.
        """

        def measured() -> float:
            return self._finite(world.gather(measure())[0])

        first = len(self.losses)
        lowest = measured()
        self.losses.append((math.nan, lowest))
        if lowest < self.validation_loss:
            self.validation_loss, self.best_epoch = lowest, first
        best = [parameter.detach().clone() for parameter in trained]
        waited = 0
        started = time.monotonic()
        seen = shown and writes_files(world)
        with ProgressLine(epochs, unit="epoch") if seen else nullcontext() as progress:
            for number in range(1, epochs + 1):
                train_loss = epoch()
                loss = measured()
                self.losses.append((train_loss, loss))
                if loss < self.validation_loss:
                    self.validation_loss, self.best_epoch = loss, first + number
                    best = [parameter.detach().clone() for parameter in trained]
                    waited = 0
                else:
                    waited += 1
                if progress:
                    left = (time.monotonic() - started) / number * (epochs - number)
                    numbers = {"train loss": train_loss, "validation loss": loss}
                    progress.advance(number, numbers, eta_seconds=left)
                if waited >= patience:
                    break
        restore(trained, best)

    def tie_penalty(self) -> Float[Tensor, ""]:
        """Negative log density of the prior of the log tie weights, up to a constant."""
        return ((self.log_tie - LOG_TIE_START) / LOG_TIE_STD).square().sum() / 2

    def fit_ties(self, ranks: Int[Tensor, "n k"], weights: Float[Tensor, " n"]) -> None:
        """Give the log tie weights their best values for samples that are all equally good.

        What is then left to lower is what telling them apart can lower. Found from the start that
        they have, with their prior.
        """
        optimizer: Any = torch.optim.LBFGS(
            [self.log_tie], max_iter=100, line_search_fn="strong_wolfe"
        )
        equal = torch.zeros(ranks.shape, device=self.log_tie.device)

        def closure() -> float:
            optimizer.zero_grad()
            found = plackett_luce_loss(equal, ranks, log_tie=self.log_tie)
            loss = weighted_mean(found, weights) + self.tie_penalty() / len(ranks)
            torch.autograd.backward(loss)
            return float(loss.detach())

        optimizer.step(closure)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise NumericsError(
                f"reward fit: validation loss is {loss} after {len(self.losses)} passes of seed "
                f"{self.seed}; lower the learning rates"
            )
        return loss


def new_log_tie(candidates: int, device: torch.device) -> nn.Parameter:
    """Log weights of ties of 2 .. `candidates` samples, at their start."""
    return nn.Parameter(torch.full((max(candidates - 1, 1),), LOG_TIE_START, device=device))


def one_pass(
    optimizer: torch.optim.Optimizer,
    rows: Int[Tensor, " n"],
    weights: Float[Tensor, " n"],
    *,
    batch_size: int,
    generator: Generator,
    losses: Callable[[Tensor], Tensor],
    penalty: Callable[[], Tensor],
    largest_norm: float = math.inf,
    world: World,
) -> float:
    """One optimizer step for each batch of rankings in random order; returns the mean loss.

    `losses` gives the loss of each of some rows, which are weighted by `weights`; `penalty`, the
    negative log density of a prior, counts once per pass. The norm of a step's gradient is limited
    to `largest_norm`. Each process takes its share of each batch, and gradients are summed.
    """
    total = 0.0
    share = weights / weights.mean()
    trained = [each for group in optimizer.param_groups for each in group["params"]]
    for batch in torch.split(torch.randperm(len(rows), generator=generator), batch_size):
        dealt = world.deal(len(batch))
        own = batch[dealt.start : dealt.stop]
        optimizer.zero_grad()
        if len(own):  # the last batch may be smaller than the number of processes
            loss = (losses(rows[own]) * share[own]).mean()
            part = len(own) / len(batch)
            torch.autograd.backward(part * (loss + penalty() / len(rows)))
            total += float(loss.detach()) * len(own)
        world.reduce(trained)
        if largest_norm < math.inf:
            nn.utils.clip_grad_norm_(trained, largest_norm)
        optimizer.step()
    return world.total(total) / len(rows)


def weighted_mean(losses: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean over rankings: one of weight 2 counts like two equal ones."""
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def restore(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Set parameters in place."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
