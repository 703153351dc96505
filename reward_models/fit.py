"""Fit a preference head, and optionally the towers' last blocks, to rankings.

The likelihood is Plackett-Luce with ties (losses.plackett_luce_loss): a ranking counts once however
many candidates it has, while a loss over pairs would count a ranking of nine 36 times. Prompts, not
rankings, are split into training, validation and test: the validation split stops, chooses a seed
and calibrates, the test split is for the report only.

Left out: the optimization (training.py) and the metrics (evaluate.py, preferences/accuracy.py).
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from imgalign.environment import choose_device
from imgalign.preferences.fit_report import ZERO_SHOT, Ceiling, Counts, FitReport, LearnedFrom
from imgalign.preferences.records import Ranking
from imgalign.runs.world import (
    Alone,
    World,
    from_first,
    refuse_one_gpu_for_all,
    writes_files,
)
from reward_models.clip import ClipReward
from reward_models.clip_models import load_towers
from reward_models.contract import Origin
from reward_models.data import index_rankings
from reward_models.descent import EVALUATION_BATCH, restore
from reward_models.evaluate import OracleReward, judged, leave_out_unreadable
from reward_models.features import ImageLoader, encode
from reward_models.folder import reserve_target
from reward_models.head import PreferenceHead, zero_shot_head
from reward_models.outcome import (
    Outcome,
    Scores,
    report_of,
    rows_of,
    scale_of,
    seed_result,
    split,
    utilities_of,
    weights_of,
    whole_path,
)
from reward_models.report import save_fitted
from reward_models.towers import Towers
from reward_models.training import Attempt, FitConfig, ranking_scores, train_attempt

__all__ = ["Ceiling", "FitConfig", "FitReport", "fit"]


def fit(
    rankings: Iterable[Ranking],
    images: ImageLoader,
    config: FitConfig,
    out: Path,
    *,
    ceiling: Ceiling | None = None,
    oracle: OracleReward | None = None,
    weights: Mapping[str, float] | None = None,
    learned_from: LearnedFrom | None = None,
    world: World | None = None,
) -> FitReport:
    """Fit a reward to `rankings`, save it in `out` with its report, and return the report.

    `images` loads the pixels of an image id. `ceiling`: the annotators' agreement, measured on
    overlapping rankings by default. `oracle`: noiseless utilities of simulated annotators, from
    which the report has the Bayes-optimal accuracy. `weights`: importance of a ranking by its id, 1
    by default. `learned_from` is what the report says of where they are from. Equal rankings,
    settings and seeds give equal weights on one machine. Rankings with an unreadable image are left
    out, counted and named in the log. `world` is the processes that fit together, each of which
    calls this and can read the images; the first reads the rankings, and saves. Without it there is
    one. InputError where a part of the split holds no preference, `out` cannot be written, or
    another fit is writing it.
    """
    started = time.monotonic()
    world = world or Alone()
    refuse_one_gpu_for_all(world, config.device, setting="device")

    def readable() -> tuple[list[Ranking], Counts]:
        return leave_out_unreadable(*judged(rankings), lambda _, image: images(image))

    # Locked, and known to be writable, before hours of work.
    with reserve_target(out) if writes_files(world) else nullcontext():
        ranked, counts = from_first(world, readable)
        learned = _learn(ranked, images, config, weights or {}, world)
        outcome = learned.outcome
        report = report_of(
            outcome,
            ranked,
            counts,
            config,
            ceiling=ceiling,
            oracle=oracle,
            started=started,
            learned_from=learned_from,
        )
        reward = ClipReward(
            learned.towers,
            [learned.head],
            head=config.head,
            scale=outcome.scale,
            log_tie=report.log_tie,
            held_out=config.held_out(),
            origin=learned.origin,
        )
        if writes_files(world):
            save_fitted(
                reward.requires_grad_(False), out, report, golden=outcome.golden(), read=images
            )
        return from_first(world, lambda: report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Result of the optimization; the towers and the head have the chosen weights."""

    towers: Towers
    head: PreferenceHead
    origin: Origin
    outcome: Outcome


def _learn(
    ranked: Sequence[Ranking],
    images: ImageLoader,
    config: FitConfig,
    weights: Mapping[str, float],
    world: World,
) -> Learned:
    parts = split(ranked, config)
    ordered = [ranking for part in parts.values() for ranking in part]
    towers = load_towers(config.clip).to(choose_device(config.device))
    origin = Origin(clip=whole_path(config.clip), weights=towers.weights_hash())
    data = index_rankings(ordered, weights_of(ordered, weights), device=towers.device)
    rows = rows_of(parts, towers.device)
    image_blocks, text_blocks = config.unfreeze_image_blocks, config.unfreeze_text_blocks
    features = encode(
        data,
        images,
        towers,
        style=config.head.style,
        live_image=image_blocks > 0,
        live_text=text_blocks > 0,
        world=world,
    )
    untouched = zero_shot_head(
        towers.width, style_width=towers.style_width(style=config.head.style)
    )

    def utilities(head: PreferenceHead) -> dict[str, Scores]:
        return utilities_of(
            data,
            rows,
            lambda own: ranking_scores(head, features, data, own),
            at_once=EVALUATION_BATCH,
            world=world,
        )

    zero_shot = utilities(untouched.to(towers.device))
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
            world=world,
        )
        attempts.append((attempt, utilities(attempt.head)))
    best, found = min(attempts, key=lambda pair: pair[0].validation_loss)
    restore(live, best.towers)
    outcome = Outcome(
        parts=parts,
        utilities=found,
        scale=scale_of(parts, found),
        baseline=zero_shot["test"],
        baseline_name=ZERO_SHOT,
        seeds=tuple(
            seed_result(
                attempt,
                parts["test"],
                own["test"],
                prior_std=attempt.prior_std,
                unfrozen_helped=attempt.unfrozen_helped,
            )
            for attempt, own in attempts
        ),
        chosen_seed=best.seed,
        log_tie=tuple(best.log_tie.tolist()),
        losses=best.losses,
    )
    return Learned(towers=towers, head=best.head, origin=origin, outcome=outcome)
