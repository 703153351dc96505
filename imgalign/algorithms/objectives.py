"""The objectives of direct methods: their settings, and the loss of a ranking from its log-ratios.

Plackett-Luce of a whole ranking, with ties (arXiv:2510.01540 without), Bradley-Terry of its pairs,
IPO, KTO, and a regression on scores. Left out: log-ratios (implicit.py), what becomes of a loss
(direct.py), and the formulas for single pairs and rankings (losses.py).

Shapes: r = rankings of a batch, k = candidates of the longest one. Units: nats, summed over the
elements of a sample or, where a method averages, of one element.
"""

import logging
import math
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from imgalign.algorithms.beta import AutoBetaConfig, BetaConfig
from imgalign.algorithms.interface import BatchKind, RankingCounts
from imgalign.algorithms.rankings import RankedBatch, better_pairs, disliked, liked, ordered
from imgalign.algorithms.refresh import RefreshConfig
from imgalign.config import Config, refuse_ineffective
from imgalign.losses import (
    bradley_terry_loss,
    cardinal_loss,
    ipo_loss,
    kto_loss,
    plackett_luce_loss,
)

log = logging.getLogger(__name__)

Share = Annotated[float, Field(ge=0, lt=1)]

LEAST_LIKED, MOST_LIKED, ROUNDING = 1.0, 4 / 3, 0.005
"""Sum of the weights of likes over that of dislikes, as KTO's authors advise and TRL does
(arXiv:2402.01306v1, eq. 8; later versions allow 3/2, in eq. 9), and how far weights of three digits
may be off."""

ONLY_DISLIKES = (
    "all %d judgements are dislikes: kto can only move away from them, with nothing to move "
    "towards, which no weights make up for; as in TRL they are learned from all the same; add "
    "likes, or stay near the start with a larger algorithm.beta"
)
ONLY_FOR_KTO = (
    "%d likes of single samples teach nothing here, where nothing is preferred to them;"
    " algorithm.name=kto learns from them"
)
ONLY_LIKES = (
    "all %d judgements are likes: kto can only move towards them, with nothing to move away from, "
    "which no weights make up for; as in TRL they are learned from all the same; add dislikes, or "
    "use algorithm.name=supervised"
)


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
    """The run ends where the best of held-out rankings have become less likely by more than this
    many nats, in two measurements in a row; weights of which that holds never count as the best of
    the run. Null only measures it."""

    refresh: RefreshConfig | None = None
    """Let the reference of implicit rewards follow the policy, within a bound: less is held back,
    and what was learned is not lost. KL, its budget and held-out rankings keep the pretrained model
    as their reference. Null never changes it."""

    draws: PositiveInt = 1
    """Noise levels at which each candidate is scored; log-ratios are the mean over them."""

    minibatches: PositiveInt = 1
    """Optimizer steps per iteration; each sees an equal share of the rankings."""

    def averages(self, *, default: bool) -> bool:
        """Whether the mean log-ratio of an element is compared; `default` is usual for a policy."""
        return False

    def refuse_data(self, source: str, kind: BatchKind, *, group_size: int) -> None:
        """ValueError where nothing is compared with anything."""
        if kind == "demonstrations":
            raise ValueError(
                f"data.from: expected rankings or 'rollouts', got {source!r}, which has samples "
                "without an order (or use algorithm.name: supervised)"
            )
        if kind == "labels":
            raise ValueError(
                f"data.from: expected rankings or 'rollouts', got {source!r}, whose likes and "
                "dislikes have no partners to be compared with; use algorithm.name: kto"
            )
        if kind == "rollouts" and group_size < 2:
            raise ValueError(
                "data.group_size: expected at least 2, got 1; there is nothing to compare a single "
                "sample with"
            )

    def refuse_rankings(self, counts: RankingCounts) -> None:
        """ValueError where no given ranking prefers a sample to another."""
        if not counts.ordered:
            kto = ", or use algorithm.name=kto, which learns from likes and all-bad verdicts too"
            raise ValueError(
                "expected rankings that prefer a sample to another, got "
                f"{counts.without_order()}; rank some samples above others"
                f"{kto if counts.all_bad or counts.all_good else ''}"
            )
        if counts.all_good:
            log.warning(ONLY_FOR_KTO, counts.all_good)

    def refuse_steps(self, num_steps: int, *, named: str) -> None:
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
    """Compare whole rankings with ties (Plackett-Luce; the same as DPO for rankings of two samples
    of which none ties), all pairs of a ranking, or only the best with the worst. However many pairs
    it has, a ranking counts once."""

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

    average: bool | None = None
    """Compare the mean log-ratio of an element instead of the sum, so that long and short samples
    have the same target; beta is then the implicit reward per nat of that mean. Null is the
    policy's usual: the mean for texts, as the method's authors use it, and the sum for images."""

    def averages(self, *, default: bool) -> bool:
        """By the setting, or as is usual for the policy."""
        return default if self.average is None else self.average


class KTOConfig(DirectConfig):
    """Likes and dislikes without partners (arXiv:2402.01306; for diffusion arXiv:2404.04465).

    The best of a ranking are liked and the worst disliked; of a ranking that is all bad, all are
    disliked. Samples that are liked or disliked one by one need no ranking.
    """

    name: Literal["kto"] = "kto"
    """The algorithm."""

    desirable_weight: PositiveFloat = 1.0
    """Weight of each liked sample (the paper's lambda_D)."""

    undesirable_weight: PositiveFloat = 1.0
    """Weight of each disliked sample (lambda_U). Three tied worst samples weigh three times what
    one best sample does; the paper advises a sum of weights of likes between 1 and 4/3 times that
    of dislikes."""

    def refuse_data(self, source: str, kind: BatchKind, *, group_size: int) -> None:
        """ValueError where nothing is liked or disliked."""
        if kind != "labels":
            super().refuse_data(source, kind, group_size=group_size)

    def refuse_rankings(self, counts: RankingCounts) -> None:
        """ValueError where nothing is liked or disliked; warns where one of the two is rare."""
        if not (counts.ordered or counts.all_bad or counts.all_good):
            raise ValueError(
                f"expected likes or dislikes, got {counts.tied} rankings that tie all their "
                "samples and no other; rank some samples above others"
            )
        if counts.ordered:
            return
        if not counts.all_good:
            log.warning(ONLY_DISLIKES, counts.all_bad)
        elif not counts.all_bad:
            log.warning(ONLY_LIKES, counts.all_good)
        else:
            self._warn_of_weights(counts)

    def _warn_of_weights(self, counts: RankingCounts) -> None:
        """Warn where the weights are outside of `LEAST_LIKED` to `MOST_LIKED`."""
        # In the unit of the settings: each row counts by the weight that the data gives it.
        likes = counts.all_good * counts.weight_good
        dislikes = counts.all_bad * counts.weight_bad
        own, other = self.desirable_weight * likes, self.undesirable_weight * dislikes
        if not (own and other) or LEAST_LIKED - ROUNDING <= own / other <= MOST_LIKED + ROUNDING:
            return
        weights = (
            self.desirable_weight * counts.weight_good,
            (self.undesirable_weight * counts.weight_bad),
        )
        log.warning(
            "%d likes of weight %g and %d dislikes of weight %g: kto's authors advise sums of "
            "weights of 1 to 4/3 likes for each dislike, and here it is %.3g; set "
            "algorithm.desirable_weight between %.3g and %.3g, or algorithm.undesirable_weight "
            "between %.3g and %.3g",
            *(counts.all_good, weights[0], counts.all_bad, weights[1], own / other),
            *(LEAST_LIKED * other / likes, MOST_LIKED * other / likes),
            *(own / dislikes / MOST_LIKED, own / dislikes / LEAST_LIKED),
        )


class CardinalConfig(DirectConfig):
    """Regression of implicit rewards on how much better a candidate is (LAIR, arXiv:2605.26491)."""

    name: Literal["cardinal"] = "cardinal"
    """The algorithm."""

    temperature: PositiveFloat = 1.0
    """Scores of a ranking become advantages softmax(score / temperature) - 1 / k."""

    largest: PositiveFloat = 1.0
    """The implicit reward to give to a candidate that is better than all others by far."""

    def refuse_rankings(self, counts: RankingCounts) -> None:
        """Nothing: it compares scores, whatever was preferred."""


AnyDirectConfig: TypeAlias = DPOConfig | IPOConfig | KTOConfig | CardinalConfig


def has_preference(config: AnyDirectConfig, batch: RankedBatch) -> Bool[Tensor, " r"]:
    """The rankings that an objective learns something from."""
    match config:
        case KTOConfig():
            return ordered(batch.ranks) | batch.all_bad | batch.all_good
        case CardinalConfig():
            if batch.scores is None:
                return torch.zeros(batch.num_rankings, dtype=torch.bool)
            return (batch.scores.isfinite()).sum(dim=1) > 1
        case DPOConfig(compare="ranking"):
            return (batch.ranks >= 0).sum(dim=1) > 1
        case _:
            return ordered(batch.ranks)


def has_contrast(config: AnyDirectConfig, batch: RankedBatch) -> Bool[Tensor, " r"]:
    """The rankings on which weights can be compared: those to learn from, without mere ties."""
    match config:
        case KTOConfig() | CardinalConfig():
            return has_preference(config, batch)
        case _:
            return ordered(batch.ranks)


def margins_without_order(
    config: AnyDirectConfig, log_ratio: Float[Tensor, "r k"], batch: RankedBatch, *, baseline: float
) -> Float[Tensor, " n"]:
    """What an objective compares where rankings have no order.

    The log-ratios of what is all bad or all good, less the baseline (KTO), and the differences
    between candidates with different scores (cardinal).
    """
    match config:
        case KTOConfig():
            alike = batch.all_bad | batch.all_good
            return (log_ratio - baseline)[batch.present & alike[:, None]]
        case CardinalConfig():
            assert batch.scores is not None, "left out by has_preference"
            higher = batch.scores[:, :, None] > batch.scores[:, None, :]
            return (log_ratio[:, :, None] - log_ratio[:, None, :])[higher]
        case _:
            return log_ratio.new_zeros(0)


def objective(
    config: AnyDirectConfig,
    log_ratio: Float[Tensor, "r k"],
    batch: RankedBatch,
    *,
    beta: float,
    log_tie: Float[Tensor, " t"],
    baseline: float,
) -> Float[Tensor, " r"]:
    """Loss of each ranking from the log-ratios of its candidates, summed or averaged.

    Of implicit rewards, beta times the log-ratios, and so without a unit: direct.py divides the
    gradient by beta, which then changes nothing of the first step.
    """
    match config:
        case DPOConfig(compare="ranking"):
            return plackett_luce_loss(beta * log_ratio, batch.ranks, log_tie=log_tie)
        case DPOConfig():
            smoothing = config.label_smoothing
            return mean_of_pairs(
                lambda chosen, rejected: bradley_terry_loss(
                    beta * chosen, beta * rejected, label_smoothing=smoothing
                ),
                log_ratio,
                batch,
                extremes=config.compare == "best_worst",
            )
        case IPOConfig():
            return mean_of_pairs(
                # Times beta squared: a number without a unit, 1/4 where the two models agree.
                lambda chosen, rejected: beta**2 * ipo_loss(chosen, rejected, beta=beta),
                log_ratio,
                batch,
                extremes=config.compare == "best_worst",
            )
        case KTOConfig():
            good, bad = liked(batch), disliked(batch)
            each = kto_loss(
                log_ratio,
                good,
                beta=beta,
                baseline=baseline,
                desirable_weight=config.desirable_weight,
                undesirable_weight=config.undesirable_weight,
            )
            return mean_where(each, good | bad)
        case CardinalConfig():
            assert batch.scores is not None, "left out by has_preference"
            there = batch.scores.isfinite()
            scores = batch.scores.masked_fill(~there, -math.inf) / config.temperature
            count = there.sum(dim=1, keepdim=True)
            advantage = torch.where(there, scores.softmax(dim=1) - 1 / count, 0.0)
            return cardinal_loss(beta * log_ratio, advantage, there, largest=config.largest)


def mean_of_pairs(
    loss: Callable[[Tensor, Tensor], Tensor],
    log_ratio: Float[Tensor, "r k"],
    batch: RankedBatch,
    *,
    extremes: bool,
) -> Float[Tensor, " r"]:
    """The mean of a loss over the pairs of each ranking; 0 where it has none.

    `loss` takes the log-ratios of the better and of the worse sample of all pairs. With `extremes`
    only the best are compared with the worst.
    """
    pairs = better_pairs(batch.ranks, extremes=extremes)
    row, better, worse = pairs.nonzero().unbind(dim=1)
    each = loss(log_ratio[row, better], log_ratio[row, worse])
    sums = log_ratio.new_zeros(batch.num_rankings).index_add(0, row, each)
    return sums / pairs.flatten(1).sum(dim=1).clamp(min=1)


def mean_where(values: Float[Tensor, "r k"], where: Bool[Tensor, "r k"]) -> Float[Tensor, " r"]:
    """The mean of each row over some of its values; 0 where there are none."""
    return torch.where(where, values, 0.0).sum(dim=1) / where.sum(dim=1).clamp(min=1)
