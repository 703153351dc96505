"""Fit a language model to rankings of texts.

The likelihood, the split by prompt, calibration and report are those of rewards of images (fit.py).
Left out: the optimization (text_training.py) and the metrics (evaluate.py).
"""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from imgalign.environment import choose_device
from imgalign.errors import InputError
from imgalign.language.loading import LanguageModel, load_language_model
from imgalign.preferences.fit_report import Ceiling, FitReport, LearnedFrom
from imgalign.preferences.records import Ranking
from imgalign.runs.world import (
    Alone,
    World,
    from_first,
    refuse_one_gpu_for_all,
    writes_files,
)
from reward_models.contract import TextOrigin
from reward_models.data import index_rankings
from reward_models.evaluate import OracleReward, judged, leave_out_unreadable, score_rankings
from reward_models.folder import reserve_target, weights_hash
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
from reward_models.text import LONGER_TEXT, LengthReward, TextReward
from reward_models.text_models import (
    ScalarModel,
    check_tokenizer,
    refuse_other_logits,
    scalar_model,
)
from reward_models.text_training import (
    RANKINGS_AT_ONCE,
    TextAttempt,
    TextData,
    TextFitConfig,
    ranking_scores,
    train_text_attempt,
)

__all__ = ["TextFitConfig", "fit_texts"]

TextLoader: TypeAlias = Callable[[str], str]
"""Loads a text by its id; an ImgalignError where it cannot."""


def fit_texts(
    rankings: Iterable[Ranking],
    texts: TextLoader,
    config: TextFitConfig,
    out: Path,
    *,
    ceiling: Ceiling | None = None,
    oracle: OracleReward | None = None,
    weights: Mapping[str, float] | None = None,
    learned_from: LearnedFrom | None = None,
    world: World | None = None,
) -> FitReport:
    """Fit a reward to `rankings`, save it in `out` with its report, and return the report.

    `texts` loads a text by its id; all else as in `reward_models.fit.fit`. Rankings with a text
    that is longer than the model's context with its prompt are left out, counted and named in the
    log. InputError where a part of the split holds no preference, nothing was learned, the model
    cannot be used, `out` cannot be written, or another process is writing it.
    """
    started = time.monotonic()
    world = world or Alone()
    refuse_one_gpu_for_all(world, config.device, setting="device")
    # Locked, and known to be writable, before hours of work.
    with reserve_target(out) if writes_files(world) else nullcontext():
        device = choose_device(config.device)
        found = load_language_model(config.model, device=device)
        check_tokenizer(found.tokenizer)
        reward = _unfitted(found, config)

        def read(prompt: str, text: str) -> None:
            reward.rows([prompt], [texts(text)])

        ranked, counts = from_first(world, lambda: leave_out_unreadable(*judged(rankings), read))
        learned = _learn(reward, ranked, texts, config, weights or {}, world)
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
        fitted = TextReward(
            learned.model,
            reward.tokenizer,
            context_length=reward.context_length,
            scale=outcome.scale,
            log_tie=report.log_tie,
            held_out=config.held_out(),
            origin=reward.origin,
        )
        if writes_files(world):
            save_fitted(
                fitted.requires_grad_(False), out, report, golden=outcome.golden(), read=texts
            )
        return from_first(world, lambda: report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Result of the optimization; the model has the chosen weights."""

    model: ScalarModel
    outcome: Outcome


def _unfitted(found: LanguageModel, config: TextFitConfig) -> TextReward:
    """The language model with a head of zeros."""
    model = scalar_model(found.model, likelihood=config.likelihood)
    if config.likelihood:
        refuse_other_logits(model, found.model)
    return TextReward(
        model,
        found.tokenizer,
        context_length=found.context_length,
        origin=TextOrigin(model=whole_path(config.model), weights=weights_hash(model.body)),
    )


def _learn(
    reward: TextReward,
    ranked: Sequence[Ranking],
    texts: TextLoader,
    config: TextFitConfig,
    weights: Mapping[str, float],
    world: World,
) -> Learned:
    parts = split(ranked, config)
    ordered = [ranking for part in parts.values() for ranking in part]
    rows = rows_of(parts, reward.device)
    data = _index(reward, ordered, texts, weights)

    best: tuple[TextAttempt, dict[str, Scores]] | None = None
    results = []
    for place, seed in enumerate(config.seeds):
        # The last one may change the weights that all started from.
        last = place == len(config.seeds) - 1
        attempt = train_text_attempt(
            seed,
            reward.model if last else copy.deepcopy(reward.model),
            data,
            train=rows["train"],
            validation=rows["validation"],
            config=config,
            world=world,
        )
        found = utilities_of(
            data.rankings,
            rows,
            partial(ranking_scores, attempt.model, data),
            at_once=RANKINGS_AT_ONCE,
            world=world,
        )
        results.append(seed_result(attempt, parts["test"], found["test"]))
        if best is None or attempt.validation_loss < best[0].validation_loss:
            best = attempt, found
    assert best is not None, "a fit has at least one seed"
    attempt, found = best
    if attempt.best_epoch == 0:
        raise InputError(
            "reward fit: no pass over the rankings lowered the validation loss, so nothing was "
            "learned; rank more prompts, or lower learning_rate"
        )
    outcome = Outcome(
        parts=parts,
        utilities=found,
        scale=scale_of(parts, found),
        baseline=score_rankings(LengthReward(), parts["test"], texts),
        baseline_name=LONGER_TEXT,
        seeds=tuple(results),
        chosen_seed=attempt.seed,
        log_tie=tuple(attempt.log_tie.tolist()),
        losses=attempt.losses,
    )
    return Learned(model=attempt.model, outcome=outcome)


def _index(
    reward: TextReward,
    rankings: Sequence[Ranking],
    texts: TextLoader,
    weights: Mapping[str, float],
) -> TextData:
    """Number the rankings' prompts and texts, and make tokens of each pair that occurs."""
    data = index_rankings(rankings, weights_of(rankings, weights), device=reward.device)
    prompts = {prompt: place for place, prompt in enumerate(data.prompts)}
    samples = {sample: place for place, sample in enumerate(data.images)}
    wanted = list(dict.fromkeys((r.prompt, each) for r in rankings for each in r.sample_ids))
    rows = reward.rows([prompt for prompt, _ in wanted], [texts(each) for _, each in wanted])
    tokens = {
        (prompts[prompt], samples[sample]): row
        for (prompt, sample), row in zip(wanted, rows, strict=True)
    }
    return TextData(rankings=data, tokens=tokens, pad=reward.padded)
