"""What `tallies.py` and `outcomes.py` keep, counted anew from the judgements alone.

Fills the tables of stores that are older than these, and finds what is wrong in a store that
another program has changed. Columns are read by name, because a migration runs this.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    case,
    distinct,
    func,
    insert,
    select,
    update,
)

from imgalign.preferences.outcomes import (
    FIELDS,
    MADE,
    PAGE,
    RECORD,
    digest,
    maker_key,
    maker_number,
    number,
)
from imgalign.preferences.queries import (
    AnyRow,
    counted,
    is_attention,
    is_open,
    is_withdrawn,
    standing,
    unjudged,
)
from imgalign.preferences.schema import (
    annotators,
    candidates,
    items,
    judged_prompts,
    numbers,
    outcomes,
    projects,
    provenances,
    rankings,
    tallies,
)

PORTION = 1000
"""Rankings read at once."""

Known = dict[tuple[str, str], int]
"""Numbers by kind and digest."""
Record = tuple[int | None, ...]


def fill(connection: Connection) -> None:
    """Fill the empty tables of a store that has judgements already, and no exclusions."""
    connection.execute(update(items).values(given=times_given(standing())))
    for table, counts in ((projects, of_projects()), (tallies, of_annotators())):
        rows = [dict(row) for row in connection.execute(counts).mappings()]
        zeros = {"first": 0} if table is tallies else {}
        for row in rows:
            connection.execute(insert(table).values(row | zeros))
    for project, samples, prompt, given in connection.execute(of_prompts(standing())).all():
        key = {
            "project": project,
            "samples": samples,
            "prompt": number(connection, "prompt", prompt),
        }
        connection.execute(insert(judged_prompts).values(**key, given=given))
    for made in connection.execute(_provenances()).all():
        maker_number(connection, made)
    for image_id in shared_images(connection):
        number(connection, "shared", image_id, image_id)
    for name in connection.execute(_judges_of_images("project")).scalars().all():
        number(connection, "project", name, name)
    for name in connection.execute(_judges_of_images("annotator_id")).scalars().all():
        number(connection, "annotator", name, name)
    pages: dict[int, bytearray] = {}
    for sequence, record in _records(connection, make=True):
        page, place = divmod(sequence, PAGE)
        records = pages.setdefault(page, bytearray(PAGE * RECORD))
        records[place * RECORD : (place + 1) * RECORD] = np.array(record, "<i4").tobytes()
    for page, records in pages.items():
        connection.execute(insert(outcomes).values(page=page, records=bytes(records)))


def differences(connection: Connection) -> list[str]:
    """What the store counts otherwise than a recount does. Example: "judgements of items"."""
    wrong = select(func.count()).select_from(items).where(items.c.given != times_given(counted()))
    prompts = select(
        *(judged_prompts.c.project, judged_prompts.c.samples, numbers.c.key, judged_prompts.c.given)
    ).join(numbers, numbers.c.number == judged_prompts.c.prompt)
    own = (tallies.c[name] for name in ("annotator_id", "project", *COUNTED))
    shared = select(numbers.c.value).where(numbers.c.kind == "shared")
    checks = {
        "judgements of items": connection.execute(wrong).scalar_one() == 0,
        "items of projects": _rows(connection, of_projects())
        == _rows(connection, select(*(projects.c[name] for name in ("project", "items", "open")))),
        "judgements of annotators": _rows(connection, of_annotators())
        == _rows(connection, select(*own).where(tallies.c.done > 0)),
        "where annotators go on": connection.execute(_passed_over()).first() is None,
        "judged prompts": {
            (project, samples, digest(prompt), given)
            for project, samples, prompt, given in connection.execute(of_prompts(counted()))
        }
        == _rows(connection, prompts.where(judged_prompts.c.given > 0)),
        "images that several made": set(shared_images(connection))
        == set(connection.execute(shared).scalars()),
        "outcomes of rankings": dict(_records(connection)) == dict(_stored(connection)),
    }
    return [what for what, is_right in checks.items() if not is_right]


COUNTED = ("done", "open", "images", "texts")


def _rows(connection: Connection, statement: Select[Any]) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in connection.execute(statement)}


def times_given(which: ColumnElement[bool]) -> Any:
    """Judgements of an item of `items` by people, without skips."""
    given = (
        select(func.count())
        .select_from(rankings.join(annotators))
        .where(
            rankings.c.item_id == items.c.item_id,
            rankings.c.verdict != "skipped",
            annotators.c.judge_id.is_(None),
            which,
        )
    )
    return given.correlate(items).scalar_subquery()


def of_projects() -> Select[Any]:
    """Items of each project, and how many are open."""
    num_open = func.sum(case((is_open(), 1), else_=0))
    counted = select(
        items.c.project, func.count().label("items"), func.coalesce(num_open, 0).label("open")
    )
    return counted.group_by(items.c.project)


def of_annotators() -> Select[Any]:
    """What `tallies` has of annotators and projects, but for `first`."""

    def given(samples: str) -> Any:
        this = (rankings.c.verdict != "skipped") & (items.c.samples == samples) & ~is_attention()
        return func.sum(case((this, 1), else_=0)).label(samples)

    own_open = func.count(distinct(case((is_open(), items.c.item_id), else_=None)))
    return (
        select(
            rankings.c.annotator_id,
            items.c.project,
            func.count().label("done"),
            own_open.label("open"),
            given("images"),
            given("texts"),
        )
        .select_from(rankings.join(items, items.c.item_id == rankings.c.item_id))
        .where(standing())
        .group_by(rankings.c.annotator_id, items.c.project)
    )


def _passed_over() -> Select[Any]:
    """Items below the `first` of an annotator that are left for them."""
    return (
        select(tallies.c.annotator_id)
        .join(items, items.c.project == tallies.c.project)
        .join(annotators, annotators.c.annotator_id == tallies.c.annotator_id)
        .where(
            items.c.sequence < tallies.c.first,
            is_open() | (annotators.c.judge_id.is_not(None) & ~is_withdrawn()),
            unjudged(tallies.c.annotator_id),
        )
        .limit(1)
    )


def of_prompts(which: ColumnElement[bool]) -> Select[Any]:
    """Judgements of people by prompt, skips and attention items left out."""
    columns = (items.c.project, items.c.samples, items.c.prompt)
    return (
        select(*columns, func.count().label("given"))
        .select_from(rankings)
        .join(items, items.c.item_id == rankings.c.item_id)
        .join(annotators, annotators.c.annotator_id == rankings.c.annotator_id)
        .where(rankings.c.verdict != "skipped", annotators.c.judge_id.is_(None), which)
        .where(~is_attention())
        .group_by(*columns)
    )


def _provenances() -> Select[Any]:
    """The makers of all images, one row for each that differs, in the order they first came."""
    first = func.min(provenances.c.sequence)
    return select(*MADE).group_by(*MADE).order_by(first)


def shared_images(connection: Connection, *which: ColumnElement[bool]) -> list[str]:
    """Images that several makers generated identically, of all or of those with these."""
    doubled = (
        select(provenances.c.image_id)
        .where(*which)
        .group_by(provenances.c.image_id)
        .having(func.count() > 1)
        .order_by(provenances.c.image_id)
    )
    makers: dict[str, set[str]] = defaultdict(set)
    rows = select(provenances.c.image_id, *MADE).where(provenances.c.image_id.in_(doubled))
    for row in connection.execute(rows.order_by(provenances.c.image_id)):
        makers[row.image_id].add(maker_key(row))
    return [image_id for image_id, made in makers.items() if len(made) > 1]


def _judges_of_images(column: str) -> Select[Any]:
    named = items.c.project if column == "project" else rankings.c.annotator_id
    return (
        select(named)
        .distinct()
        .select_from(rankings.join(items, items.c.item_id == rankings.c.item_id))
        .where(items.c.samples == "images", rankings.c.verdict == "ranked", standing())
        .order_by(named)
    )


def _records(connection: Connection, *, make: bool = False) -> Iterator[tuple[int, Record]]:
    """(sequence, record) of each standing ranking of images; numbers are made only if asked."""
    known = {
        (row.kind, row.key): row.number
        for row in connection.execute(select(numbers.c.kind, numbers.c.key, numbers.c.number))
    }

    def numbered(kind: str, key: str, value: str = "") -> int | None:
        name = (kind, digest(key))
        if name not in known and make:
            known[name] = number(connection, kind, key, value)
        return known.get(name)

    last = -1
    while rows := connection.execute(_ranked(last)).all():
        last = rows[-1].sequence
        for row, order in zip(rows, orders_of(connection, rows, known), strict=True):
            yield (
                row.sequence,
                (
                    numbered("prompt", row.prompt),
                    numbered("project", row.project, row.project),
                    numbered("annotator", row.annotator_id, row.annotator_id),
                    numbered("order", order, order),
                ),
            )


def orders_of(connection: Connection, rows: Sequence[AnyRow], known: Known) -> list[str]:
    """The order of makers of each row of `ranked_images`, as `numbers` has it."""
    images, makers = _makers(connection, {row.item_id for row in rows}, known)
    found = []
    for row in rows:
        of = [makers[image_id] for image_id in images[row.item_id]]
        groups = [[min(of[k]) for k in group if len(of[k]) == 1] for group in row.tie_groups]
        found.append(json.dumps([group for group in groups if group]))
    return found


def ranked_images() -> Select[Any]:
    """Rankings that have a record in `outcomes`."""
    columns = (rankings.c[name] for name in ("sequence", "item_id", "annotator_id", "tie_groups"))
    return (
        select(*columns, items.c.prompt, items.c.project)
        .join(items, items.c.item_id == rankings.c.item_id)
        .where(
            rankings.c.verdict == "ranked",
            items.c.samples == "images",
            ~is_attention(),
            standing(),
        )
        .order_by(rankings.c.sequence)
    )


def _ranked(last: int) -> Select[Any]:
    return ranked_images().where(rankings.c.sequence > last).limit(PORTION)


def _makers(
    connection: Connection, item_ids: set[str], known: Known
) -> tuple[dict[str, list[str]], dict[str, set[int]]]:
    """The images of items, and the numbers of the makers of each image."""
    images: dict[str, list[str]] = {item_id: [] for item_id in item_ids}
    makers: dict[str, set[int]] = defaultdict(set)
    shown = select(candidates.c.item_id, candidates.c.candidate, candidates.c.image_id)
    shown = shown.where(candidates.c.item_id.in_(item_ids))
    for row in connection.execute(shown.order_by(candidates.c.item_id, candidates.c.candidate)):
        images[row.item_id].append(row.image_id)
    made = (
        select(provenances.c.image_id, *MADE)
        .distinct()
        .join(candidates, candidates.c.image_id == provenances.c.image_id)
    )
    numbers_of: dict[tuple[object, ...], int] = {}  # few makers make many images
    for each in connection.execute(made.where(candidates.c.item_id.in_(item_ids))):
        maker = tuple(each)[1:]
        if maker not in numbers_of:
            numbers_of[maker] = known["maker", digest(maker_key(each))]
        makers[each.image_id].add(numbers_of[maker])
    return images, makers


def _stored(connection: Connection) -> Iterator[tuple[int, Record]]:
    pages = connection.execute(select(outcomes.c.page, outcomes.c.records)).all()
    for number_of_page, content in pages:
        records = np.frombuffer(content, "<i4").reshape(-1, len(FIELDS))
        for place in np.flatnonzero(records.any(axis=1)).tolist():
            record: list[int] = records[place].tolist()
            yield number_of_page * PAGE + place, tuple(record)
