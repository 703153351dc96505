"""Items that nobody has judged because those who saw them skipped them.

A skip is no judgement and frees the place for somebody else, but the item does not come back to
whoever skipped it: where nobody else ranks, nothing more comes of it. What AI judges skip, or
annotators who are excluded, counts for nothing here.
"""

from collections import defaultdict
from dataclasses import dataclass

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
    for each in _may_have_some(connection, project):
        who_skipped: dict[str, set[str]] = defaultdict(set)
        skips = (
            select(rankings.c.item_id, rankings.c.annotator_id)
            .join(items, items.c.item_id == rankings.c.item_id)
            .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
            .where(
                items.c.project == each,
                items.c.given == 0,
                is_open(),
                ~is_attention(),
                rankings.c.verdict == "skipped",
                annotators.c.judge_id.is_(None),
                counted(),
            )
        )
        for item_id, annotator_id in connection.execute(skips):
            who_skipped[item_id].add(annotator_id)
        if who_skipped:
            others = may_rank(connection, each)
            left = sum(1 for skippers in who_skipped.values() if others - skippers)
            found[each] = Skipped(items=len(who_skipped), for_others=left)
    return found


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


def _may_have_some(connection: Connection, project: str | None) -> list[str]:
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
