"""Which item of a project is ranked next: the oldest, or the one that tells a reward most.

A lead chooses it. What an item tells is its priority: computed when a reward is fitted, from
everything that was ranked until then, and stored with the item, so that choosing the next one takes
no longer. Who is asked which item is in choosing.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from random import SystemRandom
from typing import Literal, TypeAlias, get_args

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, insert, select, update

from imgalign.errors import InputError, StoreError
from imgalign.preferences import validation
from imgalign.preferences.accounts_schema import queue_orders
from imgalign.preferences.database import Database
from imgalign.preferences.queries import is_attention, is_open, sample_id
from imgalign.preferences.records import AGAIN, Samples, holds_comparisons, utc_now
from imgalign.preferences.schema import candidates, gold, items, projects

QueueOrder: TypeAlias = Literal["oldest", "informative"]
ORDERS: tuple[QueueOrder, ...] = get_args(QueueOrder)
MOST_ITEMS = 2_000
"""Open items of a project that get a priority: the oldest. A fit encodes the images of all of them,
some minutes on a CPU, and people rank fewer until the next fit."""

PROJECT: BindParameter[str] = bindparam("project")
CHOSEN = select(queue_orders.c.queue_order).where(queue_orders.c.project == PROJECT)


def order_in(connection: Connection, project: str) -> QueueOrder:
    """What `queue_order_of` says, within a transaction."""
    found = connection.execute(CHOSEN, {"project": project}).scalar()
    return found if found in ORDERS else "oldest"


def queue_order_of(database: Database, project: str) -> QueueOrder:
    """Which item of a project is ranked next; the oldest until a lead chooses otherwise."""
    with database.read() as connection:
        return order_in(connection, project)


def set_queue_order(database: Database, project: str, order: str) -> None:
    """Choose which item of a project is ranked next; StoreError for one without items.

    Blind comparisons test rewards among others, so that no reward chooses among them.
    """
    validation.name("project", project)
    if order not in ORDERS:
        raise InputError(f"ranked next: expected {' or '.join(ORDERS)}, got {order!r:.80}")
    if order == "informative" and holds_comparisons(project):
        raise InputError(
            f"project {project!r}: blind comparisons test what was learned, and what tells a "
            "reward most is no fair sample of them; let the oldest come first"
        )
    with database.write() as connection:
        known = select(projects.c.project).where(projects.c.project == project)
        if connection.execute(known).first() is None:
            raise StoreError(f"project {project!r}: nothing is queued there; check its name")
        connection.execute(delete(queue_orders).where(queue_orders.c.project == project))
        row = {"project": project, "queue_order": order, "changed_at": utc_now()}
        connection.execute(insert(queue_orders).values(**row))


def informative_projects(database: Database) -> list[str]:
    """The projects in which the item is ranked next that tells most, by name."""
    found = select(queue_orders.c.project).where(queue_orders.c.queue_order == "informative")
    with database.read() as connection:
        return list(connection.execute(found.order_by(queue_orders.c.project)).scalars())


@dataclass(frozen=True, slots=True)
class OpenItem:
    """An item that people shall judge more often."""

    item_id: str
    prompt: str
    sample_ids: tuple[str, ...]


def open_items_of(database: Database, project: str, samples: Samples) -> list[OpenItem]:
    """The open items of a project with candidates of a kind, the oldest first, attention items left
    out; at most MOST_ITEMS.
    """
    oldest = (
        select(items.c.item_id, items.c.sequence, items.c.prompt)
        .where(items.c.project == project, items.c.samples == samples, is_open(), ~is_attention())
        .order_by(items.c.sequence)
        .limit(MOST_ITEMS)
        .subquery()
    )
    found = (
        select(oldest.c.item_id, oldest.c.prompt, sample_id())
        .join(candidates, candidates.c.item_id == oldest.c.item_id)
        .order_by(oldest.c.sequence, candidates.c.candidate)
    )
    with database.read() as connection:
        rows = [tuple(row) for row in connection.execute(found)]
    return [
        OpenItem(item_id, prompt, tuple(sample for _, _, sample in own))
        for (item_id, prompt), own in groupby(rows, key=lambda row: row[:2])
    ]


@dataclass(frozen=True, slots=True)
class Valued:
    """How many of the open items of a project have a priority. Example: 312 of 400."""

    valued: int
    open_items: int


def valued_items(database: Database, project: str) -> Valued:
    """Count the open items of a project, attention items left out."""
    found = select(func.count(items.c.priority), func.count()).where(
        items.c.project == project, is_open(), ~is_attention()
    )
    with database.read() as connection:
        valued, of_all = connection.execute(found).one()
    return Valued(valued, of_all)


def set_priorities(database: Database, project: str, nats: Mapping[str, float]) -> None:
    """Replace the priorities of the items of a project; those not named have none.

    Attention items, gold items and repeats, which are there to look at the annotators, get those of
    others at random: they come among them.
    """
    of_project = items.c.project == project
    earlier = select(items.c.item_id).where(of_project, items.c.priority.is_not(None))
    is_gold = items.c.item_id.in_(select(gold.c.item_id))
    is_repeat = func.substr(items.c.source, 1, len(AGAIN)) == AGAIN
    of_annotators = is_attention() | is_gold | is_repeat
    checks = select(items.c.item_id).where(of_project, is_open(), of_annotators)
    with database.read() as connection:  # items that are no longer open are in no index of these
        known = connection.execute(earlier).scalars().all()
        checked = connection.execute(checks).scalars().all() if nats else ()
    chance, values = SystemRandom(), list(nats.values())
    new = {**nats, **{each: chance.choice(values) for each in checked}}
    rows = [{"item": each, "nats": new.get(each)} for each in {*known, *new}]
    one = update(items).where(of_project, items.c.item_id == bindparam("item"))
    if rows:
        with database.write() as connection:
            connection.execute(one.values(priority=bindparam("nats")), rows)
