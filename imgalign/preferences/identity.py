"""Identity of annotators: one for all spellings of a name.

"Ada", "ada" and " ADA " are one annotator; two would agree in everything and count twice. The
identity is the name in compatibility form (NFKC), without case, invisible characters and extra
spaces. The name as it was first given is kept for display.
"""

import hashlib
import re
import unicodedata
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, insert, select

from imgalign.errors import StoreError
from imgalign.preferences import queries, validation
from imgalign.preferences.records import Annotator
from imgalign.preferences.schema import annotators

NAMES_PER_CLIENT = 20
CLIENT_WINDOW = timedelta(hours=1)
SIMULATED_NAME = re.compile(r"(cosy|dreamy|graphic)-[0-9]+")
"""Names that the storybook gives its annotators, each in the group that the name begins with."""


def person(name: str) -> str:
    """The identity of a name. Example: "  Ada  LOVELACE " is "ada lovelace"."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return " ".join(visible.split())


def was_simulated(annotator_id: str, group: str) -> bool:
    """Whether an annotator of an older version, which kept no mark, was a simulated one.

    Told by the name. Example: "cosy-1" of the group "cosy" was, "cosy-1" of "default" was not.
    """
    found = SIMULATED_NAME.fullmatch(annotator_id)
    return found is not None and found[1] == group


def register(
    connection: Connection,
    name: str,
    *,
    display: str | None,
    group: str,
    client: str | None,
    simulated: bool = False,
    judge_id: str | None = None,
    now: datetime,
) -> Annotator:
    """The annotator of this name, added if new.

    StoreError where the name belongs to another group, or to an annotator of another kind: a
    person, a simulated annotator, an AI judge; and for one name too many from one client.
    """
    validation.name("annotator", name)
    validation.name("annotator", person(name))
    validation.text("annotator", display)
    validation.name("group", group)
    annotator_id = person(name)
    known = queries.annotator(connection, annotator_id)
    asked = Annotator(
        annotator_id=annotator_id,
        name=" ".join((display or name).split()),
        group=group,
        simulated=simulated,
        judge_id=judge_id,
    )
    if known is not None:
        if known.group != group:
            raise StoreError(
                f"annotator {name!r}: already in group {known.group!r}, not {group!r}; "
                "choose another annotator name"
            )
        if known.kind != asked.kind:
            raise StoreError(
                f"annotator {name!r}: the name of {known.kind}, not of {asked.kind}; "
                "choose another annotator name"
            )
        return known
    digest = None if client is None else hashlib.sha256(client.encode()).hexdigest()
    if digest is not None:
        _refuse_too_many(connection, name, digest, now)
    connection.execute(
        insert(annotators).values(
            annotator_id=annotator_id,
            name=asked.name,
            group_name=group,
            simulated=simulated,
            judge_id=judge_id,
            client=digest,
            created_at=now,
        )
    )
    return asked


def _refuse_too_many(connection: Connection, name: str, client: str, now: datetime) -> None:
    """StoreError for too many new names of one client, which could reserve a whole queue."""
    recent = select(func.count()).where(
        annotators.c.client == client,
        # Bounded on both sides: a clock that was once ahead must not count for ever.
        annotators.c.created_at.between(now - CLIENT_WINDOW, now + CLIENT_WINDOW),
    )
    if connection.execute(recent).scalar_one() >= NAMES_PER_CLIENT:
        raise StoreError(
            f"annotator {name!r}: {NAMES_PER_CLIENT} new names came from this address within an "
            "hour; use one of them, or try again later"
        )
