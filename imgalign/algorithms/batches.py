"""Training batches, their micro-batches of one forward pass each, and sums of their statistics.

Shapes: n = samples of a batch, b = samples made together, t = steps of a trajectory, s = steps in
one forward pass. Units: log-probabilities and KL in nats, summed over the elements of a latent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from imgalign.algorithms.dealing import ChosenSteps
from imgalign.policy import Data, LikelihoodPolicy, Trajectory, join_data
from imgalign.runs.world import World


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beside:
    """Given samples that are scored like the policy's own samples of the same prompts.

    Methods that learn from given samples learn from these too. A policy gradient only compares with
    them: it weighs what the policy did, and the policy did not make these, so that its ratio would
    say nothing of how they came about.
    """

    data: Data
    rewards: Float[Tensor, " k"]
    """Float32 on the CPU. NaN marks a sample that is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """Samples of a policy with their rewards."""

    batch: list[Trajectory]
    """Images as sampled together: a network's rounding depends on its batch."""
    rewards: Float[Tensor, " n"]
    """Float32 on the CPU, of all samples in order. NaN marks a sample that is dropped."""
    seconds_sampling: float = 0.0
    seconds_scoring: float = 0.0
    examples: Data | None = None
    """Given samples, whose likelihood is to be kept."""
    finished: Bool[Tensor, " n"] | None = None
    """Which samples came to their end; None where all samples of the policy do."""
    beside: Beside | None = None
    """Given samples of the same prompts, which are compared with those of the policy."""

    def __len__(self) -> int:
        """Samples, dropped ones included."""
        return len(self.rewards)

    @property
    def prompt_ids(self) -> list[str]:
        """Of all samples in order."""
        return [prompt_id for trajectory in self.batch for prompt_id in trajectory.prompt_ids]

    def as_data(self, policy: LikelihoodPolicy) -> tuple[Data, Float[Tensor, " m"], list[str]]:
        """All samples as data, with their rewards and prompt ids: the policy's, then the given."""
        own = [policy.given(trajectory) for trajectory in self.batch]
        if self.beside is None:
            return join_data(own), self.rewards, self.prompt_ids
        data = self.beside.data
        return (
            join_data([*own, data]),
            torch.cat([self.rewards, self.beside.rewards]),
            [*self.prompt_ids, *data.prompt_ids],
        )

    def metrics(self, world: World) -> dict[str, float]:
        """Statistics of the samples over all processes, under the keys of docs/metrics.md.

        Of the policy's own; of given ones beside them the mean reward alone.
        """
        cut: dict[str, float] = {}
        if self.beside is not None:
            beside = torch.cat(world.gather(self.beside.rewards))
            cut["beside_reward_mean"] = beside[beside.isfinite()].double().mean().item()
        if self.finished is not None:
            finished = torch.cat(world.gather(self.finished))
            cut["unfinished"] = 1 - finished.double().mean().item()
        return {
            **reward_metrics(torch.cat(world.gather(self.rewards))),
            **cut,
            "seconds_sampling": self.seconds_sampling,
            "seconds_scoring": self.seconds_scoring,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstrations:
    """Samples that were given as examples."""

    batch: list[Data]
    seconds_loading: float = 0.0

    def __len__(self) -> int:
        """Samples."""
        return sum(len(data) for data in self.batch)

    def metrics(self, world: World) -> dict[str, float]:
        """Under the keys of docs/metrics.md."""
        return {"seconds_loading": self.seconds_loading}


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Input of one forward and backward pass: some steps of samples that were made together."""

    trajectory: Trajectory
    steps: Int[Tensor, " s"]
    advantages: Float[Tensor, "b s"]
    mask: Bool[Tensor, "b s"]
    weights: Float[Tensor, " s"]
    """Sampling weights: how many steps of the trajectory each of these stands for."""
    total_weight: float
    """Sum of the weights of all transitions of the minibatch, over which the loss is a mean."""
    epoch: int
    """Inner epoch; the reported KL is that of epoch 0."""
    kl_weight: float = 1.0
    """By what the KL of these steps is multiplied: more than 1 where it stands for that of other
    passes too, 0 where the pretrained model is not asked."""


SUMS = ("surrogate", "clip_fraction", "approx_kl", "entropy")
"""What `policy_gradient_loss` sums in every epoch; the KL counts in the first one only."""


@dataclass(slots=True)
class Tally:
    """Sums over the transitions of an iteration, and the metrics derived from them."""

    num_samples: float
    num_steps: float
    """Of all samples together, those with a density."""
    sums: dict[str, float] = field(default_factory=dict)
    count: float = 0.0
    first_count: float = 0.0
    log_ratio_max: float = 0.0

    def add(self, stats: Mapping[str, Tensor], micro: MicroBatch) -> None:
        """Add the statistics that `policy_gradient_loss` returned for one micro-batch."""
        count = (micro.mask * micro.weights).sum().item()
        self.count += count
        self.log_ratio_max = max(self.log_ratio_max, stats["log_ratio_max"].item())
        for name in SUMS:
            self.sums[name] = self.sums.get(name, 0.0) + stats[name].item()
        if micro.epoch == 0:
            self.first_count += count
            self.sums["kl"] = self.sums.get("kl", 0.0) + stats["kl"].item()

    def over(self, world: World) -> "Tally":
        """The sums over all processes."""
        return Tally(
            num_samples=world.total(self.num_samples),
            num_steps=world.total(self.num_steps),
            sums={name: world.total(self.sums.get(name, 0.0)) for name in (*SUMS, "kl")},
            count=world.total(self.count),
            first_count=world.total(self.first_count),
            log_ratio_max=world.largest(self.log_ratio_max),
        )

    @property
    def steps_per_trajectory(self) -> float:
        """Mean number of steps with a density, to scale a mean over steps to a trajectory."""
        return self.num_steps / max(self.num_samples, 1)

    @property
    def kl_nats(self) -> float:
        """KL(policy || pretrained) of a whole trajectory, mean over samples, in nats."""
        return self._mean("kl", self.first_count) * self.steps_per_trajectory

    def metrics(self, *, referred: bool = True) -> dict[str, float]:
        """Means under the keys of docs/metrics.md; without the KL where no reference was asked."""
        kl = {"kl": self.kl_nats, "kl_per_step": self._mean("kl", self.first_count)}
        return (kl if referred else {}) | {
            "approx_kl": self._mean("approx_kl", self.count) * self.steps_per_trajectory,
            "policy_loss": self._mean("surrogate", self.count),
            "clip_fraction": self._mean("clip_fraction", self.count),
            "log_ratio_max": self.log_ratio_max,
            "entropy_per_step": self._mean("entropy", self.count),
        }

    def _mean(self, name: str, count: float) -> float:
        return self.sums.get(name, 0.0) / count if count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The advantages of a batch."""

    batch: list[Trajectory]
    """As sampled; steps of samples without a finite reward are masked out."""
    advantages: list[Tensor]
    """One [b t] for each trajectory of the batch."""
    metrics: dict[str, float]

    def tally(self) -> Tally:
        """Empty sums for this batch."""
        masks = [trajectory.mask for trajectory in self.batch]
        return Tally(
            num_samples=sum(mask.any(dim=1).sum().item() for mask in masks),
            num_steps=sum(mask.sum().item() for mask in masks),
        )


def reward_metrics(rewards: Float[Tensor, " n"]) -> dict[str, float]:
    """Statistics of rewards; those that are not finite are counted and left out."""
    good = rewards[rewards.isfinite()].double()
    return {
        "reward_mean": good.mean().item(),
        "reward_std": good.std(correction=0).item(),
        "reward_min": good.min().item(),
        "reward_max": good.max().item(),
        "dropped_images": float(len(rewards) - len(good)),
    }


def masked(values: Float[Tensor, "b s"], mask: Bool[Tensor, "b s"]) -> Float[Tensor, "b s"]:
    """Zero where the mask is False, whatever stood there."""
    return torch.where(mask.to(values.device), values, 0.0)


def with_density(steps: Int[Tensor, " s"], mask: Bool[Tensor, "b t"]) -> Int[Tensor, " _s"]:
    """Those of some steps that have a density for some sample, on the device of `steps`."""
    return steps[mask[:, steps].any(dim=0).to(steps.device)]


def micro_batch(
    assessment: Assessment, chosen: ChosenSteps, *, first: int, total_weight: float, epoch: int
) -> MicroBatch:
    """Some steps of one trajectory of the batch, on the trajectory's device.

    `first` is the number of the batch's first trajectory among those of all processes.
    """
    number = chosen.number - first
    trajectory = assessment.batch[number]
    device = trajectory.log_probs.device
    steps = chosen.steps.to(device)
    return MicroBatch(
        trajectory=trajectory,
        steps=steps,
        advantages=assessment.advantages[number].to(device)[:, steps],
        mask=trajectory.mask[:, steps],
        weights=chosen.weights.to(device),
        total_weight=total_weight,
        epoch=epoch,
        kl_weight=chosen.kl_weight,
    )


def usable(
    trajectory: Trajectory, mask: Bool[Tensor, "b t"], advantages: Float[Tensor, "b t"]
) -> tuple[Trajectory, Float[Tensor, "n t"]] | None:
    """The trajectory under a narrower mask, without samples whose own numbers are not finite.

    Masking is not enough for those: zero times NaN is NaN in the backward pass. None when no sample
    is left.
    """
    finite = trajectory.log_probs.isfinite().all(dim=1).cpu()
    narrower = Trajectory(
        prompts=trajectory.prompts,
        prompt_ids=trajectory.prompt_ids,
        seeds=trajectory.seeds,
        log_probs=trajectory.log_probs,
        mask=mask.to(trajectory.mask.device),
        replay=trajectory.replay,
    )
    if finite.all():
        return narrower, advantages
    if not finite.any():
        return None
    return narrower.select(finite.nonzero().squeeze(1)), advantages[finite]
