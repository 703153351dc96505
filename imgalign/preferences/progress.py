"""How far those who rank a project have come with it together, and how long it still takes.

The judgements of AI judges count for nothing here, nor do those of attention items.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from imgalign.preferences.queries import counted, excluded, is_attention
from imgalign.preferences.records import utc_now
from imgalign.preferences.schema import annotators, items, rankings, tallies
from imgalign.preferences.skips import open_skips
from imgalign.preferences.store import Store

HOURS = 3
"""The pace is that of so many hours before now."""
SHORTEST = timedelta(minutes=10)
"""Time that a pace is measured over at least: three rankings in a minute are none yet."""
MOST_RECENT = 20_000
"""Judgements among which those of the last hours are looked for: the latest of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectProgress:
    """How far a project is. Example: 34 of 60 items have all their rankings, 41 are to come.

    A ranking is a judgement that counts, all bad included and skips left out.
    """

    items: int
    complete: int
    """Items with as many rankings as their overlap asks for."""
    left: int
    """Rankings that are still to come."""
    out_of_reach: int
    """Those among them that need more annotators than have judged here, because fewer have or some
    have skipped the item; 0 before anybody has."""
    recent: int
    """Rankings of the last `HOURS` hours."""
    per_hour: float
    """The pace of these, from the first of them on."""

    @property
    def hours_left(self) -> float | None:
        """What the rankings within reach take at this pace; None without a pace."""
        return (self.left - self.out_of_reach) / self.per_hour if self.recent else None


def project_progress(store: Store, project: str, *, now: datetime | None = None) -> ProjectProgress:
    """Count a project; zeros for one without items."""
    now = utc_now() if now is None else now
    alike = (
        select(items.c.given, items.c.overlap, func.count().label("items"))
        .where(items.c.project == project, ~is_attention())
        .group_by(items.c.given, items.c.overlap)
    )
    team = (
        select(func.count())
        .select_from(tallies.join(annotators, annotators.c.annotator_id == tallies.c.annotator_id))
        .where(
            tallies.c.project == project,
            tallies.c.done > 0,
            annotators.c.judge_id.is_(None),
            ~excluded(tallies.c.annotator_id, tallies.c.project),
        )
    )
    with store.database.read() as connection:
        rows = connection.execute(alike).all()
        num_annotators = connection.execute(team).scalar_one()
        recent, since = _recent(connection, project, now)
        skipped = open_skips(connection, project)
    left = [max(0, row.overlap - row.given) * row.items for row in rows]
    beyond = [max(0, row.overlap - num_annotators) * row.items for row in rows]
    # A skip does not come back to whoever gave it.
    for each in skipped:
        lacking = each.overlap - num_annotators
        beyond.append(max(0, lacking + len(each.who)) - max(0, lacking))
    over = max(now - since, SHORTEST) if since is not None else timedelta(hours=HOURS)
    return ProjectProgress(
        items=sum(row.items for row in rows),
        complete=sum(row.items for row, some in zip(rows, left, strict=True) if not some),
        left=sum(left),
        out_of_reach=sum(beyond) if num_annotators else 0,
        recent=recent,
        per_hour=recent / (over / timedelta(hours=1)),
    )


def _recent(connection: Connection, project: str, now: datetime) -> tuple[int, datetime | None]:
    """Rankings of the last hours, and when the first of them was made."""
    last = select(func.max(rankings.c.sequence)).scalar_subquery()
    statement = (
        select(func.count(), func.min(rankings.c.created_at))
        .select_from(rankings)
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(
            rankings.c.sequence > last - MOST_RECENT,
            rankings.c.created_at.between(now - timedelta(hours=HOURS), now),
            rankings.c.verdict != "skipped",
            items.c.project.concat("") == project,  # few are looked up, by their ids
            ~is_attention(),
            annotators.c.judge_id.is_(None),
            counted(),
        )
    )
    count, since = connection.execute(statement).one()
    return count, since
