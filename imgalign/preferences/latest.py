"""The latest judgements of an annotator, found by numbers from an index before a wide row is read.

So it takes about as long after ten thousand judgements as after ten.
"""

from sqlalchemy import Connection, select

from imgalign.preferences.queries import standing
from imgalign.preferences.schema import assignments, items, rankings

MOST_AT_ONCE = 10_000
"""Numbers in one statement; databases take about 32,000."""


def latest(
    connection: Connection,
    annotator_id: str,
    *,
    limit: int,
    project: str | None = None,
    before: int | None = None,
    include_undone: bool = False,
    shown_only: bool = False,
) -> list[int]:
    """Sequence numbers of the annotator's latest judgements below `before`, newest first.

    With `shown_only` those of items that this annotator was never shown, which were imported, are
    left out.
    """
    shown = select(assignments.c.item_id).where(
        assignments.c.item_id == rankings.c.item_id, assignments.c.annotator_id == annotator_id
    )
    # No join: SQLite would begin with all items of the project.
    there = select(items.c.item_id).where(
        items.c.item_id == rankings.c.item_id, items.c.project == project
    )
    conditions = [] if include_undone else [standing()]
    conditions += [there.correlate(rankings).exists()] if project is not None else []
    conditions += [shown.correlate(rankings).exists()] if shown_only else []
    wanted = select(rankings.c.sequence).where(*conditions)
    # The index on annotator and sequence has both, so this reads no row.
    own = select(rankings.c.sequence).where(rankings.c.annotator_id == annotator_id)
    found: list[int] = []
    portion = 2 * limit
    while len(found) < limit:
        part = own if before is None else own.where(rankings.c.sequence < before)
        part = part.order_by(rankings.c.sequence.desc()).limit(portion)
        numbers = list(connection.execute(part).scalars())
        if not numbers:
            break
        statement = wanted.where(rankings.c.sequence.in_(numbers))
        found += sorted(connection.execute(statement).scalars(), reverse=True)
        before = numbers[-1]
        portion = min(4 * portion, MOST_AT_ONCE)
    return found[:limit]
