"""Proximal policy optimisation over the steps of trajectories (arXiv:1707.06347; for diffusion
arXiv:2305.13301 and arXiv:2305.16381), held to the pretrained model by an exact KL per step.

Maximised, per trajectory: the sum over steps of min(r A, clip(r) A), minus kl.coefficient times the
sum over steps of KL(policy step || pretrained step). r is the true ratio of one step's density, A
the advantage. The algorithm sees steps and distributions; what a step is stays inside the policy.

Left out: optimizer steps, sampling and scoring (train.py); KL as a part of the reward; GAE, since
the reward comes once and is not discounted.

Shapes: b = images sampled together, t = steps of a trajectory, s = steps in one forward pass.
Units: log-probabilities and KL in nats, summed over the elements of a latent.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.distributions import kl_divergence

from imgalign.advantages import (
    RunningPromptStatistics,
    centred_group_advantages,
    group_advantages,
    group_wins,
    value_advantages,
    whitened,
)
from imgalign.algorithms.batches import (
    Assessment,
    MicroBatch,
    choose_steps,
    deal_steps,
    masked,
    micro_batch,
    prompt_features,
    usable,
)
from imgalign.algorithms.kl import AdaptiveKL, FixedKL, KLCoefficient
from imgalign.algorithms.value import ValueConfig, ValueEstimator, explained_variance
from imgalign.config import Config
from imgalign.errors import CheckpointError
from imgalign.losses import ppo_clip_loss
from imgalign.policy import Policy, Trajectory

Positive = Annotated[float, Field(gt=0)]


class KLConfig(Config):
    """How strongly the policy is held to the pretrained model."""

    coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    """Price of one nat of KL of a whole trajectory, in units of the advantage (with group
    advantages: standard deviations of the reward). 0 measures the KL and charges nothing."""

    target_nats: Positive | None = None
    """Adapt the coefficient until the KL per trajectory settles here; null keeps it fixed."""

    rate: Annotated[float, Field(gt=0, lt=5)] = 0.5
    """How fast it adapts: at most a fifth of this per iteration. Ziegler et al. use 0.1 over
    thousands of iterations; a run here has tens."""

    @model_validator(mode="after")
    def _adaptive_needs_a_start(self) -> "KLConfig":
        if self.target_nats is not None and self.coefficient == 0:
            raise ValueError("target_nats needs a coefficient above 0 to start from")
        return self


class PPOConfig(Config):
    """Settings of PPO."""

    clip_nats: Positive | None = 1.6
    """Log-ratios of one step are clipped to +- this many nats, at any resolution. 1.6 is the
    field's usual 1e-4 per latent element on a 4x64x64 latent."""

    clip_range: Positive | None = None
    """The same in the field's convention, nats per latent element; replaces clip_nats."""

    advantages: Literal["group", "wins", "running", "value"] = "group"
    """Better than what: the other images of the prompt in this iteration, by how much or (`wins`)
    how many of them; what the prompt earned lately (for few images per prompt); or a learned
    estimate from prompt and timestep."""

    normalise: Literal["std", "none"] = "std"
    """Divide advantages by their standard deviation, or keep the reward's unit."""

    advantage_clip: Positive = 5.0
    """Advantages beyond this size are cut, so that one image cannot rule an update."""

    running_window: PositiveInt = 32
    """Rewards remembered per prompt, for `advantages: running`."""

    running_min_count: PositiveInt = 16
    """Until a prompt has this many, the whole batch is its baseline."""

    kl: KLConfig = KLConfig()
    """The pull towards the pretrained model."""

    value: ValueConfig = ValueConfig()
    """The estimator, for `advantages: value`."""

    inner_epochs: PositiveInt = 1
    """Passes over each batch of trajectories before new ones are sampled."""

    minibatches: PositiveInt = 1
    """Optimizer steps per pass; each sees an equal share of (images, step) pairs."""

    credited_steps: PositiveInt | None = None
    """Only the first so many steps of a trajectory are credited with its reward; null is all. They
    decide what the image will be, while the gradients of later ones are many times as large and
    nearly all noise: see docs/adr/0006. The KL counts at every step."""

    kl_steps: PositiveInt | None = None
    """How many of the steps without credit are scored again for their KL, in each batch of images
    that was sampled together; null is all of them. They are dealt out anew in each iteration, each
    counting for those that are left out, so the KL stays right on average and an update takes less
    time. Only with credited_steps."""

    num_steps: PositiveInt | None = None
    """Learn from this many steps of each trajectory, drawn anew per iteration; null is all."""

    steps_per_pass: PositiveInt = 1
    """Steps re-scored in one forward pass. 1 keeps the batch as it was when sampling, and so the
    ratio exactly 1 before the first update; more is faster on a GPU and leaves rounding noise."""

    @model_validator(mode="before")
    @classmethod
    def _one_clip(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("clip_range") is not None:
            if values.get("clip_nats") is not None:
                raise ValueError("clip_nats and clip_range are two names of one limit; give one")
            return {**values, "clip_nats": None}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "PPOConfig":
        if self.clip_nats is None and self.clip_range is None:
            raise ValueError("expected clip_nats or clip_range, got neither")
        if self.credited_steps is not None and self.num_steps is not None:
            raise ValueError(
                "credited_steps and num_steps: most of the steps drawn would have no reward to "
                "learn from; give one of them"
            )
        if self.kl_steps is not None and self.credited_steps is None:
            raise ValueError(
                "kl_steps: every step is credited and pays for its KL; give it with credited_steps"
            )
        if self.running_min_count > self.running_window:
            raise ValueError("running_min_count: expected at most running_window")
        if self.advantages == "running" and self.normalise == "none":
            raise ValueError("normalise: has no effect on running advantages, leave it at 'std'")
        return self

    def clip_in_nats(self, num_elements: int) -> float:
        """The clip of one step's log-ratio for latents of `num_elements`."""
        if self.clip_range is not None:
            return self.clip_range * num_elements
        assert self.clip_nats is not None
        return self.clip_nats


class PPO:
    """PPO with what it remembers between iterations: KL coefficient, baselines, value estimator."""

    def __init__(self, config: PPOConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.kl: KLCoefficient = (
            FixedKL(config.kl.coefficient)
            if config.kl.target_nats is None
            else AdaptiveKL(
                config.kl.coefficient,
                target_nats=config.kl.target_nats,
                rate=config.kl.rate,
            )
        )
        self.running = RunningPromptStatistics(
            window=config.running_window, min_count=config.running_min_count
        )
        self.value: ValueEstimator | None = None

    def assess(
        self, policy: Policy, batch: Sequence[Trajectory], rewards: Float[Tensor, " n"]
    ) -> Assessment:
        """Advantages of a new batch; remembers its rewards and trains the value estimator on it.

        `rewards` are of all images of the batch in order. A reward that is not finite quarantines
        its image: it teaches nothing and moves no baseline.
        """
        rewards = rewards.detach().float().cpu()
        log_probs = torch.cat([trajectory.log_probs.cpu() for trajectory in batch])
        good = rewards.isfinite() & log_probs.isfinite().all(dim=1)
        masks = torch.cat([trajectory.mask.cpu() for trajectory in batch]) & good[:, None]
        advantages = torch.zeros(masks.shape)
        metrics: dict[str, float] = {}
        if good.any():
            advantages[good], metrics = self._advantages(policy, batch, rewards, masks, good)
        limit = self.config.advantage_clip
        advantages = advantages.clamp(-limit, limit)
        credited = masks.clone()
        if self.config.credited_steps is not None:
            credited[:, self.config.credited_steps :] = False
        advantages = advantages.masked_fill(~credited, 0.0)
        size = advantages[credited].abs().mean().item() if credited.any() else 0.0
        sizes = [len(trajectory) for trajectory in batch]
        parts = zip(
            batch,
            torch.split(masks, sizes),
            torch.split(advantages, sizes),
            strict=True,
        )
        kept = [each for part in parts if (each := usable(*part)) is not None]
        return Assessment(
            batch=[trajectory for trajectory, _ in kept],
            advantages=[advantage for _, advantage in kept],
            metrics={**metrics, "advantage_abs_mean": size},
        )

    def _advantages(
        self,
        policy: Policy,
        batch: Sequence[Trajectory],
        rewards: Float[Tensor, " n"],
        masks: Bool[Tensor, "n t"],
        good: Bool[Tensor, " n"],
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """Of the m images with a finite reward, with numbers about the baseline."""
        all_ids = [prompt_id for trajectory in batch for prompt_id in trajectory.prompt_ids]
        prompt_ids = [each for each, keep in zip(all_ids, good.tolist(), strict=True) if keep]
        rewards, masks = rewards[good], masks[good]
        match self.config.advantages:
            case "group" | "wins":
                names = {name: number for number, name in enumerate(dict.fromkeys(prompt_ids))}
                group = torch.tensor([names[each] for each in prompt_ids])
                if self.config.advantages == "wins":
                    rewards = group_wins(rewards, group)
                by_group = (
                    group_advantages if self.config.normalise == "std" else centred_group_advantages
                )
                advantages = by_group(rewards, group)
                useless = sum(not advantages[group == number].any() for number in range(len(names)))
                metrics = {"useless_group_fraction": useless / len(names)}
                return advantages[:, None].expand_as(masks), metrics
            case "running":
                advantages = self.running.advantages(rewards, prompt_ids)
                return advantages[:, None].expand_as(masks), {}
            case "value":
                features = prompt_features(policy, batch)
                features["prompt"] = features["prompt"][good]
                return self._value_advantages(features, rewards, masks)

    def _value_advantages(
        self,
        features: dict[str, Tensor],
        rewards: Float[Tensor, " m"],
        masks: Bool[Tensor, "m t"],
    ) -> tuple[Float[Tensor, "m t"], dict[str, float]]:
        """Against what was expected before these rewards were seen; learns from them after."""
        if self.value is None:
            width = features["prompt"].shape[1]
            self.value = ValueEstimator(self.config.value, prompt_width=width, seed=self.seed)
        values = self.value.predict(features)
        # Nothing has been learned yet: the batch's own mean is the best guess, as for any baseline.
        if not self.value.fitted:
            values = torch.full_like(values, rewards.mean().item())
        metrics = {"explained_variance": explained_variance(rewards, values, masks)}
        advantages = value_advantages(rewards, values)
        if self.config.normalise == "std":
            advantages = whitened(advantages, masks)
        metrics["value_loss"] = self.value.fit(features, rewards, masks)
        return advantages, metrics

    def minibatches(
        self, assessment: Assessment, *, generator: torch.Generator
    ) -> Iterator[list[MicroBatch]]:
        """The micro-batches of each optimizer step; their losses add up to the step's loss.

        Images stay together as they were sampled, because a network's rounding depends on its
        batch. What is shuffled, and dealt out to minibatches, is (images, step) pairs.
        """
        chosen = [
            choose_steps(trajectory.mask, self.config.num_steps, generator=generator)
            for trajectory in assessment.batch
        ]
        weighted = [(steps, torch.ones(len(steps))) for steps in chosen]
        if self.config.credited_steps is not None and self.config.kl_steps is not None:
            weighted = deal_steps(
                chosen,
                credited_steps=self.config.credited_steps,
                kl_steps=self.config.kl_steps,
                generator=generator,
            )
        size = self.config.steps_per_pass
        parts = [
            (number, steps, weights)
            for number, each in enumerate(weighted)
            for steps, weights in zip(*(torch.split(part, size) for part in each), strict=True)
            if len(steps)
        ]
        for epoch in range(self.config.inner_epochs):
            order = torch.randperm(len(parts), generator=generator)
            for share in order.tensor_split(self.config.minibatches):
                picked = [parts[index] for index in share.tolist()]
                total = sum(
                    (assessment.batch[number].mask[:, steps].cpu() * weights).sum().item()
                    for number, steps, weights in picked
                )
                if total:
                    yield [
                        micro_batch(
                            assessment, number, steps, weights, total_weight=total, epoch=epoch
                        )
                        for number, steps, weights in picked
                    ]

    def loss(
        self, policy: Policy, micro: MicroBatch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """`ppo_loss` with this run's clip and present KL coefficient."""
        return ppo_loss(policy, micro, config=self.config, kl_coefficient=self.kl.coefficient)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {
            "kl": self.kl.state_dict(),
            "running": dict(self.running.state_dict()),
            "value": None if self.value is None else self.value.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        try:
            self.kl.load_state_dict(state["kl"])
            self.running.load_state_dict(state["running"])
            value = state["value"]
            if value is None:
                self.value = None
                return
            width = int(value["prompt_width"])
            self.value = ValueEstimator(self.config.value, prompt_width=width, seed=self.seed)
            self.value.load_state_dict(value)
        except KeyError as error:
            raise CheckpointError(f"ppo: the checkpoint's state lacks {error}") from None


def ppo_loss(
    policy: Policy, micro: MicroBatch, *, config: PPOConfig, kl_coefficient: float
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Share of one micro-batch in its minibatch's loss, and sums over its transitions.

    The loss is divided by the number of elements of a latent: an update's direction stays the
    same, and gradient norms compare across resolutions and with the field's per-element habit.
    """
    trajectory, steps, mask = micro.trajectory, micro.steps, micro.mask
    # Reference first: it switches adapters off and on, which must not happen inside a live graph.
    with torch.no_grad(), policy.reference():
        pretrained = policy.step_distributions(trajectory, steps)
    current = policy.step_distributions(trajectory, steps)
    num_elements = current.event_shape.numel()
    clip_nats = config.clip_in_nats(num_elements)
    log_prob = current.log_prob(policy.actions(trajectory, steps))
    old_log_prob = trajectory.log_probs[:, steps]
    surrogate = masked(
        ppo_clip_loss(log_prob, old_log_prob, micro.advantages, clip_nats=clip_nats), mask
    )
    kl = masked(kl_divergence(current, pretrained), mask)
    weights = micro.weights
    loss = ((surrogate + kl_coefficient * kl) * weights).sum() / (micro.total_weight * num_elements)
    with torch.no_grad():
        log_ratio = masked(log_prob - old_log_prob, mask)
        stats = {
            "surrogate": (surrogate.detach() * weights).sum(),
            "kl": (kl.detach() * weights).sum(),
            "clip_fraction": ((log_ratio.abs() > clip_nats) * weights).sum(),
            # Schulman's k3 estimate of KL(old || new): unbiased and never negative.
            "approx_kl": ((log_ratio.expm1() - log_ratio) * weights).sum(),
            "log_ratio_max": log_ratio.abs().max(),
            "entropy": (masked(current.entropy(), mask) * weights).sum(),
        }
    return loss, stats


def measure_kl(policy: Policy, batch: Sequence[Trajectory]) -> float:
    """KL(policy || pretrained) in nats per trajectory, on the states that `batch` visited.

    Exact per step, an average over the sampled paths; with fresh samples of the policy it is an
    unbiased estimate of the KL between whole trajectories.
    """
    total, images = 0.0, 0
    with torch.no_grad():
        for trajectory in batch:
            images += len(trajectory)
            for step in trajectory.mask.any(dim=0).nonzero():
                with policy.reference():
                    pretrained = policy.step_distributions(trajectory, step)
                kl = kl_divergence(policy.step_distributions(trajectory, step), pretrained)
                total += masked(kl, trajectory.mask[:, step]).double().sum().item()
    return total / images
