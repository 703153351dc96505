"""Rows of the contract suite: which algorithms, and one iteration of each."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from algorithm_rows import ALGORITHMS, GIVEN, algorithm_config
from batches import Batch
from policies import KINDS
from random_walk import RandomWalk
from torch import Tensor

from imgalign.algorithms.choice import build_algorithm
from imgalign.algorithms.interface import Algorithm, Loss
from imgalign.policy import StepPolicy
from imgalign.runs.world import Alone, World
from imgalign.train.assemble import build_learner
from imgalign.train.config import OptimizerConfig
from imgalign.train.learner import Learner

MakeBatch: TypeAlias = Callable[..., Any]
"""From a policy, a number of `images` and that of the `first` the batch of a row of the table."""

SAMPLING = [name for name in ALGORITHMS if name not in GIVEN]
OF_POLICY_GRADIENT = [name for name in ALGORITHMS if name.startswith(("grpo", "ppo"))]
SUPERVISED = [name for name in ALGORITHMS if name.startswith("supervised")]

each_algorithm = pytest.mark.parametrize("name", ALGORITHMS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def losses(
    algorithm: Algorithm[Any], policy: StepPolicy, batch: Batch, *, world: World | None = None
) -> list[Loss]:
    """All losses of a batch, added to the gradients, without a step in between."""
    world, found = world or Alone(), []
    generator = torch.Generator().manual_seed(0)
    for loss in algorithm.losses(policy, batch, world=world, generator=generator):
        if loss.value is not None:
            torch.autograd.backward(loss.value)
        found.append(loss)
    return found


def gradient(name: str, policy: RandomWalk, batch: Batch, *, world: World | None = None) -> Tensor:
    """Of one optimizer step on a whole batch."""
    policy.shift.grad = None
    losses(
        build_algorithm(algorithm_config(name, minibatches=1), seed=0), policy, batch, world=world
    )
    assert policy.shift.grad is not None
    return policy.shift.grad


def learner_of(
    name: str, policy: StepPolicy, *, learning_rate: float = 0.02, **changes: object
) -> Learner:
    return build_learner(
        policy,
        algorithm=algorithm_config(name, **changes),
        optimizer=OptimizerConfig(learning_rate=learning_rate, weight_decay=0.0),
        seed=0,
        world=Alone(),
    )


def moved_walk(*, batch_size: int = 8) -> RandomWalk:
    policy = RandomWalk(num_steps=3, batch_size=batch_size)
    with torch.no_grad():
        policy.shift.normal_(generator=torch.Generator().manual_seed(1)).mul_(0.1)
    return policy
