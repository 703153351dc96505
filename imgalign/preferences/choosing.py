"""Which item an annotator is shown next.

First what they took back, then a qualification, then what is on their screen, and then one of the
queue, as the project's order says (`queue_order.py`): the oldest, or the one that tells a reward
most. In the second order a share of the choices, EXPLORED, is drawn evenly among all that are
available: so every item has a chance, those of held-out prompts too, which have no priority, and
the probability of each choice (its propensity) is known and kept with the lease.

AI judges get the oldest always.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from sqlalchemy import BindParameter, Connection, Select, bindparam, func, select

from imgalign.preferences import leases, queries
from imgalign.preferences.leases import (
    HOLDING,
    PROJECT,
    Asked,
    Chosen,
    expected,
    live,
    of_project,
)
from imgalign.preferences.qualification import entry
from imgalign.preferences.queries import is_open, is_withdrawn, unjudged
from imgalign.preferences.queue_order import order_in
from imgalign.preferences.schema import assignments, items
from imgalign.preferences.shown import ITEM, WHO

EXPLORED = 0.2
"""Share of the choices that are drawn evenly where the most informative is ranked first; what is
measured on actively chosen items alone would be of these items only."""
PLACES_AT_ONCE, TRIES = 64, 4
HIGHEST = 1e300
"""Above any priority."""

START: BindParameter[int] = bindparam("start")
MOST: BindParameter[float] = bindparam("most")
PLACES: BindParameter[int] = bindparam("places", expanding=True)


@cache
def _on_screen(*, by_ai: bool) -> Select[Any]:
    """Items that an annotator holds and may judge: taken back ones first, others as they came.

    What they took back is theirs to judge again, even where others have filled its overlap since:
    a skip, for one, had freed the place.
    """
    requeued = assignments.c.requeued_at
    held = (
        select(items.c.item_id, items.c.sequence, requeued)
        .join(assignments, assignments.c.item_id == items.c.item_id)
        .where(
            assignments.c.annotator_id == WHO,
            live(),
            of_project(),
            items.c.item_id.not_in(HOLDING),
            unjudged(WHO),
            ~is_withdrawn(),
        )
    )
    if not by_ai:
        free = items.c.given + expected() < items.c.overlap
        held = held.where(free | requeued.is_not(None))
    came = assignments.c.chosen_at, items.c.sequence
    return held.order_by(requeued.is_(None), requeued.desc(), *came).limit(1)


@cache
def _available(*, by_ai: bool) -> Select[Any]:
    """Items of the queue that an annotator may judge."""
    wanted = select(items.c.item_id, items.c.sequence, items.c.priority).where(
        items.c.project == PROJECT,
        items.c.item_id.not_in(HOLDING),
        unjudged(WHO),
        ~is_withdrawn(),
    )
    if not by_ai:
        wanted = wanted.where(is_open(), items.c.given + expected() < items.c.overlap)
    return wanted


@cache
def _oldest(*, by_ai: bool) -> Select[Any]:
    """The oldest of them from a number on."""
    wanted = _available(by_ai=by_ai).where(items.c.sequence >= START)
    return wanted.order_by(items.c.sequence).limit(1)


@cache
def most_informative() -> Select[Any]:
    """The one with the highest priority up to a number; read in the order of an index."""
    wanted = _available(by_ai=False).where(items.c.priority.is_not(None), items.c.priority <= MOST)
    return wanted.order_by(items.c.priority.desc()).limit(1)


@cache
def _at_places() -> Select[Any]:
    """Those with these sequence numbers."""
    return _available(by_ai=False).where(items.c.sequence.in_(PLACES))


@cache
def _held() -> Select[Any]:
    """Number of the items that the page has and the annotator may judge."""
    return (
        select(func.count())
        .select_from(items)
        .where(
            items.c.item_id.in_(HOLDING),
            of_project(),
            unjudged(WHO),
            is_open(),
            items.c.given + expected() < items.c.overlap,
        )
    )


ONE = select(items.c.item_id, items.c.sequence).where(items.c.item_id == ITEM)
LAST = (
    select(items.c.sequence)
    .where(items.c.project == PROJECT, is_open())
    .order_by(items.c.sequence.desc())
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Start:
    """Where `next_item` begins; these items may have been taken since."""

    sequence: int
    """No available item of the queue is older."""
    num_available: int | None = None
    """Items of the queue among which is drawn; None where the oldest is ranked next."""
    most: float = HIGHEST
    """No available item has a higher priority."""
    drawn: int | None = None
    """The sequence number of the item that was drawn, if this choice is one of those drawn."""
    first: str | None = None
    """The item that comes before those of the queue, if any."""


def first_available(connection: Connection, asked: Asked) -> Start | None:
    """Where `next_item` begins to look; None where nothing is left for the annotator.

    Passes over items that others hold, which may be many, and is therefore done before the write
    transaction.
    """
    own = leases.tally(connection, asked.who.annotator_id, asked.project)
    before, may_go_on = _before_the_queue(connection, asked)
    if before is not None:
        # The place is needed only if that is judged meanwhile.
        return Start(int(own.first), first=str(before.item_id))
    if not may_go_on:
        return None
    oldest = _first(connection, _oldest(by_ai=asked.by_ai), asked, start=own.first)
    if oldest is None:
        return None
    sequence = int(oldest.sequence)
    if asked.by_ai or order_in(connection, asked.project) == "oldest":
        return Start(sequence)
    held = connection.execute(_held(), asked.values()).scalar_one()
    best = _first(connection, most_informative(), asked, most=HIGHEST)
    what = f"{asked.project} {own.done} {len(asked.holding)}"
    random = leases.shuffler(asked.seed, what, asked.who.annotator_id)
    explores = random.random() < EXPLORED
    return Start(
        sequence,
        # One was found, whatever another program has made of the counts.
        num_available=max(1, leases.num_available(connection, asked) - held),
        most=HIGHEST if best is None else float(best.priority),
        drawn=_drawn(connection, asked, random, first=sequence) if explores else None,
    )


def next_item(connection: Connection, asked: Asked, *, start: Start | None) -> Chosen | None:
    """The item to show. `start` is from `first_available`; where that found none, one whose lease a
    client has beyond its share.
    """
    if start is None:
        taken = leases.take_over(connection, asked)
        return None if taken is None else Chosen(taken)
    before, may_go_on = _before_the_queue(connection, asked)
    if before is not None:
        return Chosen(str(before.item_id), queued=False)
    if not may_go_on:
        return None
    oldest = _first(connection, _oldest(by_ai=asked.by_ai), asked, start=start.sequence)
    if oldest is None:
        return None
    if start.num_available is None:
        return Chosen(str(oldest.item_id))
    best = _first(connection, most_informative(), asked, most=start.most) or oldest
    evenly = EXPLORED / start.num_available
    if start.drawn is not None and start.drawn != best.sequence:
        drawn = _first(connection, _at_places(), asked, places=[start.drawn])
        if drawn is not None:
            return Chosen(str(drawn.item_id), propensity=evenly)
    return Chosen(str(best.item_id), propensity=1 - EXPLORED + evenly)


def _before_the_queue(connection: Connection, asked: Asked) -> tuple[queries.AnyRow | None, bool]:
    """The item that comes before those of the queue, if any; and whether these come at all."""
    on_screen = _first(connection, _on_screen(by_ai=asked.by_ai), asked)
    at_entry = entry(connection, asked.who, asked.project)
    if on_screen is not None and (at_entry.open or on_screen.requeued_at is not None):
        return on_screen, at_entry.open
    left = next((each for each in at_entry.left if each not in asked.holding), None)
    if left is None:
        return None, at_entry.open
    return connection.execute(ONE, {"item": left}).first(), at_entry.open


def _drawn(connection: Connection, asked: Asked, random: Random, *, first: int) -> int | None:
    """The sequence number of one of the available items, each as probable as any other.

    Numbers are drawn until one is that of an available item: how many items there are does not
    matter, unless only few of them are available.
    """
    last = connection.execute(LAST, asked.values()).scalar() or first
    for _ in range(TRIES):
        places = [random.randint(first, max(first, last)) for _ in range(PLACES_AT_ONCE)]
        rows = connection.execute(_at_places(), asked.values(places=places)).all()
        found = {row.sequence for row in rows}
        if found:
            return next(each for each in places if each in found)
    every = connection.execute(_available(by_ai=False), asked.values()).all()
    return random.choice(sorted(row.sequence for row in every)) if every else None


def _first(
    connection: Connection, statement: Select[Any], asked: Asked, **more: object
) -> queries.AnyRow | None:
    return connection.execute(statement, asked.values(**more)).first()
