"""Assignment of items to annotators: availability, display order and leases.

An item is available to an annotator who has no standing judgement of it, while judgements given
plus live leases of others are fewer than its overlap, or while they hold it because they took
their judgement back. A skip is no judgement: it frees the place for somebody else, but does not
come back by itself. The display order is drawn once per annotator
and item and kept, with one opaque token per candidate.

A lease reserves an item for a limited time: long for the item on screen, short for one that a page
has prefetched. An annotator holds few leases at a time, and the oldest are released first. No
client (a network address, under whatever names) can reserve a whole queue: an annotator without
items takes over a lease of a client that holds more than half. Leases with a time in the future
come from a wrong clock and are ignored.

AI judges stand outside of this: an item is available to one until it has judged it, however many
people have, and neither its judgements nor its leases keep an item from people.
"""

import hashlib
import json
import random
import secrets
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, func, insert, select, update

from imgalign.preferences.queries import standing
from imgalign.preferences.schema import (
    annotators,
    assignments,
    candidates,
    items,
    rankings,
    views,
)

Shown = tuple[tuple[int, ...], tuple[str, ...]]

LEASE = timedelta(minutes=30)
PREFETCH_LEASE = timedelta(minutes=2)
MAX_HELD = 4
"""Leases per annotator: the item on screen and the prefetched one, in two windows."""
SKEW = timedelta(minutes=5)
"""Largest difference between the clocks of two servers."""


def live(now: datetime, leases: FromClause = assignments) -> ColumnElement[bool]:
    """Condition on `assignments`, or an alias of it: the item is reserved."""
    return (leases.c.leased_until > now) & (leases.c.issued_at <= now + SKEW)


def _unanswered() -> ColumnElement[bool]:
    """Condition on `assignments`: the annotator has no standing judgement of the item."""
    answered = select(rankings.c.sequence).where(
        rankings.c.item_id == assignments.c.item_id,
        rankings.c.annotator_id == assignments.c.annotator_id,
        standing(),
    )
    return ~answered.correlate(assignments).exists()


def _unjudged(annotator_id: str) -> ColumnElement[bool]:
    """Condition on `items`: this annotator has no standing judgement of the item."""
    mine = select(rankings.c.sequence).where(
        rankings.c.item_id == items.c.item_id,
        rankings.c.annotator_id == annotator_id,
        standing(),
    )
    return ~mine.correlate(items).exists()


def _num_given() -> ColumnElement[int]:
    """Number of judgements of an item of `items`, without those of AI judges."""
    given = (
        select(func.count())
        .select_from(rankings.join(annotators))
        .where(
            rankings.c.item_id == items.c.item_id,
            rankings.c.verdict != "skipped",
            annotators.c.judge_id.is_(None),
            standing(),
        )
    )
    return given.correlate(items).scalar_subquery()


def _available(annotator_id: str, now: datetime) -> list[ColumnElement[bool]]:
    expected = (
        select(func.count())
        .select_from(assignments.join(annotators))
        .where(
            assignments.c.item_id == items.c.item_id,
            assignments.c.annotator_id != annotator_id,
            annotators.c.judge_id.is_(None),
            live(now),
            _unanswered(),
        )
    )
    taken = _num_given() + expected.correlate(items).scalar_subquery()
    asker = annotators.alias()
    is_judge = select(asker.c.annotator_id).where(
        asker.c.annotator_id == annotator_id, asker.c.judge_id.is_not(None)
    )
    open_to_them = (taken < items.c.overlap) | is_judge.exists() | _taken_back(annotator_id, now)
    return [_unjudged(annotator_id), open_to_them]


def _taken_back(annotator_id: str, now: datetime) -> ColumnElement[bool]:
    """Condition on `items`: this annotator took their judgement back and still holds the item.

    It is theirs to judge again, even where others have filled its overlap since: a skip, for one,
    had freed the place.
    """
    own = assignments.alias()
    mine = select(own.c.item_id).where(
        own.c.item_id == items.c.item_id,
        own.c.annotator_id == annotator_id,
        own.c.requeued_at.is_not(None),
        live(now, own),
    )
    return mine.correlate(items).exists()


def _wanted(annotator_id: str, project: str, holding: set[str], now: datetime) -> Select[Any]:
    return select(items.c.item_id, items.c.sequence).where(
        items.c.project == project,
        items.c.item_id.not_in(holding),
        *_available(annotator_id, now),
    )


def first_available(
    connection: Connection, annotator_id: str, project: str, holding: set[str], now: datetime
) -> int | None:
    """Sequence number of the oldest available item; None if there is none.

    Scans all finished items, which takes time in a long queue, and is therefore done before the
    write transaction.
    """
    oldest = _wanted(annotator_id, project, holding, now).order_by(items.c.sequence).limit(1)
    row = connection.execute(oldest).first()
    return None if row is None else int(row.sequence)


def next_item(
    connection: Connection,
    annotator_id: str,
    project: str,
    holding: set[str],
    now: datetime,
    *,
    start: int,
) -> str | None:
    """The id of the item to show: undone first, then on screen, then the oldest.

    `start` is from `first_available`; that item may have been taken since.
    """
    wanted = _wanted(annotator_id, project, holding, now)
    on_screen = (
        wanted.join(assignments, assignments.c.item_id == items.c.item_id)
        .where(assignments.c.annotator_id == annotator_id, live(now))
        .order_by(
            assignments.c.requeued_at.is_(None), assignments.c.requeued_at.desc(), items.c.sequence
        )
    )
    oldest = wanted.where(items.c.sequence >= start).order_by(items.c.sequence)
    for statement in (on_screen, oldest):
        row = connection.execute(statement.limit(1)).first()
        if row is not None:
            return str(row.item_id)
    return None


def surplus(
    connection: Connection, annotator_id: str, project: str, holding: set[str], now: datetime
) -> tuple[str, str] | None:
    """(item_id, holder) of a lease that another client has beyond its share, if any.

    A client may have half of the leases on items that this annotator could judge, and always one.
    The lease that ends first is chosen, so that prefetched items are released first.
    """
    statement = (
        select(items.c.item_id, annotators.c.annotator_id, annotators.c.client)
        .join(assignments, assignments.c.item_id == items.c.item_id)
        .join(annotators, annotators.c.annotator_id == assignments.c.annotator_id)
        .where(
            items.c.project == project,
            items.c.item_id.not_in(holding),
            assignments.c.annotator_id != annotator_id,
            annotators.c.judge_id.is_(None),
            live(now),
            _unanswered(),
            _unjudged(annotator_id),
            _num_given() < items.c.overlap,
        )
        .order_by(assignments.c.leased_until, assignments.c.issued_at)
    )
    leases = connection.execute(statement).all()
    of_asker = select(annotators.c.client).where(annotators.c.annotator_id == annotator_id)
    own = connection.execute(of_asker).scalar()
    held = Counter(lease.client for lease in leases)
    for item_id, holder, client in leases:
        if client not in (None, own) and held[client] > max(1, len(leases) / 2):
            return item_id, holder
    return None


def take_over(
    connection: Connection, annotator_id: str, project: str, holding: set[str], now: datetime
) -> str | None:
    """End a lease that a client has beyond its share; the id of the item, if any."""
    found = surplus(connection, annotator_id, project, holding, now)
    if found is None:
        return None
    item_id, holder = found
    this = (assignments.c.item_id == item_id) & (assignments.c.annotator_id == holder)
    connection.execute(update(assignments).where(this).values(leased_until=now))
    return item_id


def num_left(connection: Connection, annotator_id: str, project: str, now: datetime) -> int:
    """Items available to this annotator, the one on screen included."""
    statement = select(func.count()).where(
        items.c.project == project, *_available(annotator_id, now)
    )
    return connection.execute(statement).scalar_one()


def num_open(connection: Connection, annotator_id: str, project: str) -> int:
    """Items that this annotator could judge if nobody else held any."""
    wanted = [_unjudged(annotator_id), _num_given() < items.c.overlap]
    statement = select(func.count()).where(items.c.project == project, *wanted)
    return connection.execute(statement).scalar_one()


def issued(connection: Connection, item_id: str, annotator_id: str) -> Shown:
    """Candidates and tokens in display order; empty if the annotator was never shown the item."""
    statement = (
        select(views.c.token, views.c.candidate)
        .where(views.c.item_id == item_id, views.c.annotator_id == annotator_id)
        .order_by(views.c.position)
    )
    rows = connection.execute(statement).all()
    return tuple(row.candidate for row in rows), tuple(row.token for row in rows)


def renew(
    connection: Connection,
    item_id: str,
    annotator_id: str,
    *,
    now: datetime,
    until: datetime,
    requeued_at: datetime | None = None,
) -> None:
    """Renew a lease; with `requeued_at` the item goes to the front of the annotator's queue.

    A live lease never becomes shorter, because an item on screen in one window may be prefetched
    by another.
    """
    this = (assignments.c.item_id == item_id) & (assignments.c.annotator_id == annotator_id)
    held = connection.execute(select(assignments.c.leased_until).where(this, live(now))).scalar()
    values = {"issued_at": now, "leased_until": max(until, held or until)}
    if requeued_at is not None:
        values["requeued_at"] = requeued_at
    connection.execute(update(assignments).where(this).values(**values))


def release_oldest(connection: Connection, annotator_id: str, now: datetime) -> None:
    """End the oldest leases beyond MAX_HELD; the annotator may still submit their items."""
    held = (
        select(assignments.c.item_id)
        .where(
            assignments.c.annotator_id == annotator_id,
            live(now),
            _unanswered(),
        )
        .order_by(assignments.c.issued_at.desc())
    )
    surplus = list(connection.execute(held).scalars())[MAX_HELD:]
    connection.execute(
        update(assignments)
        .where(assignments.c.annotator_id == annotator_id, assignments.c.item_id.in_(surplus))
        .values(leased_until=now)
    )


def issue(
    connection: Connection,
    item_id: str,
    annotator_id: str,
    *,
    now: datetime,
    until: datetime,
    seed: int | None,
) -> Shown:
    """Start or renew a lease. The order is random, or a function of `seed`, item and annotator."""
    shown = issued(connection, item_id, annotator_id)
    if shown[0]:
        renew(connection, item_id, annotator_id, now=now, until=until)
        return shown
    count = select(func.count()).where(candidates.c.item_id == item_id)
    order = list(range(connection.execute(count).scalar_one()))
    _shuffler(seed, item_id, annotator_id).shuffle(order)
    tokens = [secrets.token_urlsafe(24) for _ in order]
    owner = {"item_id": item_id, "annotator_id": annotator_id}
    connection.execute(insert(assignments).values(**owner, issued_at=now, leased_until=until))
    connection.execute(
        insert(views),
        [
            {**owner, "token": token, "position": position, "candidate": candidate}
            for position, (token, candidate) in enumerate(zip(tokens, order, strict=True))
        ],
    )
    return tuple(order), tuple(tokens)


def _shuffler(seed: int | None, item_id: str, annotator_id: str) -> random.Random:
    if seed is None:
        return random.SystemRandom()
    digest = hashlib.sha256(json.dumps([seed, item_id, annotator_id]).encode()).digest()
    return random.Random(digest)
