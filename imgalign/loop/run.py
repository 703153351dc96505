"""The loop: rounds of generate, rank, fit or not, align, compare blindly, until no better.

OUT/loop.yaml                the settings
    align.yaml               the recipe with its overrides, as every round begins with it
    comparison_prompts.txt   the prompts of every comparison; never trained on
    journal.json             every finished stage, with the hashes of what it was made from
    imgalign.db  images/     candidates, rankings, pairs and votes of all rounds, with provenance
    round-01/run/            the training run with its report and evaluation/, against its start
             reward/         the fitted reward model, where there is one
             adapter/        what was trained, alone: an adapter of the pretrained model
             against-base/   the comparison with the model that the loop started with
    report.html

A stage that was killed goes on or starts again. People's rankings and votes are in the store, and
nothing else waits for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imgalign.diffusion.generate import ImageGenerator
from imgalign.errors import InputError
from imgalign.evaluate.judging import Measures
from imgalign.evaluate.sides import LoadGenerator
from imgalign.evaluate.votes import preferred
from imgalign.files import lock_folder, remove_unfinished
from imgalign.loop import stages
from imgalign.loop.asking import Asker, Say, asker_of
from imgalign.loop.config import LoopConfig, SimulatedConfig
from imgalign.loop.deciding import ending, last_kept
from imgalign.loop.journal import Journal, Stage, digest
from imgalign.loop.measures import storybook_measures
from imgalign.loop.page import write_page
from imgalign.loop.plan import make_plan
from imgalign.loop.rounds import Round, Weights, rounds_of, weights_of
from imgalign.loop.stages import Workshop
from imgalign.preferences.store import Store
from imgalign.runs.folder import CONFIG
from imgalign.train.config import flat
from imgalign.train.starting import settings_dump

FREE = ("stop.", "align.")
"""Settings below these may be changed when a loop is continued: when to stop, and where the recipe
is. What the recipe says is below `train.`, and may be changed until the first training begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopResult:
    """How a loop ended."""

    rounds: Sequence[Round]
    kept: Weights
    """Of the last round that improved; round 0 where none did."""
    reason: str
    """Why it ended, in words."""
    report: Path

    def lines(self) -> list[str]:
        """The result as text, one fact per line."""
        lines = [f"the loop ended: {self.reason}"]
        if self.kept.path is None:
            lines.append("no round improved, so the pretrained model is kept")
        else:
            lines.append(f"kept is round {self.kept.round}: {self.kept.path}")
        return [*lines, f"report  {self.report}"]


def run_loop(
    settings: LoopConfig,
    out: Path,
    *,
    say: Say,
    asker: Asker | None = None,
    load: LoadGenerator = ImageGenerator,
    measures: Measures | None = None,
) -> LoopResult:
    """Run the loop in the folder `out`, which is new, or holds this loop: then it is continued.

    `asker` takes the place of the one that the settings name, and `load` loads the model that
    generates. `measures` are reported and decide nothing; by default
    those of the storybook where its prompts are compared. Errors are of `imgalign.errors`.
    """
    out = out.absolute()
    plan = make_plan(settings)
    given = {"train": settings_dump(plan.training)} | settings.model_dump(mode="json")
    with lock_folder(out, doing="running a loop"):
        trained = any(out.glob(f"round-*/{stages.RUN}/{CONFIG}"))
        journal = Journal.begin(out, flat(given), free=FREE if trained else (*FREE, "train."))
        if settings.database is not None and not journal.entries:
            with opened(out, settings) as store:
                refuse_shared(store, settings)
        journal.save()  # first of all: by it the folder is known as that of a loop
        remove_unfinished(out)
        plan.write(out)
        database = settings.database or str(out / "imgalign.db")
        with opened(out, settings) as store:
            shop = Workshop(
                out=out,
                plan=plan,
                database=database,
                store=store,
                asker=asker
                or asker_of(settings.ask, database=database, seed=settings.seed, say=say),
                measures=measures or usual_measures(settings),
                say=say,
                load=load,
            )
            return go(journal, shop)


def go(journal: Journal, shop: Workshop) -> LoopResult:
    """Do the rounds that are left."""
    stop = shop.plan.settings.stop
    while True:
        rounds = rounds_of(journal)
        improved = [each.improved for each in rounds]
        reason = ending(improved, stop) if rounds else None
        if rounds:
            report = write_page(shop.out, shop.plan, rounds, reason=reason)
        if reason is not None:
            kept = weights_of(journal, last_kept(improved))
            return LoopResult(rounds=rounds, kept=kept, reason=reason, report=report)
        number, start = len(rounds) + 1, weights_of(journal, last_kept(improved))
        do_round(journal, shop, number, start)
        for line in told(rounds_of(journal)[-1]):
            shop.say(line)


def do_round(journal: Journal, shop: Workshop, number: int, start: Weights) -> None:
    """Do the stages of a round that are left, in order."""
    plan, fitted = shop.plan, shop.plan.settings.reward == "fit"
    said = f"round {number} of at most {plan.settings.stop.max_rounds}, from "
    said += "the pretrained model" if start.round == 0 else f"round {start.round}"

    def perform(stage: Stage, inputs: Mapping[str, str], work: Stagework) -> Mapping[str, Any]:
        before = journal.find(number, stage) is not None
        shop.say(f"{said}: {stage}{' (done before)' if before else ''}")
        return journal.perform(number, stage, inputs, work)

    origin = {"start": start.hash, "model": digest([plan.training.policy.model])}
    prompts = {"prompts": digest(plan.prompts_of(number))}
    made = perform("generate", origin | prompts, partial(stages.generate, shop, number, start))
    ranked = perform("rank", {"items": made["items"]}, partial(stages.rank, shop, number))
    data = {"start": start.hash, "rankings": ranked["rankings"]}
    if fitted:
        perform("fit", data, partial(stages.fit_reward, shop, number))
    perform("align", data, partial(stages.align, shop, number, start, fitted=fitted))
    trained = weights_of(journal, number)
    sides = {"start": start.hash, "trained": trained.hash, "prompts": digest(plan.compared)}
    perform("compare", sides, partial(stages.compare, shop, number, start, trained))
    perform(
        "vote",
        {"start": start.hash, "trained": trained.hash},
        partial(stages.vote, shop, number),
    )


Stagework = Callable[[], Mapping[str, Any]]


def told(round: Round) -> list[str]:
    """The result of a round, for a terminal."""
    against = "the pretrained model" if round.start.round == 0 else f"round {round.start.round}"
    if round.votes is None:
        return [f"round {round.number} made the very images of {against}: not better"]
    rate = round.votes.rate_of_these_annotators
    verdict = "better, and kept" if round.improved else "not shown to be better, and not kept"
    if rate is None:
        return [f"round {round.number} against {against}: no vote has an order; {verdict}"]
    return [
        f"round {round.number} against {against}: {preferred(round.votes, rate)}; {verdict}",
        f"KL from the pretrained model {round.kl_from_base:.1f} nats per image",
    ]


def opened(out: Path, settings: LoopConfig) -> Store:
    """The loop's own store, or the database that the settings name, which must exist."""
    if settings.database is None:
        return Store.open(out / "imgalign.db", images=out / "images", seed=settings.seed)
    database: str | Path = settings.database
    if "://" not in settings.database:
        database = Path(settings.database)
    return Store.open(database, create=False, seed=settings.seed)


def refuse_shared(store: Store, settings: LoopConfig) -> None:
    """InputError where a project of a new loop has rankings of something else."""
    for project in (settings.project, settings.votes_project):
        if next(store.rankings(project=project, include_undone=True), None) is not None:
            raise InputError(
                f"project: {project!r} of {store.database.name} has rankings already, which a new "
                "loop would mix with its own; choose another project"
            )


def usual_measures(settings: LoopConfig) -> Measures:
    """Those of the storybook, where its prompts are compared; else none."""
    if settings.compare.prompts is not None:
        return Measures()
    group = settings.ask.group if isinstance(settings.ask, SimulatedConfig) else None
    return storybook_measures(group, None)
