"""What comes before and after the optimization of a fit: the split, the scale and the report.

Shared by rewards of images and of texts; knows rankings and the utilities of their candidates, and
no model. The metrics themselves are in evaluate.py and preferences/accuracy.py.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from imgalign.config import Config, Device, Seed
from imgalign.errors import InputError
from imgalign.preferences.accuracy import calibration, fit_log_odds, outcomes
from imgalign.preferences.fit_report import (
    Ceiling,
    Counts,
    FitReport,
    Judged,
    LearnedFrom,
    SeedResult,
)
from imgalign.preferences.records import Ranking, pairs
from imgalign.preferences.splits import three_way_split
from imgalign.preferences.wording import counted
from imgalign.runs.world import World, shared_rows
from reward_models.contract import HeldOut, Scale, data_hash
from reward_models.data import RankingData, pair_margins
from reward_models.descent import Descent
from reward_models.evaluate import (
    OracleReward,
    agreement_on,
    bayes_optimal,
    evaluate_scores,
    spread,
)

NUM_GOLDEN = 4
SPLIT_SEEDS_TRIED = 100
SHOWN = 12
"""Pairs of a report that are to be looked at, of each kind."""

Scores = list[list[float]]
"""Of the candidates of each ranking, in their order."""
Share = Annotated[float, Field(gt=0, lt=1)]


class SplitConfig(Config):
    """How the prompts of a fit are split, how often it is tried, and where."""

    validation: Share = 0.15
    """Share of prompts for early stopping and calibration."""

    test: Share = 0.2
    """Share of prompts for the reported numbers; nothing is chosen on them."""

    split_seed: Seed = 0
    """Seed of the split of prompts."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Fits to try; the one with the lowest validation loss is kept, all are reported."""

    device: Device = "cpu"
    """Where to fit: auto, cpu, cuda or cuda:1; "auto" is a GPU where there is one."""

    @model_validator(mode="after")
    def _prompts_are_left_for_training(self) -> "SplitConfig":
        if self.validation + self.test >= 1:
            raise ValueError(
                "validation: expected to leave prompts for training together with test, got "
                f"{self.validation:g} and {self.test:g}"
            )
        return self

    def held_out(self) -> HeldOut:
        """The split, as a contract keeps it."""
        return HeldOut(seed=self.split_seed, validation=self.validation, test=self.test)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Result of a fit of one or several seeds, for its report and its contract."""

    parts: dict[str, list[Ranking]]
    utilities: dict[str, Scores]
    """Of the chosen seed, by part of the split."""
    scale: Scale
    baseline: Scores | None
    """Scores of the baseline on the test part."""
    baseline_name: str
    seeds: tuple[SeedResult, ...]
    chosen_seed: int
    log_tie: tuple[float, ...]
    losses: Sequence[tuple[float, float]]
    """Training and validation loss of the chosen seed at the start and after each pass; the former
    NaN at the start of a phase."""

    def scores(self, part: str) -> Scores:
        """Standardised utilities."""
        mean, std = self.scale.mean, self.scale.std
        return [[(utility - mean) / std for utility in own] for own in self.utilities[part]]

    def golden(self) -> list[tuple[str, str]]:
        """(prompt, sample) of the lowest and highest training score and of some evenly between."""
        train = self.parts["train"]
        ordered = sorted(
            by_sample(train, self.scores("train")).items(), key=lambda item: (item[1], item[0])
        )
        places = np.linspace(0, len(ordered) - 1, min(NUM_GOLDEN, len(ordered))).round()
        return [ordered[int(place)][0] for place in places]


def split(ranked: Sequence[Ranking], config: SplitConfig) -> dict[str, list[Ranking]]:
    """Training, validation and test rankings; InputError where one has no strict pair."""

    def parts_of(seed: int) -> dict[str, list[Ranking]]:
        found = three_way_split(ranked, validation=config.validation, test=config.test, seed=seed)
        return {"train": found.train, "validation": found.validation, "test": found.test}

    def empty(parts: Mapping[str, list[Ranking]]) -> list[str]:
        return [name for name, own in parts.items() if not any(pairs(r) for r in own)]

    parts = parts_of(config.split_seed)
    if missing := empty(parts):
        works = (seed for seed in range(SPLIT_SEEDS_TRIED) if not empty(parts_of(seed)))
        found = next(works, None)
        cure = "rank more prompts" if found is None else f"use split_seed={found} or rank more"
        number = len({each.prompt for each in ranked})
        prompts, leave = counted(number, "prompt"), "leaves" if number == 1 else "leave"
        raise InputError(
            f"reward fit: {prompts} in {counted(len(ranked), 'ranking')} {leave} no preference for "
            f"{' and '.join(missing)}; {cure}"
        )
    return parts


def weights_of(rankings: Sequence[Ranking], given: Mapping[str, float]) -> list[float]:
    """Importance of each ranking, 1 where none is given; InputError unless positive."""
    weights = [given.get(ranking.ranking_id, 1.0) for ranking in rankings]
    for ranking, weight in zip(rankings, weights, strict=True):
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(
                f"reward fit: expected a positive weight of ranking {ranking.ranking_id}, "
                f"got {weight}; leave the ranking out instead"
            )
    return weights


def rows_of(parts: Mapping[str, Sequence[Ranking]], device: torch.device) -> dict[str, Tensor]:
    """Rows of each part where the parts follow each other."""
    rows, start = {}, 0
    for name, own in parts.items():
        rows[name] = torch.arange(start, start + len(own), device=device)
        start += len(own)
    return rows


def utilities_of(
    data: RankingData,
    rows: Mapping[str, Tensor],
    score: Callable[[Tensor], Tensor],
    *,
    at_once: int,
    world: World,
) -> dict[str, Scores]:
    """Utilities of each ranking's candidates, by part.

    `score` gives those of at most `at_once` rows, [n k], without gradients; each process scores its
    share.
    """

    def of_part(own: Tensor) -> Scores:
        values = shared_rows(
            world, len(own), lambda some: score(own[some]), at_once=at_once, device=own.device
        )
        return [
            scores[: len(data.rankings[row].sample_ids)]
            for row, scores in zip(own.tolist(), values.tolist(), strict=True)
        ]

    with torch.no_grad():
        return {part: of_part(own) for part, own in rows.items()}


def seed_result(
    descent: Descent,
    tested: Sequence[Ranking],
    scores: Scores,
    *,
    prior_std: float | None = None,
    unfrozen_helped: bool | None = None,
) -> SeedResult:
    """What the report says of one seed; `scores` are those of the test part."""
    return SeedResult(
        seed=descent.seed,
        prior_std=prior_std,
        epochs=len(descent.losses) - 1,
        best_epoch=descent.best_epoch,
        validation_loss=descent.validation_loss,
        start_loss=descent.losses[0][1],
        test_accuracy=share_right(tested, scores),
        unfrozen_helped=unfrozen_helped,
    )


def by_sample(rankings: Sequence[Ranking], scores: Scores) -> dict[tuple[str, str], float]:
    """Score of each (prompt, sample), however many rankings hold it."""
    return {
        (ranking.prompt, sample): score
        for ranking, own in zip(rankings, scores, strict=True)
        for sample, score in zip(ranking.sample_ids, own, strict=True)
    }


def scale_of(parts: Mapping[str, Sequence[Ranking]], utilities: Mapping[str, Scores]) -> Scale:
    """Standardisation on the training part, calibrated on the validation part.

    InputError where all training samples score the same.
    """
    train = parts["train"]
    values = list(by_sample(train, utilities["train"]).values())
    std = float(np.std(values))
    if not std > 0:
        kind = train[0].samples
        raise InputError(
            f"reward fit: all {len(values)} training {kind} score the same; are they all one "
            f"{kind.removesuffix('s')}?"
        )
    log_odds = fit_log_odds(pair_margins(parts["validation"], utilities["validation"])[0])
    return Scale(mean=float(np.mean(values)), std=std, log_odds=log_odds * std)


def share_right(rankings: Sequence[Ranking], scores: Scores) -> float:
    """Pair accuracy without an interval."""
    return float(outcomes(pair_margins(rankings, scores)[0]).mean())


def whole_path(model: str) -> str:
    """The absolute path of a folder; other names unchanged."""
    return str(Path(model).absolute()) if model != "storybook" and Path(model).is_dir() else model


def report_of(
    outcome: Outcome,
    ranked: Sequence[Ranking],
    counts: Counts,
    config: Config,
    *,
    ceiling: Ceiling | None,
    oracle: OracleReward | None,
    started: float,
    learned_from: LearnedFrom | None = None,
) -> FitReport:
    """The report of a fit that began at `started`, in seconds of `time.monotonic`."""
    parts, utilities, scale = outcome.parts, outcome.utilities, outcome.scale
    assert scale.log_odds is not None, "the scale of a fit is calibrated"
    ordered = [ranking for part in parts.values() for ranking in part]
    return FitReport(
        test=evaluate_scores(
            parts["test"],
            outcome.scores("test"),
            baseline=outcome.baseline,
            baseline_name=outcome.baseline_name,
            ceiling=ceiling or agreement_on(parts["test"], ranked),
            truth=None if oracle is None else bayes_optimal(parts["test"], oracle),
            log_odds=scale.log_odds,
        ),
        train_accuracy=share_right(parts["train"], utilities["train"]),
        temperature=scale.std / scale.log_odds,
        ece_uncalibrated=calibration(
            pair_margins(parts["test"], utilities["test"])[0], log_odds=1.0
        ).ece,
        train_scores=spread(outcome.scores("train")),
        log_tie=outcome.log_tie,
        counts=counts,
        num_rankings={part: len(own) for part, own in parts.items()},
        num_prompts={part: len({r.prompt for r in own}) for part, own in parts.items()},
        seeds=outcome.seeds,
        chosen_seed=outcome.chosen_seed,
        losses=tuple(
            (None if math.isnan(train) else train, validation)
            for train, validation in outcome.losses
        ),
        data_hash=data_hash(_line(ranking) for ranking in ordered),
        settings=config.model_dump(mode="json"),
        seconds=time.monotonic() - started,
        samples=ordered[0].samples,
        learned_from=learned_from,
        **to_look_at(parts["test"], outcome.scores("test"), log_odds=scale.log_odds),
    )


def to_look_at(
    rankings: Sequence[Ranking], scores: Scores, *, log_odds: float
) -> dict[str, tuple[Judged, ...]]:
    """`disagreements` and `agreements` of a report: at most SHOWN, one of a prompt.

    `scores` are standardised, and times `log_odds` they are log-odds.
    """
    found = [
        Judged(
            prompt=ranking.prompt,
            better=ranking.sample_ids[i],
            worse=ranking.sample_ids[j],
            probability=(1 + math.tanh(log_odds * (own[i] - own[j]) / 2)) / 2,
        )
        for ranking, own in zip(rankings, scores, strict=True)
        for i, j in pairs(ranking)
    ]
    found.sort(key=lambda each: each.probability)
    least = {each.prompt: each for each in reversed(found) if each.probability < 0.5}
    most = {each.prompt: each for each in found if each.probability > 0.5}
    return {
        "disagreements": tuple(sorted(least.values(), key=_probability)[:SHOWN]),
        "agreements": tuple(sorted(most.values(), key=_probability, reverse=True)[:SHOWN]),
    }


def _probability(judged: Judged) -> float:
    return judged.probability


def _line(ranking: Ranking) -> str:
    return json.dumps([ranking.prompt, ranking.sample_ids, ranking.ranking], ensure_ascii=False)
