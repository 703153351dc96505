"""Direct preference optimization and its relatives: from rankings to weights, without a reward.

The implicit reward of a sample is beta times its log-ratio, log p(sample) under the policy less
that under the pretrained model (DPO, arXiv:2305.18290; for diffusion, with the ELBO in the place of
log p, arXiv:2311.12908). Objectives of it: Plackett-Luce of a whole ranking, with ties
(arXiv:2510.01540 without), Bradley-Terry of its pairs, IPO, KTO, and a regression on scores.

All candidates of a ranking, under policy and pretrained model, are scored with the same draws.
Losses are divided by beta and by the elements of a sample, so that gradient norms compare with
those of other algorithms and do not depend on beta.

Left out: where rankings come from (train/data/), and the objectives' formulas (losses.py).

Shapes: r = rankings of a batch, k = candidates of the longest one, m = rows: one draw of one
candidate. Units: log-ratios and margins in nats, summed over the elements of a sample.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.beta import AutoBetaConfig, BetaConfig, build_beta
from imgalign.algorithms.checks import check_likelihood
from imgalign.algorithms.implicit import (
    Rows,
    Scored,
    Seen,
    added,
    log_prob_of,
    metrics_of,
    over_draws,
    pieces_of,
    push_limits,
    rows_of,
    score,
    score_in_parts,
)
from imgalign.algorithms.interface import BatchKind, Compared, Loss, World, first_position
from imgalign.algorithms.rankings import (
    RankedBatch,
    best,
    better_pairs,
    ordered,
    ranked_rollout,
    worst,
)
from imgalign.config import Config, refuse_ineffective
from imgalign.errors import CheckpointError, NumericsError
from imgalign.losses import (
    bradley_terry_loss,
    cardinal_loss,
    ipo_loss,
    kto_loss,
    plackett_luce_loss,
)
from imgalign.policy import Check, LikelihoodPolicy, Trajectory

Share = Annotated[float, Field(ge=0, lt=1)]

HELD_OUT_SEED, HELD_OUT_DRAWS = 0, 4
"""Of the draws with which held-out rankings are scored, and how many of them."""

HELD_OUT = (
    *("preference_loss", "implicit_accuracy", "implicit_margin"),
    *("chosen_log_ratio", "rejected_log_ratio"),
)
"""The metrics of held-out rankings."""

TIE_START, TIE_RATE = -1.0, 0.5
"""Initial log-weight of ties, and the step size of the gradient descent on it."""


class DirectConfig(Config):
    """Settings that all direct methods share."""

    beta: BetaConfig = Field(AutoBetaConfig(), discriminator="kind")
    """Implicit reward per nat of log-ratio."""

    sft: NonNegativeFloat = 0.0
    """Weight of supervised fine-tuning on the best of each ranking, which is added to the loss: the
    mean of minus their implicit rewards."""

    keep_chosen: Share | None = None
    """Limits the push away from the rest of a ranking so that, to first order in the network's
    outputs, at least this share of the progress on the better ones is left (mu of Diffusion-SDPO,
    arXiv:2511.03317, for each ranking). 0 only keeps their error from rising; null has no limit."""

    max_chosen_drop: PositiveFloat | None = None
    """Weights under which the best of held-out rankings have become less likely by more than this
    many nats do not count as the best of a run, and with run.patience end it. Null only measures
    it."""

    draws: PositiveInt = 1
    """Noise levels at which each candidate is scored; log-ratios are the mean over them."""

    minibatches: PositiveInt = 1
    """Optimizer steps per iteration; each sees an equal share of the rankings."""

    def refuse_data(self, source: str, kind: BatchKind, *, group_size: int) -> None:
        """ValueError where nothing is compared with anything."""
        if kind == "images":
            raise ValueError(
                f"data.from: expected rankings or 'rollouts', got {source!r}, which has images "
                "without an order (or use algorithm.name: supervised)"
            )
        if kind == "rollouts" and group_size < 2:
            raise ValueError(
                "data.group_size: expected at least 2, got 1; there is nothing to compare a single "
                "image with"
            )

    def refuse_steps(self, num_steps: int) -> None:
        """Nothing: it scores finished samples and not steps."""

    def refuse_minibatches(self, *, batches: int, passes: int, groups: int | None) -> None:
        """ValueError for more minibatches than the `groups` that are rankings of an iteration."""
        if groups is not None and self.minibatches > groups:
            raise ValueError(
                f"algorithm.minibatches: expected at most {groups}, the rankings of an iteration, "
                f"got {self.minibatches}"
            )


class DPOConfig(DirectConfig):
    """Direct preference optimization, on whole rankings or their pairs."""

    name: Literal["dpo"] = "dpo"
    """The algorithm."""

    compare: Literal["ranking", "all_pairs", "best_worst"] = "ranking"
    """Compare whole rankings with ties (Plackett-Luce; the same as DPO for two images), all pairs
    of a ranking, or only the best with the worst. However many pairs it has, a ranking counts
    once."""

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of pairs whose label is wrong (conservative DPO). Not with whole rankings."""

    @model_validator(mode="after")
    def _pairs_are_smoothed(self) -> "DPOConfig":
        if self.compare == "ranking":
            refuse_ineffective(self, ["label_smoothing"], "with compare: ranking")
        return self


class IPOConfig(DirectConfig):
    """Identity preference optimization (arXiv:2310.12036): a target for the margin of pairs."""

    name: Literal["ipo"] = "ipo"
    """The algorithm."""

    compare: Literal["all_pairs", "best_worst"] = "all_pairs"
    """Compare all pairs of a ranking, or only the best with the worst."""


class KTOConfig(DirectConfig):
    """Likes and dislikes without partners (arXiv:2402.01306; for diffusion arXiv:2404.04465).

    The best of a ranking are liked and the worst disliked; of a ranking that is all bad, all are
    disliked.
    """

    name: Literal["kto"] = "kto"
    """The algorithm."""

    desirable_weight: PositiveFloat = 1.0
    """Weight of a like. In a ranking with an order, likes and dislikes count alike at 1."""

    undesirable_weight: PositiveFloat = 1.0
    """Weight of a dislike."""


class CardinalConfig(DirectConfig):
    """Regression of implicit rewards on how much better a candidate is (LAIR, arXiv:2605.26491)."""

    name: Literal["cardinal"] = "cardinal"
    """The algorithm."""

    temperature: PositiveFloat = 1.0
    """Scores of a ranking become advantages softmax(score / temperature) - 1 / k."""

    largest: PositiveFloat = 1.0
    """The implicit reward to give to a candidate that is better than all others by far."""


AnyDirectConfig: TypeAlias = DPOConfig | IPOConfig | KTOConfig | CardinalConfig


class Direct:
    """DPO, IPO, KTO or the regression on scores.

    State: beta, the weights of ties, and the baseline of KTO.
    """

    def __init__(self, config: AnyDirectConfig) -> None:
        self.config = config
        self.beta = build_beta(config.beta)
        self.log_tie: list[float] = []
        """Of groups of 2, 3, ... that tie: log delta of `plackett_luce_loss`, fitted along."""
        self.baseline = 0.0
        """Mean log-ratio of the last optimizer step, at least 0: what KTO compares with."""
        self._metrics: dict[str, float] = {}

    def losses(
        self,
        policy: LikelihoodPolicy,
        batch: RankedBatch | Rollout,
        *,
        world: World,
        generator: torch.Generator,
    ) -> Iterator[Loss]:
        """One loss per forward pass of the network with gradients.

        As many rankings go through in one pass as fit into the policy's batch size. One that does
        not fit alone is scored without gradients first, and then again part by part: a third more
        work, and no more memory.
        """
        ranked = ranked_rollout(policy, batch) if isinstance(batch, Rollout) else batch
        ranked = ranked.select(has_preference(self.config, ranked).nonzero().squeeze(1))
        if not world.total(float(ranked.num_rankings)):
            raise NumericsError("learning: no ranking of this iteration prefers anything")
        self._make_room_for_ties(int(world.largest(ranked.index.shape[1])))
        first = first_position(world, ranked.num_rankings)
        base = int(torch.randint(2**62, (), generator=generator))
        order = torch.randperm(ranked.num_rankings, generator=generator)
        steps = [
            pieces_of(ranked, share, draws=self.config.draws, limit=policy.batch_size)
            for share in order.tensor_split(self.config.minibatches)
        ]
        done, total = 0, sum(piece.num_passes for pieces in steps for piece in pieces)
        sums: dict[str, float] = {}
        for pieces in steps:
            weight = world.total(sum(piece.batch.weights.sum().item() for piece in pieces))
            left = sum(piece.num_passes for piece in pieces)
            seen = Seen(ties=torch.zeros(len(self.log_tie)))
            if weight and not left:  # only other processes have something to learn from
                yield Loss(value=None, ends_step=True, done=done, total=total)
            for piece in pieces:
                rows = rows_of(piece.batch, piece.keys(base, first))
                for value in self._values(policy, piece.batch, rows, seen):
                    done, left = done + 1, left - 1
                    yield Loss(value=value / weight, ends_step=not left, done=done, total=total)
            if weight:
                sums = added(sums, self._learn_from(seen, weight, world))
        self._metrics = metrics_of(sums) | {"beta": sums["beta"] / sums["steps"]}

    def metrics(self) -> Mapping[str, float]:
        """Of the last batch."""
        return self._metrics

    def held_out(self, policy: LikelihoodPolicy, batch: RankedBatch, *, world: World) -> Compared:
        """The same metrics on rankings that are never learned from, always with the same draws."""
        ranked = batch.select(has_preference(self.config, batch).nonzero().squeeze(1))
        self._make_room_for_ties(int(world.largest(ranked.index.shape[1])))
        seen = Seen(ties=torch.zeros(len(self.log_tie)))
        first = first_position(world, ranked.num_rankings)
        everything, limit = torch.arange(ranked.num_rankings), policy.batch_size
        for piece in pieces_of(ranked, everything, draws=HELD_OUT_DRAWS, limit=limit):
            rows = rows_of(piece.batch, piece.keys(HELD_OUT_SEED, first))
            scored = score_in_parts(policy, rows, torch.split(torch.arange(len(rows)), limit))
            self._assess(piece.batch, scored, rows, seen)
        sums = {name: world.total(value) for name, value in seen.sums.items()}
        found = metrics_of(sums)
        drop, most = -found["chosen_log_ratio"], self.config.max_chosen_drop
        return Compared(
            loss=found["preference_loss"],
            passed=most is None or drop <= most,
            metrics={f"held_out_{name}": found[name] for name in HELD_OUT},
        )

    def _values(
        self,
        policy: LikelihoodPolicy,
        batch: RankedBatch,
        rows: Rows,
        seen: Seen,
    ) -> Iterator[Float[Tensor, ""]]:
        """The sum over the rankings' losses, by forward passes; divided by beta and elements."""
        parts = torch.split(torch.arange(len(rows)), policy.batch_size)
        whole = len(parts) == 1
        scored = score(policy, rows) if whole else score_in_parts(policy, rows, parts)
        coefficients = self._assess(batch, scored, rows, seen)
        own = coefficients[rows.ranking, rows.candidate] / rows.num_draws
        for part in parts:
            log_prob = scored.log_prob if whole else log_prob_of(policy, rows.select(part))
            yield (own[part].to(log_prob.values) * log_prob.values).sum() / log_prob.num_elements

    def _assess(
        self, batch: RankedBatch, scored: Scored, rows: Rows, seen: Seen
    ) -> Float[Tensor, "r k"]:
        """The gradient of the loss with respect to each log-probability, divided by beta."""
        beta = self.beta.value(scored.log_prob.num_elements)
        log_ratio = over_draws(scored.log_ratio, rows, batch.index.shape)
        ties = torch.tensor(self.log_tie, requires_grad=True)
        with torch.enable_grad():
            leaf = log_ratio.clone().requires_grad_()
            losses = objective(
                self.config, leaf, batch, beta=beta, log_tie=ties, baseline=self.baseline
            )
            if self.config.sft:
                losses = losses - self.config.sft * beta * mean_where(leaf, best(batch.ranks))
            found = torch.autograd.grad(
                (losses * batch.weights).sum(), [leaf, ties], allow_unused=True
            )
        coefficients, of_ties = found[0] / beta, found[1]
        limits = torch.ones(batch.num_rankings)
        if self.config.keep_chosen is not None:
            limits = push_limits(coefficients, scored, rows, keep=self.config.keep_chosen)
            limited = coefficients * limits[:, None]
            coefficients = torch.where(coefficients > 0, limited, coefficients)
        seen.add(batch, log_ratio, losses.detach(), beta=beta, limits=limits, ties=of_ties)
        return coefficients

    def _learn_from(self, seen: Seen, weight: float, world: World) -> dict[str, float]:
        """Move beta, ties and baseline after an optimizer step; its sums over all processes."""
        sums = {name: world.total(value) for name, value in seen.sums.items()}
        margins = torch.cat(world.gather(torch.cat(seen.margins)))
        sums |= {"steps": 1.0, "beta": seen.beta}
        if len(margins):
            self.beta.update(margins.abs().median().item())
        for place, gradient in enumerate(seen.ties.tolist()):
            self.log_tie[place] -= TIE_RATE * world.total(gradient) / weight
        if sums["candidates"]:
            self.baseline = max(0.0, sums["log_ratio"] / sums["candidates"])
        return sums

    def _make_room_for_ties(self, k: int) -> None:
        self.log_tie += [TIE_START] * (k - 1 - len(self.log_tie))

    def checks(
        self, policy: LikelihoodPolicy, trajectory: Trajectory, *, fresh: bool
    ) -> list[Check]:
        """Checks of repeated scores and gradients; see `check_likelihood`."""
        return check_likelihood(policy, trajectory, fresh=fresh)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {
            "beta": self.beta.state_dict(),
            "log_tie": list(self.log_tie),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        if state.keys() != {"beta", "log_tie", "baseline"}:
            raise CheckpointError(
                f"{self.config.name}: the checkpoint is of another algorithm; resume with that one"
            )
        self.beta.load_state_dict(state["beta"])
        self.log_tie = [float(each) for each in state["log_tie"]]
        self.baseline = float(state["baseline"])


def has_preference(config: AnyDirectConfig, batch: RankedBatch) -> Bool[Tensor, " r"]:
    """The rankings that an objective learns something from."""
    match config:
        case KTOConfig():
            return ordered(batch.ranks) | batch.all_bad
        case CardinalConfig():
            if batch.scores is None:
                return torch.zeros(batch.num_rankings, dtype=torch.bool)
            return (batch.scores.isfinite()).sum(dim=1) > 1
        case DPOConfig(compare="ranking"):
            return (batch.ranks >= 0).sum(dim=1) > 1
        case _:
            return ordered(batch.ranks)


def objective(
    config: AnyDirectConfig,
    log_ratio: Float[Tensor, "r k"],
    batch: RankedBatch,
    *,
    beta: float,
    log_tie: Float[Tensor, " t"],
    baseline: float,
) -> Float[Tensor, " r"]:
    """Loss of each ranking from the log-ratios of its candidates, in nats."""
    match config:
        case DPOConfig(compare="ranking"):
            return plackett_luce_loss(beta * log_ratio, batch.ranks, log_tie=log_tie)
        case DPOConfig() | IPOConfig():
            pairs = better_pairs(batch.ranks, extremes=config.compare == "best_worst")
            row, better, worse = pairs.nonzero().unbind(dim=1)
            chosen, rejected = log_ratio[row, better], log_ratio[row, worse]
            if isinstance(config, IPOConfig):
                # Times beta squared: a number without a unit, 1/4 where the two models agree.
                each = beta**2 * ipo_loss(chosen, rejected, beta=beta)
            else:
                smoothing = config.label_smoothing
                each = bradley_terry_loss(beta * chosen, beta * rejected, label_smoothing=smoothing)
            sums = log_ratio.new_zeros(batch.num_rankings).index_add(0, row, each)
            return sums / pairs.flatten(1).sum(dim=1).clamp(min=1)
        case KTOConfig():
            liked = best(batch.ranks)
            disliked = worst(batch.ranks) | (batch.present & batch.all_bad[:, None])
            each = kto_loss(
                log_ratio,
                liked,
                beta=beta,
                baseline=baseline,
                desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight,
            )
            return mean_where(each, liked | disliked)
        case CardinalConfig():
            assert batch.scores is not None, "left out by has_preference"
            there = batch.scores.isfinite()
            scores = batch.scores.masked_fill(~there, -math.inf) / config.temperature
            count = there.sum(dim=1, keepdim=True)
            advantage = torch.where(there, scores.softmax(dim=1) - 1 / count, 0.0)
            return cardinal_loss(beta * log_ratio, advantage, there, largest=config.largest)


def mean_where(values: Float[Tensor, "r k"], where: Bool[Tensor, "r k"]) -> Float[Tensor, " r"]:
    """The mean of each row over some of its values; 0 where there are none."""
    return torch.where(where, values, 0.0).sum(dim=1) / where.sum(dim=1).clamp(min=1)
