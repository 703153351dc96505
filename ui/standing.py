"""Where a project stands, in one line, and the one thing to do next.

Example: "12 prompts, 48 images, 12 of 12 sets ranked, reward 68 %", then "Align a model with it".
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf

from imgalign.preferences.comparisons import Comparison, latest_comparisons
from imgalign.preferences.coverage import ProjectStanding, project_mark, project_standings
from imgalign.preferences.outcomes import Maker
from imgalign.preferences.store import Store
from ui.batches import Batches
from ui.comparing import checkpoint_of
from ui.fits import Fit, Fits
from ui.runs import Runs
from ui.sending import PAIRS, proposed_project

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


@dataclass(frozen=True, slots=True)
class Won:
    """What the newest blind comparison of a run with its base says. Example: "dpo won 71 %"."""

    run: str
    line: str
    decided: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """What the store says of a project: how far its ranking is, and who won in its comparisons."""

    ranked: ProjectStanding | None
    won: Won | None


def judged(store: Store, runs: Runs, project: str) -> Judged:
    """Count it."""
    ranked = next(iter(project_standings(store, project)), None)
    newest = latest_comparisons(store, project=proposed_project(PAIRS, project))
    return Judged(ranked, next((won for each in newest if (won := _won(runs, each))), None))


def standing(
    found: Judged, runs: Runs, fits: Fits, batches: Batches, project: str
) -> Standing | None:
    """Where a project stands; None where nothing was ever made for it."""
    ranked = found.ranked
    if ranked is None:
        return None
    rewards = [fit for fit in fits.all() if fit.learned_from == f"project {project}" and fit.report]
    parts = [
        counted(ranked.prompts, "prompt"),
        counted(ranked.samples, "text" if ranked.kinds == {"texts"} else "image"),
        f"{ranked.judged} of {counted(ranked.items, 'set')} ranked",
    ]
    if rewards:
        parts.append(f"reward {_accuracy(rewards[0])}")
    if found.won:
        parts.append(found.won.line)
    busy = any(each.state == "making" and each.asked.project == project for each in batches.all())
    what, page = _next(found, runs, rewarded=bool(rewards), busy=busy)
    return Standing(project=project, line=", ".join(parts), next=what, page=page)


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
        self._kept: dict[str, tuple[object, float, Standing | None]] = {}
        self._judged: dict[str, tuple[object, Judged]] = {}

    def at(self, project: str, moved: Hashable) -> Standing | None:
        """Where a project stands; None where nothing was ever made for it.

        `moved` differs when a batch has moved.
        """
        before, counted_at, found = self._kept.get(project, (None, -inf, None))
        if before != moved or self._clock() - counted_at > KEPT_SECONDS:
            found = standing(self._judge(project), *self._of, project)
            if len(self._kept) > MOST_KEPT:
                self._kept.clear()
                self._judged.clear()
            self._kept[project] = (moved, self._clock(), found)
        return found

    def _judge(self, project: str) -> Judged:
        apart = proposed_project(PAIRS, project)
        mark = [project_mark(self._store, each) for each in (project, apart)]
        before, found = self._judged.get(project, (None, None))
        if found is None or before != mark:
            found = judged(self._store, self._of[0], project)
            self._judged[project] = (mark, found)
        return found


def counted(number: int, what: str) -> str:
    """Example: "1 image", "48 images"."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def _accuracy(fit: Fit) -> str:
    assert fit.report is not None
    return f"{100 * fit.report.test.accuracy.micro:.0f} %"


def _won(runs: Runs, found: Comparison) -> Won | None:
    """Nothing where a checkpoint was compared with another one, or is not here."""
    checkpoint = checkpoint_of(runs, found)
    if checkpoint is None or found.other != Maker(found.one.model, None):
        return None
    run, rate = checkpoint.parent.name, f"{100 * found.rate.value:.0f} %"
    won = {"one": f"won {rate}", "other": f"lost with {rate}", None: f"at {rate}, not decided"}
    return Won(run, f"{run} {won[found.preferred]}", found.preferred is not None)


def _next(judged: Judged, runs: Runs, *, rewarded: bool, busy: bool) -> tuple[str, str]:
    """What to do, and on which page."""
    found = judged.ranked
    assert found is not None
    left = found.items - found.judged
    if left:
        return f"Rank {f'the other {left}' if found.judged else counted(left, 'set')}", "./"
    if busy:
        return "More is being made, and can be ranked as it comes.", ""
    if found.judged < FEW:
        return f"All is ranked; make more, for a reward model wants {FEW} sets or more.", ""
    finished = [run for run in runs.all() if run.state == "finished" and run.adapters]
    if (
        judged.won
        and judged.won.decided
        and [each.name for each in finished[:1]] == [judged.won.run]
    ):
        return "See who won", "results"
    if not rewarded:
        return "Fit a reward model to the rankings", "learn"
    if not finished:
        return "Align a model with it", "train"
    return f"Compare {finished[0]} with its base", "generate"
