"""Files of tables, parquet, JSON lines or JSON, and their rows one at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imgalign.errors import InputError
from imgalign.files import describe_folder
from imgalign.preferences.foreign.json_lines import LARGEST_LINE, JsonRows
from imgalign.preferences.foreign.parquet import ParquetRows

PARQUET, JSON_LINES = (".parquet",), (".jsonl", ".ndjson", ".json")


def tables_in(path: Path) -> list[Path]:
    """The table itself, or the tables in a folder by name; InputError for a folder without any."""
    if not path.is_dir():
        return [path]
    tables = sorted(each for each in path.iterdir() if each.suffix in (*PARQUET, *JSON_LINES))
    if not tables:
        raise InputError(f"{path}: expected tables (.parquet or .jsonl), {describe_folder(path)}")
    return tables


def open_table(path: Path, *, largest_line: int = LARGEST_LINE) -> ParquetRows | JsonRows:
    """A table by the end of its name; InputError where it is none or cannot be read.

    `largest_line`: bytes of a line of JSON.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such table")
    if path.suffix in PARQUET:
        return ParquetRows(path)
    if path.suffix in JSON_LINES:
        return JsonRows(path, largest_line=largest_line)
    raise InputError(f"{path}: expected a table in .parquet or .jsonl")


def named_rows(
    table: ParquetRows | JsonRows, columns: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """The name of each row, and its values or what is wrong with it. Example: "line 7"."""
    if isinstance(table, ParquetRows):
        wanted = [name for name in columns if name in table.columns]
        for number, values in table.rows(wanted):
            yield f"row {number + 1}", values
    else:
        for number, _, found in table.lines():
            yield f"{table.unit} {number}", found
