"""What the Candidates page draws: where projects stand, all batches, and the chosen one in full."""

from dataclasses import asdict, dataclass
from typing import Any

from imgalign.errors import InputError
from imgalign.preferences.accounts import Accounts
from imgalign.preferences.coverage import queued_projects
from imgalign.preferences.records import COMPARISONS, holds_comparisons
from imgalign.preferences.store import Store
from imgalign.preferences.stored import ItemSamples, item_samples
from imgalign.preferences.wording import counted
from ui.api.small import small_text
from ui.authority import may_now
from ui.batches import Batch, Batches
from ui.links import in_the_app, rank_link
from ui.outlook import duration
from ui.pulse import Pulse
from ui.runs import Runs
from ui.standing import RANK, Standings

MOST_SETS = 24
"""Sets of a batch that are drawn, the first."""
LOG_LINES = 80
OF_PROJECT = "project:"
"""Begins what is chosen where that is a project; no name of a batch has a colon."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the page works on."""

    store: Store
    runs: Runs
    batches: Batches
    standings: Standings
    model: str
    project: str
    people: Accounts
    pulse: Pulse
    only: str | None = None
    """The project that alone can be ranked in this app, if there is one."""

    @property
    def freely(self) -> bool:
        """Whether the event that is being handled may name paths, and start several batches."""
        return may_now(self.people, "admin")


def view(work: Work, chosen: str | None) -> dict[str, Any]:
    """Everything that is drawn: all batches in short, the chosen or newest in full.

    Where a project is `chosen`, its newest batch, if it has any. Of the other projects only the
    names are read, which takes no longer the more was ranked.
    """
    found = work.batches.all()
    queued = _listed(queued_projects(work.store))
    of, asked = found, (chosen or "").removeprefix(OF_PROJECT)
    project = asked if (chosen or "").startswith(OF_PROJECT) and asked in queued else None
    if project is not None:
        of = [each for each in found if each.asked.project == project]
    batch = next((each for each in of if each.name == chosen), next(iter(of), None))
    if project is None:
        first = work.project if work.project in queued else next(iter(queued), work.project)
        project = first if batch is None else batch.asked.project
    line = work.batches.waiting() if any(each.state == "waiting" for each in found) else []
    moved = tuple((each.name, each.state, len(each.item_ids)) for each in found)
    told = work.standings.at(project, moved, admin=work.freely)
    place = told.page if told else ""
    if told and told.page == RANK:
        place = rank_link(told.ranks, only=work.only)
    return {
        "standing": told and asdict(told) | {"page": place},
        "projects": [each for each in queued if each != project],
        "batches": [_short(each, line) for each in found],
        "detail": batch and _detail(work, batch, line),
    }


def _listed(projects: list[str]) -> list[str]:
    """Those with a line of their own; the line of a project tells of its comparisons."""
    return [
        each
        for each in projects
        if not holds_comparisons(each) or each.removesuffix(COMPARISONS) not in projects
    ]


def _short(batch: Batch, line: list[str]) -> dict[str, Any]:
    return {
        "name": batch.name,
        "title": batch.asked.title,
        "project": batch.asked.project,
        "state": batch.state,
        # Its place among those that wait for this app, from 1, and how many they are.
        "line": batch.name in line and [line.index(batch.name) + 1, len(line)],
    }


def _detail(work: Work, batch: Batch, line: list[str]) -> dict[str, Any]:
    queued = item_samples(work.store, batch.item_ids[:MOST_SETS])
    sets = len(batch.item_ids)
    so_far = f"{counted(sets, 'set')} to rank so far. " if sets else ""
    message = in_the_app(batch.message[:1].upper() + batch.message[1:])
    if batch.state == "waiting" and (seconds := work.batches.begins_in(batch.name)):
        message += f", in about {duration(seconds)}"
    if batch.state == "made":
        so_far = f"{counted(sets, 'set')} queued for ranking. "
    try:
        log = work.batches.log(batch.name)
    except InputError:  # removed meanwhile by another page
        log = ""
    return _short(batch, line) | {
        "share": batch.share,
        "said": f"{so_far}{message}",
        "sets": [_set(work.store, each) for each in queued],
        "more": sets - len(queued),
        "rank": rank_link(batch.asked.project, only=work.only),
        "log": "\n".join(log.splitlines()[-LOG_LINES:]),
    }


def _set(store: Store, item: ItemSamples) -> dict[str, Any]:
    shown_samples = list(item.sample_ids)
    if item.samples == "texts":
        shown_samples = [small_text(store.text(each)) for each in item.sample_ids]
    return {
        "id": item.item_id,
        "prompt": item.prompt,
        "samples": item.samples,
        "shown": shown_samples,
    }
