"""Which projects annotators with accounts may rank: those that a lead has opened to them.

The project that the app begins with (`first`) is open until a lead closes it.
"""

from sqlalchemy import delete, insert, select

from imgalign.errors import StoreError
from imgalign.preferences import validation
from imgalign.preferences.accounts import Account
from imgalign.preferences.accounts_schema import openings
from imgalign.preferences.database import Database
from imgalign.preferences.records import utc_now
from imgalign.preferences.schema import projects


def open_projects(database: Database, *, first: str) -> frozenset[str]:
    """The names of the projects that annotators may rank."""
    with database.read() as connection:
        said = {row.project: row.is_open for row in connection.execute(select(openings))}
    return frozenset(name for name, is_open in ({first: True} | said).items() if is_open)


def set_open(database: Database, project: str, is_open: bool, *, by: Account | None) -> None:
    """Open a project to annotators, or close it; StoreError for one without items.

    What they were shown before it was closed may still be submitted.
    """
    validation.name("project", project)
    with database.write() as connection:
        known = select(projects.c.project).where(projects.c.project == project)
        if connection.execute(known).first() is None:
            raise StoreError(f"project {project!r}: nothing is queued there; check its name")
        connection.execute(delete(openings).where(openings.c.project == project))
        row = {
            "project": project,
            "is_open": is_open,
            "changed_by": None if by is None else by.account_id,
            "changed_at": utc_now(),
        }
        connection.execute(insert(openings).values(**row))
