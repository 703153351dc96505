"""A random walk whose network gives numbers that are not finite, now and then, while it learns."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from random_walk import RandomWalk
from torch.distributions import Distribution, Independent, Normal

from imgalign.policy import Data, Draws, LogProb
from imgalign.runs.metrics import Value


class BrokenWalk(RandomWalk):
    """In the passes of `plan`, counted from 0 as soon as it is `armed`, all is times its factor.

    Only passes with gradients count: those that something is learned from.
    """

    def __init__(self, plan: Mapping[int, float]) -> None:
        super().__init__(num_steps=3)
        self.plan = plan
        self.armed = False
        self.learned = 0
        self.broken = 0

    def on_step(self, step: int, values: Mapping[str, Value]) -> None:
        """Arm it once the checks of a run are over."""
        self.armed = True

    def factor(self) -> float:
        if not (self.armed and torch.is_grad_enabled()):
            return 1.0
        found = self.plan.get(self.learned, 1.0)
        self.learned += 1
        self.broken += found != 1.0
        return found

    def distributions(self, latents: torch.Tensor, steps: torch.Tensor) -> Distribution:
        found = super().distributions(latents, steps)
        mean = found.mean * self.factor()
        scale = self.sigma[steps][:, None, None, None].expand_as(latents)
        return Independent(Normal(mean, scale, validate_args=False), 3, validate_args=False)

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        found = super().log_prob(data, draws)
        return replace(found, values=found.values * self.factor())
