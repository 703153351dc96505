"""Rankings of samples of the random walk, and the direct methods that learn from them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from random_walk import RandomWalk
from torch import Tensor

from imgalign.algorithms.direct import Direct
from imgalign.algorithms.objectives import (
    AnyDirectConfig,
    CardinalConfig,
    DPOConfig,
    IPOConfig,
    KTOConfig,
)
from imgalign.algorithms.rankings import (
    RankedBatch,
)
from imgalign.policy import Data, Draws, LogProb
from imgalign.runs.world import Alone

FIXED = {"kind": "per_nat", "value": 0.5}

CONFIGS: dict[str, AnyDirectConfig] = {
    "ranking": DPOConfig.model_validate({"beta": FIXED}),
    "all pairs": DPOConfig.model_validate({"beta": FIXED, "compare": "all_pairs"}),
    "best and worst": DPOConfig.model_validate({"beta": FIXED, "compare": "best_worst"}),
    "ipo": IPOConfig.model_validate({"beta": FIXED}),
    "kto": KTOConfig.model_validate({"beta": FIXED}),
    "cardinal": CardinalConfig.model_validate({"beta": FIXED}),
}
each_config = pytest.mark.parametrize("name", CONFIGS)

RANKS = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1], [2, 0, 1, -1]])


def moved_walk(
    *, batch_size: int = 64, by: float = 0.1, kind: type[RandomWalk] = RandomWalk
) -> RandomWalk:
    policy = kind(num_steps=3, batch_size=batch_size)
    with torch.no_grad():
        policy.shift.normal_(generator=torch.Generator().manual_seed(1)).mul_(by)
    return policy


class UnevenWalk(RandomWalk):
    """A sample counts as so many elements as it has positive numbers, at least one."""

    averages_log_ratios = True

    def log_prob(self, data: Data, draws: Draws) -> LogProb:
        return replace(super().log_prob(data, draws), counts=num_elements(data))


def num_elements(data: Data) -> Tensor:
    """Of each sample of an `UnevenWalk`."""
    return (data.content["latents"] > 0).flatten(1).sum(dim=1).clamp(min=1).float()


def samples(count: int) -> Data:
    latents = [
        torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(number))
        for number in range(count)
    ]
    return Data(
        prompts=["a red fox"] * count,
        prompt_ids=["a red fox"] * count,
        content={"latents": torch.stack(latents)},
    )


def ranked(
    ranks: Tensor = RANKS, *, all_bad: Sequence[int] = (), all_good: Sequence[int] = ()
) -> RankedBatch:
    """Rankings of different samples; scores that agree with the ranks."""
    there = ranks >= 0
    there[[*all_bad, *all_good]] = True
    index = torch.full_like(ranks, -1)
    index[there] = torch.arange(int(there.sum()))
    bad, good = torch.zeros(2, len(ranks), dtype=torch.bool)
    bad[list(all_bad)] = True
    good[list(all_good)] = True
    return RankedBatch(
        data=samples(int(there.sum())),
        index=index,
        ranks=ranks,
        all_bad=bad,
        all_good=good,
        weights=torch.ones(len(ranks)),
        scores=torch.where(there, -ranks.float(), math.nan),
    )


def run(algorithm: Direct, policy: RandomWalk, batch: RankedBatch) -> Tensor:
    """The gradient of one iteration."""
    policy.shift.grad = None
    generator = torch.Generator().manual_seed(0)
    for loss in algorithm.losses(policy, batch, world=Alone(), generator=generator):
        assert loss.value is not None
        torch.autograd.backward(loss.value)
    assert policy.shift.grad is not None
    return policy.shift.grad


def log_ratios(policy: RandomWalk, batch: RankedBatch) -> Tensor:
    """Closed form, differentiable, in float64: where the walk ends is a Gaussian."""
    latents = batch.data.content["latents"].double()
    variance = 1 + (policy.sigma.double() ** 2).sum()

    def log_density(mean: Tensor) -> Tensor:
        return (-((latents - mean) ** 2) / (2 * variance)).flatten(1).sum(dim=1)

    base = policy.base.sum(dim=0).double()
    ratio = log_density(base + policy.shift.sum(dim=0).double()) - log_density(base)
    return torch.where(batch.present, ratio[batch.index.clamp(min=0)], 0.0)
