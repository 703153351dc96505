"""Assignment of items to annotators: availability, display order and leases.

Which of the available ones is shown next is in choosing.py.

An item is available to an annotator who has no standing judgement of it, while judgements given
plus live leases of others are fewer than its overlap, or while they hold it because they took
their judgement back. A skip is no judgement: it frees the place for somebody else, but does not
come back by itself. One that is withdrawn is available to nobody. The display order is drawn once
per annotator and item and kept, with one opaque token per candidate.

A lease reserves an item for a limited time: long for the item on screen, short for one that a page
has prefetched. An annotator holds few leases at a time, and the oldest are released first. No
client (a network address, under whatever names) can reserve a whole queue: an annotator without
items takes over a lease of a client that holds more than half. Leases with a time in the future
come from a wrong clock and are ignored.

AI judges stand outside of this: an item is available to one until it has judged it, however many
people have, and neither its judgements nor its leases keep an item from people. Nor do those of
annotators who are excluded from the project.

Before all of this comes the qualification of the project, if it has one (`qualification.py`): its
items are available to everybody until they have judged them, whatever their overlap.
"""

import hashlib
import json
import random
import secrets
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    func,
    insert,
    select,
    update,
)

from imgalign.preferences import queries
from imgalign.preferences.qualification import Entry, entry
from imgalign.preferences.queries import excluded, is_open, is_withdrawn, standing, unjudged
from imgalign.preferences.records import Annotator, Counts
from imgalign.preferences.schema import (
    UtcDateTime,
    annotators,
    assignments,
    candidates,
    items,
    projects,
    rankings,
    tallies,
    views,
)
from imgalign.preferences.shown import ITEM, WHO, issued

LEASE = timedelta(minutes=30)
PREFETCH_LEASE = timedelta(minutes=2)
PREFETCH_KEPT = timedelta(seconds=90)
"""What every prefetched item has left of its lease: it is renewed when less is, so that asking for
it with every set writes nothing most of the time."""
MAX_HELD = 6
"""Leases per annotator: the item on screen and two prefetched ones, in two windows."""
SKEW = timedelta(minutes=5)
"""Largest difference between the clocks of two servers."""


# Statements are built once, with these in place of values: building one takes longer than the
# database does.
PROJECT: BindParameter[str] = bindparam("project")
START: BindParameter[int] = bindparam("start")
HOLDING: BindParameter[str] = bindparam("holding", expanding=True)
NOW, SOON = bindparam("now", type_=UtcDateTime()), bindparam("soon", type_=UtcDateTime())


def _at(now: datetime) -> dict[str, object]:
    """Values for `live`."""
    return {"now": now, "soon": now + SKEW}


def live() -> ColumnElement[bool]:
    """Condition on `assignments`: the item is reserved; its values are those of `_at`."""
    return (assignments.c.leased_until > NOW) & (assignments.c.issued_at <= SOON)


def unanswered() -> ColumnElement[bool]:
    """Condition on `assignments`: the annotator has no standing judgement of the item."""
    answered = select(rankings.c.sequence).where(
        rankings.c.item_id == assignments.c.item_id,
        rankings.c.annotator_id == assignments.c.annotator_id,
        standing(),
    )
    return ~answered.correlate(assignments).exists()


def expected() -> ColumnElement[int]:
    """Number of people beside an annotator who hold an item of `items` and whose judgement of it
    would count.
    """
    expected = (
        select(func.count())
        .select_from(assignments.join(annotators))
        .where(
            assignments.c.item_id == items.c.item_id,
            assignments.c.annotator_id != WHO,
            annotators.c.judge_id.is_(None),
            ~excluded(assignments.c.annotator_id, items.c.project),
            live(),
            unanswered(),
        )
    )
    return expected.correlate(items).scalar_subquery()


def of_project() -> ColumnElement[bool]:
    """Condition on `items` that no index serves: few items are looked up, by their ids."""
    return items.c.project.concat("") == PROJECT


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for an item of a project, which items they have, and when."""

    who: Annotator
    project: str
    holding: Collection[str]
    now: datetime
    seed: int | None = None
    """Of what is drawn at random; None draws otherwise each time."""

    @property
    def by_ai(self) -> bool:
        """Whether an AI judge asks."""
        return self.who.judge_id is not None

    def values(self, **more: object) -> dict[str, object]:
        """Values for the statements above."""
        names = {"who": self.who.annotator_id, "project": self.project}
        return {**names, "holding": sorted(self.holding), **_at(self.now), **more}


def surplus(connection: Connection, asked: Asked) -> tuple[str, str] | None:
    """(item_id, holder) of a lease that another client has beyond its share, if any.

    A client may have half of the leases on items that this annotator could judge, and always one.
    The lease that ends first is chosen, so that prefetched items are released first. None for who
    may not judge them before a qualification, or after it.
    """
    if not entry(connection, asked.who, asked.project).open:
        return None
    statement = (
        select(items.c.item_id, annotators.c.annotator_id, annotators.c.client)
        .join(assignments, assignments.c.item_id == items.c.item_id)
        .join(annotators, annotators.c.annotator_id == assignments.c.annotator_id)
        .where(
            of_project(),
            items.c.item_id.not_in(HOLDING),
            assignments.c.annotator_id != WHO,
            annotators.c.judge_id.is_(None),
            live(),
            unanswered(),
            unjudged(WHO),
            is_open(),
        )
        .order_by(assignments.c.leased_until, assignments.c.issued_at)
    )
    leases = connection.execute(statement, asked.values()).all()
    of_asker = select(annotators.c.client).where(
        annotators.c.annotator_id == asked.who.annotator_id
    )
    own = connection.execute(of_asker).scalar()
    held = Counter(lease.client for lease in leases)
    for item_id, holder, client in leases:
        if client not in (None, own) and held[client] > max(1, len(leases) / 2):
            return item_id, holder
    return None


def take_over(connection: Connection, asked: Asked) -> str | None:
    """End a lease that a client has beyond its share; the id of the item, if any."""
    found = surplus(connection, asked)
    if found is None:
        return None
    item_id, holder = found
    this = (assignments.c.item_id == item_id) & (assignments.c.annotator_id == holder)
    connection.execute(update(assignments).where(this).values(leased_until=asked.now))
    return item_id


def counts(connection: Connection, annotator_id: str, project: str, now: datetime) -> Counts:
    """Items judged by this annotator, left for them, and held by others; from the tallies."""
    values: dict[str, object] = {"who": annotator_id, "project": project}
    whole = connection.execute(OF_PROJECT, values).first()
    asker = queries.annotator(connection, annotator_id)
    if whole is None:
        return Counts(done=0, left=0, waiting=0)
    own = tally(connection, annotator_id, project)
    unjudged_open = whole.open - own.open
    at_entry = Entry() if asker is None else entry(connection, asker, project)
    if at_entry.held:
        return Counts(done=own.done, left=0, waiting=0, held=True)
    if asker is not None and asker.judge_id is not None:
        left = whole.items - own.done - connection.execute(WITHDRAWN, values).scalar_one()
    else:
        values |= _at(now)
        left = unjudged_open - connection.execute(_covered(), values).scalar_one()
        left += connection.execute(_given_back(), values).scalar_one()
    closed = connection.execute(CLOSED, {"ids": at_entry.left}).scalar_one()
    return Counts(
        done=own.done,
        left=left + closed,
        waiting=max(0, unjudged_open - left),
        qualifying=len(at_entry.left),
    )


CLOSED = (
    select(func.count())
    .select_from(items)
    .where(items.c.item_id.in_(bindparam("ids", expanding=True)), ~is_open())
)
"""Items among some that others need not judge more often."""
WITHDRAWN = (
    select(func.count()).select_from(items).where(of_project(), is_withdrawn(), unjudged(WHO))
)
OF_PROJECT = select(projects).where(projects.c.project == PROJECT)


def num_available(connection: Connection, asked: Asked) -> int:
    """Number of open items that a person has not judged and that leases of others do not cover."""
    whole = connection.execute(OF_PROJECT, asked.values()).first()
    own = tally(connection, asked.who.annotator_id, asked.project)
    covered: int = connection.execute(_covered(), asked.values()).scalar_one()
    return 0 if whole is None else int(whole.open - own.open) - covered


@cache
def _covered() -> Select[Any]:
    """Number of open items that the leases of others cover."""
    # Not the column itself, whose order SQLite would read all leases for.
    item_id = assignments.c.item_id.concat("")
    held = (
        select(item_id.label("item_id"), func.count().label("times"))
        .select_from(assignments.join(annotators))
        .where(
            assignments.c.annotator_id != WHO,
            annotators.c.judge_id.is_(None),
            ~excluded(assignments.c.annotator_id, PROJECT),
            live(),
            unanswered(),
        )
        .group_by(item_id)
        .subquery("held")
    )
    covered = select(items.c.item_id).where(
        items.c.item_id == held.c.item_id,
        items.c.project == PROJECT,
        is_open(),
        items.c.given + held.c.times >= items.c.overlap,
        unjudged(WHO),
    )
    return select(func.count()).select_from(held).where(covered.correlate(held).exists())


@cache
def _given_back() -> Select[Any]:
    """Number of items that an annotator has back although they are not open for others."""
    return (
        select(func.count())
        .select_from(assignments.join(items, items.c.item_id == assignments.c.item_id))
        .where(
            assignments.c.annotator_id == WHO,
            assignments.c.requeued_at.is_not(None),
            live(),
            of_project(),
            unjudged(WHO),
            ~is_withdrawn(),
            items.c.given + expected() >= items.c.overlap,
        )
    )


COUNTED = ("done", "open", "first")
TALLY = select(
    *(func.coalesce(func.max(tallies.c[name]), 0).label(name) for name in COUNTED)
).where(tallies.c.annotator_id == WHO, tallies.c.project == PROJECT)


def tally(connection: Connection, annotator_id: str, project: str) -> queries.AnyRow:
    """The annotator's row of `tallies`, or zeros."""
    return connection.execute(TALLY, {"who": annotator_id, "project": project}).one()


CHANGED = update(assignments).where(
    assignments.c.item_id == ITEM, assignments.c.annotator_id == WHO
)
"""A lease, in the columns that go with it."""
NUM_CANDIDATES = select(func.count()).where(candidates.c.item_id == ITEM)


@cache
def _held_until() -> Select[Any]:
    this = (assignments.c.item_id == ITEM) & (assignments.c.annotator_id == WHO)
    return select(assignments.c.leased_until).where(this, live())


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
    this = {"item": item_id, "who": annotator_id}
    held = connection.execute(_held_until(), {**this, **_at(now)}).scalar()
    values = {"issued_at": now, "leased_until": max(until, held or until)}
    if requeued_at is not None:
        values["requeued_at"] = requeued_at
    connection.execute(CHANGED, {**this, **values})


def keeps(connection: Connection, item_id: str | None, annotator_id: str, now: datetime) -> bool:
    """Whether an annotator holds an item, if any, as long as a prefetched one has to be held."""
    this = {"item": item_id, "who": annotator_id, **_at(now)}
    until = connection.execute(_held_until(), this).scalar()
    return until is not None and until >= now + PREFETCH_KEPT


def release_oldest(connection: Connection, annotator_id: str, now: datetime) -> None:
    """End the oldest leases beyond MAX_HELD; the annotator may still submit their items."""
    values = {"who": annotator_id, **_at(now)}
    surplus = list(connection.execute(_held_by_age(), values).scalars())[MAX_HELD:]
    if surplus:
        own = assignments.c.annotator_id == annotator_id
        ended = update(assignments).where(own, assignments.c.item_id.in_(surplus))
        connection.execute(ended.values(leased_until=now))


@cache
def _held_by_age() -> Select[Any]:
    """Items that an annotator holds and has not judged, the latest first."""
    held = select(assignments.c.item_id).where(assignments.c.annotator_id == WHO, live())
    return held.where(unanswered()).order_by(assignments.c.issued_at.desc())


@dataclass(frozen=True, slots=True)
class Chosen:
    """The item to show; `queued` is false of one that the annotator had already."""

    item_id: str
    queued: bool = True
    propensity: float | None = None
    """Probability of the choice; None where nothing is drawn."""


def issue(
    connection: Connection,
    chosen: Chosen,
    annotator_id: str,
    *,
    now: datetime,
    until: datetime,
    seed: int | None,
) -> None:
    """Start or renew a lease. The order is random, or a function of `seed`, item and annotator."""
    item_id = chosen.item_id
    if any(issued(connection, item_id, annotator_id)):
        renew(connection, item_id, annotator_id, now=now, until=until)
        if chosen.queued:
            this = {"item": item_id, "who": annotator_id}
            anew = {"propensity": chosen.propensity, "chosen_at": now}
            connection.execute(CHANGED, {**this, **anew})
        return
    order = list(range(connection.execute(NUM_CANDIDATES, {"item": item_id}).scalar_one()))
    shuffler(seed, item_id, annotator_id).shuffle(order)
    tokens = [secrets.token_urlsafe(24) for _ in order]
    owner = {"item_id": item_id, "annotator_id": annotator_id}
    lease = {"issued_at": now, "leased_until": until, "chosen_at": now}
    connection.execute(insert(assignments).values(**owner, **lease, propensity=chosen.propensity))
    connection.execute(
        insert(views),
        [
            {**owner, "token": token, "position": position, "candidate": candidate}
            for position, (token, candidate) in enumerate(zip(tokens, order, strict=True))
        ],
    )


def shuffler(seed: int | None, item_id: str, annotator_id: str) -> random.Random:
    """Randomness that nobody can predict, or with a `seed` a function of all three."""
    if seed is None:
        return random.SystemRandom()
    digest = hashlib.sha256(json.dumps([seed, item_id, annotator_id]).encode()).digest()
    return random.Random(digest)
