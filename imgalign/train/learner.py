"""A policy, the algorithm that improves it and an optimizer: one update, and exact state.

One process, one device. What several would need is all here and in `rollout.collect`: each would
take its share of an iteration's (prompt, seed) pairs, which are numbered over the whole iteration,
rewards would be gathered before `assess`, and gradients averaged where they are clipped. Mixed
precision is the policy's, because sampling and scoring must agree about it.
"""

import copy
import math
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from imgalign.algorithms.batches import Tally
from imgalign.algorithms.ppo import PPO, PPOConfig
from imgalign.errors import CheckpointError, NumericsError
from imgalign.policy import Policy
from imgalign.prompts import seeded_generator
from imgalign.train.config import OptimizerConfig
from imgalign.train.rollout import Rollout


class Learner:
    """Improves a policy from rollouts."""

    def __init__(
        self, policy: Policy, *, ppo: PPOConfig, optimizer: OptimizerConfig, seed: int
    ) -> None:
        self.policy = policy
        self.config = optimizer
        self.seed = seed
        self.ppo = PPO(ppo, seed=seed)
        self.parameters = list(policy.trainable_parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=optimizer.learning_rate,
            betas=optimizer.betas,
            weight_decay=optimizer.weight_decay,
        )

    def update(
        self,
        rollout: Rollout,
        *,
        iteration: int,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, float]:
        """Learn from one batch; `iteration` counts from 0 and sets the order and the warm-up.

        `on_progress` is told how many micro-batches are done, of how many.

        NumericsError, with the weights as they were before that optimizer step, when a gradient is
        not finite.
        """
        start = time.perf_counter()
        rate = self._set_learning_rate(iteration)
        self.policy.train()
        assessment = self.ppo.assess(self.policy, rollout.batch, rollout.rewards)
        tally = assessment.tally()
        generator = seeded_generator(f"minibatches/{self.seed}/{iteration}")
        minibatches = list(self.ppo.minibatches(assessment, generator=generator))
        done, total = 0, sum(map(len, minibatches))
        norms = []
        for minibatch in minibatches:
            self.optimizer.zero_grad(set_to_none=True)
            for micro in minibatch:
                on_progress(done, total)
                loss, stats = self.ppo.loss(self.policy, micro)
                torch.autograd.backward(loss)
                tally.add(stats, micro)
                done += 1
            norms.append(self._clip_gradients())
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.policy.eval()
        coefficient = self.ppo.kl.coefficient
        if tally.first_count:
            self._check_kl(tally)
            self.ppo.kl.update(tally.kl_nats)
        return {
            **tally.metrics(),
            **assessment.metrics,
            "kl_coefficient": coefficient,
            "grad_norm": sum(norms) / max(len(norms), 1),
            "grad_norm_max": max(norms, default=0.0),
            "optimizer_steps": float(len(norms)),
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
        norm = clip_grad_norm_(self.parameters, limit).item()
        if not math.isfinite(norm):
            raise NumericsError(
                f"learning: the gradient's norm is {norm}; the last checkpoint is still good, "
                "go on from it with a lower optimizer.learning_rate"
            )
        return norm

    def _check_kl(self, tally: Tally) -> None:
        if not math.isfinite(tally.kl_nats):
            raise NumericsError(
                f"learning: the kl to the pretrained model is {tally.kl_nats}; "
                "the last checkpoint is still good, lower optimizer.learning_rate"
            )

    def state_dict(self) -> dict[str, Any]:
        """All but the weights: `load_state_dict` goes on exactly. Shares nothing with the learner.

        Copied, because torch hands out the very tensors that the next step changes in place.
        """
        state = {"optimizer": self.optimizer.state_dict(), "ppo": self.ppo.state_dict()}
        return copy.deepcopy(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        try:
            self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
            self.ppo.load_state_dict(copy.deepcopy(state["ppo"]))
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


def peak_memory_gb() -> float:
    """Most memory this process ever held: of the GPU where one is used, else of the machine."""
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    # Linux counts in KiB.
    return (on_gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e9
