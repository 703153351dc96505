"""Turns an algorithm's losses into optimizer steps on a policy's trainable weights.

It knows no epochs, minibatches or KL: those are the algorithm's. Mixed precision is the policy's,
because sampling and scoring must use the same; gradients go through the world, which adds them up
over processes.
"""

import copy
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from imgalign.algorithms.interface import NEW_RUN, Algorithm
from imgalign.environment import most_memory
from imgalign.errors import CheckpointError, NumericsError
from imgalign.policy import Policy
from imgalign.prompts import seeded_generator
from imgalign.runs.world import World, writes_files
from imgalign.train.config import OptimizerConfig

log = logging.getLogger(__name__)

MOST_SKIPPED = 10
"""Optimizer steps in a row whose gradient is not finite; then it is no single bad batch."""


class Learner:
    """Optimizer and algorithm of a run, with a state that resumes exactly."""

    def __init__(
        self,
        policy: Policy,
        *,
        algorithm: Algorithm[Any],
        optimizer: OptimizerConfig,
        seed: int,
        world: World,
    ) -> None:
        self.policy = policy
        self.algorithm = algorithm
        self.config = optimizer
        self.seed = seed
        self.world = world
        self.skipped_in_a_row = 0
        self.parameters = list(policy.trainable_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )

    def update(
        self,
        batch: Any,
        *,
        iteration: int,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, float]:
        """Learn from one batch and return metrics.

        `iteration` counts from 0 and decides the order of minibatches and the warm-up.
        `on_progress` is called with the number of forward passes done and their total. An optimizer
        step whose gradient is not finite is left out; NumericsError after `MOST_SKIPPED` in a row.
        """
        start = time.perf_counter()
        rate = self._set_learning_rate(iteration)
        generator = seeded_generator(f"minibatches/{self.seed}/{iteration}")
        norms, skipped = [], 0
        self.optimizer.zero_grad(set_to_none=True)
        for loss in self.algorithm.losses(
            self.policy, batch, world=self.world, generator=generator
        ):
            if loss.value is not None:
                torch.autograd.backward(loss.value)
            on_progress(loss.done, loss.total)
            if loss.ends_step:
                self.world.reduce(self.parameters)
                norm = self._clip_gradients()
                if self._finite(norm):
                    norms.append(norm)
                    self.optimizer.step()
                else:
                    skipped += 1
                self.optimizer.zero_grad(set_to_none=True)
        return {
            **self.algorithm.metrics(),
            "grad_norm": sum(norms) / max(len(norms), 1),
            "grad_norm_max": max(norms, default=0.0),
            "optimizer_steps": float(len(norms)),
            "skipped_steps": float(skipped),
            "learning_rate": rate,
            "seconds_learning": time.perf_counter() - start,
            "peak_memory_gb": peak_memory_gb(),
        }

    def _set_learning_rate(self, iteration: int) -> float:
        warm = self.config.warmup_iterations
        rate = self.config.learning_rate * min(1.0, (iteration + 1) / (warm + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _clip_gradients(self) -> float:
        limit = math.inf if self.config.max_grad_norm is None else self.config.max_grad_norm
        return clip_grad_norm_(self.parameters, limit).item()

    def _finite(self, norm: float) -> bool:
        """Whether a step may be made with a gradient of this norm, the same in all processes."""
        if math.isfinite(norm):
            self.skipped_in_a_row = 0
            return True
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row == MOST_SKIPPED:
            raise NumericsError(
                f"learning: the gradients of {MOST_SKIPPED} optimizer steps in a row are not "
                f"finite, the norm of the last is {norm}; {NEW_RUN}"
            )
        if writes_files(self.world):
            log.warning("learning: the gradient's norm is %s: optimizer step left out", norm)
        return False

    def state_dict(self) -> dict[str, Any]:
        """All but the weights: `load_state_dict` goes on exactly. Shares nothing with the learner.

        Copied, because torch hands out the very tensors that the next step changes in place; to the
        CPU, because the state of an optimizer is twice as large as what is trained.
        """
        state = {
            "optimizer": self.optimizer.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "skipped_in_a_row": self.skipped_in_a_row,
        }
        copied: dict[str, Any] = copied_to_cpu(state)
        return copied

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        try:
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            self.algorithm.load_state_dict(copy.deepcopy(state["algorithm"]))
            self.skipped_in_a_row = int(state.get("skipped_in_a_row", 0))  # older ones have none
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"trainer state: it does not fit these settings ({error}); "
                "resume with the settings that the run began with"
            ) from None

    def weights(self) -> list[torch.Tensor]:
        """A copy of the trainable weights on the CPU."""
        return [parameter.detach().to("cpu", copy=True) for parameter in self.parameters]

    @torch.no_grad()
    def set_weights(self, weights: list[torch.Tensor]) -> None:
        """Put back what `weights` gave."""
        for parameter, weight in zip(self.parameters, weights, strict=True):
            parameter.copy_(weight)


def copied_to_cpu(state: Any) -> Any:
    """A copy of nested state with its tensors on the CPU."""
    match state:
        case torch.Tensor():
            return state.detach().to("cpu", copy=True)
        case dict():
            return {key: copied_to_cpu(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(copied_to_cpu(value) for value in state)
    return state


def peak_memory_gb() -> float:
    """Most memory this process ever held: of the GPU where one is used, else of the machine."""
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (on_gpu or most_memory()) / 1e9
