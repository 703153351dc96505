"""Rankings to and from a file of JSON lines, with nothing lost.

The first line names the format; then come images with their provenances, annotators, items and
rankings, each line with its `kind`, so that a reader needs one pass. Undone judgements are part
of the record and travel too; leases do not. Image files travel as files: give the folder that
holds them.
"""

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.exc import IntegrityError

from imgalign.errors import InputError, StoreError
from imgalign.preferences import schema, validation
from imgalign.preferences.images import ImageFolder
from imgalign.preferences.store import Store

FORMAT = {"kind": "imgalign-rankings", "version": 1}
# In an order in which every row finds what it refers to, with the columns that identify a row.
TABLES: dict[str, tuple[Table, tuple[str, ...]]] = {
    "image": (schema.images, ("image_id",)),
    "provenance": (schema.provenances, ("image_id", "digest")),
    "annotator": (schema.annotators, ("annotator_id",)),
    "item": (schema.items, ("item_id",)),
    "candidate": (schema.candidates, ("item_id", "candidate")),
    "ranking": (schema.rankings, ("ranking_id",)),
    "undo": (schema.undos, ("ranking_id",)),
}
# When it was first seen may differ between two stores of the same thing.
LOCAL = frozenset({"sequence", "added_at", "overlap", "created_at"})


def export_rankings(store: Store, path: Path) -> int:
    """Write everything but leases to `path`, replacing it when complete; returns the rankings."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file, store.database.read() as connection:
            num_rankings = _write(connection, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return num_rankings


def import_rankings(store: Store, path: Path, *, images: Path | None = None) -> int:
    """Add what an export holds, all of it or nothing; returns how many rankings were new.

    `images` is the images folder of the store that was exported, if not this one's own. Importing
    again changes nothing. Raises InputError for a file or image that cannot be used, StoreError
    if a row contradicts one that is here.
    """
    folder = None if images is None else ImageFolder(images)
    num_new = 0
    with store.database.write() as connection:
        for where, kind, row in _read(path):
            if kind == "image":
                _bring_image(store, folder, row["image_id"], where)
            new = _add(connection, kind, row, where)
            num_new += new and kind == "ranking"
    return num_new


def _write(connection: Connection, file: TextIO) -> int:
    file.write(json.dumps(FORMAT) + "\n")
    num_rankings = 0
    for kind, (table, identity) in TABLES.items():
        order = [table.c.sequence] if "sequence" in table.c else [table.c[c] for c in identity]
        columns = [column for column in table.c if column.name != "sequence"]
        for row in connection.execute(select(*columns).order_by(*order)).mappings():
            values = {
                name: value.isoformat() if isinstance(value, datetime) else value
                for name, value in row.items()
            }
            file.write(json.dumps({"kind": kind, **values}, ensure_ascii=False) + "\n")
            num_rankings += kind == "ranking"
    return num_rankings


def _read(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(where, kind, columns) of each line after the first."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                values = json.loads(line)
                if number == 1:
                    if values != FORMAT:
                        raise InputError(
                            f"{where}: expected {json.dumps(FORMAT)}, got {line.strip()[:60]!r}"
                        )
                    continue
                kind = values.pop("kind", None) if isinstance(values, dict) else None
                if kind not in TABLES:
                    raise InputError(f"{where}: expected a line of a kind that is known here")
                yield where, kind, _typed(TABLES[kind][0], values, where)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg}); is the file complete?") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _typed(table: Table, values: dict[str, Any], where: str) -> dict[str, Any]:
    expected = {column.name for column in table.c} - {"sequence"}
    if set(values) != expected:
        differ = ", ".join(sorted(set(values) ^ expected))
        raise InputError(f"{where}: missing or unknown fields: {differ}")
    try:
        return {
            name: datetime.fromisoformat(value)
            if value is not None and isinstance(table.c[name].type, schema.UtcDateTime)
            else value
            for name, value in values.items()
        }
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def _bring_image(store: Store, folder: ImageFolder | None, image_id: str, where: str) -> None:
    if store.images.path(image_id).is_file():
        return
    source = None if folder is None else folder.path(image_id)
    if source is None or not source.is_file():
        raise InputError(
            f"{where}: image {image_id[:12]} is not here; give the images folder of the export"
        )
    if store.images.add(source).image_id != image_id:
        raise InputError(f"{source}: does not hold the bytes that its name says")


def _add(connection: Connection, kind: str, row: dict[str, Any], where: str) -> bool:
    table, identity = TABLES[kind]
    here = select(table).where(*(table.c[name] == row[name] for name in identity))
    known = connection.execute(here).mappings().first()
    if known is None:
        if kind == "ranking":
            _check(row, where)
            _refuse_taken(connection, row, where)
        try:
            connection.execute(insert(table).values(**row))
        except IntegrityError as error:
            raise InputError(f"{where}: does not fit the lines before it ({error.orig})") from error
        return True
    for name, value in row.items():
        if name not in LOCAL and known[name] != value:
            raise StoreError(f"{where}: {kind} is here already with another {name}")
    return False


def _check(row: dict[str, Any], where: str) -> None:
    """A ranking from a file is held to the same rules as one from a page."""
    try:
        order, ranking = validation.judgement(
            verdict=row["verdict"],
            reason=row["reason"],
            order=row["display_order"],
            ranking=row["tie_groups"],
        )
        validation.each_once("order", order, len(order))
        if ranking is not None:
            validation.each_once("ranking", [i for group in ranking for i in group], len(order))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _refuse_taken(connection: Connection, row: dict[str, Any], where: str) -> None:
    """Two histories of one annotator and item cannot be merged without inventing an order."""
    table = schema.rankings
    same_key = (table.c.annotator_id == row["annotator_id"]) & (table.c.key == row["key"])
    same_turn = (
        (table.c.annotator_id == row["annotator_id"])
        & (table.c.item_id == row["item_id"])
        & (table.c.attempt == row["attempt"])
    )
    taken = connection.execute(select(table.c.ranking_id).where(same_key | same_turn)).first()
    if taken is not None:
        raise StoreError(
            f"{where}: annotator {row['annotator_id']!r} has judged this item here as well; "
            "import into a new store"
        )
