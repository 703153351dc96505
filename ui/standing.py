"""Where a project stands, in one line, and the one thing to do next.

Example: "12 prompts, 48 images, 12 of 12 sets ranked, reward 68 %", then "Align a model with it".
"""

import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from imgalign.errors import ImgalignError
from imgalign.preferences.comparisons import Comparison, latest_comparisons
from imgalign.preferences.coverage import (
    ProjectStanding,
    adapters_in,
    judged_forms,
    judged_since,
    project_mark,
    project_standings,
    queued_projects,
)
from imgalign.preferences.outcomes import Maker
from imgalign.preferences.records import COMPARISONS, holds_comparisons
from imgalign.preferences.skips import Skipped
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted
from imgalign.runs.trained import recorded_hash
from ui.batches import Batches
from ui.comparing import checkpoint_of
from ui.fits import Fit, Fits
from ui.links import generate_link
from ui.origins import Origin, makes_texts, of_fit, of_run
from ui.run_queue import TRAINS
from ui.runs import Run, Runs
from ui.sending import PAIRS, proposed_project

RANK = "./"
"""The Rank page."""
KEPT_SECONDS = 8.0
MOST_KEPT = 100
"""Projects."""
FEW = 20
"""Ranked sets below which a reward model has too little to learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A line about a project, what to do next, and the page to do it on; empty for this one."""

    project: str
    line: str
    next: str
    page: str
    ranks: str = ""
    """The project to rank there, where the page is the Rank page."""


class Step(NamedTuple):
    """What to do next, the page to do it on, and which project is ranked there."""

    what: str
    page: str = ""
    ranks: str = ""


@dataclass(frozen=True, slots=True)
class Won:
    """What the newest blind comparison of a run with its base says. Example: "dpo won 71 %"."""

    run: str
    checkpoint: str
    """As the Generate page names it, "run/step-000040"."""
    strength: float
    """At which its LoRA was applied."""
    line: str
    decided: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """What the store says of a project: how far its ranking is, and what its comparisons say."""

    ranked: ProjectStanding | None
    pairs: ProjectStanding | None
    """How far its blind comparisons are."""
    won: Won | None
    compared: frozenset[str]
    """The weights, by their hashes, whose images are in these."""
    since: float
    """When it was first judged; see `judged_since`."""
    alone: bool
    """Whether the store has no other project, so that what does not say where it is from is of this
    one."""

    likes_only: bool
    """Whether its samples were liked or disliked one by one, which no reward model learns from."""

    @property
    def waiting(self) -> int:
        """Pairs that nobody has judged or skipped."""
        return 0 if self.pairs is None else self.pairs.waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was made of a project's rankings: what trains, what has ended last, what was fitted."""

    training: Run | None
    finished: Run | None
    """The newest that the Generate page can show beside its base."""
    compared: bool
    """Whether images of that were queued to be compared."""
    fitting: Fit | None
    reward: Fit | None
    """The newest with a report."""


def judged(store: Store, runs: Runs, project: str) -> Judged:
    """Count it."""
    apart = proposed_project(PAIRS, project)
    of = {each: next(iter(project_standings(store, each)), None) for each in {project, apart}}
    newest = latest_comparisons(store, project=apart)
    own = apart.removesuffix(COMPARISONS)
    forms = judged_forms(store, project)
    return Judged(
        ranked=of[project],
        pairs=of[apart],
        won=next((won for each in newest if (won := _won(runs, each))), None),
        compared=adapters_in(store, apart),
        since=judged_since(store, own),
        alone=not {each for each in queued_projects(store) if not holds_comparisons(each)} - {own},
        likes_only=forms.liked and not forms.compared,
    )


def made(found: Judged, runs: Runs, fits: Fits, project: str) -> Made:
    """Look it up in the folder of runs."""
    own = proposed_project(PAIRS, project).removesuffix(COMPARISONS)
    all_fits = fits.all()

    def is_own(origin: Origin | None, *, unsaid: bool = False) -> bool:
        return unsaid if origin is None else origin.includes(own, since=found.since)

    def is_run(run: Run) -> bool:
        return is_own(of_run(runs, all_fits, run), unsaid=found.alone)

    own_fits = [fit for fit in all_fits if is_own(of_fit(runs, fit))]
    listed = runs.all()
    done = (run for run in listed if run.state == "finished" and run.adapters)
    finished = next((run for run in done if is_run(run) and not makes_texts(runs, run)), None)
    return Made(
        training=next((run for run in listed if run.state in TRAINS and is_run(run)), None),
        finished=finished,
        compared=finished is not None and not found.compared.isdisjoint(_weights(runs, finished)),
        fitting=next((fit for fit in own_fits if fit.state == "fitting"), None),
        reward=next((fit for fit in own_fits if fit.report), None),
    )


def standing(
    found: Judged, runs: Runs, fits: Fits, batches: Batches, project: str, *, admin: bool
) -> Standing | None:
    """Where a project stands; None where nothing was ever made for it.

    The next thing is one that an admin may do, or else a lead.
    """
    ranked = found.ranked
    if ranked is None:
        return None
    results = made(found, runs, fits, project)
    apart = proposed_project(PAIRS, project)
    parts = [
        counted(ranked.prompts, "prompt"),
        counted(ranked.samples, "text" if ranked.kinds == {"texts"} else "image"),
        f"{ranked.judged} of {counted(ranked.items, 'set')} "
        + ("judged" if found.likes_only else "ranked"),
    ]
    if ranked.skipped.items:
        parts.append(f"{ranked.skipped.items:,} skipped{_for_others(ranked.skipped)}")
    if results.reward:
        parts.append(f"reward {_accuracy(results.reward)}")
    if found.waiting and project != apart:
        waits = "waits" if found.waiting == 1 else "wait"
        parts.append(f"{counted(found.waiting, 'pair')} to compare {waits} in {apart}")
    if found.pairs and (skipped := found.pairs.skipped).items and project != apart:
        said = f"{counted(skipped.items, 'pair')} skipped in {apart}"
        parts.append(said + _for_others(skipped))
    if found.won:
        parts.append(found.won.line)
    step = _of_runs(found, results, apart)
    if step is None:
        busy = batches.busy(project)
        step = _of_sets(found, results, project, busy=busy, admin=admin)
    return Standing(
        project=project, line=", ".join(parts), next=step.what, page=step.page, ranks=step.ranks
    )


class Standings:
    """Standings as pages ask for them, every few seconds: counted anew when they may have changed.

    That is when a batch has moved, or after some time, for others rank meanwhile. Judgements are
    only counted where there are new ones.
    """

    def __init__(
        self,
        store: Store,
        runs: Runs,
        fits: Fits,
        batches: Batches,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._of = (runs, fits, batches)
        self._clock = clock
        self._kept: dict[tuple[str, bool], tuple[object, float, Standing | None]] = {}
        self._judged: dict[str, tuple[object, Judged]] = {}

    def at(self, project: str, moved: Hashable, *, admin: bool = True) -> Standing | None:
        """Where a project stands; None where nothing was ever made for it.

        `moved` differs when a batch has moved. `admin` is as in `standing`.
        """
        which = project, admin
        before, counted_at, found = self._kept.get(which, (None, -inf, None))
        if before != moved or self._clock() - counted_at > KEPT_SECONDS:
            found = standing(self._judge(project), *self._of, project, admin=admin)
            if len(self._kept) > MOST_KEPT:
                self._kept.clear()
                self._judged.clear()
            self._kept[which] = (moved, self._clock(), found)
        return found

    def _judge(self, project: str) -> Judged:
        apart = proposed_project(PAIRS, project)
        mark = [
            *(project_mark(self._store, each) for each in (project, apart)),
            queued_projects(self._store),
        ]
        before, found = self._judged.get(project, (None, None))
        if found is None or before != mark:
            found = judged(self._store, self._of[0], project)
            self._judged[project] = (mark, found)
        return found


def _for_others(skipped: Skipped) -> str:
    """Whether others may still rank what was skipped. Example: " (others may still rank it)"."""
    if not skipped.for_others:
        return ""
    which = f"{skipped.for_others:,} of them"
    if skipped.for_others == skipped.items:
        which = "it" if skipped.items == 1 else "them"
    return f" (others may still rank {which})"


def _accuracy(fit: Fit) -> str:
    assert fit.report is not None
    return f"{100 * fit.report.test.accuracy.micro:.0f} %"


def _won(runs: Runs, found: Comparison) -> Won | None:
    """Nothing where a checkpoint was compared with another one, or is not here."""
    checkpoint = checkpoint_of(runs, found.one, found.path)
    if checkpoint is None or found.other != Maker(found.one.model, None):
        return None
    run, rate = checkpoint.parent.name, f"{100 * found.rate.value:.0f} %"
    won = {"one": f"won {rate}", "other": f"lost with {rate}", None: f"at {rate}, not decided"}
    return Won(
        run=run,
        checkpoint=f"{run}/{checkpoint.name}",
        strength=found.one.strength,
        line=f"{run} {won[found.preferred]}",
        decided=found.preferred is not None,
    )


def _weights(runs: Runs, run: Run) -> set[str]:
    """The hashes of a run's checkpoints, as far as they can be read."""
    found = set()
    for name in run.adapters:
        with suppress(ImgalignError, OSError):
            found.add(recorded_hash(runs.path(run.name) / name))
    return found


def _of_runs(found: Judged, results: Made, apart: str) -> Step | None:
    """What is to be done with what was made of the rankings; None where that is nothing."""
    if results.training:
        return Step(f"{results.training.name} is training: watch it", "train")
    if results.fitting:
        return Step(f"{results.fitting.name} is being fitted: watch it", "learn")
    if (run := results.finished) and not results.compared:
        there = generate_link(f"{run.name}/{run.recommended}")
        return Step(f"Compare {run.name} with its base", there)
    if found.waiting:
        waits = "waits" if found.waiting == 1 else "wait"
        return Step(f"Rank the {counted(found.waiting, 'pair')} that {waits}", RANK, apart)
    if run and found.pairs and found.pairs.skipped.items and not found.pairs.judged:
        there = generate_link(f"{run.name}/{run.recommended}")
        return Step(f"All pairs were skipped: draw others of {run.name} and its base", there)
    if (won := found.won) and not won.decided:
        there = generate_link(won.checkpoint, strength=won.strength)
        return Step(f"Rank more pairs of {won.run} and its base: draw them", there)
    return None


def _of_sets(found: Judged, results: Made, project: str, *, busy: bool, admin: bool) -> Step:
    """What is to be done until something is made of the rankings, and once it is decided."""
    ranked = found.ranked
    assert ranked is not None
    left = ranked.waiting
    if left:
        begun = ranked.judged or ranked.skipped.items
        return Step(
            f"Rank {f'the other {left:,}' if begun else counted(left, 'set')}", RANK, project
        )
    if busy:
        return Step("More is being made, and can be ranked as it comes.")
    if results.finished and found.won and found.won.run == results.finished.name:
        return Step("See who won", "results")
    done = "All is ranked or skipped" if ranked.skipped.items else "All is ranked"
    if found.likes_only:
        return _of_likes(done.replace("ranked", "judged"), ranked, admin=admin)
    if ranked.judged < FEW:
        return Step(f"{done}; make more, for a reward model wants {FEW} sets or more.")
    if results.reward is None:
        if not admin:
            return Step(f"{done}: an admin can fit a reward model to it.")
        return Step("Fit a reward model to the rankings", "learn")
    if results.finished is None:
        if not admin:
            return Step("An admin can align a model with it.")
        return Step("Align a model with it", "train")
    return Step("See who won", "results")


def _of_likes(done: str, ranked: ProjectStanding, *, admin: bool) -> Step:
    """What is to be done with likes and dislikes, which need no reward model."""
    if ranked.judged < FEW:
        return Step(f"{done}; make more, for a model learns from {FEW} likes and dislikes or more.")
    if not admin:
        return Step(f"{done}: an admin can align a model with the likes.")
    return Step("Align a model with the likes and dislikes", "train")
