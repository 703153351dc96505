"""Texts of the store: named by the SHA-256 of their UTF-8 bytes, and kept in the database.

A text is kept as it was given: spaces, line ends and Unicode form are part of it.
"""

import hashlib
from datetime import datetime

from sqlalchemy import Connection, insert, select

from imgalign.errors import InputError, LostSampleError
from imgalign.preferences import queries
from imgalign.preferences.records import TextProvenance
from imgalign.preferences.schema import text_provenances, texts
from imgalign.preferences.validation import text as check_storable

MAX_CHARACTERS = 20_000
"""Longest text that can be ranked; a longer one cannot be judged by reading it."""
FIELDS = tuple(TextProvenance.__dataclass_fields__)


def text_id(text: str) -> str:
    """The SHA-256 of the UTF-8 bytes, in lower-case hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_text(text: object, *, what: str = "text") -> str:
    """The text; InputError, which names it `what`, unless it can be stored and read by a person."""
    if not isinstance(text, str):
        raise InputError(f"{what}: expected text, got {text!r:.80}")
    check_storable(what, text)
    if not text.strip():
        raise InputError(f"{what}: expected something to read, got {text!r:.80}")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{what} {text[:20]!r}...: expected at most {MAX_CHARACTERS} characters, "
            f"got {len(text)}"
        )
    return text


def add_text(
    connection: Connection, text: str, provenance: TextProvenance, *, now: datetime
) -> str:
    """Insert the missing rows of a text; returns its id."""
    added, row = text_id(text), queries.provenance_row(provenance)
    known = select(texts.c.text_id).where(texts.c.text_id == added)
    if connection.execute(known).first() is None:
        connection.execute(insert(texts).values(text_id=added, text=text, added_at=now))
    known = select(text_provenances.c.text_id).where(
        text_provenances.c.text_id == added, text_provenances.c.digest == row["digest"]
    )
    if connection.execute(known).first() is None:
        connection.execute(insert(text_provenances).values(text_id=added, **row))
    return added


def text_of(connection: Connection, asked: str) -> str:
    """The text of this id; LostSampleError if it is unknown, or not what its id says."""
    found = connection.execute(select(texts.c.text).where(texts.c.text_id == asked)).scalar()
    if found is None:
        raise LostSampleError(f"text {asked[:12]}: not in the store")
    if text_id(found) != asked:
        raise LostSampleError(
            f"text {asked[:12]}: changed in the database; see `imgalign store check`"
        )
    return str(found)


def provenances_of(connection: Connection, asked: str) -> list[TextProvenance]:
    """All provenances of a text, oldest first; empty for an unknown one."""
    columns = [text_provenances.c[field] for field in FIELDS]
    statement = select(*columns).where(text_provenances.c.text_id == asked)
    rows = connection.execute(statement.order_by(text_provenances.c.sequence)).mappings()
    return [TextProvenance(**row) for row in rows]
