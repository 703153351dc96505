"""Fit a preference head, and optionally the towers' last blocks, to rankings.

The likelihood is Plackett-Luce with ties (losses.plackett_luce_loss): a ranking counts once however
many candidates it has, while a loss over pairs would count a ranking of nine 36 times. Prompts, not
rankings, are split into training, validation and test: the validation split stops, chooses a seed
and calibrates, the test split is for the report only.

Left out: the optimization (training.py) and the metrics (evaluate.py, preferences/accuracy.py).
"""

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgalign.environment import choose_device
from imgalign.errors import InputError
from imgalign.preferences.accuracy import calibration, fit_log_odds, outcomes
from imgalign.preferences.fit_report import Ceiling, Counts, FitReport, SeedResult
from imgalign.preferences.records import Ranking, pairs
from imgalign.preferences.splits import three_way_split
from reward_models.clip import ClipReward, reserve_target
from reward_models.clip_models import load_towers
from reward_models.contract import HeldOut, Origin, Scale, data_hash
from reward_models.data import (
    Features,
    ImageLoader,
    RankingData,
    encode,
    index_rankings,
    pair_margins,
)
from reward_models.evaluate import (
    OracleReward,
    agreement_on,
    bayes_optimal,
    evaluate_scores,
    judged,
    leave_out_unreadable,
    spread,
)
from reward_models.head import PreferenceHead, zero_shot_head
from reward_models.report import save_report
from reward_models.towers import Towers
from reward_models.training import (
    EVALUATION_BATCH,
    Attempt,
    FitConfig,
    ranking_scores,
    restore,
    train_attempt,
)

__all__ = ["Ceiling", "FitConfig", "FitReport", "fit"]

NUM_GOLDEN = 4
SPLIT_SEEDS_TRIED = 100

Scores = list[list[float]]


def fit(
    rankings: Iterable[Ranking],
    images: ImageLoader,
    config: FitConfig,
    out: Path,
    *,
    ceiling: Ceiling | None = None,
    oracle: OracleReward | None = None,
    weights: Mapping[str, float] | None = None,
) -> FitReport:
    """Fit a reward to `rankings`, save it in `out` with its report, and return the report.

    `images` loads the pixels of an image id. `ceiling`: the annotators' agreement, measured on
    overlapping rankings by default. `oracle`: noiseless utilities of simulated annotators, from
    which the report has the Bayes-optimal accuracy. `weights`: importance of a ranking by its id, 1
    by default. Equal rankings, settings and seeds give equal weights on one machine. Rankings with
    an unreadable image are left out, counted and named in the log. InputError where a part of the
    split holds no preference, `out` cannot be written, or another process is writing it.
    """
    started = time.monotonic()
    # Locked, and known to be writable, before hours of work.
    with reserve_target(out):
        ranked, counts = judged(rankings)
        ranked, counts = leave_out_unreadable(ranked, counts, images)
        learned = _learn(ranked, images, config, weights or {})
        report = _report(
            learned, ranked, counts, config, ceiling=ceiling, oracle=oracle, started=started
        )
        reward = ClipReward(
            learned.towers,
            [learned.best.head],
            head=config.head,
            scale=learned.scale,
            log_tie=report.log_tie,
            held_out=HeldOut(
                seed=config.split_seed, validation=config.validation, test=config.test
            ),
            origin=learned.origin,
        )
        golden = _golden(learned.parts["train"], learned.scores()["train"])
        reward.requires_grad_(False).save(
            out,
            golden=[(prompt, images(image)) for prompt, image in golden],
            data_hash=report.data_hash,
            metrics=report.metrics(),
            beside=partial(save_report, report),
        )
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Result of the optimization; the towers and the best head have the chosen weights."""

    towers: Towers
    origin: Origin
    parts: dict[str, list[Ranking]]
    attempts: list[tuple[Attempt, dict[str, Scores]]]
    """One for each seed, with its utilities."""
    zero_shot: dict[str, Scores]
    log_odds: float
    scale: Scale

    @property
    def best(self) -> Attempt:
        """The attempt with the lowest validation loss."""
        return _best(self.attempts)[0]

    @property
    def utilities(self) -> dict[str, Scores]:
        """Utilities of the best attempt, by part of the split."""
        return _best(self.attempts)[1]

    def scores(self) -> dict[str, Scores]:
        """Standardised utilities of the best attempt, by part of the split."""
        mean, std = self.scale.mean, self.scale.std
        return {
            part: [[(utility - mean) / std for utility in own] for own in values]
            for part, values in self.utilities.items()
        }


def _learn(
    ranked: Sequence[Ranking], images: ImageLoader, config: FitConfig, weights: Mapping[str, float]
) -> Learned:
    parts = _split(ranked, config)
    ordered = [ranking for part in parts.values() for ranking in part]
    towers = load_towers(config.clip).to(choose_device(config.device))
    origin = Origin(clip=_whole_path(config.clip), weights=towers.weights_hash())
    data = index_rankings(ordered, _weights(ordered, weights), device=towers.device)
    rows = _rows(parts, towers.device)
    image_blocks, text_blocks = config.unfreeze_image_blocks, config.unfreeze_text_blocks
    features = encode(
        data,
        images,
        towers,
        style=config.head.style,
        live_image=image_blocks > 0,
        live_text=text_blocks > 0,
    )
    untouched = zero_shot_head(
        towers.width, style_width=towers.style_width(style=config.head.style)
    )
    zero_shot = _scores(untouched.to(towers.device), features, data, rows)
    live = towers.freeze(image_blocks=image_blocks, text_blocks=text_blocks)
    untrained = [parameter.detach().clone() for parameter in live]

    attempts: list[tuple[Attempt, dict[str, Scores]]] = []
    for seed in config.seeds:
        restore(live, untrained)
        attempt = train_attempt(
            seed,
            features,
            live,
            data,
            train=rows["train"],
            validation=rows["validation"],
            config=config,
        )
        attempts.append((attempt, _scores(attempt.head, features, data, rows)))
    best, utilities = _best(attempts)
    restore(live, best.towers)

    log_odds = fit_log_odds(pair_margins(parts["validation"], utilities["validation"])[0])
    return Learned(
        towers=towers,
        origin=origin,
        parts=parts,
        attempts=attempts,
        zero_shot=zero_shot,
        log_odds=log_odds,
        scale=_scale(parts["train"], utilities["train"], log_odds),
    )


def _report(
    learned: Learned,
    ranked: Sequence[Ranking],
    counts: Counts,
    config: FitConfig,
    *,
    ceiling: Ceiling | None,
    oracle: OracleReward | None,
    started: float,
) -> FitReport:
    parts, best, utilities = learned.parts, learned.best, learned.utilities
    scores = learned.scores()
    ordered = [ranking for part in parts.values() for ranking in part]
    return FitReport(
        test=evaluate_scores(
            parts["test"],
            scores["test"],
            baseline=learned.zero_shot["test"],
            ceiling=ceiling or agreement_on(parts["test"], ranked),
            truth=None if oracle is None else bayes_optimal(parts["test"], oracle),
            log_odds=learned.scale.log_odds,
        ),
        train_accuracy=_accuracy(parts["train"], utilities["train"]),
        temperature=1 / learned.log_odds,
        ece_uncalibrated=calibration(
            pair_margins(parts["test"], utilities["test"])[0], log_odds=1.0
        ).ece,
        train_scores=spread(scores["train"]),
        log_tie=tuple(best.log_tie.tolist()),
        counts=counts,
        num_rankings={part: len(own) for part, own in parts.items()},
        num_prompts={part: len({r.prompt for r in own}) for part, own in parts.items()},
        seeds=tuple(
            SeedResult(
                seed=attempt.seed,
                prior_std=attempt.prior_std,
                epochs=len(attempt.losses) - 1,
                best_epoch=attempt.best_epoch,
                validation_loss=attempt.validation_loss,
                start_loss=attempt.losses[0][1],
                test_accuracy=_accuracy(parts["test"], own["test"]),
                unfrozen_helped=attempt.unfrozen_helped,
            )
            for attempt, own in learned.attempts
        ),
        chosen_seed=best.seed,
        losses=tuple(
            (None if math.isnan(train) else train, validation) for train, validation in best.losses
        ),
        data_hash=data_hash(_line(ranking) for ranking in ordered),
        settings=config.model_dump(mode="json"),
        seconds=time.monotonic() - started,
    )


def _best(
    attempts: Sequence[tuple[Attempt, dict[str, Scores]]],
) -> tuple[Attempt, dict[str, Scores]]:
    return min(attempts, key=lambda pair: pair[0].validation_loss)


def _split(ranked: Sequence[Ranking], config: FitConfig) -> dict[str, list[Ranking]]:
    """Training, validation and test rankings; InputError where one has no strict pair."""

    def parts_of(seed: int) -> dict[str, list[Ranking]]:
        split = three_way_split(ranked, validation=config.validation, test=config.test, seed=seed)
        return {"train": split.train, "validation": split.validation, "test": split.test}

    def empty(parts: Mapping[str, list[Ranking]]) -> list[str]:
        return [name for name, own in parts.items() if not any(pairs(r) for r in own)]

    parts = parts_of(config.split_seed)
    if missing := empty(parts):
        works = (seed for seed in range(SPLIT_SEEDS_TRIED) if not empty(parts_of(seed)))
        found = next(works, None)
        cure = "rank more prompts" if found is None else f"use split_seed={found} or rank more"
        raise InputError(
            f"reward fit: {len({r.prompt for r in ranked})} prompts in {len(ranked)} rankings "
            f"leave no preference for {' and '.join(missing)}; {cure}"
        )
    return parts


def _weights(rankings: Sequence[Ranking], given: Mapping[str, float]) -> list[float]:
    weights = [given.get(ranking.ranking_id, 1.0) for ranking in rankings]
    for ranking, weight in zip(rankings, weights, strict=True):
        if not (math.isfinite(weight) and weight > 0):
            raise InputError(
                f"reward fit: expected a positive weight of ranking {ranking.ranking_id}, "
                f"got {weight}; leave the ranking out instead"
            )
    return weights


def _rows(parts: Mapping[str, Sequence[Ranking]], device: torch.device) -> dict[str, Tensor]:
    """Rows of each part where the parts follow each other."""
    rows, start = {}, 0
    for name, own in parts.items():
        rows[name] = torch.arange(start, start + len(own), device=device)
        start += len(own)
    return rows


@torch.no_grad()
def _scores(
    head: PreferenceHead, features: Features, data: RankingData, rows: Mapping[str, Tensor]
) -> dict[str, Scores]:
    """Utilities of each ranking's candidates, by part."""
    scores = {}
    for part, own in rows.items():
        batches = [
            ranking_scores(head, features, data, r) for r in torch.split(own, EVALUATION_BATCH)
        ]
        scores[part] = [
            values[: len(data.rankings[row].sample_ids)]
            for row, values in zip(own.tolist(), torch.cat(batches).tolist(), strict=True)
        ]
    return scores


def _by_image(rankings: Sequence[Ranking], scores: Scores) -> dict[tuple[str, str], float]:
    """Score of each (prompt, image), however many rankings hold it."""
    return {
        (ranking.prompt, image): score
        for ranking, own in zip(rankings, scores, strict=True)
        for image, score in zip(ranking.sample_ids, own, strict=True)
    }


def _scale(rankings: Sequence[Ranking], utilities: Scores, log_odds: float) -> Scale:
    values = list(_by_image(rankings, utilities).values())
    std = float(np.std(values))
    if not std > 0:
        raise InputError(
            f"reward fit: all {len(values)} training images score the same; are they all one image?"
        )
    return Scale(mean=float(np.mean(values)), std=std, log_odds=log_odds * std)


def _golden(rankings: Sequence[Ranking], scores: Scores) -> list[tuple[str, str]]:
    """(prompt, image) of the lowest and highest score and of evenly spread ones between."""
    ordered = sorted(_by_image(rankings, scores).items(), key=lambda item: (item[1], item[0]))
    places = np.linspace(0, len(ordered) - 1, min(NUM_GOLDEN, len(ordered))).round()
    return [ordered[int(place)][0] for place in places]


def _accuracy(rankings: Sequence[Ranking], scores: Scores) -> float:
    return float(outcomes(pair_margins(rankings, scores)[0]).mean())


def _whole_path(clip: str) -> str:
    """The absolute path of a folder; other names unchanged."""
    return str(Path(clip).absolute()) if clip != "storybook" and Path(clip).is_dir() else clip


def _line(ranking: Ranking) -> str:
    return json.dumps([ranking.prompt, ranking.sample_ids, ranking.ranking], ensure_ascii=False)
