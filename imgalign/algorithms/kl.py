"""The KL of a policy to the pretrained model, and the coefficient of the KL penalty.

The coefficient is fixed or adaptive; both have `coefficient` and `update`, which takes the measured
KL. Left out: stopping when a budget is exceeded (train/budget.py).

Units: KL in nats per sample, summed over steps and latent elements.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from imgalign.algorithms.batches import masked, with_density
from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.policy import StepPolicy, Trajectory

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


Place = Literal["loss", "reward"]


class FixedKLConfig(Config):
    """A constant coefficient."""

    kind: Literal["fixed"] = "fixed"
    """The kind of coefficient."""

    coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    """Price of one nat of KL of a whole trajectory, in units of the advantage (with group
    advantages: standard deviations of the reward). 0 only measures the KL."""

    place: Place = "loss"
    """Where the penalty is paid. loss: the exact KL of each step is a part of the loss. reward: the
    log-ratio of each step is taken off its reward, in the reward's unit (arXiv:1909.08593)."""


class AdaptiveKLConfig(Config):
    """A coefficient that changes until the KL settles at a target."""

    kind: Literal["adaptive"] = "adaptive"
    """The kind of coefficient."""

    coefficient: Positive = 0.02
    """Initial price of one nat, in units of the advantage, or of the reward."""

    place: Place = "loss"
    """Where the penalty is paid. loss: the exact KL of each step is a part of the loss. reward: the
    log-ratio of each step is taken off its reward, in the reward's unit (arXiv:1909.08593)."""

    target_nats: Positive
    """Target KL per trajectory, in nats."""

    rate: Annotated[float, Field(gt=0, lt=5)] = 0.5
    """The coefficient changes by at most a fifth of this per iteration. Ziegler et al. use 0.1 over
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
        """Adapt to the KL measured on one batch of new samples."""
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
    """A coefficient that follows a target KL (Ziegler et al. 2019, arXiv:1909.08593, section 2.2).

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
def reference_log_ratios(
    policy: StepPolicy, batch: Sequence[Trajectory]
) -> list[Float[Tensor, "b t"]]:
    """Log p(step) under the weights that took it less that under the reference, on the CPU.

    0 at steps without a density.
    """
    found = []
    for trajectory in batch:
        ratios = torch.zeros(trajectory.mask.shape)
        for steps, pretrained in under_reference(policy, trajectory):
            log_prob = pretrained.log_prob(policy.actions(trajectory, steps))
            difference = trajectory.log_probs[:, steps] - log_prob.to(trajectory.log_probs)
            ratios[:, steps.cpu()] = masked(difference, trajectory.mask[:, steps]).float().cpu()
        found.append(ratios)
    return found


def under_reference(
    policy: StepPolicy, trajectory: Trajectory
) -> Iterator[tuple[Int[Tensor, " s"], Distribution]]:
    """The steps that have a density, as they are scored together, and what each could have become
    under the reference.
    """
    for unit in policy.units(trajectory):
        steps = with_density(unit, trajectory.mask)
        if len(steps):
            with policy.using("reference"):
                pretrained = policy.step_distributions(trajectory, steps)
            yield steps, pretrained


def measure_kl(policy: StepPolicy, batch: Sequence[Trajectory]) -> float:
    """KL(policy || pretrained) in nats per trajectory, on the states that `batch` visited.

    Exact per step, an average over the sampled paths; with fresh samples of the policy it is an
    unbiased estimate of the KL between whole trajectories.
    """
    return total_kl(policy, batch) / sum(map(len, batch))


@torch.no_grad()
def total_kl(policy: StepPolicy, batch: Sequence[Trajectory]) -> float:
    """The same, summed over the trajectories; 0 for none."""
    total = 0.0
    for trajectory in batch:
        for steps, pretrained in under_reference(policy, trajectory):
            kl = kl_divergence(policy.step_distributions(trajectory, steps), pretrained)
            total += masked(kl, trajectory.mask[:, steps]).double().sum().item()
    return total
