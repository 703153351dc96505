"""Export and import of rankings as JSON lines, without loss.

The first line names the format; then come images and texts with their provenances, AI judges,
annotators, items, gold items and rankings, each line with its `kind`, so that a reader needs one
pass; those of one project have what belongs to it alone. Undone judgements are part of the record
and travel too, and so do those of excluded annotators, with who is excluded; leases do not. Image
files travel as files: give the folder that holds them.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import ColumnElement, Connection, insert, select
from sqlalchemy.exc import IntegrityError

from imgalign.errors import InputError, StoreError
from imgalign.files import UNFINISHED, lock_name
from imgalign.preferences import import_counts, queries, schema
from imgalign.preferences.database import STORABLE
from imgalign.preferences.exchange_lines import (
    FORMAT,
    TABLES,
    UNSENT,
    Row,
    read_lines,
    read_values,
)
from imgalign.preferences.import_checks import Import, account_ids, checked, portions
from imgalign.preferences.originals import ImageFolder, described
from imgalign.preferences.records import utc_now
from imgalign.preferences.store import Store


def export_rankings(store: Store, path: Path, *, project: str | None = None) -> int:
    """Write everything but leases to `path`, atomically; returns the number of rankings.

    With `project` everything of that one: StoreError where there is none of the name. Only an
    earlier export is replaced: InputError for a file of another kind.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; create it or choose another file")
    if path.exists() and not _is_export(path):
        raise InputError(f"{path}: exists and is no export of rankings; choose another name")
    with lock_name(path):
        temporary = path.with_name(f"{UNFINISHED}{path.name}")
        try:
            with temporary.open("w", encoding="utf-8") as file, store.database.read() as connection:
                num_rankings = _write(connection, file, project)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return num_rankings


def check_export(path: Path, *, images: Path | None = None, into_new: bool = False) -> None:
    """Refuse, before a store is made for it, a file or folder that `import_rankings` would refuse.

    `into_new`: the store has no images yet, so that `images` must have them all. How the lines of
    the file fit each other is left to the import.
    """
    folder = None if images is None else ImageFolder(images, create=False)
    for where, kind, row in read_lines(path):
        if into_new and kind == "image":
            _refuse_absent(folder, row["image_id"], where)


def import_rankings(
    store: Store,
    path: Path,
    *,
    images: Path | None = None,
    name: str | None = None,
    of_accounts: bool = True,
) -> int:
    """Import an export in one transaction; returns the number of new rankings.

    Others cannot write only while its rows are written: it is read and checked before, in memory,
    some kilobytes for each ranking.

    `images` is the images folder of the store that was exported, if not this one's own; `name` is
    what messages call the file, if not its path. Importing again changes nothing. Raises InputError
    for a file or image that cannot be used, StoreError if a row contradicts one in the store.
    Without `of_accounts` also for a new judgement, or the undo of one, of whoever has an account:
    that is for those who may write the database, not for a lead in the app.
    """
    folder = None if images is None else ImageFolder(images, create=False)
    lines = list(read_lines(path, name))
    with store.database.read() as connection:
        added = checked(connection, lines, of_accounts=of_accounts)
        prepared = _prepared(connection, added)
    plan = import_counts.planned(added)
    # After the check, so that a refused file leaves no images; and on disk before the rows are.
    for where, kind, row in lines:
        if kind == "image":
            _bring_image(store, folder, row, where)
    if not added:
        return 0
    try:
        with store.database.write(large=True) as connection:
            _add(connection, added, prepared, plan)
    except (IntegrityError, _ChangedError):  # somebody wrote the same meanwhile, which is rare
        with store.database.write(large=True) as connection:
            added = checked(connection, lines, of_accounts=of_accounts)
            plan = import_counts.planned(added)
            _add(connection, added, _prepared(connection, added), plan)
    return len(added.new["ranking"])


class _ChangedError(Exception):
    """The store has changed since a file was held against it."""


def _prepared(connection: Connection, added: Import) -> list[tuple[str, list[Any]]]:
    """Statements that insert new rows, and what their driver takes for these.

    Converting values takes longer than writing them does, and needs no lock.
    """
    dialect, found = connection.dialect, []
    for kind, rows in added.new.items():
        if not rows:
            continue
        table = TABLES[kind][0]
        statement = insert(table).inline().compile(dialect=dialect, column_keys=list(rows[0]))
        columns = [
            (name, table.c[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in statement.params
        ]
        values: list[Any] = [
            {name: row[name] if each is None else each(row[name]) for name, each in columns}
            for row in rows
        ]
        if statement.positional:
            values = [tuple(each.values()) for each in values]
        found.append((str(statement), values))
    return found


def _add(
    connection: Connection,
    added: Import,
    prepared: Sequence[tuple[str, list[Any]]],
    plan: import_counts.Planned,
) -> None:
    """Write what a file adds, with all that is counted of it."""
    if added.accounts not in (None, account_ids(connection)):
        raise _ChangedError
    was = import_counts.before(connection, added)
    for statement, values in prepared:
        connection.exec_driver_sql(statement, values, execution_options={STORABLE: True})
    judged = {row["item_id"] for row in added.new["ranking"]}
    for portion in portions(judged & was.items.keys()):
        twice = queries.standing_twice().where(schema.rankings.c.item_id.in_(portion))
        if connection.execute(twice).first() is not None:
            raise _ChangedError
    import_counts.count(connection, added, plan, was, now=utc_now())


def values_in(path: Path, kind: str, column: str) -> Iterator[Any]:
    """A column of each line of a kind in an export. Example: "item", "project"."""
    for _, values in read_values(path):
        if values.get("kind") == kind:
            yield values[column]


def _write(connection: Connection, file: TextIO, project: str | None) -> int:
    of_project = {} if project is None else _of_project(connection, project)
    file.write(json.dumps(FORMAT) + "\n")
    num_rankings = 0
    for kind, (table, identity) in TABLES.items():
        order = [table.c.sequence] if "sequence" in table.c else [table.c[c] for c in identity]
        columns = [column for column in table.c if column.name not in UNSENT]
        rows = select(*columns).where(*of_project.get(kind, ())).order_by(*order)
        for row in connection.execute(rows).mappings():
            values = {
                name: value.isoformat() if isinstance(value, datetime) else value
                for name, value in row.items()
            }
            file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")
            num_rankings += kind == "ranking"
    return num_rankings


def _of_project(connection: Connection, project: str) -> dict[str, tuple[ColumnElement[bool]]]:
    """Which rows of each table an export of a project has; StoreError for an unknown one."""
    known = select(schema.projects.c.project).where(schema.projects.c.project == project)
    if connection.execute(known).first() is None:
        raise StoreError(f"project {project!r}: nothing is queued there; check its name")
    items = select(schema.items.c.item_id).where(schema.items.c.project == project)
    shown = schema.candidates.c.item_id.in_(items)
    images = select(schema.candidates.c.image_id).where(shown)
    texts = select(schema.candidates.c.text_id).where(shown)
    judged = schema.rankings.c.item_id.in_(items)
    rankings = select(schema.rankings.c.ranking_id).where(judged)
    people = schema.annotators.c.annotator_id.in_(
        select(schema.rankings.c.annotator_id).where(judged)
    ) | schema.annotators.c.annotator_id.in_(
        select(schema.exclusions.c.annotator_id).where(schema.exclusions.c.project == project)
    )
    judges = select(schema.annotators.c.judge_id).where(people)
    return {
        "image": (schema.images.c.image_id.in_(images),),
        "provenance": (schema.provenances.c.image_id.in_(images),),
        "text": (schema.texts.c.text_id.in_(texts),),
        "text_provenance": (schema.text_provenances.c.text_id.in_(texts),),
        "judge": (schema.judges.c.judge_id.in_(judges),),
        "annotator": (people,),
        "item": (schema.items.c.project == project,),
        "candidate": (shown,),
        "gold": (schema.gold.c.item_id.in_(items),),
        "ranking": (judged,),
        "judge_answers": (schema.judge_answers.c.ranking_id.in_(rankings),),
        "undo": (schema.undos.c.ranking_id.in_(rankings),),
        "exclusion": (schema.exclusions.c.project == project,),
    }


def _is_export(path: Path) -> bool:
    try:
        next(read_values(path), None)
    except InputError:
        return False
    return True


def _bring_image(store: Store, folder: ImageFolder | None, row: Row, where: str) -> None:
    image_id = row["image_id"]
    if store.images.has(image_id):
        store.images.checked(image_id)
        return
    source = _refuse_absent(folder, image_id, where).checked(image_id)
    found = asdict(described(source))
    if found != {name: row[name] for name in found}:
        raise InputError(f"{where}: image {image_id[:12]} has another size than this line says")
    store.images.add(source)


def _refuse_absent(folder: ImageFolder | None, image_id: str, where: str) -> ImageFolder:
    """The folder; InputError where an image is not in it."""
    if folder is None or not folder.has(image_id):
        raise InputError(
            f"{where}: image {image_id[:12]} is not here; name the images folder of the export"
        )
    return folder
