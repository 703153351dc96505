"""What an annotator was shown of an item: its candidates as they stood on a screen, and tokens."""

from sqlalchemy import BindParameter, Connection, bindparam, select

from imgalign.errors import NotIssuedError
from imgalign.preferences.schema import views

Shown = tuple[tuple[int, ...], tuple[str, ...]]
"""Candidates, and their tokens."""

# Statements are built once, with these in place of values: building one takes longer than the
# database does.
WHO: BindParameter[str] = bindparam("who")
ITEM: BindParameter[str] = bindparam("item")
ISSUED = (
    select(views.c.token, views.c.candidate)
    .where(views.c.item_id == ITEM, views.c.annotator_id == WHO)
    .order_by(views.c.position)
)


def not_issued(annotator_id: str) -> NotIssuedError:
    """It goes to annotators, and so says nothing of the item's id, which tells what made it."""
    return NotIssuedError(f"item: not issued to annotator {annotator_id!r}; ask for the next one")


def issued(connection: Connection, item_id: str, annotator_id: str) -> Shown:
    """Candidates and tokens in display order; empty if the annotator was never shown the item."""
    rows = connection.execute(ISSUED, {"item": item_id, "who": annotator_id}).all()
    return tuple(row.candidate for row in rows), tuple(row.token for row in rows)


def shown_to(connection: Connection, item_id: str, annotator_id: str) -> Shown:
    """As `issued`; NotIssuedError if the annotator was never shown the item."""
    order, tokens = issued(connection, item_id, annotator_id)
    if not order:
        raise not_issued(annotator_id)
    return order, tokens
