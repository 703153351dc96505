"""Adding images and items: the rows that are missing, and what is counted of them."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Column, Connection, insert, select

from imgalign.errors import InputError
from imgalign.preferences import outcomes, tallies
from imgalign.preferences.originals import StoredImage
from imgalign.preferences.queries import item_id, provenance_row
from imgalign.preferences.records import Provenance, Samples
from imgalign.preferences.schema import candidates, images, items, provenances, texts


def add_image(
    connection: Connection, stored: StoredImage, provenance: Provenance, *, now: datetime
) -> None:
    """Insert the missing rows of an image that is on disk."""
    row = provenance_row(provenance)
    known = select(images.c.image_id).where(images.c.image_id == stored.image_id)
    if connection.execute(known).first() is None:
        connection.execute(insert(images).values(**asdict(stored), added_at=now))
    known = select(provenances.c.sequence).where(
        provenances.c.image_id == stored.image_id, provenances.c.digest == row["digest"]
    )
    if connection.execute(known).first() is None:
        connection.execute(insert(provenances).values(image_id=stored.image_id, **row))
        outcomes.image_made(connection, stored.image_id)


def add_item(
    connection: Connection,
    prompt: str,
    sample_ids: Sequence[str],
    *,
    source: str,
    project: str,
    overlap: int,
    now: datetime,
) -> str:
    """Insert an item, or raise its overlap if it exists; InputError for an unknown sample."""
    added = item_id(project, prompt, source, sample_ids)
    before = connection.execute(select(items.c.overlap).where(items.c.item_id == added)).scalar()
    if before is not None:
        if before < overlap:
            tallies.overlap_raised(connection, added, overlap)
        return added
    samples = _kind(connection, sample_ids)
    connection.execute(
        insert(items).values(
            item_id=added,
            project=project,
            prompt=prompt,
            source=source,
            samples=samples,
            overlap=overlap,
            created_at=now,
        )
    )
    column = candidates.c.image_id if samples == "images" else candidates.c.text_id
    connection.execute(
        insert(candidates),
        [
            {"item_id": added, "candidate": index, column.name: sample_id}
            for index, sample_id in enumerate(sample_ids)
        ],
    )
    tallies.item_added(connection, added)
    return added


def _kind(connection: Connection, sample_ids: Sequence[str]) -> Samples:
    """What the samples are; InputError where one is not in the store, or they are of two kinds."""
    kinds: list[tuple[Samples, Column[str]]] = [
        ("images", images.c.image_id),
        ("texts", texts.c.text_id),
    ]
    missing, found = set(sample_ids), []
    for kind, column in kinds:
        known = set(connection.execute(select(column).where(column.in_(sample_ids))).scalars())
        missing -= known
        found += [kind] if known else []
    if missing:
        raise InputError(f"sample {min(missing)[:12]}: add the image or text before the item")
    if len(found) > 1:
        raise InputError("item: expected either images or texts, got both; queue them apart")
    return found[0]
