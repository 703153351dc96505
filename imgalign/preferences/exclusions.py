"""Excluding annotators from a project: their judgements stay on record and count nowhere.

Which judgements count is said in `queries.counted`: rankings, ratings, rewards, exports of pairs
and the progress of items follow it. An annotator who is excluded is not told: they see the
project as before, and what they judge is kept, and counts once they are included again.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select

from imgalign.errors import StoreError
from imgalign.preferences import queries, tallies
from imgalign.preferences.database import Database
from imgalign.preferences.identity import person
from imgalign.preferences.records import utc_now
from imgalign.preferences.schema import annotators, exclusions, items, projects, rankings


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """An annotator who is excluded from a project, and since when."""

    project: str
    annotator_id: str
    since: datetime


def exclude(database: Database, annotator: str, *, project: str) -> None:
    """Let the judgements of an annotator in a project count nowhere; doing it again changes
    nothing.

    StoreError for an unknown annotator or project.
    """
    with database.write() as connection:
        who = _checked(connection, annotator, project)
        if _is_excluded(connection, who, project):
            return
        row = {"project": project, "annotator_id": who, "created_at": utc_now()}
        connection.execute(insert(exclusions).values(**row))
        tallies.annotator_excluded(connection, who, project)


def include(database: Database, annotator: str, *, project: str) -> None:
    """Let the judgements of an annotator count again; StoreError as `exclude`."""
    with database.write() as connection:
        who = _checked(connection, annotator, project)
        if not _is_excluded(connection, who, project):
            return
        connection.execute(delete(exclusions).where(*_this(who, project)))
        tallies.annotator_included(connection, who, project)


def all_exclusions(database: Database, *, project: str | None = None) -> list[Exclusion]:
    """Who is excluded, from one project or from any, by project and name."""
    statement = select(exclusions).order_by(exclusions.c.project, exclusions.c.annotator_id)
    if project is not None:
        statement = statement.where(exclusions.c.project == project)
    with database.read() as connection:
        return [
            Exclusion(project=row.project, annotator_id=row.annotator_id, since=row.created_at)
            for row in connection.execute(statement)
        ]


def num_left_out(
    database: Database,
    *,
    project: str | None = None,
    group: str | None = None,
    annotator: str | None = None,
) -> int:
    """Standing judgements that count nowhere because their annotators are excluded."""
    statement = (
        select(func.count())
        .select_from(exclusions)
        .join(rankings, rankings.c.annotator_id == exclusions.c.annotator_id)
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == exclusions.c.annotator_id)
        .where(items.c.project == exclusions.c.project, queries.standing())
        .where(~queries.is_attention())
    )
    if project is not None:
        statement = statement.where(exclusions.c.project == project)
    if group is not None:
        statement = statement.where(annotators.c.group_name == group)
    if annotator is not None:
        statement = statement.where(exclusions.c.annotator_id == person(annotator))
    with database.read() as connection:
        return connection.execute(statement).scalar_one()


def _checked(connection: Connection, annotator: str, project: str) -> str:
    """The id of the annotator; StoreError where there is none, or no such project."""
    known = select(projects.c.project).where(projects.c.project == project)
    if connection.execute(known).first() is None:
        raise StoreError(f"project {project!r}: nothing is queued there; check its name")
    return queries.require_annotator(connection, person(annotator)).annotator_id


def _this(annotator_id: str, project: str) -> tuple[queries.AnyRow, queries.AnyRow]:
    return exclusions.c.project == project, exclusions.c.annotator_id == annotator_id


def _is_excluded(connection: Connection, annotator_id: str, project: str) -> bool:
    found = select(exclusions.c.project).where(*_this(annotator_id, project))
    return connection.execute(found).first() is not None
