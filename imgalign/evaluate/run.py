"""Blind comparison of an aligned checkpoint with its base, on what training never saw.

Both sides make an image of the same prompts from the same noise. A gold measure that training
never saw judges each pair without knowing whose image is whose. Beside its win rate stand what
training maximised, faithfulness to the prompt, diversity, and the distance from the base, so that
a gain in one number cannot hide a loss in another.

Left out: what the measures are. They are handed in, and reward models never imported.
"""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from imgalign.diffusion.generate import generate as generate_images
from imgalign.evaluate.comparison import Change, summarise
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import (
    FILE,
    FOLDER,
    Checkpoint,
    Diversity,
    Drift,
    Evaluation,
    load_evaluation,
    pictures_of,
    refuse_foreign,
)
from imgalign.evaluate.judging import (
    FaithfulCheck,
    Generate,
    GoldMeasure,
    ImageFeatures,
    Judge,
    check_measure,
    mean_distances,
)
from imgalign.evaluate.origin import Origin, command_line, hardware, library_versions
from imgalign.evaluate.pictures import Layout, mark_own, new_name, remove_pictures, save_pictures
from imgalign.evaluate.subjects import Subjects, choose_subjects, drift_of, known_prompts
from imgalign.files import (
    UNFINISHED,
    check_folder,
    lock_folder,
    reporting_full_disk,
    sync_folder,
    sync_tree,
)
from imgalign.policy import RewardModel
from imgalign.preferences.records import Generated
from imgalign.runs.checkpoint import find_adapter
from imgalign.runs.folder import model_under, run_of
from imgalign.runs.progress import progress
from imgalign.statistics import clustered_mean

__all__ = [
    "FILE",
    "FOLDER",
    "EvaluateConfig",
    "Evaluation",
    "FaithfulCheck",
    "Generate",
    "GoldMeasure",
    "ImageFeatures",
    "evaluate",
    "load_evaluation",
]


def evaluate(
    settings: EvaluateConfig,
    *,
    out: Path | None = None,
    gold: GoldMeasure | None = None,
    gold_meaning: str = "the gold measure",
    gold_tie: float = 0.0,
    proxy: RewardModel | None = None,
    faithful: FaithfulCheck | None = None,
    features: ImageFeatures | None = None,
    features_meaning: str = "features of the reward model",
    kl_nats: float | None = None,
    generate: Generate = generate_images,
    command: str | None = None,
) -> Evaluation:
    """Make, judge and save both sides; the result and its pictures are then in the folder `out`.

    `out` is `evaluation` in the run by default, or beside the weights of an adapter from elsewhere.

    `gold` decides the win rate and must be unknown to training; what it puts at most `gold_tie`
    apart, because nobody could tell such images apart, is a tie. `proxy` is the reward that was
    maximised. What is not handed in is not measured, and its numbers are None. `kl_nats` is the KL
    of the aligned policy to the base per image; without it the run's own metrics are asked. An
    earlier evaluation in `out` is replaced at the very end, and nothing else there is touched;
    another process that evaluates there is an InputError. Errors are of `imgalign.errors`.
    """
    started, clock = datetime.now(UTC), monotonic()
    adapter = find_adapter(settings.aligned)
    run = run_of(adapter)
    out = out or (run or (adapter if adapter.is_dir() else adapter.parent)) / FOLDER
    check_folder(out)
    model = settings.model or model_under(adapter)
    settings = settings.model_copy(update={"model": model})
    subjects = choose_subjects(settings, known_prompts(run) if run else frozenset())
    check_measure(gold, subjects.prompts)
    with lock_folder(out, doing="evaluating"):
        refuse_foreign(out)
        base, aligned = both_sides(settings, adapter, subjects, generate)
        judge = Judge(
            prompts=subjects.prompts,
            base=[each.image for each in base],
            aligned=[each.image for each in aligned],
            seed=settings.seed,
        )
        pairs = judge.pairs(subjects.seeds, gold=gold, proxy=proxy, faithful=faithful)
        distances = (
            mean_distances(judge.base, subjects.prompts, features),
            mean_distances(judge.aligned, subjects.prompts, features),
        )
        evaluation = Evaluation(
            base=checkpoint(base),
            aligned=checkpoint(aligned),
            gold_meaning=gold_meaning if gold else None,
            gold_tie=gold_tie if gold else 0.0,
            num_prompts=len(set(subjects.prompts)),
            images_per_prompt=settings.images_per_prompt,
            num_left_out=subjects.num_left_out,
            summary=summarise(pairs, seed=settings.seed, gold_tie=gold_tie),
            diversity=compared_diversity(
                *distances, space=features_meaning if features else "pixels", seed=settings.seed
            ),
            drift=measured_drift(run, adapter, kl_nats),
            pairs=pairs,
            settings=settings.model_dump(mode="json"),
            origin=Origin(
                command=command or command_line(),
                started_at=started,
                seconds=monotonic() - clock,
                versions=library_versions(),
                hardware=hardware(),
            ),
            pictures=new_name(out, started),
        )
        save(evaluation, base, aligned, out, layout=settings.pictures)
    return evaluation


def both_sides(
    settings: EvaluateConfig, adapter: Path, subjects: Subjects, generate: Generate
) -> tuple[list[Generated], list[Generated]]:
    """The base's images and the aligned ones, of the same prompts and seeds."""
    model = settings.model
    assert model is not None
    with progress("making pairs of images") as on_progress:

        def made(weights: Path | None, before: float) -> list[Generated]:
            images = generate(
                model,
                weights,
                subjects.prompts,
                seeds=subjects.seeds,
                steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                eta=settings.eta,
                device=settings.device,
                dtype=settings.dtype,
                on_progress=lambda share: on_progress(before + share / 2),
            )
            return list(images)

        return made(settings.baseline, 0.0), made(adapter, 0.5)


def save(
    evaluation: Evaluation,
    base: Sequence[Generated],
    aligned: Sequence[Generated],
    out: Path,
    *,
    layout: Layout,
) -> None:
    """Put the result and its pictures into `out`, all or nothing; other files there stay.

    The pictures have a folder of their own, which evaluation.json names: writing that file is the
    one moment at which the new evaluation replaces the earlier one. StorageFullError when no space
    is left; the earlier evaluation is then still whole.
    """
    columns, unfinished = evaluation.images_per_prompt, out / f"{UNFINISHED}{FOLDER}"
    with reporting_full_disk(out, "saving the evaluation"):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
            mark_own(unfinished)
            save_pictures(base, unfinished, "base", columns=columns, layout=layout)
            save_pictures(aligned, unfinished, "aligned", columns=columns, layout=layout)
            sync_tree(unfinished)
            unfinished.rename(out / evaluation.pictures)
            sync_folder(out)
            evaluation.save(out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
            remove_pictures(out, but=pictures_of(out))


def checkpoint(images: Sequence[Generated]) -> Checkpoint:
    """What made them."""
    first = images[0].provenance
    return Checkpoint(model=first.model, adapter=first.adapter, adapter_hash=first.adapter_hash)


def compared_diversity(
    base: dict[str, float], aligned: dict[str, float], *, space: str, seed: int
) -> Diversity | None:
    """Diversity of both sides; each prompt counts once. None where no prompt has two images."""
    if not base:
        return None
    prompts, before = list(base), list(base.values())
    after = [aligned[prompt] for prompt in prompts]
    gains = [late - early for early, late in zip(before, after, strict=True)]
    return Diversity(
        change=Change(
            before=clustered_mean(before, prompts, seed=seed),
            after=clustered_mean(after, prompts, seed=seed),
            difference=clustered_mean(gains, prompts, seed=seed),
        ),
        space=space,
    )


def measured_drift(run: Path | None, adapter: Path, kl_nats: float | None) -> Drift | None:
    """The caller's number where there is one, else the run's."""
    drift = drift_of(run, adapter) if run else None
    if kl_nats is None:
        return drift
    budget = drift.budget_nats if drift else None
    return Drift(nats=kl_nats, budget_nats=budget, source="measured by the caller")
