"""Items that nobody has judged because those who saw them skipped them.

A skip is no judgement and frees the place for somebody else, but the item does not come back to
whoever skipped it: where nobody else ranks, nothing more comes of it. What AI judges skip, or
annotators who are excluded, counts for nothing here.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, false, func, literal, or_, select, true

from imgalign.preferences.accounts_schema import accounts, openings
from imgalign.preferences.qualification import entry
from imgalign.preferences.queries import counted, excluded, is_attention, is_open, to_annotator
from imgalign.preferences.schema import annotators, items, rankings, tallies


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Items of a project that somebody has skipped and nobody judged. Example: 3, one of them left
    for others.
    """

    items: int = 0
    for_others: int = 0
    """Those among them that somebody else who may rank there has not skipped."""


def skipped_items(connection: Connection, project: str | None = None) -> dict[str, Skipped]:
    """Those of each project that has any; or of the one that is named.

    Takes no time where nobody has skipped anything, however many judgements there are, and else
    that of a look at the open items.
    """
    found: dict[str, Skipped] = {}
    for each in _may_have_some(connection) if project is None else [project]:
        unjudged = [skips for skips in open_skips(connection, each) if not skips.given]
        if unjudged:
            others = may_rank(connection, each)
            left = sum(1 for skips in unjudged if others - skips.who)
            found[each] = Skipped(items=len(unjudged), for_others=left)
    return found


class Skips(NamedTuple):
    """Who has skipped an item that is open, and how often it was and is to be judged."""

    given: int
    overlap: int
    who: frozenset[str]


def open_skips(connection: Connection, project: str) -> list[Skips]:
    """Each open item of a project that somebody has skipped."""
    if not _may_have_some(connection, project):
        return []
    columns = (items.c.item_id, items.c.given, items.c.overlap)
    skipped = (
        select(*columns, rankings.c.annotator_id)
        .join(rankings, rankings.c.item_id == items.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(
            items.c.project == project,
            is_open(),
            ~is_attention(),
            rankings.c.verdict == "skipped",
            annotators.c.judge_id.is_(None),
            counted(),
        )
    )
    who: dict[tuple[str, int, int], set[str]] = defaultdict(set)
    for item_id, given, overlap, annotator_id in connection.execute(skipped):
        who[item_id, given, overlap].add(annotator_id)
    return [Skips(given, overlap, frozenset(each)) for (_, given, overlap), each in who.items()]


def may_rank(connection: Connection, project: str) -> frozenset[str]:
    """People who may rank a project, as far as the store knows them.

    With accounts those that are enabled and whose role or the project lets them; without accounts
    those who have judged there. Nobody who is excluded, or did not qualify.
    """
    has_judged = (
        select(tallies.c.annotator_id)
        .where(
            tallies.c.annotator_id == annotators.c.annotator_id,
            tallies.c.project == project,
            tallies.c.done > 0,
        )
        .correlate(annotators)
        .exists()
    )
    found = select(annotators).where(
        annotators.c.judge_id.is_(None),
        annotators.c.simulated.is_(False),
        ~excluded(annotators.c.annotator_id, literal(project)),
    )
    if connection.execute(select(accounts.c.account_id).limit(1)).first() is None:
        found = found.where(has_judged)
    else:
        said = select(openings.c.is_open).where(openings.c.project == project)
        is_opened = connection.execute(said).scalar()
        # The project that the app begins with is open until a lead closes it.
        let_in = {None: has_judged, True: true(), False: false()}[is_opened]
        found = found.join(accounts, accounts.c.account_id == annotators.c.annotator_id).where(
            accounts.c.disabled_at.is_(None), or_(accounts.c.role != "annotator", let_in)
        )
    asked = [to_annotator(row) for row in connection.execute(found).all()]
    return frozenset(
        each.annotator_id for each in asked if not entry(connection, each, project).held
    )


def _may_have_some(connection: Connection, project: str | None = None) -> list[str]:
    """Projects where people have given more judgements than those that are no skips."""
    more = func.sum(tallies.c.done - tallies.c.images - tallies.c.texts) > 0
    found = (
        select(tallies.c.project)
        .join(annotators, annotators.c.annotator_id == tallies.c.annotator_id)
        .where(
            annotators.c.judge_id.is_(None),
            true() if project is None else tallies.c.project == project,
        )
        .group_by(tallies.c.project)
        .having(more)
    )
    return list(connection.execute(found).scalars())
