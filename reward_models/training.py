"""Maximum-likelihood training of one seed, with early stopping on the validation loss.

The head is fitted first, on cached features; unfrozen blocks are then trained with it
(arXiv:2202.10054) and kept only if the validation loss falls further.

Shapes: n = rankings, k = candidates of the longest one. Losses are in nats per ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Generator, Tensor, nn

from imgalign.config import PathText, refuse_ineffective
from imgalign.losses import plackett_luce_loss
from imgalign.runs.world import World, shared_rows
from reward_models.contract import HeadConfig
from reward_models.data import RankingData
from reward_models.descent import (
    EVALUATION_BATCH,
    SCALAR_LR_FACTOR,
    Descent,
    new_log_tie,
    one_pass,
    weighted_mean,
)
from reward_models.features import Features
from reward_models.head import PreferenceHead
from reward_models.outcome import SplitConfig


class FitConfig(SplitConfig):
    """Settings of one fit."""

    clip: PathText = "storybook"
    """The CLIP to start from: "storybook", a folder in open_clip's layout, "hf-hub:owner/model" or
    "architecture:tag"."""

    head: HeadConfig = HeadConfig()
    """Shape of the preference head."""

    epochs: PositiveInt = 200
    """At most this many passes over the training rankings."""

    patience: PositiveInt = 20
    """Stop after this many passes without a lower validation loss."""

    batch_size: PositiveInt = 32
    """Rankings per optimizer step."""

    learning_rate: PositiveFloat = 3e-3
    """Of the head, whose inputs are standardised."""

    prior_stds: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    """Prior standard deviations, in nats, of what the head adds to zero-shot CLIP's utilities. At 1
    a typical pair of equal CLIP score becomes a 2 : 1 preference. Of several values the smallest is
    kept whose validation loss is within one standard error of the lowest, because with few
    validation prompts the lowest itself is chosen by chance."""

    unfreeze_image_blocks: NonNegativeInt = 0
    """Also train this many last blocks of the image tower, with its last norm and projection."""

    unfreeze_text_blocks: NonNegativeInt = 0
    """Also train this many last blocks of the text tower, with its last norm and projection."""

    tower_learning_rate: PositiveFloat = 1e-4
    """Of unfrozen blocks. Use 1e-6 to 1e-5 for CLIPs of the usual sizes."""

    tower_epochs: PositiveInt = 20
    """At most this many passes with unfrozen blocks."""

    tower_patience: PositiveInt = 4
    """Stop after this many passes with unfrozen blocks without a lower validation loss."""

    @model_validator(mode="after")
    def _towers_are_trained_with_unfrozen_blocks(self) -> "FitConfig":
        if self.unfreeze_image_blocks == self.unfreeze_text_blocks == 0:
            of_towers = ["tower_learning_rate", "tower_epochs", "tower_patience"]
            why = "without unfreeze_image_blocks or unfreeze_text_blocks"
            refuse_ineffective(self, of_towers, why)
        return self


@dataclass(slots=True, kw_only=True)
class Attempt(Descent):
    """Result of one seed: the weights of its best epoch, and the losses on the way."""

    prior_std: float
    """The value of `FitConfig.prior_stds` of this attempt."""
    head: PreferenceHead
    towers: list[Tensor] = field(default_factory=list)
    """Weights of the unfrozen parameters, in the order of `train_attempt`'s `live`."""
    unfrozen_helped: bool | None = None

    def trained(self) -> list[nn.Parameter]:
        """Parameters of the head, and the log tie weights."""
        return [*self.head.parameters(), self.log_tie]


def train_attempt(
    seed: int,
    features: Features,
    live: Sequence[nn.Parameter],
    data: RankingData,
    *,
    train: Int[Tensor, " n"],
    validation: Int[Tensor, " m"],
    config: FitConfig,
    world: World,
) -> Attempt:
    """Fit a head, then the unfrozen parameters `live` of the towers with it, if there are any.

    The towers keep the weights of their best epoch; `Attempt.towers` is a copy.
    """
    plan = _Plan(data=data, train=train, validation=validation, config=config, world=world)
    frozen = replace(features, prepared=None, tokens=None)
    heads = [_fit_head(seed, prior_std, frozen, plan) for prior_std in config.prior_stds]
    attempt = _smallest_prior(heads, frozen, plan)
    if live:
        reached = attempt.validation_loss
        _descend(attempt, features, live, plan, Generator().manual_seed(seed))
        attempt.unfrozen_helped = attempt.validation_loss < reached
        attempt.towers = [parameter.detach().clone() for parameter in live]
    return attempt


@torch.no_grad()
def _smallest_prior(heads: Sequence[Attempt], features: Features, plan: "_Plan") -> Attempt:
    """The one-standard-error rule (Breiman et al. 1984), errors taken over prompts."""
    rows = plan.validation
    weights, prompts = plan.data.weights[rows], plan.data.prompt_index[rows]

    def surely_worse(attempt: Attempt, lowest: Attempt) -> bool:
        """Whether the mean difference of the losses is above its own standard error."""
        own, least = (
            _shared_losses(each, features, plan, at_once=len(rows)) for each in (attempt, lowest)
        )
        difference = own - least
        mean = weighted_mean(difference, weights)
        by_prompt = torch.zeros(len(plan.data.prompts), device=rows.device)
        by_prompt.index_add_(0, prompts, weights * (difference - mean))
        worse = bool(mean > by_prompt.square().sum().sqrt() / weights.sum())
        return plan.world.agree(worse)

    lowest = min(heads, key=lambda each: each.validation_loss)
    by_std = sorted(heads, key=lambda each: each.prior_std)
    return next(each for each in by_std if each is lowest or not surely_worse(each, lowest))


def _fit_head(seed: int, prior_std: float, features: Features, plan: "_Plan") -> Attempt:
    generator = Generator().manual_seed(seed)
    device = features.towers.device
    head = PreferenceHead(
        features.towers.width,
        plan.config.head,
        style_width=features.image.shape[1] - features.towers.width,
        generator=generator,
    ).to(device)
    head.standardise(*_pair_features(features, plan.data, plan.train))
    attempt = Attempt(
        seed=seed,
        prior_std=prior_std,
        head=head,
        log_tie=new_log_tie(plan.data.ranks.shape[1], device),
    )
    _descend(attempt, features, [], plan, generator)
    return attempt


def ranking_scores(
    head: PreferenceHead, features: Features, data: RankingData, rows: Int[Tensor, " n"]
) -> Float[Tensor, "n k"]:
    """Utility of every candidate; where a ranking has fewer than k, that of some other image."""
    index = data.image_index[rows]
    image = features.of_images(index.flatten())
    text = features.of_prompts(data.prompt_index[rows])
    scores: Tensor = head(image, text.repeat_interleave(index.shape[1], dim=0))
    return scores.view(index.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    data: RankingData
    train: Tensor
    validation: Tensor
    config: FitConfig
    world: World


def _descend(
    attempt: Attempt,
    features: Features,
    live: Sequence[nn.Parameter],
    plan: _Plan,
    generator: Generator,
) -> None:
    """Descend until the validation loss stops falling; ends at the weights of its lowest point."""
    config = plan.config
    trained = [*attempt.trained(), *live]
    groups = [
        {"params": attempt.head.weights(), "lr": config.learning_rate},
        {
            "params": [*attempt.head.scalars(), attempt.log_tie],
            "lr": SCALAR_LR_FACTOR * config.learning_rate,
        },
        {"params": list(live), "lr": config.tower_learning_rate},
    ]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    rows = plan.train

    def losses(of: Tensor) -> Tensor:
        return _losses(attempt, features, plan.data, of)

    def epoch() -> float:
        return one_pass(
            optimizer,
            rows,
            plan.data.weights[rows],
            batch_size=config.batch_size,
            generator=generator,
            losses=losses,
            penalty=lambda: attempt.head.penalty(std=attempt.prior_std) + attempt.tie_penalty(),
            world=plan.world,
        )

    attempt.descend(
        trained,
        epoch=epoch,
        measure=lambda: _validation_loss(attempt, features, plan),
        epochs=config.tower_epochs if live else config.epochs,
        patience=config.tower_patience if live else config.patience,
        shown=bool(live),
        world=plan.world,
    )


@torch.no_grad()
def _validation_loss(attempt: Attempt, features: Features, plan: _Plan) -> float:
    losses = _shared_losses(attempt, features, plan, at_once=EVALUATION_BATCH)
    return float(weighted_mean(losses, plan.data.weights[plan.validation]))


def _shared_losses(
    attempt: Attempt, features: Features, plan: _Plan, *, at_once: int
) -> Float[Tensor, " m"]:
    """Of the validation rankings, each scored by one process."""
    return shared_rows(
        plan.world,
        len(plan.validation),
        lambda some: _losses(attempt, features, plan.data, plan.validation[some]),
        at_once=at_once,
        device=plan.validation.device,
    )


def _losses(attempt: Attempt, features: Features, data: RankingData, rows: Tensor) -> Tensor:
    scores = ranking_scores(attempt.head, features, data, rows)
    return plackett_luce_loss(scores, data.ranks[rows], log_tie=attempt.log_tie)


def _pair_features(features: Features, data: RankingData, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Image and prompt features of every candidate that is there."""
    there = data.ranks[rows] >= 0
    prompt = data.prompt_index[rows][:, None].expand_as(there)[there]
    return features.of_images(data.image_index[rows][there]), features.of_prompts(prompt)
