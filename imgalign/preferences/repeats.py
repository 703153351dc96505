"""Sets that are asked again, to see who judges the same thing alike twice.

A repeat is an item of its own with the candidates of another one, so that one annotator may judge
both; they come in another order on the screen, and nothing tells them apart from others. Its
judgements count as all others do. `quality.py` compares every pair that somebody judged twice.
"""

import random
from collections.abc import Sequence

from sqlalchemy import func, select

from imgalign.errors import InputError
from imgalign.preferences import queries, validation
from imgalign.preferences.records import AGAIN
from imgalign.preferences.schema import items, tallies
from imgalign.preferences.store import Store
from imgalign.preferences.stored import item_samples

LATEST = 5_000
"""Judged items to choose from: the latest of a project."""
MOST_REPEATS = 100


def ask_again(
    store: Store, project: str, *, count: int, overlap: int | None = None, seed: int | None = None
) -> Sequence[str]:
    """Queue repeats of so many judged items, chosen at random; returns their ids.

    `overlap` is how many annotators shall judge each; None for as many as have judged in the
    project. InputError where fewer items are judged that were not asked again before.
    """
    if not 1 <= count <= MOST_REPEATS:
        raise InputError(f"sets to ask again: expected 1 to {MOST_REPEATS}, got {count}")
    judged = _judged(store, project)
    if len(judged) < count:
        raise InputError(
            f"sets to ask again: expected at most {len(judged)}, got {count}; so many sets of "
            f"project {project!r} are judged, and were not asked again before"
        )
    overlap = _num_annotators(store, project) if overlap is None else overlap
    if not 1 <= overlap <= validation.MAX_OVERLAP:
        raise InputError(f"annotators: expected 1 to {validation.MAX_OVERLAP}, got {overlap}")
    chosen = random.Random(seed).sample(judged, count)
    return [
        store.add_item(
            each.prompt,
            each.sample_ids,
            source=f"{AGAIN}{each.item_id}",
            project=project,
            overlap=overlap,
        )
        for each in item_samples(store, chosen)
    ]


def _judged(store: Store, project: str) -> list[str]:
    """Items with a judgement that are no repeats and have none; attention items left out."""
    latest = (
        select(items.c.item_id, items.c.source, items.c.given)
        .where(items.c.project == project, ~queries.is_attention())
        .order_by(items.c.sequence.desc())
        .limit(LATEST)
    )
    with store.database.read() as connection:
        rows = connection.execute(latest).all()
    asked_again = {row.source for row in rows}
    return [
        row.item_id
        for row in rows
        if row.given and not row.source.startswith(AGAIN) and AGAIN + row.item_id not in asked_again
    ]


def _num_annotators(store: Store, project: str) -> int:
    judging = select(func.count()).where(tallies.c.project == project, tallies.c.done > 0)
    with store.database.read() as connection:
        return connection.execute(judging).scalar_one()
