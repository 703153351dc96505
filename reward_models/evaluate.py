"""Pair accuracy of a reward model on held-out rankings, beside its baselines and upper bounds.

Accuracy is the share of pairs in which the sample that the annotator preferred scores higher. Ties
of the annotator are left out; equal scores count half. Baselines are chance, and zero-shot CLIP or
the length of texts; upper bounds are the annotators' agreement with each other (the ceiling) and,
where annotators are simulated, the Bayes-optimal accuracy.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from imgalign.errors import CheckpointError, InputError, StoreError
from imgalign.images import read_tensor
from imgalign.language.token_reward import unread
from imgalign.policy import RewardModel
from imgalign.preferences.accuracy import accuracy_gain, calibration, pair_accuracy
from imgalign.preferences.agreement import annotator_ceiling, pair_agreement
from imgalign.preferences.fit_report import ZERO_SHOT, Ceiling, Counts, Evaluation, Spread
from imgalign.preferences.records import Ranking, Samples, compares, tied_pairs
from imgalign.preferences.splits import three_way_split
from imgalign.preferences.wording import counted, there_are
from reward_models.contract import HeldOut, Scale
from reward_models.data import pair_margins

CHANCE = 0.5
BOOTSTRAP_SEED = 0
SCORE_BATCH = 64
NAMED = 5
"""How many unreadable samples are named in the log; all are counted."""

Sample: TypeAlias = Tensor | str
"""An image [3 h w] in [0, 1], or a text."""
Loader: TypeAlias = Callable[[str], Sample]
"""Loads an image or text by its id."""

log = logging.getLogger(__name__)


OracleReward: TypeAlias = Callable[[Ranking], Sequence[float]]
"""Noiseless utilities of a ranking's candidates, in their order; known for simulated annotators."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredFile:
    """One line of `imgalign reward score`."""

    path: Path
    prompt: str
    score: float | None
    """None where the file cannot be read."""
    problem: str = ""
    """Why it cannot be read."""


def judged(rankings: Iterable[Ranking]) -> tuple[list[Ranking], Counts]:
    """The rankings with the verdict "ranked", and counts of all verdicts.

    Likes and dislikes of single samples are neither; the log says how many.
    """
    everything = list(rankings)
    seen = [ranking for ranking in everything if len(ranking.sample_ids) > 1]
    if alone := len(everything) - len(seen):
        log.warning(
            "%d judgements of single samples are left out: a like prefers nothing to anything;"
            " algorithm.name=kto learns from them",
            alone,
        )
    ranked = [ranking for ranking in seen if compares(ranking)]
    return ranked, Counts(
        ranked=len(ranked),
        all_bad=sum(ranking.verdict == "all_bad" for ranking in seen),
        skipped=sum(ranking.verdict == "skipped" for ranking in seen),
    )


def leave_out_unreadable(
    ranked: Sequence[Ranking], counts: Counts, read: Callable[[str, str], object]
) -> tuple[list[Ranking], Counts]:
    """Drop rankings with a sample that cannot be read, and count them.

    `read` gets a prompt and the id of a sample, and raises InputError or StoreError where the
    sample cannot be scored for the prompt. Each is read once, which is fast compared with scoring
    it. InputError where no ranking is left.
    """
    problems: dict[tuple[str, str], str] = {}
    for each in dict.fromkeys((r.prompt, sample) for r in ranked for sample in r.sample_ids):
        try:
            read(*each)
        except (InputError, StoreError) as error:
            problems[each] = str(error)
    kept = [r for r in ranked if not any((r.prompt, each) in problems for each in r.sample_ids)]
    lost = len(ranked) - len(kept)
    unreadable = {sample: problem for (_, sample), problem in problems.items()}
    kind = ranked[0].samples if ranked else "samples"
    lost_samples = counted(len(unreadable), kind.removesuffix("s"))
    if ranked and not kept:
        raise InputError(
            f"reward: no ranking is left, {lost_samples} cannot be read; the first: "
            f"{next(iter(unreadable.values()))}"
        )
    for problem in list(unreadable.values())[:NAMED]:
        log.warning("%s", problem)
    if unreadable:
        log.warning(
            "%s cannot be read, so %s of %s left out",
            lost_samples,
            lost,
            there_are(len(ranked), "ranking"),
        )
    return kept, replace(counts, ranked=counts.ranked - lost, unreadable=lost)


def bayes_optimal(rankings: Sequence[Ranking], oracle: OracleReward) -> Ceiling:
    """Bayes-optimal accuracy: pair accuracy of the oracle reward on these rankings.

    No model has a higher expected accuracy, though one may exceed it by chance on few pairs. It is
    measured on the same pairs as the model, so that chance affects both alike.
    """
    margins, prompts = pair_margins(rankings, [oracle(ranking) for ranking in rankings])
    return Ceiling(
        value=pair_accuracy(margins, prompts, seed=BOOTSTRAP_SEED).micro,
        meaning="the oracle reward on the same pairs",
    )


def annotator_agreement(rankings: Sequence[Ranking]) -> Ceiling | None:
    """The annotators' agreement on pairs that several judged; None without such pairs.

    With three annotators, how often one agrees with the majority of the others; with two, how often
    they agree with each other.
    """
    majority = annotator_ceiling(rankings)
    if majority.count:
        meaning = f"one annotator with the majority of the others, {majority.count} pairs"
        return Ceiling(value=majority.rate, meaning=meaning)
    two = pair_agreement(rankings)
    if two.count:
        meaning = f"two annotators with each other, {two.count} pairs"
        return Ceiling(value=two.rate, meaning=meaning)
    return None


def agreement_on(tested: Sequence[Ranking], everything: Sequence[Ranking]) -> Ceiling | None:
    """Inter-annotator agreement on the test pairs.

    On all pairs if no two annotators judged the same test pair; None without any overlap.
    """
    own = annotator_agreement(tested)
    if own is not None:
        return own
    other = annotator_agreement(everything)
    return None if other is None else replace(other, meaning=f"{other.meaning}, of other prompts")


@runtime_checkable
class Fitted(Protocol):
    """A reward that was fitted to rankings and knows its split, scale and starting point."""

    @property
    def held_out(self) -> HeldOut | None:
        """The split of prompts; None for a reward that was not fitted."""
        ...

    @property
    def scale(self) -> Scale:
        """Standardisation of its scores."""
        ...

    @property
    def samples(self) -> Samples:
        """What it scores."""
        ...

    @property
    def baseline_name(self) -> str:
        """What `baseline` is, for a report."""
        ...

    def baseline(self) -> RewardModel:
        """What the reward is compared with; CheckpointError or InputError if unavailable."""
        ...


def samples_of(reward: RewardModel) -> Samples:
    """What a reward scores; images unless it says otherwise."""
    return reward.samples if isinstance(reward, Fitted) else "images"


def check_samples(reward: RewardModel, samples: Samples, *, name: str) -> None:
    """InputError for a reward that scores samples of the other kind."""
    own = samples_of(reward)
    if own != samples:
        raise InputError(f"reward: {name} scores {own}, got {samples}; name another reward")


def evaluate(
    reward: RewardModel,
    rankings: Iterable[Ranking],
    load: Loader,
    *,
    baseline: RewardModel | None = None,
    ceiling: Ceiling | None = None,
) -> Evaluation:
    """Pair accuracy of a reward on rankings, beside a baseline on the same pairs.

    For a reward that was fitted to rankings only prompts of its test split count, as its contract
    defines it, and the baseline is its own unless another is given: the CLIP that the fit started
    from, or the length of texts. `ceiling` is the annotators' agreement, measured on overlapping
    rankings by default. Rankings with a sample that cannot be read are left out and named in the
    log. InputError where no strict pair is left.
    """
    everything, counts = judged(rankings)
    ranked = everything
    rule = reward.held_out if isinstance(reward, Fitted) else None
    missing = None
    if isinstance(reward, Fitted) and rule is not None:
        ranked = held_out(ranked, rule)
        if baseline is None:
            try:
                baseline = reward.baseline()
            except (CheckpointError, InputError) as error:
                missing = str(error)

    def read(prompt: str, sample: str) -> None:
        if reason := unread(reward, [prompt], [load(sample)])[0]:
            raise InputError(reason)

    ranked, _ = leave_out_unreadable(ranked, counts, read)
    return evaluate_scores(
        ranked,
        score_rankings(reward, ranked, load),
        baseline=None if baseline is None else score_rankings(baseline, ranked, load),
        baseline_name=reward.baseline_name if isinstance(reward, Fitted) else ZERO_SHOT,
        baseline_missing=missing,
        ceiling=ceiling or agreement_on(ranked, everything),
        log_odds=reward.scale.log_odds if isinstance(reward, Fitted) else None,
    )


def held_out(rankings: Sequence[Ranking], rule: HeldOut) -> list[Ranking]:
    """The rankings in the test split of a fit under `rule`."""
    return three_way_split(
        rankings, validation=rule.validation, test=rule.test, seed=rule.seed
    ).test


def evaluate_scores(
    rankings: Sequence[Ranking],
    scores: Sequence[Sequence[float]],
    *,
    baseline: Sequence[Sequence[float]] | None,
    ceiling: Ceiling | None,
    log_odds: float | None,
    truth: Ceiling | None = None,
    baseline_name: str = ZERO_SHOT,
    baseline_missing: str | None = None,
) -> Evaluation:
    """`evaluate` from the scores of each ranking's candidates, in their order.

    `log_odds`: log-odds of preference, in nats, per point of score difference. `truth`: the
    Bayes-optimal accuracy.
    """
    margins, prompts = pair_margins(rankings, scores)
    if not len(margins):
        raise InputError(
            f"reward evaluation: none of {len(rankings)} held-out rankings prefers one sample to "
            "another; rank more prompts"
        )
    accuracy = pair_accuracy(margins, prompts, seed=BOOTSTRAP_SEED)
    beside = None if baseline is None else pair_margins(rankings, baseline)[0]
    return Evaluation(
        accuracy=accuracy,
        baseline=(None if beside is None else pair_accuracy(beside, prompts, seed=BOOTSTRAP_SEED)),
        gain=(
            None if beside is None else accuracy_gain(margins, beside, prompts, seed=BOOTSTRAP_SEED)
        ),
        baseline_name=baseline_name,
        baseline_missing=baseline_missing,
        chance=CHANCE,
        ceiling=ceiling,
        share_of_ceiling=accuracy.micro / ceiling.value if ceiling and ceiling.value else None,
        truth=truth,
        share_of_truth=accuracy.micro / truth.value if truth and truth.value else None,
        num_rankings=len(rankings),
        num_tied_pairs=sum(len(tied_pairs(ranking)) for ranking in rankings),
        calibration=None if log_odds is None else calibration(margins, log_odds=log_odds),
        scores=spread(scores),
    )


def spread(scores: Sequence[Sequence[float]]) -> Spread:
    """Distribution of the scores of all candidates of some rankings."""
    everything = np.concatenate([np.asarray(own, dtype=np.float64) for own in scores])
    within = np.mean([np.var(own) for own in scores])
    low, quarter, median, upper, high = np.quantile(everything, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return Spread(
        mean=float(everything.mean()),
        std=float(everything.std()),
        quantiles=(low, quarter, median, upper, high),
        within_prompt_std=float(np.sqrt(within)),
    )


def score_rankings(
    reward: RewardModel, rankings: Sequence[Ranking], load: Loader
) -> list[list[float]]:
    """Scores of each ranking's candidates; each sample of a prompt is scored once."""
    wanted = list(dict.fromkeys((r.prompt, each) for r in rankings for each in r.sample_ids))
    found = score_samples(reward, ((prompt, load(each)) for prompt, each in wanted))
    scores = dict(zip(wanted, found, strict=True))
    return [[scores[r.prompt, each] for each in r.sample_ids] for r in rankings]


def score_files(
    reward: RewardModel, files: Sequence[Path], prompts: Sequence[str]
) -> list[ScoredFile]:
    """Scores of image files, each for its prompt, or all for the one prompt given.

    Files that cannot be read have none, and say why; InputError where that is all of them.
    """
    each = _prompts(prompts, len(files), "image")
    problems: dict[int, str] = {}

    def readable() -> Iterator[tuple[str, Sample]]:
        for number, (path, prompt) in enumerate(zip(files, each, strict=True)):
            try:
                image = read_tensor(path)
            except InputError as error:
                problems[number] = str(error)
            else:
                yield prompt, image

    scores = iter(score_samples(reward, readable()))
    if len(problems) == len(files):
        raise InputError(f"reward score: no image can be read; the first: {problems[0]}")
    return [
        ScoredFile(path=path, prompt=prompt, score=None, problem=problems[number])
        if number in problems
        else ScoredFile(path=path, prompt=prompt, score=next(scores))
        for number, (path, prompt) in enumerate(zip(files, each, strict=True))
    ]


def score_texts(
    reward: RewardModel, texts: Sequence[str], prompts: Sequence[str]
) -> list[tuple[str, str, float]]:
    """(text, prompt, score) of texts, each for its prompt, or all for the one prompt given."""
    each = _prompts(prompts, len(texts), "text")
    scores = score_samples(reward, zip(each, texts, strict=True))
    return list(zip(texts, each, scores, strict=True))


def _prompts(prompts: Sequence[str], count: int, kind: str) -> list[str]:
    """One prompt for each sample."""
    if len(prompts) not in (1, count):
        raise InputError(
            f"reward score: expected one prompt or one per {kind}, got {len(prompts)} prompts "
            f"for {count} {kind}s"
        )
    return list(prompts) * count if len(prompts) == 1 else list(prompts)


@torch.no_grad()
def score_samples(reward: RewardModel, pairs: Iterable[tuple[str, Sample]]) -> list[float]:
    """Scores of (prompt, sample) pairs in batches; images of different sizes may mix."""
    scores: list[float] = []
    for _, group in groupby(pairs, key=lambda pair: getattr(pair[1], "shape", None)):
        while batch := list(islice(group, SCORE_BATCH)):
            prompts = [prompt for prompt, _ in batch]
            scores += reward.score(prompts=prompts, samples=_batch(s for _, s in batch)).tolist()
    return scores


def _batch(samples: Iterable[Sample]) -> Tensor | list[str]:
    """Images of one size as a tensor [b 3 h w], texts as they are."""
    given = list(samples)
    images = [each for each in given if isinstance(each, Tensor)]
    return torch.stack(images) if images else [each for each in given if isinstance(each, str)]
