"""Clipped policy gradient over the steps of trajectories: PPO with a critic, GRPO with groups.

Maximises, per trajectory, the sum over steps of min(r A, clip(r) A), minus kl.coefficient times the
sum over steps of KL(policy step || pretrained step). r is the ratio of one step's densities and A
the advantage, in which alone PPO (arXiv:1707.06347; for diffusion arXiv:2305.13301 and
arXiv:2305.16381) and GRPO (arXiv:2402.03300; for diffusion arXiv:2505.05470 and arXiv:2505.07818)
differ. The algorithm sees steps and distributions; what a step is stays inside the policy. The KL
may be paid in the reward of each step instead (arXiv:1909.08593), and the likelihood of given
examples be kept beside it (PPO-ptx, arXiv:2203.02155). Rewards are not discounted.

Left out: optimizer steps, sampling and scoring (train/); the loss of one pass (surrogate.py).

Shapes: b = samples made together, t = steps of a trajectory, s = steps in one forward pass.
Units: log-probabilities and KL in nats, summed over the elements of a latent.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor

from imgalign.advantages import kl_penalised_rewards
from imgalign.algorithms.baselines import (
    GroupBaselineConfig,
    GroupConfig,
    LearnedBaselineConfig,
    ValueConfig,
    build_baseline,
)
from imgalign.algorithms.batches import (
    Assessment,
    MicroBatch,
    Rollout,
    Tally,
    micro_batch,
    usable,
)
from imgalign.algorithms.checks import check_steps
from imgalign.algorithms.dealing import Steps, dealt, drawn_passes
from imgalign.algorithms.examples import shared_out
from imgalign.algorithms.interface import NEW_RUN, BatchKind, Loss, RankingCounts
from imgalign.algorithms.kl import FixedKLConfig, KLConfig, coefficient_of, reference_log_ratios
from imgalign.algorithms.rewarded import Features, Rewarded
from imgalign.algorithms.surrogate import policy_gradient_loss
from imgalign.config import Config
from imgalign.errors import CheckpointError, NumericsError
from imgalign.policy import Check, Critic, StepPolicy, Trajectory
from imgalign.runs.world import World, first_position

log = logging.getLogger(__name__)

Positive = Annotated[float, Field(gt=0)]
MOST_UNMEASURED = 3

ONLY_ROLLOUTS = (
    "data.from: {} learns from samples that it makes itself; expected 'rollouts', got {!r} (or "
    "use algorithm.name: {})"
)
INSTEAD: Mapping[BatchKind, str] = {
    "demonstrations": "supervised",
    "rankings": "dpo",
    "labels": "kto",
}


class PolicyGradientConfig(Config):
    """Settings that PPO and GRPO share."""

    clip_nats: Positive | None = None
    """Log-ratios of one step are clipped to +- this many nats, at any resolution. Null takes the
    policy's default: for denoising steps 1.6, the usual 1e-4 per latent element on a 4x64x64
    latent."""

    clip_range: Positive | None = None
    """The same per latent element, as in other trainers; instead of clip_nats."""

    advantage_clip: Positive = 5.0
    """Advantages are clipped to +- this, so that one sample cannot dominate an update."""

    kl: KLConfig = Field(FixedKLConfig(), discriminator="kind")
    """Coefficient of the KL penalty towards the pretrained model."""

    inner_epochs: PositiveInt = 1
    """Passes over each batch of trajectories before new ones are sampled."""

    minibatches: PositiveInt = 1
    """Optimizer steps per pass over the batch; each sees an equal share of its forward passes, of
    some steps of samples that were made together."""

    credited_steps: PositiveInt | None = None
    """Only the first so many steps of a trajectory get its advantage; null is all. They decide most
    of what the sample will be, while the gradients of later ones are many times as large and mostly
    noise: see docs/adr/0006. The KL counts at every step."""

    kl_steps: PositiveInt | None = None
    """How many of the uncredited steps are re-scored for their KL, in each batch of samples that
    was made together; null is all. They are sampled anew in each iteration and weighted, so the KL
    is unbiased and an update takes less time. Only with credited_steps."""

    reference_passes: NonNegativeInt | None = None
    """How many of the forward passes that re-score a batch of samples made together are made by the
    pretrained model too, for the KL; null is all. They are drawn anew in each iteration and
    weighted, so the KL is unbiased but noisier. An update takes up to a third less time; with a KL
    target or budget, prefer all. 0, with a kl.coefficient of 0, measures it on held-out prompts
    alone."""

    ptx: NonNegativeFloat = 0.0
    """Weight of the likelihood of given examples, data.examples, in the loss: minus the mean
    log-probability of their elements (gamma of PPO-ptx, arXiv:2203.02155, eq. 2). It keeps what the
    model could do before."""

    timesteps_per_update: PositiveInt | None = None
    """Learn from a random subset of this many steps, drawn in each iteration; null is all."""

    @model_validator(mode="after")
    def _consistent(self) -> "PolicyGradientConfig":
        if self.clip_nats is not None and self.clip_range is not None:
            raise ValueError(
                "clip_nats and clip_range are two names of one limit; give one, and null for the "
                "other"
            )
        if self.credited_steps is not None and self.timesteps_per_update is not None:
            raise ValueError(
                "credited_steps and timesteps_per_update: most of the steps drawn would have no "
                "reward to learn from; give one of them"
            )
        if self.kl_steps is not None and self.credited_steps is None:
            raise ValueError(
                "kl_steps: every step is credited and pays for its KL; give it with credited_steps"
            )
        if self.reference_passes == 0 and self.kl.coefficient:
            raise ValueError(
                "reference_passes: 0 measures no KL that kl could be paid for; expected at least "
                "1, or kl.kind fixed with a coefficient of 0"
            )
        return self

    def clip_in_nats(self, num_elements: int, *, default: float) -> float:
        """The clip of one step's log-ratio for latents of `num_elements`."""
        if self.clip_range is not None:
            return self.clip_range * num_elements
        return default if self.clip_nats is None else self.clip_nats

    def refuse_rankings(self, counts: RankingCounts) -> None:
        """Nothing: `refuse_data` has refused them all."""

    def refuse_steps(self, num_steps: int, *, named: str) -> None:
        """ValueError for settings about more steps than a trajectory has by the `named` one."""
        for name in ("credited_steps", "kl_steps", "reference_passes", "timesteps_per_update"):
            asked = getattr(self, name)
            if asked is not None and asked > num_steps:
                raise ValueError(
                    f"algorithm.{name}: expected at most {named}, {num_steps}, got {asked}"
                )
        uncredited = num_steps - (self.credited_steps or 0)
        if self.kl_steps is not None and self.kl_steps >= uncredited:
            raise ValueError(
                f"algorithm.kl_steps: has no effect, {uncredited} of {num_steps} steps are without "
                "credit"
            )

    def refuse_minibatches(self, *, batches: int, passes: int, groups: int | None) -> None:
        """ValueError for more minibatches than forward passes to share out.

        `batches` of samples are made in an iteration, and `passes` re-score all steps of one;
        `groups` are its prompts or rankings.
        """
        chosen = self.timesteps_per_update
        if self.credited_steps is not None and self.kl_steps is not None:
            chosen = self.credited_steps + self.kl_steps
        passes = passes if chosen is None else min(passes, chosen)
        if self.minibatches > batches * passes:
            raise ValueError(
                f"algorithm.minibatches: expected at most {batches * passes}, {passes} forward "
                f"passes for each of {batches} batches of samples, got {self.minibatches}"
            )


class PPOConfig(PolicyGradientConfig):
    """Proximal policy optimisation, with a critic as the baseline."""

    name: Literal["ppo"] = "ppo"
    """The algorithm."""

    baseline: LearnedBaselineConfig = Field(ValueConfig(), discriminator="kind")
    """What rewards are compared with."""

    def refuse_data(self, source: str, kind: BatchKind, *, group_size: int) -> None:
        """ValueError unless the policy samples itself."""
        if kind != "rollouts":
            raise ValueError(ONLY_ROLLOUTS.format(self.name, source, INSTEAD[kind]))


class GRPOConfig(PolicyGradientConfig):
    """Group relative policy optimisation: PPO's update, with a group baseline and no critic."""

    name: Literal["grpo"] = "grpo"
    """The algorithm."""

    baseline: GroupBaselineConfig = Field(GroupConfig(), discriminator="kind")
    """What rewards are compared with."""

    def refuse_data(self, source: str, kind: BatchKind, *, group_size: int) -> None:
        """ValueError unless the policy samples in groups."""
        if kind != "rollouts":
            raise ValueError(ONLY_ROLLOUTS.format(self.name, source, INSTEAD[kind]))
        if group_size < 2:
            raise ValueError(
                "data.group_size: expected at least 2 with grpo, got 1; a single sample is never "
                "better than its group (or use algorithm.name: ppo)"
            )


class PolicyGradient:
    """PPO or GRPO; its state is the KL coefficient and the baseline's."""

    def __init__(
        self, config: PPOConfig | GRPOConfig, *, seed: int, critic: Critic | None = None
    ) -> None:
        self.config = config
        self.kl = coefficient_of(config.kl)
        self.baseline = build_baseline(config.baseline, seed=seed, critic=critic)
        self._metrics: dict[str, float] = {}
        self._said = False
        self._unmeasured = 0

    def losses(
        self, policy: StepPolicy, batch: Rollout, *, world: World, generator: torch.Generator
    ) -> Iterator[Loss]:
        """One loss per micro-batch in the order of `minibatches`; updates the KL coefficient."""
        given, own = batch.examples if self.config.ptx else None, torch.Generator()
        if given is not None:  # before anything that depends on how samples are cut into passes
            own.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
        assessment = self.assess(policy, batch, world=world)
        tally = assessment.tally()
        minibatches = list(self.minibatches(policy, assessment, world=world, generator=generator))
        shares = shared_out(policy, given, len(minibatches), world=world, generator=own)
        done, total = 0, sum(map(len, minibatches)) + sum(map(len, shares))
        coefficient = self.kl.coefficient
        for minibatch, examples in zip(minibatches, shares, strict=True):
            left = len(minibatch) + len(examples)
            if not left:  # only other processes have something to learn from in this step
                yield Loss(value=None, ends_step=True, done=done, total=total)
            learned = (self._learned(policy, micro, tally) for micro in minibatch)
            kept = (self.config.ptx * value for value in examples.losses(policy))
            for value in chain(learned, kept):
                done, left = done + 1, left - 1
                yield Loss(value=value, ends_step=not left, done=done, total=total)
        tally = tally.over(world)
        referred = self.config.reference_passes != 0
        if referred and tally.first_count:
            self._follow(tally.kl_nats)
        metrics = tally.metrics(referred=referred) | assessment.metrics
        self._metrics = metrics | {"kl_coefficient": coefficient}
        if given is not None:
            # Of the steps that had any: where there are few, some have none.
            sums = [world.total(each.loss) for each in shares if each.elements]
            self._metrics["ptx_loss"] = sum(sums) / max(len(sums), 1)

    def _follow(self, kl_nats: float) -> None:
        """Move the coefficient by a measured KL; NumericsError where several in a row are none."""
        self._unmeasured = 0 if math.isfinite(kl_nats) else self._unmeasured + 1
        if self._unmeasured == MOST_UNMEASURED:
            raise NumericsError(
                f"learning: the kl to the pretrained model is {kl_nats} in {MOST_UNMEASURED} "
                f"iterations in a row; {NEW_RUN}"
            )
        if not self._unmeasured:
            self.kl.update(kl_nats)

    def _learned(self, policy: StepPolicy, micro: MicroBatch, tally: Tally) -> Float[Tensor, ""]:
        value, stats = self.loss(policy, micro)
        tally.add(stats, micro)
        return value

    def metrics(self) -> Mapping[str, float]:
        """Of the last batch."""
        return self._metrics

    def assess(self, policy: StepPolicy, rollout: Rollout, *, world: World) -> Assessment:
        """Advantages of a new batch; updates the baseline, alike in all processes.

        A sample whose reward is not finite is dropped: it changes neither policy nor baseline.
        """
        batch, rewards = rollout.batch, rollout.rewards.detach().float().cpu()
        log_probs = torch.cat([trajectory.log_probs.cpu() for trajectory in batch])
        good = rewards.isfinite() & log_probs.isfinite().all(dim=1)
        masks = torch.cat([trajectory.mask.cpu() for trajectory in batch]) & good[:, None]
        advantages = torch.zeros(masks.shape)
        metrics: dict[str, float] = {}
        if world.agree(bool(good.any())):
            kept = zip(rollout.prompt_ids, good.tolist(), strict=True)
            beside, beside_ids = finite_beside(rollout)
            advantages[good], metrics = self.baseline.advantages(
                Rewarded(
                    rewards=self._step_rewards(policy, batch, rewards, masks)[good],
                    prompt_ids=[each for each, keep in kept if keep],
                    mask=masks[good],
                    features=lambda: batch_features(policy, batch, good),
                    beside=beside,
                    beside_ids=beside_ids,
                ),
                world=world,
            )
        limit = self.config.advantage_clip
        advantages = advantages.clamp(-limit, limit)
        credited = masks.clone()
        if self.config.credited_steps is not None:
            credited[:, self.config.credited_steps :] = False
        advantages = advantages.masked_fill(~credited, 0.0)
        used = torch.cat(world.gather(advantages[credited].abs()))
        size = used.mean().item() if len(used) else 0.0
        sizes = [len(trajectory) for trajectory in batch]
        parts = zip(batch, torch.split(masks, sizes), torch.split(advantages, sizes), strict=True)
        usable_parts = [each for part in parts if (each := usable(*part)) is not None]
        return Assessment(
            batch=[trajectory for trajectory, _ in usable_parts],
            advantages=[advantage for _, advantage in usable_parts],
            metrics={**metrics, "advantage_abs_mean": size},
        )

    def _step_rewards(
        self,
        policy: StepPolicy,
        batch: Sequence[Trajectory],
        rewards: Float[Tensor, " n"],
        masks: Bool[Tensor, "n t"],
    ) -> Float[Tensor, "n t"]:
        """The reward of a sample at its last step, less the price of the KL where it is paid so."""
        log_ratios, coefficient = torch.zeros(masks.shape), 0.0
        if self.config.kl.place == "reward" and self.kl.coefficient:
            log_ratios = torch.cat(reference_log_ratios(policy, batch))
            coefficient = self.kl.coefficient
        return kl_penalised_rewards(rewards, log_ratios, masks, coefficient=coefficient)

    def minibatches(
        self,
        policy: StepPolicy,
        assessment: Assessment,
        *,
        world: World,
        generator: torch.Generator,
    ) -> Iterator[list[MicroBatch]]:
        """The micro-batches of each optimizer step; their losses add up to the step's loss.

        Images stay together as they were sampled, because a network's rounding depends on its
        batch. What is dealt out to minibatches is (samples, step) pairs, those of all processes.
        """
        batch, config = assessment.batch, self.config
        parts = drawn_passes(
            [Steps.of(trajectory.mask, policy.units(trajectory)) for trajectory in batch],
            timesteps_per_update=config.timesteps_per_update,
            credited_steps=config.credited_steps,
            kl_steps=config.kl_steps,
            reference_passes=config.reference_passes,
            world=world,
            generator=generator,
        )
        self._say_if_too_few(len(parts))
        first = first_position(world, len(batch))
        own = range(first, first + len(batch))
        for epoch in range(config.inner_epochs):
            if epoch and (config.kl.place == "reward" or not self.kl.coefficient):
                # The KL of later epochs is neither paid here nor reported.
                parts = [replace(each, kl_weight=0.0) for each in parts]
            for places in dealt(len(parts), config.minibatches, generator=generator):
                picked = [parts[place] for place in places.tolist() if parts[place].number in own]
                masks = (batch[each.number - first].mask for each in picked)
                total = world.total(
                    sum(
                        (mask[:, each.steps].cpu() * each.weights).sum().item()
                        for mask, each in zip(masks, picked, strict=True)
                    )
                )
                if total:
                    micro = partial(
                        micro_batch, assessment, first=first, total_weight=total, epoch=epoch
                    )
                    yield [micro(each) for each in picked]

    def _say_if_too_few(self, parts: int) -> None:
        """Warn once where there are fewer forward passes than minibatches to share them out to."""
        asked = self.config.minibatches
        if parts < asked and not self._said:
            log.warning(
                "algorithm.minibatches: %d asked for, but this iteration has %d forward passes to "
                "learn from, and makes that many optimizer steps per pass over them",
                asked,
                parts,
            )
            self._said = True

    def loss(
        self, policy: StepPolicy, micro: MicroBatch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """`policy_gradient_loss` with this run's clip and present KL coefficient."""
        in_loss, clip = self.config.kl.place == "loss", partial(self._clip, policy)
        coefficient = self.kl.coefficient if in_loss else 0.0
        return policy_gradient_loss(policy, micro, clip=clip, kl_coefficient=coefficient)

    def _clip(self, policy: StepPolicy, num_elements: int) -> float:
        return self.config.clip_in_nats(num_elements, default=policy.default_clip_nats)

    def checks(self, policy: StepPolicy, trajectory: Trajectory, *, fresh: bool) -> list[Check]:
        """Checks of ratio, noise floor, KL and gradients; see `check_steps`."""
        return check_steps(policy, trajectory, clip=partial(self._clip, policy), fresh=fresh)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {"kl": self.kl.state_dict(), "baseline": self.baseline.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        try:
            kl, baseline = state["kl"], state["baseline"]
        except KeyError as error:
            raise CheckpointError(
                f"{self.config.name}: the checkpoint's state lacks {error}"
            ) from None
        self.kl.load_state_dict(kl)
        self.baseline.load_state_dict(baseline)


def finite_beside(rollout: Rollout) -> tuple[Float[Tensor, " k"], list[str]]:
    """Finite rewards of the given samples beside those of the policy, and their prompt ids."""
    if rollout.beside is None:
        return torch.zeros(0), []
    rewards, ids = rollout.beside.rewards, rollout.beside.data.prompt_ids
    there = rewards.isfinite()
    return rewards[there], [each for each, keep in zip(ids, there.tolist(), strict=True) if keep]


def batch_features(
    policy: StepPolicy, batch: Sequence[Trajectory], good: Bool[Tensor, " n"]
) -> list[Features]:
    """What a value estimator sees of the good samples of a batch, by those made together."""
    parts = torch.split(good, [len(trajectory) for trajectory in batch])
    return [
        policy.features(trajectory.select(own.nonzero().squeeze(1)), slice(None))
        for trajectory, own in zip(batch, parts, strict=True)
        if own.any()
    ]
