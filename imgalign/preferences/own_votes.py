"""An annotator's own judgements, newest first, in pages, as they stood on their screen.

Blind as the ranking itself: a vote names its samples by the tokens that this annotator was given,
and its ranking by positions. A page is found by numbers from an index before anything wide is read,
so that it takes about as long after ten thousand votes as after ten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from imgalign.errors import StoreError
from imgalign.preferences import queries
from imgalign.preferences.identity import person
from imgalign.preferences.records import Samples, TieGroups, Verdict, as_positions
from imgalign.preferences.schema import assignments, items, rankings, views
from imgalign.preferences.store import Store

MOST_AT_ONCE = 10_000
"""Numbers in one statement; databases take about 32,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnVote:
    """One judgement as its annotator saw it. Example: ranking ((2,), (0, 1)) put the third
    candidate on the screen first; `tokens` are the candidates in the order of the screen.

    `key` is what `Store.undo` takes.
    """

    key: str
    item_id: str
    prompt: str
    samples: Samples
    tokens: tuple[str, ...]
    ranking: TieGroups | None
    verdict: Verdict
    reason: str | None
    created_at: datetime


def own_votes(
    store: Store, annotator: str, *, project: str, limit: int, before: str | None = None
) -> list[OwnVote]:
    """The latest judgements of this annotator that stand, newest first; at most `limit`.

    `before` is the key of a judgement: only older ones are given. Judgements that were imported,
    which nobody saw on a screen here, are left out. StoreError for a key of somebody else.
    """
    who = person(annotator)
    with store.database.read() as connection:
        end = None
        if before is not None:
            last = queries.by_key(connection, who, before)
            if last is None:
                raise StoreError(
                    f"key {before!r}: nothing by annotator {annotator!r}; begin with the newest"
                )
            end = last.sequence
        chosen = _latest(connection, who, project=project, limit=limit, before=end)
        wide = queries.judgements(include_undone=False)
        wide = wide.where(rankings.c.sequence.in_(chosen)).order_by(rankings.c.sequence.desc())
        judged = queries.to_rankings(connection, connection.execute(wide).all())
        tokens = _tokens(connection, who, [each.item_id for each in judged])
    return [
        OwnVote(
            key=each.key,
            item_id=each.item_id,
            prompt=each.prompt,
            samples=each.samples,
            tokens=tuple(tokens[each.item_id]),
            ranking=None if each.ranking is None else as_positions(each.ranking, each.order),
            verdict=each.verdict,
            reason=each.reason,
            created_at=each.created_at,
        )
        for each in judged
    ]


def _latest(
    connection: Connection, annotator_id: str, *, project: str, limit: int, before: int | None
) -> list[int]:
    """Sequence numbers of standing judgements of items that this annotator was shown."""
    shown = select(assignments.c.item_id).where(
        assignments.c.item_id == rankings.c.item_id, assignments.c.annotator_id == annotator_id
    )
    # No join: SQLite would begin with all items of the project.
    there = select(items.c.item_id).where(
        items.c.item_id == rankings.c.item_id, items.c.project == project
    )
    conditions = [each.correlate(rankings).exists() for each in (shown, there)]
    wanted = select(rankings.c.sequence).where(queries.standing(), *conditions)
    # The unique index on annotator and key has the sequence of each row, so this reads no row.
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


def _tokens(
    connection: Connection, annotator_id: str, item_ids: Sequence[str]
) -> dict[str, list[str]]:
    """Tokens of each item in the order of this annotator's screen."""
    statement = (
        select(views.c.item_id, views.c.token)
        .where(views.c.annotator_id == annotator_id, views.c.item_id.in_(item_ids))
        .order_by(views.c.item_id, views.c.position)
    )
    found: dict[str, list[str]] = {item_id: [] for item_id in item_ids}
    for row in connection.execute(statement):
        found[row.item_id].append(row.token)
    return found
