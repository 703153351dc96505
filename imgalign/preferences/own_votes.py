"""An annotator's own judgements, newest first, in pages, as they stood on their screen.

Blind as the ranking itself: a vote names its samples by the tokens that this annotator was given,
and its ranking by positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BindParameter, Connection, bindparam, select

from imgalign.errors import StoreError
from imgalign.preferences import queries
from imgalign.preferences.identity import person
from imgalign.preferences.latest import latest
from imgalign.preferences.records import Samples, TieGroups, Verdict, as_positions
from imgalign.preferences.schema import assignments, rankings, views
from imgalign.preferences.shown import WHO
from imgalign.preferences.store import Store

ITEMS: BindParameter[str] = bindparam("items", expanding=True)
TAKEN_BACK = (
    select(rankings)
    .join(
        assignments,
        (assignments.c.item_id == rankings.c.item_id)
        & (assignments.c.annotator_id == rankings.c.annotator_id),
    )
    .where(
        rankings.c.item_id.in_(ITEMS),
        rankings.c.annotator_id == WHO,
        assignments.c.requeued_at.is_not(None),
    )
    .order_by(rankings.c.sequence)
)


@dataclass(frozen=True, slots=True)
class Judged:
    """What was judged of an item, in positions of the annotator's screen."""

    ranking: TieGroups | None
    verdict: Verdict
    reason: str | None


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
        chosen = latest(connection, who, limit=limit, project=project, before=end, shown_only=True)
        wide = queries.judgements(include_undone=False, include_excluded=True)
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


def taken_back(store: Store, annotator: str, item_ids: Sequence[str]) -> dict[str, Judged]:
    """What this annotator judged last of each of these items that they took back.

    Of items that they have not judged again since; others are not in it.
    """
    values = {"who": person(annotator), "items": item_ids}
    with store.database.read() as connection:
        rows = connection.execute(TAKEN_BACK, values).all()
    found = {}
    for row in rows:
        ranking = queries.to_tie_groups(row.tie_groups)
        shown = None if ranking is None else as_positions(ranking, row.display_order)
        found[row.item_id] = Judged(shown, row.verdict, row.reason)
    return found


def latest_key(store: Store, annotator: str, *, project: str) -> str | None:
    """The key of the first of `own_votes`; None without one."""
    with store.database.read() as connection:
        who = person(annotator)
        chosen = latest(connection, who, limit=1, project=project, shown_only=True)
        key = select(rankings.c.key).where(rankings.c.sequence.in_(chosen))
        found: str | None = connection.execute(key).scalar()
    return found


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
