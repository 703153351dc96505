"""What a store has already: images by how they were made, and the samples of items."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from imgalign.preferences.queries import is_attention, provenance_row, sample_id
from imgalign.preferences.records import Provenance, Samples
from imgalign.preferences.schema import candidates, items, provenances
from imgalign.preferences.store import Store

AT_ONCE = 400
"""Values of one query: databases take some hundreds."""


def stored_images(store: Store, wanted: Sequence[Provenance]) -> list[str | None]:
    """The id of an image that was made so, for each; None where there is none, or its file is gone.

    When and by which version it was made does not matter.
    """
    digests = [provenance_row(each)["digest"] for each in wanted]
    if not digests:
        return []
    seeds = [each.seed for each in wanted]
    made = select(provenances.c.digest, provenances.c.image_id).where(
        provenances.c.seed.between(min(seeds), max(seeds)),
        provenances.c.model.in_({each.model for each in wanted}),
    )
    known = set(digests)
    with store.database.read() as connection:
        found = {
            row.digest: row.image_id
            for row in connection.execute(made)
            if row.digest in known and store.images.has(row.image_id)
        }
    return [found.get(digest) for digest in digests]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemSamples:
    """An item as whoever queued it may see it: in the order in which it was queued."""

    item_id: str
    prompt: str
    samples: Samples
    sample_ids: tuple[str, ...]


def item_samples(store: Store, item_ids: Sequence[str]) -> list[ItemSamples]:
    """The items with these ids, in their order; those that are not there are left out."""
    shown: dict[str, tuple[str, Samples]] = {}
    of_item: dict[str, list[str]] = defaultdict(list)
    with store.database.read() as connection:
        for start in range(0, len(item_ids), AT_ONCE):
            some = item_ids[start : start + AT_ONCE]
            found = select(items.c.item_id, items.c.prompt, items.c.samples)
            for row in connection.execute(found.where(items.c.item_id.in_(some))):
                shown[row.item_id] = (row.prompt, row.samples)
            of_them = select(candidates.c.item_id, sample_id()).where(
                candidates.c.item_id.in_(some)
            )
            for row in connection.execute(of_them.order_by(candidates.c.candidate)):
                of_item[row.item_id].append(row.sample_id)
    return [
        ItemSamples(
            item_id=each,
            prompt=shown[each][0],
            samples=shown[each][1],
            sample_ids=tuple(of_item[each]),
        )
        for each in item_ids
        if each in shown
    ]


def latest_items(store: Store, project: str, *, limit: int) -> list[tuple[str, str]]:
    """(item id, prompt) of the items of a project that were queued last, the newest first.

    Without attention items, whose answer is known already.
    """
    newest = (
        select(items.c.item_id, items.c.prompt)
        .where(items.c.project == project, ~is_attention())
        .order_by(items.c.sequence.desc())
        .limit(limit)
    )
    with store.database.read() as connection:
        return [(row.item_id, row.prompt) for row in connection.execute(newest)]


def queued_samples(store: Store, project: str) -> set[Samples]:
    """The kinds of samples that the items of a project hold."""
    kinds = select(items.c.samples).where(items.c.project == project).distinct()
    with store.database.read() as connection:
        return set(connection.execute(kinds).scalars())
