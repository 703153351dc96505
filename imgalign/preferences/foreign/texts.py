"""Tables of texts: parquet or JSON lines, with a ranking or a completion in each row.

What the columns mean is in text_layouts.py. What cannot be used is named with its reason, and the
rest is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from imgalign.preferences.foreign.records import (
    Completions,
    RankedTexts,
    Remark,
    refuse_none,
)
from imgalign.preferences.foreign.rows import named_rows, open_table, tables_in
from imgalign.preferences.foreign.table_layouts import UnusableError, fitting
from imgalign.preferences.foreign.text_layouts import (
    COMPLETION_OPTIONS,
    COMPLETIONS,
    LABELLED,
    LABELLED_OPTIONS,
    RANKING_OPTIONS,
    RANKINGS,
    Values,
)

LARGEST_LINE = 2**26
"""Bytes of a line of JSON, which may hold many texts."""

T = TypeVar("T")


def read_text_rankings(path: Path) -> RankedTexts:
    """The rankings of texts in a table, or in the tables of a folder.

    InputError where columns are missing, and where no ranking can be used.
    """
    rows, left_out = read_rows(path, RANKINGS, RANKING_OPTIONS)
    rankings = [ranking for _, ranking in rows]
    refuse_none(str(path), "ranking", rankings, left_out)
    return RankedTexts(name=str(path), rankings=tuple(rankings), left_out=tuple(left_out))


def read_completions(path: Path) -> Completions:
    """The completions in a table, or in the tables of a folder.

    InputError where columns are missing, and where no row can be used.
    """
    found, left_out = read_rows(path, COMPLETIONS, COMPLETION_OPTIONS)
    rows = [row for _, row in found]
    refuse_none(str(path), "completion", rows, left_out)
    return Completions(name=str(path), rows=tuple(rows), left_out=tuple(left_out))


def read_labelled(path: Path) -> Completions:
    """The completions in a table, or in the tables of a folder, each of which has a label.

    InputError where columns are missing, and where no row can be used.
    """
    found, left_out = read_rows(path, LABELLED, LABELLED_OPTIONS)
    rows = [row for _, row in found]
    refuse_none(str(path), "labelled completion", rows, left_out)
    return Completions(name=str(path), rows=tuple(rows), left_out=tuple(left_out))


def read_rows(
    path: Path,
    layouts: Mapping[tuple[str, ...], Callable[[Values], T]],
    optional: Sequence[str],
) -> tuple[list[tuple[str, T]], list[Remark]]:
    """What each row says, with its name, and the rows that say nothing.

    `path` is a table or a folder of tables, `layouts` read rows by the columns that they need.
    """
    found: list[tuple[str, T]] = []
    left_out: list[Remark] = []
    for file in tables_in(path):
        table = open_table(file, largest_line=LARGEST_LINE)
        columns = fitting({each: each for each in layouts}, table.columns, str(file))
        read = layouts[columns]
        for row, values in named_rows(table, (*columns, *optional)):
            name = row if file == path else f"{file.name}, {row}"
            try:
                found.append((name, read(_whole(values, columns))))
            except UnusableError as error:
                left_out.append(Remark(reason=error.reason, name=name, detail=str(error)))
    return found, left_out


def _whole(values: dict[str, Any] | str, columns: Sequence[str]) -> dict[str, Any]:
    """The values of a row that has them all; UnusableError for any other."""
    if isinstance(values, str):
        raise UnusableError("unusable row", values)
    absent = [each for each in columns if each not in values]
    if absent:
        raise UnusableError("unusable row", f"no {', '.join(absent)}")
    return values
