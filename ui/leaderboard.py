"""What the Results page shows: comparisons two by two, ratings of all, and why there are none.

Both are worked out anew only when the store has changed, and never twice at the same time, because
a million rankings take half a second of a core that votes need as well.
"""

from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from imgalign.errors import CheckpointError, ImgalignError
from imgalign.preferences.both_bad import BothBad
from imgalign.preferences.comparisons import Comparison, compare_makers, never_preferred
from imgalign.preferences.coverage import project_standings, store_mark
from imgalign.preferences.makers import MakerRatings, Method, NothingToRateError, rate_makers
from imgalign.preferences.open_items import Lineups
from imgalign.preferences.prompt_sets import PromptSet, prompts_of_project
from imgalign.preferences.records import comparisons_of, holds_comparisons
from imgalign.preferences.store import Store
from imgalign.preferences.wording import counted
from imgalign.prompts import prompts_in
from imgalign.runs.folder import PROMPTS, run_prompts
from ui.kept import Kept
from ui.links import rank_link, said
from ui.runs import Runs

ALL = ""
HELD_OUT, LISTED, OF_PROJECT = "held-out", "listed", "project "
"""Sets of prompts that can be chosen; the last one is followed by the name of the project."""
RIDGE = 0.1
"""Also rates what has never lost, or never won."""
LATEST_BY_ELO = 4_000
POINTS = 12
"""Points in time of the ratings over time."""
MOST_KEPT = 24
"""Choices whose results are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is chosen on the page; nothing restricts it at first."""

    project: str = ALL
    group: str = ALL
    method: Method = "bradley-terry"
    prompts: str = ALL
    listed: str = ""
    """The list of prompts, one per line, where `prompts` asks for it."""


class Rated(NamedTuple):
    """Ratings, or as HTML why there are none."""

    ratings: MakerRatings | None
    reason: str = ""


class Found(NamedTuple):
    """All that is shown of what is asked for."""

    comparisons: list[Comparison]
    both_bad: list[BothBad]
    """Of which nobody is preferred, because both were bad each time."""
    rated: Rated


class Leaderboard:
    """The results of one store, for everybody who has the page open."""

    def __init__(self, store: Store, runs: Runs, *, only: str | None = None) -> None:
        """Of a store, in an app where `only` one project is ranked, if any is named."""
        self.store = store
        self.only = only
        self.runs = runs
        self._compared: Kept[tuple[list[Comparison], list[BothBad]]] = Kept(MOST_KEPT)
        self._rated: Kept[Rated] = Kept(MOST_KEPT)
        self._lineups = Lineups()

    def found(self, asked: Asked) -> Found:
        """What is there of what is asked for; InputError for a list that is none."""
        which = (asked.project, asked.group, asked.prompts, asked.listed)
        if asked.prompts == LISTED:
            self._prompts(asked)
        return Found(
            *self._compared.get(which, lambda: self._mark(asked), lambda: self._compare(asked)),
            self._rated.get(asked, lambda: self._mark(asked), lambda: self._rate(asked)),
        )

    def _mark(self, asked: Asked) -> object:
        runs: list[tuple[str, bool]] = []
        if asked.prompts == HELD_OUT:
            runs = [(name, (self.runs.path(name) / PROMPTS).exists()) for name in self.runs.names()]
        return store_mark(self.store), tuple(runs)

    def _compare(self, asked: Asked) -> tuple[list[Comparison], list[BothBad]]:
        project, group, prompts = asked.project or None, asked.group or None, self._prompts(asked)
        return (
            compare_makers(
                self.store, project=project, group=group, prompts=prompts, lineups=self._lineups
            ),
            never_preferred(self.store, project=project, group=group, prompts=prompts),
        )

    def _rate(self, asked: Asked) -> Rated:
        by_elo = asked.method == "elo"
        try:
            ratings = rate_makers(
                self.store,
                method=asked.method,
                project=asked.project or None,
                group=asked.group or None,
                prompts=self._prompts(asked),
                ridge=0.0 if by_elo else RIDGE,
                latest=LATEST_BY_ELO if by_elo else None,
                points=POINTS,
            )
        except NothingToRateError as reason:
            return Rated(None, why_nothing(reason, self._waiting(asked)))
        except ImgalignError as error:
            return Rated(None, f"{escape(said(error))}.")
        return Rated(ratings)

    def _waiting(self, asked: Asked) -> str:
        """The blind comparisons that wait for somebody to rank them, as HTML; empty without any."""
        within = comparisons_of(asked.project) if asked.project else None
        found = [
            (each.project, each.waiting)
            for each in project_standings(self.store, within)
            if holds_comparisons(each.project) and each.waiting
        ]
        return " ".join(self._invitation(*each) for each in found)

    def _invitation(self, project: str, pairs: int) -> str:
        wait = f"{counted(pairs, 'pair')} {'waits' if pairs == 1 else 'wait'}"
        link = rank_link(project, only=self.only)
        how = f'<a href="{escape(link)}">Rank them</a>.' if link else ""
        return f"{wait} to be ranked in the project {escape(project)}. {how}".strip()

    def _prompts(self, asked: Asked) -> PromptSet | None:
        if asked.prompts == HELD_OUT:
            return PromptSet.of(self._known(), others=True)
        if asked.prompts == LISTED:
            return PromptSet.of(prompts_in(asked.listed, "list of prompts"))
        if asked.prompts.startswith(OF_PROJECT):
            return prompts_of_project(self.store, asked.prompts.removeprefix(OF_PROJECT))
        return None

    def _known(self) -> set[str]:
        """What runs of this folder were trained, stopped or selected on, as far as they say so."""
        known: set[str] = set()
        for name in self.runs.names():
            try:
                training, held_out = run_prompts(self.runs.path(name))
            except (CheckpointError, OSError):
                continue
            known.update(training, held_out)
        return known


def why_nothing(reason: NothingToRateError, waiting: str = "") -> str:
    """Why there are no ratings, and what to do, as HTML for who uses the app.

    `waiting` says of comparisons that wait to be ranked, as HTML.
    """
    cure = f"{waiting} {AFTER}" if waiting else f"{COMPARE} {AFTER}"
    number = counted(reason.num_rankings, "ranking")
    match reason.because:
        case "other filters":
            return (
                f"There are {number} of images, but none of what is chosen on the left. Choose "
                "“all” or “everybody” there."
            )
        case "other judges":
            return (
                f"There are {number} of images, all of them by AI judges, and here people's "
                f"count. {RANK}"
            )
        case "excluded":
            return (
                f"There are {number} of images, all of them by annotators who are excluded. "
                'Include them again on the <a href="people">People</a> page, or let others rank.'
            )
        case "one maker":
            made = ", ".join(escape(name) for name in reason.makers[:3])
            by = (
                f"all of images that {made} made" if made else "none of images whose maker is known"
            )
            return f"There are {number} of images, {by}. Nothing was compared yet. {cure}"
        case "no rankings":
            return f"Nobody has ranked images of two models beside each other yet. {cure}"


RANK = 'Rank some on the <a href="./">Rank</a> page.'
COMPARE = (
    'On the <a href="generate">Generate</a> page draw a checkpoint beside its base and send the '
    f"pairs to ranking. {RANK}"
)
AFTER = (
    "There nobody sees which model made which image; who is preferred stands here after the first "
    "one."
)
