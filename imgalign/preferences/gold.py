"""Gold items: items of a project whose answer a lead knows, to see who judges with care.

An annotator gets a gold item as any other, and nothing that an annotator can reach tells them
apart: the expected order is read by `quality.py` alone. Judgements of gold items count as all
others do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select

from imgalign.errors import InputError, StoreError
from imgalign.preferences import queries, tallies, validation
from imgalign.preferences.records import ATTENTION, Samples, TieGroups, utc_now
from imgalign.preferences.schema import gold, items
from imgalign.preferences.store import Store

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""How leads name the candidates of an item, in the order in which it was queued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldItem:
    """An item with its expected order, in candidates, best first."""

    item_id: str
    prompt: str
    samples: Samples
    expected: TieGroups
    overlap: int
    """How many annotators shall judge it."""


def mark_gold(
    store: Store, item_id: str, expected: TieGroups, *, overlap: int | None = None
) -> None:
    """Make an item gold, or change its expected order.

    `expected` has every candidate in two tie groups or more; what it ties may be in any order.
    `overlap` raises the number of annotators who shall judge the item, so that more of them are
    seen on it. StoreError for an unknown item, InputError for an attention item and for an order
    that does not fit.
    """
    if overlap is not None and not 1 <= overlap <= validation.MAX_OVERLAP:
        raise InputError(
            f"gold item: expected 1 to {validation.MAX_OVERLAP} annotators, got {overlap}"
        )
    with store.database.write() as connection:
        num_candidates = len(queries.candidates_of(connection, item_id))
        if not num_candidates:
            raise StoreError(f"item {item_id[:12]}: not in {store.database.name}")
        source = select(items.c.source).where(items.c.item_id == item_id)
        if connection.execute(source).scalar_one().startswith(ATTENTION):
            raise InputError(
                f"gold item: expected an ordinary item, got attention item {item_id[:12]}, whose "
                "answer is known already; choose another"
            )
        order = validation.expected_order(expected, num_candidates=num_candidates)
        connection.execute(delete(gold).where(gold.c.item_id == item_id))
        connection.execute(
            insert(gold).values(item_id=item_id, expected=order, created_at=utc_now())
        )
        before = select(items.c.overlap).where(items.c.item_id == item_id)
        if overlap is not None and connection.execute(before).scalar_one() < overlap:
            tallies.overlap_raised(connection, item_id, overlap)


def unmark_gold(store: Store, item_id: str) -> None:
    """Let an item be as any other; its judgements stay. StoreError for one that is no gold item."""
    with store.database.write() as connection:
        removed = connection.execute(delete(gold).where(gold.c.item_id == item_id))
        if removed.rowcount != 1:
            raise StoreError(f"item {item_id[:12]}: no gold item; reload the list of them")


def gold_items(store: Store, project: str) -> list[GoldItem]:
    """The gold items of a project, in the order in which they were queued."""
    columns = (items.c.item_id, items.c.prompt, items.c.samples, items.c.overlap, gold.c.expected)
    statement = (
        select(*columns)
        .join(gold, gold.c.item_id == items.c.item_id)
        .where(items.c.project == project)
        .order_by(items.c.sequence)
    )
    with store.database.read() as connection:
        rows = connection.execute(statement).all()
    return [
        GoldItem(
            item_id=row.item_id,
            prompt=row.prompt,
            samples=row.samples,
            expected=tuple(tuple(group) for group in row.expected),
            overlap=row.overlap,
        )
        for row in rows
    ]


def written_order(groups: TieGroups) -> str:
    """An order in letters, as a lead reads it. Example: ((1,), (0, 2)) is "B > A = C"."""
    return " > ".join(" = ".join(LETTERS[i] for i in group) for group in groups)


def read_order(text: str, *, num_candidates: int) -> TieGroups:
    """The inverse of `written_order`; InputError for what is none of so many candidates.

    Letters that are left out are tied behind the others. Example: "B" is ((1,), (0, 2)) of three.
    """
    letters = LETTERS[:num_candidates]
    groups = [re.split(r"[=\s,]+", group.strip()) for group in text.upper().split(">")]
    named = [letter for group in groups for letter in group]
    if any(letter not in letters or not letter for letter in named):
        raise InputError(
            f"expected order: expected the letters {letters[0]} to {letters[-1]} with > and =, "
            f"such as {letters[1]} > {letters[0]}, got {text!r:.80}"
        )
    if twice := [letter for letter in letters if named.count(letter) > 1]:
        raise InputError(f"expected order: {', '.join(twice)} is there twice; name each one once")
    found = [tuple(sorted(letters.index(letter) for letter in group)) for group in groups]
    rest: Sequence[int] = [i for i, letter in enumerate(letters) if letter not in named]
    return tuple([*found, tuple(rest)] if rest else found)
