"""What a lead asks of the annotators of a project: a short plain text in the store."""

from sqlalchemy import delete, insert, select

from imgalign.errors import InputError
from imgalign.preferences import validation
from imgalign.preferences.accounts_schema import guidelines
from imgalign.preferences.database import Database
from imgalign.preferences.records import utc_now

MOST_BYTES = 32 * 1024
"""Some twelve pages: more than anybody reads before they begin."""


def guidelines_of(database: Database, project: str) -> str:
    """The text of a project; "" without one."""
    statement = select(guidelines.c.text).where(guidelines.c.project == project)
    with database.read() as connection:
        return connection.execute(statement).scalar() or ""


def set_guidelines(database: Database, project: str, text: str) -> None:
    """Replace the text of a project; "" removes it. InputError for one that is too long."""
    validation.name("project", project)
    validation.text("guidelines", text)
    text = text.strip()
    size = len(text.encode())
    if size > MOST_BYTES:
        raise InputError(f"guidelines: expected at most {MOST_BYTES} bytes, got {size}; shorten it")
    with database.write() as connection:
        connection.execute(delete(guidelines).where(guidelines.c.project == project))
        if text:
            row = {"project": project, "text": text, "changed_at": utc_now()}
            connection.execute(insert(guidelines).values(**row))
