"""Export and import of rankings as JSON lines, without loss.

The first line names the format; then come images and texts with their provenances, AI judges,
annotators, items, gold items and rankings, each line with its `kind`, so that a reader needs one
pass; those of one project have what belongs to it alone. Undone judgements are part of the record
and travel too, and so do those of excluded annotators, with who is excluded; leases do not. Image
files travel as files: give the folder that holds them.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import ColumnElement, Connection, Table, insert, select
from sqlalchemy.exc import IntegrityError

from imgalign.errors import InputError, StoreError
from imgalign.files import UNFINISHED, lock_name, parse_json
from imgalign.preferences import judges, outcomes, queries, schema, tallies, texts, validation
from imgalign.preferences.accounts_schema import accounts
from imgalign.preferences.identity import person, was_simulated
from imgalign.preferences.originals import ImageFolder, described
from imgalign.preferences.records import ATTENTION, utc_now
from imgalign.preferences.store import Store

FORMAT = {"kind": "imgalign-rankings", "version": 1}
# In an order in which references precede their use, with the columns that identify a row.
TABLES: dict[str, tuple[Table, tuple[str, ...]]] = {
    "image": (schema.images, ("image_id",)),
    "provenance": (schema.provenances, ("image_id", "digest")),
    "text": (schema.texts, ("text_id",)),
    "text_provenance": (schema.text_provenances, ("text_id", "digest")),
    "judge": (schema.judges, ("judge_id",)),
    "annotator": (schema.annotators, ("annotator_id",)),
    "item": (schema.items, ("item_id",)),
    "candidate": (schema.candidates, ("item_id", "candidate")),
    "gold": (schema.gold, ("item_id",)),
    "ranking": (schema.rankings, ("ranking_id",)),
    "judge_answers": (schema.judge_answers, ("ranking_id",)),
    "undo": (schema.undos, ("ranking_id",)),
    "exclusion": (schema.exclusions, ("project", "annotator_id")),
}
# Columns that may differ between two stores, such as times and the spelling of a name; what is here
# already keeps its own.
LOCAL = frozenset(
    {"sequence", "added_at", "overlap", "withdrawn_at", "created_at", "name", "propensity"}
)
UNSENT = frozenset({"sequence", "client", "given", "priority"})
MAX_LINE = 2**20
"""Longest line, in bytes; the longest that is written holds a prompt or a text."""


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
    for where, kind, row in _read(path):
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

    `images` is the images folder of the store that was exported, if not this one's own; `name` is
    what messages call the file, if not its path. Importing again changes nothing. Raises InputError
    for a file or image that cannot be used, StoreError if a row contradicts one in the store.
    Without `of_accounts` also for a new judgement, or the undo of one, of whoever has an account:
    that is for those who may write the database, not for a lead in the app.
    """
    folder = None if images is None else ImageFolder(images, create=False)
    needed: dict[str, dict[str, Any]] = {}
    changed_items: dict[str, str] = {}
    judged: dict[tuple[str, str], str] = {}
    num_new = 0
    with store.database.write() as connection:
        listed = select(accounts.c.account_id)
        kept = frozenset() if of_accounts else frozenset(connection.execute(listed).scalars())
        for where, kind, row in _read(path, name):
            new = _add(connection, kind, row, where)
            if new:
                _refuse_accounts(connection, kind, row, where, kept)
                _count(connection, kind, row)
            num_new += new and kind == "ranking"
            if kind == "image":
                needed[where] = row
            if new and kind == "ranking":
                judged[row["item_id"], row["annotator_id"]] = where
            if new and kind in ("item", "candidate"):
                changed_items.setdefault(row["item_id"], where)
        for item_id, where in changed_items.items():
            _check_item(connection, item_id, where)
        for (item_id, annotator_id), where in judged.items():
            _refuse_twice(connection, item_id, annotator_id, where)
        # Last, so that a refused file leaves no images; and on disk before the rows are.
        for where, row in needed.items():
            _bring_image(store, folder, row, where)
    return num_new


def values_in(path: Path, kind: str, column: str) -> Iterator[Any]:
    """A column of each line of a kind in an export. Example: "item", "project"."""
    for _, values in _lines(path):
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
        next(_lines(path), None)
    except InputError:
        return False
    return True


def _read(path: Path, name: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(where, kind, columns) of each line after the first; `name` is said in place of the path."""
    for where, values in _lines(path, name):
        kind = values.pop("kind", None) if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in TABLES:
            raise InputError(f"{where}: expected a line of a kind that is known here")
        yield where, kind, _typed(TABLES[kind][0], values, where)


def _lines(path: Path, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """(where, value) of each line after the first, which has to name the format."""
    name = name or str(path)
    try:
        with path.open("rb") as file:
            first = file.readline(MAX_LINE + 1)
            if _value(first, f"{name}:1") != FORMAT:
                shown = first[:60].decode("utf-8", "replace").strip()
                raise InputError(f"{name}:1: expected {json.dumps(FORMAT)}, got {shown!r}")
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=2):
                yield f"{name}:{number}", _value(line, f"{name}:{number}")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error


def _value(line: bytes, where: str) -> Any:
    if len(line) > MAX_LINE:
        raise InputError(f"{where}: longer than {MAX_LINE} bytes")
    try:
        return parse_json(line)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); is the file complete?") from error


def _typed(table: Table, values: dict[str, Any], where: str) -> dict[str, Any]:
    values = _added_later(table, values) | values
    expected = {column.name for column in table.c} - UNSENT
    if set(values) != expected:
        differ = ", ".join(sorted(set(values) ^ expected))
        raise InputError(f"{where}: missing or unknown fields: {differ}")
    try:
        typed = {name: validation.column(table.c[name], value) for name, value in values.items()}
        if "annotator_id" in typed:  # an older export has every spelling of a name
            typed["annotator_id"] = person(typed["annotator_id"])
            validation.name("annotator_id", typed["annotator_id"])
        if table is schema.texts:
            _check_text(typed)
        if table is schema.judges:
            judges.check_row(typed)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return typed


def _check_text(row: dict[str, Any]) -> None:
    if texts.text_id(texts.check_text(row["text"])) != row["text_id"]:
        raise InputError(f"text {row['text_id'][:12]} is not what its id says; was it changed?")


def _added_later(table: Table, values: dict[str, Any]) -> dict[str, Any]:
    """Columns that older exports lack, with the values that the migrations give them."""
    if table is schema.provenances:
        return {"dtype": "float32", **queries.LATER}
    if table is schema.annotators:
        named = str(values.get("annotator_id")), str(values.get("group_name"))
        return {"simulated": was_simulated(*named), "judge_id": None}
    if table is schema.items:
        return {"samples": "images", "withdrawn_at": None}
    if table is schema.candidates:
        return {"text_id": None}
    if table is schema.rankings:
        return {"propensity": None}
    return {}


def _bring_image(store: Store, folder: ImageFolder | None, row: dict[str, Any], where: str) -> None:
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


def _check_item(connection: Connection, item_id: str, where: str) -> None:
    """Check that an item's id is the hash of its content, and its samples are of its kind."""
    item = connection.execute(select(schema.items).where(schema.items.c.item_id == item_id)).one()
    shown = queries.candidates_of(connection, item_id)
    whole = queries.item_id(item.project, item.prompt, item.source, shown) == item_id
    if not whole or queries.kinds_of(connection, item_id) - {item.samples}:
        raise InputError(f"{where}: item {item_id[:12]} is not what its id says; was it changed?")
    if item.withdrawn_at is not None and not item.source.startswith(ATTENTION):
        raise InputError(
            f"{where}: item {item_id[:12]}: expected no withdrawn_at, which only "
            "attention items have"
        )


def _add(connection: Connection, kind: str, row: dict[str, Any], where: str) -> bool:
    table, identity = TABLES[kind]
    here = select(table).where(*(table.c[name] == row[name] for name in identity))
    known = connection.execute(here).mappings().first()
    if known is None:
        if kind == "ranking":
            _check(connection, row, where)
            _refuse_taken(connection, row, where)
        if kind == "judge_answers":
            _check_answers(connection, row, where)
        if kind == "gold":
            _check_gold(connection, row, where)
        try:
            connection.execute(insert(table).values(**row))
        except IntegrityError as error:
            said = str(error.orig).splitlines()[0]
            raise InputError(f"{where}: does not fit the lines before it ({said})") from error
        return True
    for name, value in row.items():
        if name not in LOCAL and known[name] != value:
            raise StoreError(f"{where}: {kind} is here already with another {name}")
    return False


def _count(connection: Connection, kind: str, row: dict[str, Any]) -> None:
    """Count what was just added, as if it had been given here."""
    match kind:
        case "provenance":
            outcomes.image_made(connection, row["image_id"])
        case "item":
            tallies.item_added(connection, row["item_id"])
        case "ranking":
            tallies.judged(connection, row["ranking_id"], now=utc_now())
        case "undo":
            tallies.taken_back(connection, row["ranking_id"])
        case "exclusion":
            tallies.annotator_excluded(connection, row["annotator_id"], row["project"])


def _check(connection: Connection, row: dict[str, Any], where: str) -> None:
    """Apply the rules for submitted rankings to one from a file."""
    try:
        validation.judgement(
            verdict=row["verdict"], reason=row["reason"], ranking=row["tie_groups"]
        )
        validation.propensity(row["propensity"])
        validation.fits(
            order=row["display_order"],
            ranking=row["tie_groups"],
            num_candidates=len(queries.candidates_of(connection, row["item_id"])),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_gold(connection: Connection, row: dict[str, Any], where: str) -> None:
    try:
        shown = queries.candidates_of(connection, row["item_id"])
        validation.expected_order(row["expected"], num_candidates=len(shown))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_answers(connection: Connection, row: dict[str, Any], where: str) -> None:
    """Apply the rules for the answers of AI judges to those from a file."""
    asked = queries.judgements(include_undone=True, include_excluded=True).where(
        schema.rankings.c.ranking_id == row["ranking_id"]
    )
    of = connection.execute(asked).first()
    if of is None:
        raise InputError(f"{where}: does not fit the lines before it: of an unknown ranking")
    try:
        validation.answers(
            queries.to_answers(row["answers"]),
            num=len(of.display_order),
            by_judge=of.judge_id is not None,
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _refuse_accounts(
    connection: Connection, kind: str, row: dict[str, Any], where: str, kept: frozenset[str]
) -> None:
    """StoreError for a judgement, or the undo of one, in the name of one of these accounts."""
    if not kept or kind not in ("ranking", "undo"):
        return
    by = select(schema.rankings.c.annotator_id)
    of = by.where(schema.rankings.c.ranking_id == row["ranking_id"])
    annotator_id = connection.execute(of).scalar_one()
    if annotator_id in kept:
        raise StoreError(
            f"{where}: {kind} by {annotator_id!r}, who has an account here and judges for "
            "themselves; give the annotator another name in the file, or import it by "
            "'imgalign data import' as the owner of the database"
        )


def _refuse_twice(connection: Connection, item_id: str, annotator_id: str, where: str) -> None:
    """InputError where more than one judgement of an item stands of one annotator."""
    of_both = {"item": item_id, "who": annotator_id}
    if len(connection.execute(queries.standing_of(), of_both).all()) > 1:
        raise InputError(
            f"{where}: a second judgement of its item by {annotator_id!r}, of which one can stand; "
            "undo the others in the file"
        )


def _refuse_taken(connection: Connection, row: dict[str, Any], where: str) -> None:
    """StoreError where both stores have judgements of one annotator and item."""
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
