"""What people and AI judges made of images by different makers, in a form that is read at once.

A million rankings are 16 MB here, which ratings read in milliseconds. `outcomes` has a record of
four numbers for each standing ranking of images: prompt, project, annotator and order; those of
attention items have none. Records lie in pages of `PAGE`, at the place that the ranking's own
number says; zeros say that no such ranking stands there. `numbers` has what the numbers mean. An
order is tie groups of makers, best first; images that several makers generated identically are left
out of it, and so it is written anew when an image gets another maker.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from sqlalchemy import BindParameter, Connection, bindparam, insert, select, update

from imgalign.preferences.queries import AnyRow, is_attention, standing
from imgalign.preferences.schema import (
    annotators,
    candidates,
    exclusions,
    items,
    numbers,
    outcomes,
    provenances,
    rankings,
)

# Statements are built once, with these in place of values: building one takes longer than the
# database does.
KNOWN = select(numbers.c.number).where(
    numbers.c.kind == bindparam("kind"), numbers.c.key == bindparam("key")
)
PAGE_NUMBER: BindParameter[int] = bindparam("of_page")
ON_PAGE = select(outcomes.c.records).where(outcomes.c.page == PAGE_NUMBER)
WRITE_PAGE = update(outcomes).where(outcomes.c.page == PAGE_NUMBER)
IMAGES_OF = (
    select(candidates.c.image_id)
    .where(candidates.c.item_id == bindparam("item"))
    .order_by(candidates.c.candidate)
)

CHUNK = 5_000
"""Prompts that are looked up at once."""
PAGE = 256
"""Records of a page: 4 KiB, which is written with each judgement."""
FIELDS = ("prompt", "project", "annotator", "order")
RECORD = 4 * len(FIELDS)
"""Bytes of a record."""

MADE = tuple(
    provenances.c[name] for name in ("model", "adapter", "adapter_hash", "rewriter", "strength")
)
"""What `maker_of` and `maker_number` read."""
MADE_BY = (
    select(provenances.c.image_id, *MADE)
    .where(provenances.c.image_id.in_(bindparam("images", expanding=True)))
    .order_by(provenances.c.sequence)
)


class Maker(NamedTuple):
    """A model, and an adapter at a strength where it has one."""

    model: str
    weights: str | None
    """The hash of the adapter, or its path if it has none."""
    strength: float = 1.0


Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """All standing rankings of images, in the order they were given."""

    prompt: Int[np.ndarray, " n"]
    project: Int[np.ndarray, " n"]
    annotator: Int[np.ndarray, " n"]
    order: Int[np.ndarray, " n"]
    sequences: Int[np.ndarray, " n"]
    """The `rankings.sequence` of each."""
    excluded: Bool[np.ndarray, " n"]
    """Which of them do not count, because their annotator is excluded from the project."""
    makers: Mapping[int, Maker]
    """Makers in the order in which they first came."""
    path_of: Mapping[Maker, str | None]
    """The path of the adapter as it was first told."""
    orders: Mapping[int, Groups]
    """Tie groups of makers by number, best first."""
    projects: Mapping[str, int]
    annotators: Mapping[int, AnyRow]
    """Rows of `annotators` by number."""
    num_sharing: int
    """Images that several makers generated identically, ranked or not."""


def number(connection: Connection, kind: str, key: str, value: str = "") -> int:
    """The number that stands for `key`, which is made if it is not there; `value` is kept then."""
    name = {"kind": kind, "key": digest(key)}
    found = connection.execute(KNOWN, name).scalar()
    if found is None:
        made = connection.execute(insert(numbers).values(**name, value=value))
        assert made.inserted_primary_key is not None
        found = made.inserted_primary_key[0]
    return int(found)


def digest(key: str) -> str:
    """What stands for a key in `numbers`."""
    return hashlib.sha256(key.encode()).hexdigest()


def maker_of(row: AnyRow) -> Maker:
    """The maker that a row of `provenances` names; rewritten prompts make it another one."""
    model = row.model if row.rewriter is None else f"{row.rewriter} > {row.model}"
    return Maker(model, row.adapter_hash or row.adapter, row.strength)


def maker_key(row: AnyRow) -> str:
    """What `number` knows the maker of a row of `provenances` by; a strength of 1 is not in it."""
    model, weights, strength = maker_of(row)
    return json.dumps([model, weights] if strength == 1 else [model, weights, strength])


def maker_number(connection: Connection, row: AnyRow) -> int:
    """The number of the maker of a row of `provenances`."""
    model, weights, strength = maker_of(row)
    value = json.dumps([model, weights, row.adapter, strength])
    return number(connection, "maker", maker_key(row), value)


def image_made(connection: Connection, image_id: str) -> None:
    """Note the maker of an image that got a provenance; another one changes its orders."""
    made = _makers(connection, [image_id])[image_id]
    if len(made) < 2:
        return
    number(connection, "shared", image_id, image_id)
    of_image = (
        select(rankings.c.ranking_id)
        .join(candidates, candidates.c.item_id == rankings.c.item_id)
        .join(items, items.c.item_id == rankings.c.item_id)
        .where(candidates.c.image_id == image_id, standing(), ~is_attention())
    )
    for ranking_id in list(connection.execute(of_image).scalars()):
        statement = (
            select(rankings, items.c.prompt, items.c.project, items.c.samples)
            .join(items, items.c.item_id == rankings.c.item_id)
            .where(rankings.c.ranking_id == ranking_id)
        )
        put(connection, connection.execute(statement).one(), stands=True)


def put(connection: Connection, row: AnyRow, *, stands: bool) -> None:
    """Write or remove the record of a ranking; texts, and what is no ranking, have none.

    `row` has its columns, and project, prompt and samples of its item.
    """
    if row.samples != "images" or row.verdict != "ranked":
        return
    record = np.zeros(len(FIELDS), dtype="<i4")
    if stands:
        groups = _order(connection, row.item_id, row.tie_groups)
        text = json.dumps(groups)
        record[:] = (
            number(connection, "prompt", row.prompt),
            number(connection, "project", row.project, row.project),
            number(connection, "annotator", row.annotator_id, row.annotator_id),
            number(connection, "order", text, text),
        )
    page, place = divmod(row.sequence, PAGE)
    before = connection.execute(ON_PAGE, {"of_page": page}).scalar()
    records = bytearray(PAGE * RECORD if before is None else before)
    records[place * RECORD : (place + 1) * RECORD] = record.tobytes()
    if before is None:
        connection.execute(insert(outcomes).values(page=page, records=bytes(records)))
    else:
        connection.execute(WRITE_PAGE, {"of_page": page, "records": bytes(records)})


def read(connection: Connection) -> Outcomes:
    """All records and what they mean."""
    pages = connection.execute(select(outcomes).order_by(outcomes.c.page)).all()
    content = b"".join(page.records for page in pages)
    records = np.frombuffer(content, dtype="<i4").reshape(-1, len(FIELDS))
    first = np.array([page.page for page in pages], dtype=np.int64) * PAGE
    sequences = np.add.outer(first, np.arange(PAGE)).ravel()
    named = {
        kind: list(connection.execute(_named(kind)).all())
        for kind in ("maker", "order", "project", "annotator", "shared")
    }
    people = {row.annotator_id: row for row in connection.execute(select(annotators))}
    told = {row.number: _told(*json.loads(row.value)) for row in named["maker"]}
    stands = np.flatnonzero(records[:, FIELDS.index("order")])
    # Column by column, which is several times as quick as whole records.
    columns = {
        name: column[stands].astype(np.int64)
        for name, column in zip(FIELDS, np.ascontiguousarray(records.T), strict=True)
    }
    number_of = {(kind, row.value): row.number for kind, rows in named.items() for row in rows}
    excluded = np.zeros(len(stands), dtype=bool)
    for out in connection.execute(select(exclusions)).all():
        project = number_of.get(("project", out.project), 0)
        annotator = number_of.get(("annotator", out.annotator_id), 0)
        excluded |= (columns["project"] == project) & (columns["annotator"] == annotator)
    return Outcomes(
        **columns,
        sequences=sequences[stands],
        excluded=excluded,
        makers={number: maker for number, (maker, _) in told.items()},
        path_of=dict(told.values()),
        orders={
            row.number: tuple(tuple(group) for group in json.loads(row.value))
            for row in named["order"]
        },
        projects={row.value: row.number for row in named["project"]},
        annotators={row.number: people[row.value] for row in named["annotator"]},
        num_sharing=len(named["shared"]),
    )


def prompt_numbers(connection: Connection, prompts: Collection[str]) -> dict[str, int]:
    """The numbers of prompts by their text, of those that have one."""
    prompt_of = {digest(prompt): prompt for prompt in prompts}
    found: dict[str, int] = {}
    keys = list(prompt_of)
    for start in range(0, len(keys), CHUNK):
        known = select(numbers.c.key, numbers.c.number).where(
            numbers.c.kind == "prompt", numbers.c.key.in_(keys[start : start + CHUNK])
        )
        found |= {prompt_of[key]: number for key, number in connection.execute(known).all()}
    return found


def _told(
    model: str, weights: str | None, path: str | None, strength: float = 1.0
) -> tuple[Maker, str | None]:
    """A maker and the path of its adapter; those from before strengths came have none."""
    return Maker(model, weights, strength), path


def _named(kind: str) -> AnyRow:
    statement = select(numbers.c.number, numbers.c.value).where(numbers.c.kind == kind)
    return statement.order_by(numbers.c.number)


def _order(connection: Connection, item_id: str, tie_groups: Sequence[Sequence[int]]) -> Groups:
    """Tie groups of makers, best first, without images that several made or nobody knows."""
    images = list(connection.execute(IMAGES_OF, {"item": item_id}).scalars())
    makers = _makers(connection, images)
    found = (
        tuple(
            next(iter(makers[images[candidate]]))
            for candidate in group
            if len(makers[images[candidate]]) == 1
        )
        for group in tie_groups
    )
    return tuple(group for group in found if group)


def _makers(connection: Connection, image_ids: Sequence[str]) -> dict[str, set[int]]:
    """Numbers of the makers of images."""
    found: dict[str, set[int]] = {image_id: set() for image_id in image_ids}
    for row in connection.execute(MADE_BY, {"images": list(image_ids)}).all():
        found[row.image_id].add(maker_number(connection, row))
    return found
