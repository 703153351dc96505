"""Blind comparison of an aligned checkpoint with its base, on prompts that training never saw.

Both sides make images or texts of the same prompts from the same seeds. An oracle reward that
training never saw judges each pair without knowing which side a sample is from. Its win rate is
reported with the reward that training maximised, faithfulness to the prompt, diversity and KL to
the base, so that a gain in one number cannot hide a loss in another.

Left out: the measures themselves, which the caller passes in; no reward model is imported. What is
otherwise for images than for texts is in kinds.py and texts.py.
"""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from imgalign.diffusion.generate import ImageGenerator
from imgalign.evaluate.comparison import Change, summarise
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.drift import drift_of
from imgalign.evaluate.evaluation import (
    FILE,
    FOLDER,
    Diversity,
    Evaluation,
    evaluation_folder,
    images_of,
    load_evaluation,
    refuse_foreign,
)
from imgalign.evaluate.judging import (
    ImageFeatures,
    Judge,
    Measures,
    check_oracle,
    mean_distances,
)
from imgalign.evaluate.kinds import Kind, OfImages
from imgalign.evaluate.origin import Origin, command_line, hardware, library_versions
from imgalign.evaluate.saved_images import Layout, Side, mark_own, new_name, remove_images
from imgalign.evaluate.selection import DrawPrompts, known_prompts, select_prompts
from imgalign.evaluate.sides import LoadGenerator, checkpoint_of
from imgalign.evaluate.texts import OfTexts
from imgalign.files import (
    UNFINISHED,
    check_folder,
    lock_folder,
    reporting_full_disk,
    sync_folder,
    sync_tree,
)
from imgalign.runs.folder import model_under, run_of, samples_under
from imgalign.runs.trained import check_strength, find_weights, reference_of
from imgalign.statistics import clustered_mean

__all__ = [
    "FILE",
    "FOLDER",
    "EvaluateConfig",
    "Evaluation",
    "Measures",
    "evaluate",
    "load_evaluation",
]


def evaluate(
    settings: EvaluateConfig,
    *,
    measures: Measures,
    draw_prompts: DrawPrompts | None = None,
    out: Path | None = None,
    load: LoadGenerator = ImageGenerator,
    command: str | None = None,
) -> Evaluation:
    """Generate, judge and save both sides; the result and its samples are written to `out`.

    `out` is `evaluation` in the run by default, or beside the weights of an adapter from elsewhere.
    `load` loads a model of images, once for both sides; `draw_prompts` gives the prompts where the
    settings name no file. An earlier evaluation in `out` is replaced at the very end, and nothing
    else there is changed; another process that evaluates there is an InputError. Errors are of
    `imgalign.errors`.
    """
    started, clock = datetime.now(UTC), monotonic()
    adapter = find_weights(settings.aligned)
    run = run_of(adapter)
    check_strength(settings.strength, adapter)
    out = out or evaluation_folder(adapter, strength=settings.strength)
    check_folder(out)
    kind: Kind = OfTexts() if samples_under(adapter) == "texts" else OfImages(load)
    settings = kind.settled(settings, run)
    model = settings.model or model_under(adapter)
    baseline = settings.baseline or reference_of(adapter)
    settings = settings.model_copy(update={"model": model, "baseline": baseline})
    selection = select_prompts(
        settings, known_prompts(run) if run else frozenset(), draw=draw_prompts
    )
    check_oracle(measures.oracle, selection.prompts, blank=kind.blank, stack=kind.stack)
    drift = drift_of(run, adapter) if run else None  # settings that cannot be read fail now
    if settings.strength != 1:
        drift = None  # what the run has noted is that of its weights in full
    with lock_folder(out, doing="evaluating"):
        refuse_foreign(out / FILE)
        base, aligned = kind.both_sides(settings, adapter, selection)
        judge = Judge(
            prompts=selection.prompts,
            base=[kind.content(each) for each in base],
            aligned=[kind.content(each) for each in aligned],
            seed=settings.seed,
            stack=kind.stack,
        )
        pairs = judge.pairs(selection.seeds, measures)
        evaluation = Evaluation(
            samples=kind.samples,
            base=checkpoint_of(base),
            aligned=checkpoint_of(aligned, strength=settings.strength),
            oracle_meaning=measures.oracle_meaning if measures.oracle else None,
            oracle_tie=measures.oracle_tie if measures.oracle else 0.0,
            num_prompts=len(set(selection.prompts)),
            images_per_prompt=settings.images_per_prompt,
            num_left_out=selection.num_left_out,
            summary=summarise(pairs, seed=settings.seed, oracle_tie=measures.oracle_tie),
            diversity=compared_diversity(judge, kind, measures.features, seed=settings.seed),
            length=compared_lengths(judge, kind, seed=settings.seed),
            drift=drift,
            pairs=pairs,
            settings=settings.model_dump(mode="json"),
            origin=Origin(
                command=command or command_line(),
                started_at=started,
                seconds=monotonic() - clock,
                versions=library_versions(),
                hardware=hardware(),
            ),
            images=new_name(out, started, kind.samples),
        )
        save(evaluation, kind, {"base": base, "aligned": aligned}, out, layout=settings.images)
    return evaluation


def save(
    evaluation: Evaluation,
    kind: Kind,
    made: Mapping[Side, Sequence[Any]],
    out: Path,
    *,
    layout: Layout,
) -> None:
    """Put the result and its samples into `out`, all or nothing; other files there stay.

    The samples have a folder of their own, which evaluation.json names: writing that file replaces
    the earlier evaluation at once. StorageFullError when no space is left; the earlier evaluation
    is then still complete.
    """
    columns, unfinished = evaluation.images_per_prompt, out / f"{UNFINISHED}{FOLDER}"
    with reporting_full_disk(out, "saving the evaluation"):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            mark_own(unfinished)
            for side, own in made.items():
                kind.save(own, unfinished, side, columns=columns, layout=layout)
            sync_tree(unfinished)
            unfinished.rename(out / evaluation.images)
            sync_folder(out)
            evaluation.save(out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            remove_images(out, but=images_of(out))


def compared_diversity(
    judge: Judge, kind: Kind, features: ImageFeatures | None, *, seed: int
) -> Diversity | None:
    """Diversity of both sides; each prompt counts once. None where no prompt has two samples."""

    def distance(samples: Sequence[Any]) -> float:
        return kind.distance(samples, features)

    base = mean_distances(judge.base, judge.prompts, distance)
    aligned = mean_distances(judge.aligned, judge.prompts, distance)
    if not base:
        return None
    prompts = list(base)
    after = [aligned[prompt] for prompt in prompts]
    change = change_of(list(base.values()), after, prompts, seed=seed)
    return Diversity(change=change, space=kind.space(features))


def compared_lengths(judge: Judge, kind: Kind, *, seed: int) -> Change | None:
    """Mean length of both sides; None for samples without one."""
    before, after = (
        [length for sample in side if (length := kind.length(sample)) is not None]
        for side in (judge.base, judge.aligned)
    )
    return change_of(before, after, judge.prompts, seed=seed) if before else None


def change_of(
    before: Sequence[float], after: Sequence[float], prompts: Sequence[str], *, seed: int
) -> Change:
    """Means of both sides and of the differences, with intervals by prompt."""
    gains = [late - early for early, late in zip(before, after, strict=True)]
    return Change(
        before=clustered_mean(before, prompts, seed=seed),
        after=clustered_mean(after, prompts, seed=seed),
        difference=clustered_mean(gains, prompts, seed=seed),
    )
