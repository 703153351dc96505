"""What `tallies.py` and `outcomes.py` keep, after an import that changed many items at once.

The items that it touches are counted before and after by the statements of `recount.py`, and the
difference is added: some statements for a thousand rankings, where one at a time has a dozen for
each.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    maker_key,
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
from imgalign.preferences.records import ATTENTION
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

Records = dict[int, tuple[int, ...]]
"""Of `outcomes`, by the number of the ranking."""
Counts = Counter[tuple[str, tuple[Any, ...], str]]
"""By table, row and column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """Items that an import touches, as they were counted without it."""

    item_ids: list[str]
    items: dict[str, AnyRow]
    """Those that the store had already: project, place, and whether they are open."""
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A ranking of images that are new, which nobody else can name a maker of meanwhile."""

    ranking_id: str
    prompt: str
    project: str
    annotator_id: str
    order: tuple[tuple[str, ...], ...]
    """Tie groups of makers, by `maker_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What the records of new rankings will be, as far as it needs no lock."""

    judged: list[Judged]
    item_ids: set[str]
    """Items of the others."""
    makers: dict[str, AnyRow]
    """Of images with a new provenance, by `maker_key`, in the order in which they came."""
    several: list[str]
    """Images with a new provenance that may be another maker's as well."""


def planned(added: Import) -> Planned:
    """Find what was ranked among images that are all new."""
    new = {row["image_id"] for row in added.new["image"]}
    shown: dict[str, dict[int, str]] = defaultdict(dict)
    for row in added.new["candidate"]:
        shown[row["item_id"]][row["candidate"]] = row["image_id"]
    key_of: dict[tuple[Any, ...], str] = {}  # few makers make many images
    rows: dict[str, AnyRow] = {}
    makers: dict[str, set[str]] = defaultdict(set)
    for row in added.new["provenance"]:
        made = _made(row)
        if made not in key_of:
            key_of[made] = maker_key(_as_row(made))
            rows.setdefault(key_of[made], _as_row(made))
        makers[row["image_id"]].add(key_of[made])
    whole = {
        row["item_id"]: row
        for row in added.new["item"]
        if new.issuperset(shown[row["item_id"]].values())
    }
    taken_back = {row["ranking_id"] for row in added.new["undo"]}
    judged, item_ids = [], set()
    for row in added.new["ranking"]:
        item = whole.get(row["item_id"])
        if item is None:
            item_ids.add(row["item_id"])
        elif (
            row["verdict"] == "ranked"
            and row["ranking_id"] not in taken_back
            and not item["source"].startswith(ATTENTION)
        ):
            images = shown[row["item_id"]]
            groups = (
                tuple(next(iter(by)) for k in group if len(by := makers[images[k]]) == 1)
                for group in row["tie_groups"]
            )
            judged.append(
                Judged(
                    ranking_id=row["ranking_id"],
                    prompt=item["prompt"],
                    project=item["project"],
                    annotator_id=row["annotator_id"],
                    order=tuple(group for group in groups if group),
                )
            )
    times = Counter(row["image_id"] for row in added.new["provenance"])
    several = [each for each, number in times.items() if number > 1 or each not in new]
    return Planned(judged=judged, item_ids=item_ids, makers=rows, several=several)


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
    there = touched - {row["item_id"] for row in added.new["item"]}
    found = {row.item_id: row for row in _items(connection, sorted(there))}
    return Before(item_ids=sorted(touched), items=found, counts=_counts(connection, list(found)))


def count(
    connection: Connection, added: Import, plan: Planned, was: Before, *, now: datetime
) -> None:
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
    number_of = {key: maker_number(connection, row) for key, row in plan.makers.items()}
    others = plan.item_ids | _items_of(connection, _share(connection, plan.several))
    none = (0,) * len(FIELDS)
    records = {row["sequence"]: none for row in added.undone if row["verdict"] == "ranked"}
    records |= _records(connection, others)
    records |= _records_planned(connection, plan.judged, number_of)
    _write_pages(connection, records)


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
        for of, own in rows.items():
            this = dict(zip(key, of, strict=True))
            if of in there:
                values = {f"of_{each}": value for each, value in this.items()}
                raised.append(values | {f"by_{each}": own[each] for each in columns})
            else:
                zeros = {each.name: 0 for each in table.c}
                made.append(zeros | this | own)
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


def _made(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in MADE)


def _as_row(made: tuple[Any, ...]) -> AnyRow:
    return SimpleNamespace(**{column.name: each for column, each in zip(MADE, made, strict=True)})


def _share(connection: Connection, image_ids: Iterable[str]) -> list[str]:
    """Note which of these images several made."""
    shared = [
        image_id
        for portion in portions(image_ids)
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


def _records(connection: Connection, item_ids: Iterable[str]) -> Records:
    """The records of all rankings of items, by their number."""
    maker = select(numbers.c.kind, numbers.c.key, numbers.c.number)
    makers = connection.execute(maker.where(numbers.c.kind == "maker")).all()
    known = {(row.kind, row.key): row.number for row in makers}
    found: Records = {}
    for portion in portions(item_ids):
        these = ranked_images().where(items.c.item_id.in_(portion))
        rows = connection.execute(these).all()
        orders = orders_of(connection, rows, known)
        named = [(row.prompt, row.project, row.annotator_id) for row in rows]
        facts = [(*each, order) for each, order in zip(named, orders, strict=True)]
        found |= _as_records(connection, [row.sequence for row in rows], facts)
    return found


def _records_planned(
    connection: Connection, judged: Collection[Judged], number_of: Mapping[str, int]
) -> Records:
    """The records of rankings that were planned, by their number."""
    sequences: dict[str, int] = {}
    columns = (rankings.c.ranking_id, rankings.c.sequence)
    for portion in portions(each.ranking_id for each in judged):
        rows = connection.execute(select(*columns).where(rankings.c.ranking_id.in_(portion)))
        sequences |= {row.ranking_id: row.sequence for row in rows}
    text_of = {
        order: json.dumps([[number_of[key] for key in group] for group in order])
        for order in {each.order for each in judged}
    }
    return _as_records(
        connection,
        [sequences[each.ranking_id] for each in judged],
        [(each.prompt, each.project, each.annotator_id, text_of[each.order]) for each in judged],
    )


def _as_records(
    connection: Connection, sequences: Sequence[int], facts: Sequence[tuple[str, str, str, str]]
) -> Records:
    """Prompt, project, annotator and order of each ranking as `outcomes` has them."""
    columns = []
    for kind, values in zip(FIELDS, zip(*facts, strict=True), strict=False):
        kept = {each: "" if kind == "prompt" else each for each in values}
        numbered = _numbered(connection, kind, kept)
        columns.append([numbered[each] for each in values])
    return dict(zip(sequences, zip(*columns, strict=True), strict=True))


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
