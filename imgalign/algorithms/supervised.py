"""Supervised fine-tuning on the better of the policy's own samples, or on samples that were given.

Minimises the weighted mean of -log p(sample | prompt). With weights from rewards this is
reward-weighted regression (Peters & Schaal 2007; for diffusion arXiv:2302.12192); with all of the
weight on the best of n it is best-of-n fine-tuning, also called rejection sampling or RAFT
(arXiv:2304.06767). The baseline for every other algorithm: it needs no ratio, clip or critic, and
cannot push away from bad samples, only leave them out.

Left out: optimizer steps (train/) and a KL term; the pretrained model is only the start.

Shapes: n = samples of a batch, b = samples in one forward pass. Units: nats.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from imgalign.advantages import group_advantages
from imgalign.algorithms.batches import Demonstrations, Rollout
from imgalign.algorithms.checks import check_likelihood
from imgalign.algorithms.interface import BatchKind, Loss, RankingCounts
from imgalign.algorithms.rankings import NOTHING_PREFERRED, RankedBatch
from imgalign.config import Config
from imgalign.errors import CheckpointError, NumericsError
from imgalign.policy import Check, Data, LikelihoodPolicy, Trajectory, join_data
from imgalign.prompts import training_seed
from imgalign.runs.world import World, first_position

log = logging.getLogger(__name__)


class BestConfig(Config):
    """Best of n: only the best samples of each prompt, with equal weights."""

    kind: Literal["best"] = "best"
    """The weighting."""

    keep: PositiveInt = 1
    """How many samples of each prompt count in an iteration."""


class RewardWeightedConfig(Config):
    """Reward-weighted regression: all samples, better ones with larger weights."""

    kind: Literal["reward"] = "reward"
    """The weighting."""

    temperature: Annotated[float, Field(gt=0)] = 0.5
    """Weights are exp(z / temperature), z being the reward in standard deviations of the samples of
    its prompt. Towards 0 this is best of n; large values give equal weights."""


class EqualConfig(Config):
    """Equal weights, for given samples."""

    kind: Literal["equal"] = "equal"
    """The weighting."""


Weighting: TypeAlias = BestConfig | RewardWeightedConfig | EqualConfig


class SupervisedConfig(Config):
    """Supervised fine-tuning on the best, on reward-weighted, or on given samples."""

    name: Literal["supervised"] = "supervised"
    """The algorithm."""

    weighting: Weighting = Field(BestConfig(), discriminator="kind")
    """Weights of the samples of a prompt."""

    draws: PositiveInt = 8
    """Noise levels at which each sample is scored in an iteration; more give a less noisy
    gradient."""

    minibatches: PositiveInt = 1
    """Optimizer steps per iteration, over which the draws are spread."""

    @model_validator(mode="after")
    def _every_step_has_a_draw(self) -> "SupervisedConfig":
        if self.minibatches > self.draws:
            raise ValueError(f"minibatches: expected at most draws, {self.draws}")
        return self

    def refuse_data(self, source: str, kind: BatchKind, *, group_size: int) -> None:
        """ValueError for a weighting that has nothing to compare by in such data."""
        weighting = self.weighting
        if kind == "labels":
            raise ValueError(
                f"data.from: expected samples to learn from, got {source!r}, some of which are "
                "disliked; use data.from: completions, which takes the liked ones, or "
                "algorithm.name: kto"
            )
        if kind == "demonstrations" and weighting.kind != "equal":
            raise ValueError(
                "algorithm.weighting.kind: expected 'equal' for given samples, which have no group "
                f"to be compared in, got {weighting.kind!r}"
            )
        if kind == "rankings" and weighting.kind == "reward":
            raise ValueError(
                "algorithm.weighting.kind: expected 'best' or 'equal' for rankings, which have no "
                "rewards, got 'reward'"
            )
        if kind == "rollouts" and group_size == 1 and weighting.kind != "equal":
            raise ValueError(
                f"data.group_size: expected at least 2 with weighting {weighting.kind!r}, got 1; a "
                "single sample is always the best of its group"
            )
        if (
            kind == "rollouts"
            and isinstance(weighting, BestConfig)
            and weighting.keep >= group_size
        ):
            raise ValueError(
                f"algorithm.weighting.keep: expected less than data.group_size, {group_size}; "
                "to learn from all samples alike use algorithm.weighting.kind: equal"
            )

    def refuse_rankings(self, counts: RankingCounts) -> None:
        """ValueError where no given ranking has a best sample."""
        if self.weighting.kind == "best" and not counts.ordered:
            raise ValueError(
                "expected rankings that prefer a sample to another, got "
                f"{counts.without_order()}; rank some samples above others, or learn from all "
                "alike with algorithm.weighting.kind=equal"
            )

    def refuse_steps(self, num_steps: int, *, named: str) -> None:
        """Nothing: it scores finished samples and not steps."""

    def refuse_minibatches(self, *, batches: int, passes: int, groups: int | None) -> None:
        """Nothing: it shares out draws, of which it has as many as it is told to."""


class Supervised:
    """Supervised fine-tuning; it has no state."""

    def __init__(self, config: SupervisedConfig) -> None:
        self.config = config
        self._metrics: dict[str, float] = {}

    def losses(
        self,
        policy: LikelihoodPolicy,
        batch: Rollout | Demonstrations | RankedBatch,
        *,
        world: World,
        generator: torch.Generator,
    ) -> Iterator[Loss]:
        """One loss per forward pass; each round of draws goes over all samples.

        A sample's draws follow from the round and from its place among all samples of all
        processes, so that neither the policy's batch size nor the number of processes changes the
        gradient beyond rounding.
        """
        data, weights = self.weighted(policy, batch, world)
        elements = (weights * policy.elements(data)).sum().item() if len(data) else 0.0
        if not world.total(weights.sum().item()):
            log.warning(NOTHING_PREFERRED)
            self._metrics = {}
            return
        first = first_position(world, len(data))
        # One number per round, drawn alike in every process.
        keys = torch.randint(2**63 - 1, (self.config.draws,), generator=generator)
        chunks = torch.split(torch.arange(len(data)), policy.batch_size)
        rounds = keys.tensor_split(self.config.minibatches)
        done, total = 0, self.config.draws * len(chunks)
        loss_sum = weight_sum = 0.0
        for share in rounds:
            weight = world.total(len(share) * elements)
            passes = len(share) * len(chunks) if len(data) else 0
            if not passes:  # only other processes have something to learn from in this step
                yield Loss(value=None, ends_step=True, done=done, total=total)
            for number in range(passes):
                key = int(share[number // len(chunks)])
                chunk = chunks[number % len(chunks)]
                part = data.select(chunk.tolist())
                seeds = [training_seed(key, first + place) for place in chunk.tolist()]
                scored = policy.log_prob(part, policy.draw(part, seeds=seeds))
                # Divided by the elements, as the policy gradient is.
                value = -(weights[chunk].to(scored.values) * scored.values).sum()
                done += 1
                ends = number == passes - 1
                yield Loss(value=value / weight, ends_step=ends, done=done, total=total)
                loss_sum += value.item()
            weight_sum += len(share) * elements
        loss_sum, weight_sum = world.total(loss_sum), world.total(weight_sum)
        self._metrics = {
            "loss": loss_sum / weight_sum,
            "samples_used": world.total(float(len(data))),
        }

    def metrics(self) -> Mapping[str, float]:
        """Of the last batch."""
        return self._metrics

    def weighted(
        self, policy: LikelihoodPolicy, batch: Rollout | Demonstrations | RankedBatch, world: World
    ) -> tuple[Data, Float[Tensor, " _n"]]:
        """The samples that count, and their weights."""
        if isinstance(batch, Demonstrations):
            given = join_data(batch.batch)
            return given, torch.ones(len(given))
        if isinstance(batch, RankedBatch):
            row, candidate = batch.present.nonzero().unbind(dim=1)
            shares = ranked_weights(batch, self.config.weighting)[row, candidate]
            counted = shares.nonzero().squeeze(1)
            index = batch.index[row, candidate][counted]
            return batch.data.select(index.tolist()), shares[counted]
        data, rewards, prompt_ids = batch.as_data(policy)
        weights = sample_weights(rewards, prompt_ids, self.config.weighting)
        if not world.total(weights.sum().item()):
            raise NumericsError("learning: no sample of this iteration has a finite reward")
        counted = weights.nonzero().squeeze(1)
        return data.select(counted.tolist()), weights[counted]

    def checks(
        self, policy: LikelihoodPolicy, trajectory: Trajectory, *, fresh: bool
    ) -> list[Check]:
        """Checks of repeated scores and gradients; see `check_likelihood`."""
        return check_likelihood(policy, trajectory, fresh=fresh)

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Accept only the empty state."""
        if state:
            raise CheckpointError(
                "supervised: the checkpoint is of another algorithm; resume with that one"
            )


def sample_weights(
    rewards: Float[Tensor, " n"], prompt_ids: Sequence[str], weighting: Weighting
) -> Float[Tensor, " n"]:
    """Weights of samples, with mean 1 over the samples of a prompt and 0 for those left out.

    A reward that is not finite gets 0. Equal rewards get equal weights, so that a tie for the best
    is shared between those that tie.
    """
    weights = torch.zeros(len(rewards))
    finite = rewards.isfinite()
    for prompt_id in dict.fromkeys(prompt_ids):
        own = torch.tensor([each == prompt_id for each in prompt_ids]) & finite
        count = int(own.sum())
        if not count:
            continue
        match weighting:
            case EqualConfig():
                share = torch.full((count,), 1.0 / count)
            case RewardWeightedConfig():
                scores = group_advantages(rewards[own], torch.zeros(count, dtype=torch.long))
                share = torch.softmax(scores / weighting.temperature, dim=0)
            case BestConfig():
                share = best_shares(rewards[own], weighting.keep)
        weights[own] = share * count
    return weights


def ranked_weights(batch: RankedBatch, weighting: Weighting) -> Float[Tensor, "r k"]:
    """Weights of the candidates of rankings, with sum `batch.weights` over those of each.

    Nothing counts of a ranking without an order, unless all count alike.
    """
    weights = torch.zeros(batch.index.shape)
    for row, ranks in enumerate(batch.ranks):
        match weighting:
            case BestConfig() if ranks.max() > 0:
                there = ranks >= 0
                weights[row, there] = best_shares(-ranks[there].float(), weighting.keep)
            case EqualConfig():
                weights[row] = batch.present[row] / batch.present[row].sum()
            case _:
                continue
    return weights * batch.weights[:, None]


def best_shares(rewards: Float[Tensor, " m"], keep: int) -> Float[Tensor, " m"]:
    """Weights that sum to 1, equal over the `keep` best; ties for the last place share it.

    Example: rewards (3, 1, 3, 0) with keep 1 give (1/2, 0, 1/2, 0).
    """
    keep = min(keep, len(rewards))
    last = rewards.sort(descending=True).values[keep - 1]
    above, tied = rewards > last, rewards == last
    shares = above.float() + tied.float() * (keep - above.sum()) / tied.sum()
    return shares / keep
