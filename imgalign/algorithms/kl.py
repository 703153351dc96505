"""How far a policy is from the pretrained model, and how strongly it is held to it.

The coefficient of a KL term comes in two kinds with the same two verbs: read `coefficient`, then
`update` it with the KL that was measured. Left out: stopping when a budget is spent, which is the
training loop's.

Units: KL in nats per image, summed over steps and latent elements.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import Field
from torch.distributions import kl_divergence

from imgalign.algorithms.batches import masked
from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.policy import StepPolicy, Trajectory

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class FixedKLConfig(Config):
    """The same price of the KL for the whole run."""

    kind: Literal["fixed"] = "fixed"
    """fixed, or adaptive: the coefficient seeks a target KL."""

    coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    """Price of one nat of KL of a whole trajectory, in units of the advantage (with group
    advantages: standard deviations of the reward). 0 measures the KL and charges nothing."""


class AdaptiveKLConfig(Config):
    """A price of the KL that moves until the KL settles at a target."""

    kind: Literal["adaptive"] = "adaptive"
    """fixed, or adaptive: the coefficient seeks a target KL."""

    coefficient: Positive = 0.02
    """Where the price of one nat starts, in units of the advantage."""

    target_nats: Positive
    """KL per trajectory that the coefficient seeks."""

    rate: Annotated[float, Field(gt=0, lt=5)] = 0.5
    """How fast it adapts: at most a fifth of this per iteration. Ziegler et al. use 0.1 over
    thousands of iterations; a run here has tens."""


KLConfig: TypeAlias = FixedKLConfig | AdaptiveKLConfig


@runtime_checkable
class KLCoefficient(Protocol):
    """What an algorithm multiplies its KL term with."""

    @property
    def coefficient(self) -> float:
        """The present factor, in reward per nat."""
        ...

    def update(self, kl_nats: float) -> None:
        """Take in the KL measured over one batch of new samples."""
        ...

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a `state_dict` of the same kind; CheckpointError from another."""
        ...


class FixedKL:
    """The same coefficient for the whole run."""

    def __init__(self, coefficient: float) -> None:
        self._coefficient = coefficient

    @property
    def coefficient(self) -> float:
        """The present factor, in reward per nat."""
        return self._coefficient

    def update(self, kl_nats: float) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, float]:
        """Nothing: the coefficient is a setting."""
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Accept only the empty state; CheckpointError where an adaptive run left its own."""
        if state:
            raise CheckpointError(_mismatch(found=state, expected=set()))


class AdaptiveKL:
    """A coefficient that seeks a target KL (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

    Each update multiplies it by 1 + rate * e, where e is the relative distance to the target,
    limited to +- 0.2: at the published rate of 0.1 it moves at most 2 % per batch.
    """

    def __init__(self, coefficient: float, *, target_nats: float, rate: float = 0.1) -> None:
        if not (coefficient > 0 and target_nats > 0 and 0 < rate < 5):
            raise ValueError(
                "adaptive kl: expected coefficient > 0, target_nats > 0 and 0 < rate < 5,"
                f" got {coefficient}, {target_nats} and {rate}"
            )
        self._coefficient = coefficient
        self.target_nats = target_nats
        self.rate = rate

    @property
    def coefficient(self) -> float:
        """The present factor, in reward per nat."""
        return self._coefficient

    def update(self, kl_nats: float) -> None:
        """Strengthen the pull when the KL is above its target, else weaken it."""
        assert math.isfinite(kl_nats), f"kl of {kl_nats} nats"
        error = min(max(kl_nats / self.target_nats - 1, -0.2), 0.2)
        self._coefficient *= 1 + self.rate * error

    def state_dict(self) -> dict[str, float]:
        """The coefficient; target and rate are settings."""
        return {"coefficient": self._coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on with the coefficient of an adaptive run; CheckpointError from a fixed one."""
        if state.keys() != {"coefficient"}:
            raise CheckpointError(_mismatch(found=state, expected={"coefficient"}))
        self._coefficient = state["coefficient"]


def _mismatch(*, found: dict[str, float], expected: set[str]) -> str:
    return (
        f"kl coefficient: expected state {sorted(expected)}, got {sorted(found)};"
        " resume with the kind of coefficient that the run began with"
    )


def coefficient_of(config: KLConfig) -> KLCoefficient:
    """The coefficient that the settings describe."""
    match config:
        case FixedKLConfig():
            return FixedKL(config.coefficient)
        case AdaptiveKLConfig():
            return AdaptiveKL(config.coefficient, target_nats=config.target_nats, rate=config.rate)


@torch.no_grad()
def measure_kl(policy: StepPolicy, batch: Sequence[Trajectory]) -> float:
    """KL(policy || pretrained) in nats per trajectory, on the states that `batch` visited.

    Exact per step, an average over the sampled paths; with fresh samples of the policy it is an
    unbiased estimate of the KL between whole trajectories.
    """
    total, images = 0.0, 0
    for trajectory in batch:
        images += len(trajectory)
        for unit in policy.units(trajectory):
            steps = unit[trajectory.mask[:, unit].any(dim=0)]
            if not len(steps):
                continue
            with policy.using("reference"):
                pretrained = policy.step_distributions(trajectory, steps)
            kl = kl_divergence(policy.step_distributions(trajectory, steps), pretrained)
            total += masked(kl, trajectory.mask[:, steps]).double().sum().item()
    return total / images
