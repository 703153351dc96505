"""What `tallies.py` and `outcomes.py` keep, after an import that changed many items at once.

The items that it touches are counted before and after by the statements of `recount.py`, and the
difference is added: some statements for a thousand rankings, where one at a time has a dozen for
each.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
from sqlalchemy import Connection, Table, func, insert, select, update

from imgalign.preferences.import_checks import Import, portions
from imgalign.preferences.outcomes import (
    FIELDS,
    MADE,
    PAGE,
    WRITE_PAGE,
    digest,
    maker_number,
    number,
)
from imgalign.preferences.queries import (
    AnyRow,
    counted,
    is_open,
    is_withdrawn,
    standing,
    unjudged,
)
from imgalign.preferences.recount import (
    of_annotators,
    of_projects,
    of_prompts,
    orders_of,
    ranked_images,
    shared_images,
    times_given,
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
from imgalign.preferences.tallies import ANSWERED, adding, lower

TABLES: dict[str, tuple[Table, tuple[str, ...], tuple[str, ...]]] = {
    "projects": (projects, ("project",), ("items", "open")),
    "tallies": (tallies, ("project", "annotator_id"), ("done", "open", "images", "texts")),
    "prompts": (judged_prompts, ("project", "samples", "prompt"), ("given",)),
}
"""Counts that are added to: the columns that identify a row, and its numbers."""

Counts = Counter[tuple[str, tuple[Any, ...], str]]
"""By table, row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """Items that an import touches, as they were counted without it."""

    item_ids: list[str]
    items: dict[str, AnyRow]
    """Those that the store had already: project, place, and whether they are open."""
    counts: Counts


def before(connection: Connection, added: Import) -> Before:
    """Count what an import will touch, before its rows are written."""
    touched = {row["item_id"] for kind in ("item", "ranking") for row in added.new[kind]}
    touched |= {row["item_id"] for row in added.undone}
    for out in added.new["exclusion"]:
        judged = (
            select(rankings.c.item_id)
            .join(items, items.c.item_id == rankings.c.item_id)
            .where(items.c.project == out["project"], standing())
            .where(rankings.c.annotator_id == out["annotator_id"])
        )
        touched |= set(connection.execute(judged).scalars())
    item_ids = sorted(touched)
    found = {row.item_id: row for row in _items(connection, item_ids)}
    return Before(item_ids=item_ids, items=found, counts=_counts(connection, list(found)))


def count(connection: Connection, added: Import, was: Before, *, now: datetime) -> None:
    """Count what was just written, as if it had been given here."""
    for portion in portions(was.item_ids):
        these = update(items).where(items.c.item_id.in_(portion))
        connection.execute(these.values(given=times_given(counted())))
    changed = _counts(connection, was.item_ids)
    changed.subtract(was.counts)
    _add(connection, changed)
    _let_go_on(connection, added, was, changed)
    answered = [
        {"item": row["item_id"], "who": row["annotator_id"], "now": now, "leased_until": now}
        for row in added.new["ranking"]
        if row["item_id"] in was.items
    ]
    if answered:
        connection.execute(ANSWERED, answered)
    shared = _name_makers(connection, added)
    judged = {row["item_id"] for row in added.new["ranking"]}
    _write_records(connection, judged | _items_of(connection, shared), added.undone)


def _items(connection: Connection, item_ids: Iterable[str]) -> list[AnyRow]:
    columns = (items.c.item_id, items.c.project, items.c.sequence, is_open().label("open"))
    return [
        row
        for portion in portions(item_ids)
        for row in connection.execute(select(*columns).where(items.c.item_id.in_(portion)))
    ]


def _counts(connection: Connection, item_ids: Iterable[str]) -> Counts:
    found: Counts = Counter()
    statements = {
        "projects": of_projects(),
        "tallies": of_annotators(),
        "prompts": of_prompts(counted()),
    }
    for portion in portions(item_ids):
        for name, statement in statements.items():
            _, key, columns = TABLES[name]
            these = statement.where(items.c.item_id.in_(portion))
            for row in connection.execute(these).mappings():
                of = tuple(row[each] for each in key)
                for column in columns:
                    found[name, of, column] += row[column]
    return found


def _add(connection: Connection, changed: Counts) -> None:
    """Add to the numbers of rows; those that are not there begin with zeros."""
    prompts = {of[2]: "" for name, of, _ in changed if name == "prompts"}
    number_of = _numbered(connection, "prompt", prompts)
    by_row: dict[str, dict[tuple[Any, ...], dict[str, int]]] = defaultdict(dict)
    for (name, of, column), by in changed.items():
        key = (*of[:2], number_of[of[2]]) if name == "prompts" else of
        by_row[name].setdefault(key, dict.fromkeys(TABLES[name][2], 0))[column] = by
    for name, rows in by_row.items():
        table, key, columns = TABLES[name]
        there = _keys_there(connection, table, key, rows)
        raised, made = [], []
        for of, by in rows.items():
            this = dict(zip(key, of, strict=True))
            if of in there:
                values = {f"of_{each}": value for each, value in this.items()}
                raised.append(values | {f"by_{each}": by[each] for each in columns})
            else:
                zeros = {each.name: 0 for each in table.c}
                made.append(zeros | this | by)
        if raised:
            connection.execute(adding(table, key, columns), raised)
        if made:
            connection.execute(insert(table), made)


def _keys_there(
    connection: Connection, table: Table, key: tuple[str, ...], rows: Collection[tuple[Any, ...]]
) -> set[tuple[Any, ...]]:
    """Which rows a table has, and others of the same projects."""
    columns = [table.c[each] for each in key]
    of_projects = columns[0].in_({of[0] for of in rows})
    found = set()
    for portion in portions({of[-1] for of in rows}):
        statement = select(*columns).where(of_projects, columns[-1].in_(portion))
        found |= {tuple(row) for row in connection.execute(statement)}
    return found


def _let_go_on(connection: Connection, added: Import, was: Before, changed: Counts) -> None:
    """Move `first` of annotators: back to what is left for them again, on over what is judged."""
    back: dict[str, list[int]] = defaultdict(list)
    for item in _items(connection, was.items):
        if item.open and not was.items[item.item_id].open:
            back[item.project].append(item.sequence)
    for project, places in back.items():
        lower(connection, project, min(places))
    own: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in added.undone:
        item = was.items[row["item_id"]]
        own[item.project, row["annotator_id"]].append(item.sequence)
    for (project, annotator_id), places in own.items():
        lower(connection, project, min(places), tallies.c.annotator_id == annotator_id)
    people: dict[str, set[str]] = defaultdict(set)
    for name, of, _ in changed:
        if name == "tallies":
            people[of[0]].add(of[1])
    for project, who in people.items():
        for portion in portions(who):
            _advance(connection, project, portion)


def _advance(connection: Connection, project: str, who: Collection[str]) -> None:
    """Raise `first` of annotators to the first item that is left for each."""
    last = select(func.max(items.c.sequence)).where(items.c.project == project).scalar_subquery()
    left = select(items.c.sequence).where(
        items.c.project == project,
        items.c.sequence >= tallies.c.first,
        unjudged(tallies.c.annotator_id),
        ~is_withdrawn(),
    )
    of_judges = tallies.c.annotator_id.in_(
        select(annotators.c.annotator_id).where(annotators.c.judge_id.is_not(None))
    )
    own = (tallies.c.project == project, tallies.c.annotator_id.in_(who))
    for whose, which in ((~of_judges, left.where(is_open())), (of_judges, left)):
        first = which.order_by(items.c.sequence).limit(1).correlate(tallies).scalar_subquery()
        raised = update(tallies).where(*own, whose)
        connection.execute(raised.values(first=func.coalesce(first, last + 1)))


def _name_makers(connection: Connection, added: Import) -> list[str]:
    """Number the makers of images that are new; those that several made, and a new one among them.

    They are noted as such.
    """
    names = [column.name for column in MADE]
    rows = added.new["provenance"]
    for made in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        maker_number(connection, SimpleNamespace(**dict(zip(names, made, strict=True))))
    times = Counter(row["image_id"] for row in rows)
    new = {row["image_id"] for row in added.new["image"]}
    several = [each for each, number in times.items() if number > 1 or each not in new]
    shared = [
        image_id
        for portion in portions(several)
        for image_id in shared_images(connection, provenances.c.image_id.in_(portion))
    ]
    for image_id in shared:
        number(connection, "shared", image_id, image_id)
    return shared


def _items_of(connection: Connection, image_ids: Iterable[str]) -> set[str]:
    """Items that show one of these images."""
    return {
        item_id
        for portion in portions(image_ids)
        for item_id in connection.execute(
            select(candidates.c.item_id).where(candidates.c.image_id.in_(portion))
        ).scalars()
    }


def _write_records(
    connection: Connection, item_ids: Iterable[str], undone: Iterable[Mapping[str, Any]]
) -> None:
    """Write the records of all rankings of items, and remove those that were taken back."""
    maker = select(numbers.c.kind, numbers.c.key, numbers.c.number)
    rows = connection.execute(maker.where(numbers.c.kind == "maker")).all()
    known = {(row.kind, row.key): row.number for row in rows}
    none = (0,) * len(FIELDS)
    records = {row["sequence"]: none for row in undone if row["verdict"] == "ranked"}
    for portion in portions(item_ids):
        these = ranked_images().where(items.c.item_id.in_(portion))
        rows = connection.execute(these).all()
        orders = orders_of(connection, rows, known)
        prompts = _numbered(connection, "prompt", {row.prompt: "" for row in rows})
        named = {
            kind: _numbered(connection, kind, {each: each for each in values})
            for kind, values in (
                ("project", [row.project for row in rows]),
                ("annotator", [row.annotator_id for row in rows]),
                ("order", orders),
            )
        }
        for row, order in zip(rows, orders, strict=True):
            records[row.sequence] = (
                prompts[row.prompt],
                named["project"][row.project],
                named["annotator"][row.annotator_id],
                named["order"][order],
            )
    _write_pages(connection, records)


def _write_pages(connection: Connection, records: Mapping[int, tuple[int, ...]]) -> None:
    of_page: dict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)
    for sequence, record in records.items():
        page, place = divmod(sequence, PAGE)
        of_page[page][place] = record
    for portion in portions(of_page):
        statement = select(outcomes).where(outcomes.c.page.in_(portion))
        there = {row.page: row.records for row in connection.execute(statement)}
        raised, made = [], []
        for page in portion:
            content = np.zeros((PAGE, len(FIELDS)), dtype="<i4")
            if page in there:
                content = np.frombuffer(there[page], dtype="<i4").reshape(PAGE, -1).copy()
            for place, record in of_page[page].items():
                content[place] = record
            if page in there:
                raised.append({"of_page": page, "records": content.tobytes()})
            else:
                made.append({"page": page, "records": content.tobytes()})
        if raised:
            connection.execute(WRITE_PAGE, raised)
        if made:
            connection.execute(insert(outcomes), made)


def _numbered(connection: Connection, kind: str, values: Mapping[str, str]) -> dict[str, int]:
    """The numbers of keys by `outcomes.number`, with the values that are kept of new ones."""
    key_of = {digest(key): key for key in values}
    found: dict[str, int] = {}
    for portion in portions(key_of):
        statement = select(numbers.c.key, numbers.c.number).where(
            numbers.c.kind == kind, numbers.c.key.in_(portion)
        )
        there = {row.key: row.number for row in connection.execute(statement)}
        missing = [each for each in portion if each not in there]
        if missing:
            made = [{"kind": kind, "key": key, "value": values[key_of[key]]} for key in missing]
            connection.execute(insert(numbers), made)
            there |= {row.key: row.number for row in connection.execute(statement)}
        found |= {key_of[key]: number for key, number in there.items()}
    return found
