"""Direct preference optimization and its relatives: from rankings to weights, without a reward.

The implicit reward of a sample is beta times its log-ratio, log p(sample) under the policy less
that under the pretrained model (DPO, arXiv:2305.18290; for diffusion, with the ELBO in the place of
log p, arXiv:2311.12908).

All candidates of a ranking, under policy and pretrained model, are scored with the same draws.
Losses are divided by beta and by the elements of a sample, so that gradient norms compare with
those of other algorithms and do not depend on beta.

Left out: where rankings come from (train/data/), settings and losses (objectives.py).

Shapes: r = rankings of a batch, k = candidates of the longest one, m = rows: one draw of one
candidate. Units: log-ratios in nats, summed over the elements of a sample; where an objective
compares the mean of an element instead, margins and beta are of that mean.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from imgalign.algorithms.batches import Rollout
from imgalign.algorithms.beta import build_beta
from imgalign.algorithms.checks import check_likelihood
from imgalign.algorithms.dealing import dealt
from imgalign.algorithms.implicit import (
    Ratios,
    Rows,
    Scored,
    Seen,
    added,
    elements_of,
    log_prob_of,
    metrics_of,
    over_draws,
    pieces_of,
    push_limits,
    rows_of,
    score,
    score_in_parts,
)
from imgalign.algorithms.interface import Compared, Loss
from imgalign.algorithms.objectives import (
    AnyDirectConfig,
    has_contrast,
    has_preference,
    margins_without_order,
    mean_where,
    objective,
)
from imgalign.algorithms.rankings import (
    NOTHING_PREFERRED,
    RankedBatch,
    liked,
    ranked_rollout,
)
from imgalign.algorithms.refresh import Refresh
from imgalign.errors import CheckpointError, NumericsError
from imgalign.policy import Check, LikelihoodPolicy, Trajectory, Weights
from imgalign.runs.world import World, first_position

log = logging.getLogger(__name__)

HELD_OUT_SEED, HELD_OUT_DRAWS = 0, 4
"""Of the draws with which held-out rankings are scored, and how many of them."""

HELD_OUT = (
    *("preference_loss", "implicit_accuracy", "implicit_margin"),
    *("chosen_log_ratio", "rejected_log_ratio"),
)
"""The metrics of held-out rankings."""

TIE_START, TIE_RATE = -1.0, 0.5
"""Initial log-weight of ties, and the step size of the gradient descent on it."""


def ties_at_start(batch: RankedBatch, world: World) -> list[float]:
    """Log-weights of groups of 2, 3, ... that tie, at the start; none where no ranking ties."""
    k = int(world.largest(batch.index.shape[1]))
    return [TIE_START] * (k - 1) if world.agree(batch.may_tie) else []


def baseline_of(log_ratios: float, count: float) -> float:
    """What KTO compares with: the mean log-ratio, at least 0 (arXiv:2402.01306)."""
    return max(0.0, log_ratios / count) if count else 0.0


class Direct:
    """DPO, IPO, KTO or the regression on scores.

    State: beta, the weights of ties, the baseline of KTO, and how far its reference has come.
    """

    def __init__(self, config: AnyDirectConfig) -> None:
        self.config = config
        self.beta = build_beta(config.beta)
        self.log_tie: list[float] = []
        """Of groups of 2, 3, ... that tie: log delta of `plackett_luce_loss`, fitted along. Empty
        as long as no ranking ties, so that two samples are compared as DPO compares them."""
        self.refresh = None if config.refresh is None else Refresh(config.refresh)
        self.reference: Weights = "reference" if config.refresh is None else "remembered"
        self.baseline = 0.0
        """Of the last optimizer step."""
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
        work, and no more memory. None where no ranking prefers anything.
        """
        ranked = ranked_rollout(policy, batch) if isinstance(batch, Rollout) else batch
        number = float(ranked.present.sum())
        ranked = ranked.select(has_preference(self.config, ranked).nonzero().squeeze(1))
        if not world.total(float(ranked.num_rankings)):
            if not world.total(number):
                raise NumericsError("learning: no sample of this iteration has a finite reward")
            log.warning(NOTHING_PREFERRED)
            self._metrics = {}
            return
        self.log_tie += ties_at_start(ranked, world)[len(self.log_tie) :]
        first = first_position(world, ranked.num_rankings)
        base = int(torch.randint(2**62, (), generator=generator))
        number_of_all = int(world.total(ranked.num_rankings))
        steps = [
            pieces_of(ranked, own, draws=self.config.draws, limit=policy.batch_size)
            for hand in dealt(number_of_all, self.config.minibatches, generator=generator)
            for own in [hand[(hand >= first) & (hand < first + ranked.num_rankings)] - first]
        ]
        done, total = 0, sum(piece.num_passes for pieces in steps for piece in pieces)
        sums: dict[str, float] = {}
        for pieces in steps:
            weight = world.total(sum(piece.batch.weights.sum().item() for piece in pieces))
            left = sum(piece.num_passes for piece in pieces)
            seen = Seen(ties=torch.zeros(len(self.log_tie)))
            if weight and not left:  # only other processes have something to learn from
                self._refresh(policy, seen, world)
                yield Loss(value=None, ends_step=True, done=done, total=total)
            for piece in pieces:
                rows = rows_of(piece.batch, piece.keys(base, first))
                for value in self._values(policy, piece.batch, rows, seen):
                    done, left = done + 1, left - 1
                    if not left:
                        self._refresh(policy, seen, world)
                    yield Loss(value=value / weight, ends_step=not left, done=done, total=total)
            if weight:
                sums = added(sums, self._learn_from(seen, weight, world))
        self._metrics = metrics_of(sums) | {"beta": sums["beta"] / sums["steps"]}
        if self.refresh is not None:
            self._metrics["reference_distance"] = self.refresh.distance

    def metrics(self) -> Mapping[str, float]:
        """Of the last batch."""
        return self._metrics

    def held_out(
        self, policy: LikelihoodPolicy, batch: RankedBatch, *, world: World
    ) -> Compared | None:
        """The same metrics on rankings that are never learned from, always with the same draws.

        Their ties are always as likely as at the start of a run, and KTO's baseline is their own: a
        loss that falls tells of the policy alone. There is none to compare with others while beta
        is not fixed yet, unless the policy is the pretrained model still. None where none of them
        prefers anything.
        """
        if not world.total(float(has_contrast(self.config, batch).sum())):
            return None
        ranked = batch.select(has_preference(self.config, batch).nonzero().squeeze(1))
        ties = torch.tensor(ties_at_start(ranked, world))
        first = first_position(world, ranked.num_rankings)
        everything, limit = torch.arange(ranked.num_rankings), policy.batch_size
        parts: list[tuple[RankedBatch, Ratios]] = []
        for piece in pieces_of(ranked, everything, draws=HELD_OUT_DRAWS, limit=limit):
            rows = rows_of(piece.batch, piece.keys(HELD_OUT_SEED, first))
            scored = score_in_parts(policy, rows, torch.split(torch.arange(len(rows)), limit))
            parts.append((piece.batch, self._ratios(policy, piece.batch, scored, rows)))
        ratios = [each.nats[batch.present] for batch, each in parts]
        own = torch.cat([*ratios, torch.zeros(0)])
        baseline = baseline_of(world.total(own.sum().item()), world.total(float(len(own))))
        seen = Seen(ties=torch.zeros(len(ties)))
        for batch, each in parts:
            losses = self._losses(batch, each, log_tie=ties, baseline=baseline)
            limits = torch.ones(batch.num_rankings)
            seen.add(batch, each, losses, limits=limits, ties=None)
        sums = {name: world.total(value) for name, value in seen.sums.items()}
        found = metrics_of(sums)
        drop, most = -found.get("chosen_log_ratio", 0.0), self.config.max_chosen_drop
        if not self.beta.fixed and world.agree(bool(own.any())):
            del found["preference_loss"]
        return Compared(
            loss=found.get("preference_loss"),
            chosen_drop=None if most is None or drop <= most else drop,
            metrics={f"held_out_{name}": found[name] for name in HELD_OUT if name in found},
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
        scored = (
            score(policy, rows, reference=self.reference)
            if whole
            else score_in_parts(policy, rows, parts, reference=self.reference)
        )
        ties = torch.tensor(self.log_tie)
        coefficients = self._assess(policy, batch, scored, rows, seen, ties=ties)
        unit = self._unit(policy, scored)
        own = coefficients[rows.ranking, rows.candidate] / rows.num_draws
        for part in parts:
            log_prob = scored.log_prob if whole else log_prob_of(policy, rows.select(part))
            yield (own[part].to(log_prob.values) * log_prob.values).sum() / unit

    def _averages(self, policy: LikelihoodPolicy) -> bool:
        return self.config.averages(default=policy.averages_log_ratios)

    def _unit(self, policy: LikelihoodPolicy, scored: Scored) -> int:
        """The elements of a sample as the objective sees it: a mean is that of a single one."""
        return 1 if self._averages(policy) else scored.log_prob.num_elements

    def _assess(
        self,
        policy: LikelihoodPolicy,
        batch: RankedBatch,
        scored: Scored,
        rows: Rows,
        seen: Seen,
        *,
        ties: Float[Tensor, " order"],
    ) -> Float[Tensor, "r k"]:
        """The gradient of the loss with respect to each log-probability, divided by beta."""
        ratios, ties = self._ratios(policy, batch, scored, rows), ties.clone().requires_grad_()
        with torch.enable_grad():
            leaf = ratios.nats.clone().requires_grad_()
            learned = replace(ratios, nats=leaf)
            losses = self._losses(batch, learned, log_tie=ties, baseline=self.baseline)
            found = torch.autograd.grad(
                (losses * batch.weights).sum(), [leaf, ties], allow_unused=True
            )
        coefficients, of_ties = found[0] / ratios.beta, found[1]
        limits = torch.ones(batch.num_rankings)
        if self.config.keep_chosen is not None:
            limits = push_limits(coefficients, scored, rows, keep=self.config.keep_chosen)
            limited = coefficients * limits[:, None]
            coefficients = torch.where(coefficients > 0, limited, coefficients)
        seen.add(batch, ratios, losses.detach(), limits=limits, ties=of_ties)
        seen.unordered.append(
            margins_without_order(self.config, ratios.compared, batch, baseline=self.baseline)
        )
        return coefficients

    def _ratios(
        self, policy: LikelihoodPolicy, batch: RankedBatch, scored: Scored, rows: Rows
    ) -> Ratios:
        """Log-ratios of candidates, as the objective compares them."""
        counts = None
        if self._averages(policy):
            counts = elements_of(scored.log_prob, rows, batch.index.shape)
        return Ratios(
            nats=over_draws(scored.log_ratio, rows, batch.index.shape),
            counts=counts,
            beta=self.beta.value(self._unit(policy, scored)),
        )

    def _losses(
        self,
        batch: RankedBatch,
        ratios: Ratios,
        *,
        log_tie: Float[Tensor, " order"],
        baseline: float,
    ) -> Float[Tensor, " r"]:
        """Of each ranking, with its share of supervised fine-tuning."""
        beta, compared = ratios.beta, ratios.compared
        losses = objective(
            self.config, compared, batch, beta=beta, log_tie=log_tie, baseline=baseline
        )
        if not self.config.sft:
            return losses
        return losses - self.config.sft * beta * mean_where(compared, liked(batch))

    def _refresh(self, policy: LikelihoodPolicy, seen: Seen, world: World) -> None:
        """All of an optimizer step is scored, and the weights are still those of the scores."""
        if self.refresh is None:
            return
        sizes, count = (world.total(seen.sums[name]) for name in ("chosen_size", "num_chosen"))
        self.refresh.after_scoring(policy, sizes / count if count else None)

    def _learn_from(self, seen: Seen, weight: float, world: World) -> dict[str, float]:
        """Move beta, ties and baseline after an optimizer step; its sums over all processes.

        What is not finite moves nothing: that step is left out.
        """
        sums = {name: world.total(value) for name, value in seen.sums.items()}
        ordered, others = (
            torch.cat(world.gather(torch.cat(each))) for each in (seen.margins, seen.unordered)
        )
        margins = ordered if len(ordered) else others
        sums |= {"steps": 1.0, "beta": world.largest(seen.beta)}  # 0 of who had no ranking in it
        if len(margins) and margins.isfinite().all():
            self.beta.update(margins.square().mean().sqrt().item())
        for place, own in enumerate(seen.ties.tolist()):
            gradient = world.total(own)
            if math.isfinite(gradient):
                self.log_tie[place] -= TIE_RATE * gradient / weight
        if sums["candidates"] and math.isfinite(sums["log_ratio"]):
            self.baseline = baseline_of(sums["log_ratio"], sums["candidates"])
        return sums

    def checks(
        self, policy: LikelihoodPolicy, trajectory: Trajectory, *, fresh: bool
    ) -> list[Check]:
        """Checks of repeated scores and gradients; see `check_likelihood`."""
        return check_likelihood(policy, trajectory, fresh=fresh)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        refresh = {} if self.refresh is None else {"refresh": self.refresh.state_dict()}
        return {
            "beta": self.beta.state_dict(),
            "log_tie": list(self.log_tie),
            "baseline": self.baseline,
            **refresh,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; CheckpointError where it is of other settings."""
        if state.keys() != self.state_dict().keys():
            raise CheckpointError(
                f"{self.config.name}: the checkpoint is of another algorithm; resume with that one"
            )
        self.beta.load_state_dict(state["beta"])
        self.log_tie = [float(each) for each in state["log_tie"]]
        self.baseline = float(state["baseline"])
        if self.refresh is not None:
            self.refresh.load_state_dict(state["refresh"])
