"""Where a project stands, in one line, and the one thing to do next.

Example: "12 prompts, 48 images, 12 of 12 sets ranked, reward 68 %", then "Align a model with it".
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf

from imgalign.preferences.coverage import ProjectStanding, project_standings
from imgalign.preferences.store import Store
from ui.batches import Batches
from ui.fits import Fit, Fits
from ui.runs import Runs

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


def standing(
    store: Store, runs: Runs, fits: Fits, batches: Batches, project: str
) -> Standing | None:
    """Where a project stands; None where nothing was ever made for it."""
    found = next((each for each in project_standings(store) if each.project == project), None)
    if found is None:
        return None
    rewards = [fit for fit in fits.all() if fit.learned_from == f"project {project}" and fit.report]
    parts = [
        counted(found.prompts, "prompt"),
        counted(found.samples, "text" if found.kinds == {"texts"} else "image"),
        f"{found.judged} of {counted(found.items, 'set')} ranked",
    ]
    if rewards:
        parts.append(f"reward {_accuracy(rewards[0])}")
    busy = any(each.state == "making" and each.asked.project == project for each in batches.all())
    what, page = _next(found, runs, rewarded=bool(rewards), busy=busy)
    return Standing(project=project, line=", ".join(parts), next=what, page=page)


class Standings:
    """Standings as pages ask for them, every few seconds: counted anew when they may have changed.

    That is when a batch has moved, or after some time, for others rank meanwhile.
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
        self._of = (store, runs, fits, batches)
        self._clock = clock
        self._kept: dict[str, tuple[object, float, Standing | None]] = {}

    def at(self, project: str, moved: Hashable) -> Standing | None:
        """As `standing`; `moved` differs when a batch has moved."""
        before, counted_at, found = self._kept.get(project, (None, -inf, None))
        if before != moved or self._clock() - counted_at > KEPT_SECONDS:
            found = standing(*self._of, project)
            if len(self._kept) > MOST_KEPT:
                self._kept.clear()
            self._kept[project] = (moved, self._clock(), found)
        return found


def counted(number: int, what: str) -> str:
    """Example: "1 image", "48 images"."""
    return f"{number} {what}" if number == 1 else f"{number:,} {what}s"


def _accuracy(fit: Fit) -> str:
    assert fit.report is not None
    return f"{100 * fit.report.test.accuracy.micro:.0f} %"


def _next(found: ProjectStanding, runs: Runs, *, rewarded: bool, busy: bool) -> tuple[str, str]:
    """What to do, and on which page."""
    left = found.items - found.judged
    if left:
        return f"Rank {f'the other {left}' if found.judged else counted(left, 'set')}", "./"
    if busy:
        return "More is being made, and can be ranked as it comes.", ""
    if found.judged < FEW:
        return f"All is ranked; make more, for a reward model wants {FEW} sets or more.", ""
    if not rewarded:
        return "Fit a reward model to the rankings", "learn"
    finished = [run for run in runs.all() if run.state == "finished" and run.adapters]
    if not finished:
        return "Align a model with it", "train"
    return f"Compare {finished[0].name} with its base", "generate"
