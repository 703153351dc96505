"""The lines of an export of rankings: what each kind has, read and checked one by one.

Whether the lines fit each other and a store is found by import_checks.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Table

from imgalign.errors import InputError
from imgalign.files import parse_json
from imgalign.preferences import judges, queries, schema, texts, validation
from imgalign.preferences.identity import person, was_simulated

Row = dict[str, Any]

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
UNSENT = frozenset({"sequence", "client", "given", "priority"})
MAX_LINE = 2**20
"""Longest line, in bytes; the longest that is written holds a prompt or a text."""


class Line(NamedTuple):
    """A line after the first. Example: "rankings.jsonl:7", "undo", its columns."""

    where: str
    kind: str
    row: Row


def read_lines(path: Path, name: str | None = None) -> Iterator[Line]:
    """Each line after the first; `name` is said in place of the path."""
    known: dict[str, str] = {}  # most texts come again: an id in each row that names it
    for where, values in read_values(path, name):
        kind = values.pop("kind", None) if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in TABLES:
            raise InputError(f"{where}: expected a line of a kind that is known here")
        row = _typed(TABLES[kind][0], values, where)
        for column, value in row.items():
            if isinstance(value, str):
                row[column] = known.setdefault(value, value)
        yield Line(where, kind, row)


def read_values(path: Path, name: str | None = None) -> Iterator[tuple[str, Any]]:
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


def _typed(table: Table, values: Row, where: str) -> Row:
    values = _added_later(table, values) | values
    expected = {column.name for column in table.c} - UNSENT
    if set(values) != expected:
        differ = ", ".join(sorted(set(values) ^ expected))
        raise InputError(f"{where}: missing or unknown fields: {differ}")
    try:
        # Names as the table has them, so that many rows share one text.
        columns = [column for column in table.c if column.name not in UNSENT]
        typed = {each.name: validation.column(each, values[each.name]) for each in columns}
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


def _check_text(row: Row) -> None:
    if texts.text_id(texts.check_text(row["text"])) != row["text_id"]:
        raise InputError(f"text {row['text_id'][:12]} is not what its id says; was it changed?")


def _added_later(table: Table, values: Row) -> Row:
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
