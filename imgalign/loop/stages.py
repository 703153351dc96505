"""The stages of a round: generate, rank, fit, align, compare, vote.

Each can be repeated: it goes on where it was interrupted, or does the same again in the same place.
What each returns goes into the journal. Left out: their order, and when a round is done (run.py).
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from imgalign.config import load_config
from imgalign.diffusion.generate import ImageGenerator
from imgalign.environment import DType
from imgalign.errors import CheckpointError
from imgalign.evaluate.config import EvaluateConfig
from imgalign.evaluate.evaluation import FOLDER as EVALUATION
from imgalign.evaluate.evaluation import Evaluation
from imgalign.evaluate.judging import Measures, features_of
from imgalign.evaluate.run import evaluate
from imgalign.evaluate.sides import LoadGenerator, SwitchingGenerator
from imgalign.evaluate.votes import Vote, VoteCounts, counted
from imgalign.files import sha256, whole_folder
from imgalign.images import png, read_tensor, write_png
from imgalign.loop.asking import Asker, Say
from imgalign.loop.images import KeepingGenerator
from imgalign.loop.journal import digest
from imgalign.loop.plan import PROMPTS, TRAINING, Plan, quoted
from imgalign.loop.rounds import Weights, folder_of, source_of
from imgalign.preferences.coverage import coverage
from imgalign.preferences.queue import queue_candidates
from imgalign.preferences.records import Ranking, ranks
from imgalign.preferences.samples import rankings_of
from imgalign.preferences.store import Store
from imgalign.prompts import Prompts
from imgalign.report.writing import write_report
from imgalign.runs.folder import CONFIG
from imgalign.runs.progress import progress, working
from imgalign.runs.trained import full_weights, weight_files, weights_hash
from imgalign.runs.world import Alone
from imgalign.train.assemble import load_policy
from imgalign.train.config import TrainConfig
from imgalign.train.data.judged import RECORD as RANKINGS
from imgalign.train.run import run
from imgalign.train.watch import measure
from imgalign.train.watcher import SILENT
from reward_models import load
from reward_models.fit import FitConfig, fit

RUN, REWARD, ADAPTER, AGAINST_BASE = "run", "reward", "adapter", "against-base"
"""Folders of a round: the training run with its comparison, the reward model, the plain adapter,
the comparison with the model that the loop started with."""
AT_ONCE = 16
"""Prompts whose candidates are made together; what was queued before a kill is not made again."""
NUM_KL_PROMPTS, IMAGES_PER_KL_PROMPT = 16, 2
SAMPLES, BASE_SAMPLES = "samples", "base-samples"
"""Folders of images of the same prompts and seeds: in each round, and of the base."""
FIRST_SAMPLE_SEED, NUM_SAMPLES = 900_000, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What all stages work with."""

    out: Path
    """Absolute: runs keep paths below it."""
    plan: Plan
    database: str
    """File or URL of the store."""
    store: Store
    asker: Asker
    measures: Measures
    """Reported, and never fed back: the loop decides by votes."""
    say: Say
    load: LoadGenerator = ImageGenerator

    def generator(self) -> KeepingGenerator:
        """The model of the recipe."""
        training = self.plan.training
        return KeepingGenerator(
            training.policy.model,
            device=training.run.device,
            dtype=training.policy.dtype,
            load=self.load,
        )

    def folder(self, number: int, name: str) -> Path:
        """Example: OUT/round-02/run."""
        return folder_of(self.out, number) / name


def generate(shop: Workshop, number: int, start: Weights) -> Mapping[str, Any]:
    """Images of new prompts by the start of the round, queued for ranking."""
    plan, config, source = shop.plan, shop.plan.settings.candidates, source_of(number)
    project, prompts = plan.settings.project, plan.prompts_of(number)
    generator = shop.generator()
    generator.use(start.checked())
    queued = coverage(shop.store, project=project, source=source, simulated=True).prompts.values()
    with progress("generating") as on_progress:
        for begin in range(0, len(prompts), AT_ONCE):
            part = prompts[begin : begin + AT_ONCE]
            if not set(part) <= set(queued):
                queue_candidates(
                    shop.store,
                    generator,
                    part,
                    per_prompt=config.per_prompt,
                    first_seed=plan.first_candidate_seed(number) + begin * config.per_prompt,
                    settings=config.sampler,
                    project=project,
                    source=source,
                    overlap=shop.asker.overlap,
                )
                generator.forget()
            on_progress(min(1.0, (begin + len(part)) / len(prompts)))
    items = coverage(shop.store, project=project, source=source, simulated=True).prompts
    return {"start_round": start.round, "num_items": len(items), "items": digest(sorted(items))}


def rank(shop: Workshop, number: int) -> Mapping[str, Any]:
    """Rankings of the round's candidates; all rankings of the project are what is learned from."""
    project = shop.plan.settings.project
    shop.asker.ask(shop.store, project=project, source=source_of(number))
    found = list(shop.store.rankings(project=project))
    verdicts = [ranking.verdict for ranking in found]
    num_new = sum(ranking.source == source_of(number) for ranking in found)
    shop.say(f"{num_new} answers in this round, {len(found)} in all")
    return {
        "num_rankings": verdicts.count("ranked"),
        "num_all_bad": verdicts.count("all_bad"),
        "num_skipped": verdicts.count("skipped"),
        "rankings": digest(sorted(ranking.ranking_id for ranking in found)),
    }


def fit_reward(shop: Workshop, number: int) -> Mapping[str, Any]:
    """A reward model fitted to all rankings of the project."""
    store, out = shop.store, shop.folder(number, REWARD)
    seed = shop.plan.training_seed(number)
    seeded = [f"seeds=[{seed}]", f"split_seed={shop.plan.settings.seed}"]
    report = fit(
        rankings_of("images", store.rankings(project=shop.plan.settings.project)),
        lambda image_id: read_tensor(store.image_path(image_id)),
        load_config(FitConfig, None, [*seeded, *shop.plan.settings.fit]),
        out,
    )
    for line in report.lines():
        shop.say(line)
    return {"reward": str(out.relative_to(shop.out)), "accuracy": report.test.accuracy.micro}


def align(shop: Workshop, number: int, start: Weights, *, fitted: bool) -> Mapping[str, Any]:
    """Training, from the last checkpoint if it was stopped. SystemExit if it is stopped now."""
    out = shop.folder(number, RUN)
    resume = (out / CONFIG).is_file()
    found = shop.folder(number, REWARD) if fitted else None
    settings = round_settings(shop, number, start, reward=found)
    reward = None if found is None else load(str(found), device=settings.run.device)
    result = run(settings, reward=reward, out=out, resume=resume)
    shop.say(result.message)
    if result.signal is not None:
        raise SystemExit(result.exit_code)
    if result.checkpoint is None:
        raise CheckpointError(
            f"{out}: training kept no weights ({result.message}); start another loop with a lower "
            "optimizer.learning_rate in align.overrides"
        )
    if full_weights(result.checkpoint) is None:
        keep_adapter(result.checkpoint, shop.folder(number, ADAPTER))
    kept = out / RANKINGS
    return {
        "learned_from": sha256(kept) if kept.is_file() else None,
        "weights": str(result.checkpoint.relative_to(shop.out)),
        "weights_hash": weights_hash(result.checkpoint),
        "iteration": result.step,
        "message": result.message,
    }


def round_settings(
    shop: Workshop, number: int, start: Weights, *, reward: Path | None
) -> TrainConfig:
    """The recipe with the seed, the start and the data of a round.

    A run that was begun keeps its settings, but for the places of what it reads.
    """
    begun = shop.folder(number, RUN) / CONFIG
    places = []
    if reward is not None:
        places.append(f"reward.path={quoted(reward)}")
    if shop.plan.learns_from_rankings:
        places.append(f"data.database={quoted(shop.database)}")
    if begun.is_file():
        return load_config(TrainConfig, begun, places)
    overrides = [f"seed={shop.plan.training_seed(number)}", *places]
    if shop.plan.learns_from_rankings:
        overrides.append(f"data.project={quoted(shop.plan.settings.project)}")
    if start.path is not None and shop.plan.settings.reference == "before":
        overrides.append(f"policy.adapter={quoted(start.path)}")
    return load_config(TrainConfig, shop.out / TRAINING, overrides)


def keep_adapter(checkpoint: Path, out: Path) -> None:
    """A copy of a checkpoint's adapter alone: what it started from is not beside it, so everything
    takes it as an adapter of the pretrained model.
    """
    with whole_folder(out, doing="keeping the adapter of a round") as folder:
        for file in (*weight_files(checkpoint), *checkpoint.glob("adapter_config.json")):
            shutil.copyfile(file, folder / file.name)


def compare(shop: Workshop, number: int, start: Weights, trained: Weights) -> Mapping[str, Any]:
    """Images of both sides, measured, and queued as pairs for the vote."""
    out, plan = folder_of(shop.out, number), shop.plan
    generator = shop.generator()
    settings = EvaluateConfig(
        aligned=trained.checked() or out,
        baseline=start.checked(),
        model=plan.training.policy.model,
        prompts=shop.out / PROMPTS,
        images_per_prompt=plan.settings.compare.images_per_prompt,
        first_seed=plan.first_compared_seed(number),
        sampler=plan.settings.compare.sampler,
        device=plan.training.run.device,
        dtype=plan.training.policy.dtype,
        seed=plan.settings.seed,
    )

    def kept(model: str, *, device: str, dtype: DType) -> SwitchingGenerator:
        return generator

    measures = with_reward(shop, number)
    found = evaluate(settings, measures=measures, out=out / RUN / EVALUATION, load=kept)
    plain = out / ADAPTER if (out / ADAPTER).is_dir() else settings.aligned
    if start.path is not None:
        changed = {"aligned": plain, "baseline": None}
        evaluate(
            settings.model_copy(update=changed),
            measures=measures,
            out=out / AGAINST_BASE,
            load=kept,
        )
    if not (shop.out / BASE_SAMPLES).is_dir():
        draw_samples(plan, generator, None, shop.out / BASE_SAMPLES)
    draw_samples(plan, generator, settings.aligned, out / SAMPLES)
    identical = queue_pairs(shop, number, found, generator, start=start, trained=trained)
    with working("measuring the KL from the base"):
        nats = kl_from_base(plan, plain)
    write_report(out / RUN, reward=out / REWARD if (out / REWARD).is_dir() else None)
    return {"num_pairs": len(found.pairs), "num_identical": identical, "kl_from_base": nats}


def with_reward(shop: Workshop, number: int) -> Measures:
    """The measures, with the reward that the round was trained on and its space of images."""
    folder = shop.folder(number, REWARD)
    if not folder.is_dir():
        return shop.measures
    reward = load(str(folder), device=shop.plan.training.run.device)
    return replace(shop.measures, proxy=reward, features=features_of(reward))


def queue_pairs(
    shop: Workshop,
    number: int,
    evaluation: Evaluation,
    generator: KeepingGenerator,
    *,
    start: Weights,
    trained: Weights,
) -> int:
    """Queue the images of a comparison in pairs, the start's first; returns how many are identical.

    Annotators see a pair in an order that the store draws for each of them.
    """
    plan = shop.plan
    prompts = [pair.prompt for pair in evaluation.pairs]
    seeds = [pair.seed for pair in evaluation.pairs]
    sides = []
    for weights in (start, trained):
        generator.use(weights.path)
        sampler = plan.settings.compare.sampler
        sides.append(list(generator.generate(prompts, seeds=seeds, settings=sampler)))
    num_identical = 0
    for prompt, *pair in zip(prompts, *sides, strict=True):
        ids = [shop.store.add_image(png(each.image), each.provenance) for each in pair]
        if ids[0] == ids[1]:
            num_identical += 1
            continue
        shop.store.add_item(
            prompt,
            ids,
            source=source_of(number),
            project=plan.settings.votes_project,
            overlap=shop.asker.overlap,
        )
    return num_identical


def draw_samples(plan: Plan, generator: KeepingGenerator, weights: Path | None, out: Path) -> None:
    """Images of the first compared prompts, of the same seeds in every round."""
    prompts = plan.compared[:NUM_SAMPLES]
    generator.use(weights)
    seeds = range(FIRST_SAMPLE_SEED, FIRST_SAMPLE_SEED + len(prompts))
    with whole_folder(out, doing="drawing the samples of a round") as folder:
        made = generator.generate(prompts, seeds=seeds, settings=plan.settings.compare.sampler)
        for number, each in enumerate(made):
            write_png(each.image, folder / f"{number:02d}.png")


def kl_from_base(plan: Plan, weights: Path) -> float:
    """KL of trained weights from the pretrained model, in nats per image, on compared prompts.

    With the noise and the number of steps of training, which the KL depends on.
    """
    policy = load_policy(plan.training)
    policy.load(weights)
    prompts = Prompts((), plan.compared[:NUM_KL_PROMPTS])
    each = IMAGES_PER_KL_PROMPT
    found = measure(policy, None, prompts, images_per_prompt=each, world=Alone(), watcher=SILENT)
    return found.kl


def vote(shop: Workshop, number: int) -> Mapping[str, Any]:
    """Blind votes on the pairs, counted."""
    project, source = shop.plan.settings.votes_project, source_of(number)
    shop.asker.ask(shop.store, project=project, source=source)
    cast = [
        vote_on(ranking)
        for ranking in shop.store.rankings(project=project)
        if ranking.source == source
    ]
    found = counted(cast)
    return {"votes": None if found is None else TypeAdapter(VoteCounts).dump_python(found)}


def vote_on(ranking: Ranking) -> Vote:
    """The vote of a judgement of a pair that `queue_pairs` queued: the start's image is first."""
    share = None
    if ranking.verdict == "ranked":
        before, after = ranks(ranking)
        share = (1 + (before > after) - (before < after)) / 2
    return Vote(
        prompt=ranking.prompt, annotator=ranking.annotator, verdict=ranking.verdict, share=share
    )
