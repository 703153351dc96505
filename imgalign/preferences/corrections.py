"""Judgements that are taken back, and judgements that take the place of others.

Whoever hears nothing from the store does not know whether a judgement is on record. Who then judges
otherwise sends that under a key of its own and names the keys to which no answer came: whichever of
these arrived is undone in the transaction that records the correction.
"""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from imgalign.preferences import tallies
from imgalign.preferences.queries import standing
from imgalign.preferences.records import Submission
from imgalign.preferences.schema import rankings, undos


def take_back(connection: Connection, ranking_id: str, *, now: datetime) -> bool:
    """Undo a judgement, which stays on record; False if it was undone before."""
    undone = select(undos.c.ranking_id).where(undos.c.ranking_id == ranking_id)
    if connection.execute(undone).first() is not None:
        return False
    connection.execute(insert(undos).values(ranking_id=ranking_id, created_at=now))
    tallies.taken_back(connection, ranking_id)
    return True


def take_back_replaced(connection: Connection, sent: Submission, *, now: datetime) -> None:
    """Undo what its annotator submitted for the same item under the keys in `sent.replaces`."""
    if not sent.replaces:
        return
    replaced = select(rankings.c.ranking_id).where(
        rankings.c.annotator_id == sent.annotator,
        rankings.c.item_id == sent.item_id,
        rankings.c.key.in_(sent.replaces),
        standing(),
    )
    for ranking_id in connection.execute(replaced).scalars().all():
        take_back(connection, ranking_id, now=now)
