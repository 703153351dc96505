"""Rows of a parquet file, a few at a time, and single cells of it later; and tables to write.

pyarrow is an optional part of the installation; it is imported here, when a file is opened.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from imgalign.errors import InputError

ROWS = 16
"""Rows in memory at once; each may hold several images."""
INSTALL = "pip install 'imgalign-studio[parquet]'"
CURE = f"{INSTALL}, or save the table as JSON lines"
Kind = Literal["text", "bytes", "number", "whole", "flag", "time"]
"""Of a column that is written. Numbers have 64 bits; times are in UTC, in nanoseconds."""


class ParquetRows:
    """A parquet file; rows are numbered from 0 over the whole file.

    Reading cells in the order of rows costs one pass over the file, in another order one pass over
    the row groups asked for.
    """

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise InputError(f"{path}: parquet tables need pyarrow; {CURE}") from None
        self.path = path
        self._broken = (pyarrow.ArrowException, OSError)
        self._parquet = parquet
        self._latest: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        """By column: the rows last read by `cell`, and the number of the first."""
        self._ahead: dict[str, tuple[int, Iterator[list[dict[str, Any]]]]] = {}
        """By column: the batches after those, and the number of their first row."""
        with self._opened() as file:
            self.columns = tuple(file.schema_arrow.names)
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self.starts = [sum(groups[:i]) for i in range(len(groups))]
        self.num_rows = sum(groups)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and values of each row."""
        number = 0
        for batch in self._batches(tuple(columns), range(len(self.starts))):
            for values in batch:
                yield number, values
                number += 1

    def cell(self, row: int, column: str) -> Any:
        """The value in a row."""
        start, rows = self._latest.get(column, (0, []))
        while not start <= row < start + len(rows):
            start, rows = self._latest[column] = self._next(row, column)
        return rows[row - start][column]

    def _next(self, row: int, column: str) -> tuple[int, list[dict[str, Any]]]:
        """The batch after the latest one, or the first of the row's group where that is nearer."""
        group = max(number for number, start in enumerate(self.starts) if start <= row)
        ahead = self._ahead.get(column)
        if ahead is None or not self.starts[group] <= ahead[0] <= row:
            later_groups = range(group, len(self.starts))
            ahead = self.starts[group], self._batches((column,), later_groups)
        start, batches = ahead
        batch = next(batches, None)
        if batch is None:
            raise InputError("the table has changed since it was first read")
        self._ahead[column] = start + len(batch), batches
        return start, batch

    def _batches(
        self, columns: tuple[str, ...], groups: Sequence[int]
    ) -> Iterator[list[dict[str, Any]]]:
        with self._opened() as file:
            for group in groups:
                found = file.iter_batches(ROWS, row_groups=[group], columns=list(columns))
                while True:
                    try:
                        batch = next(found, None)
                        rows = None if batch is None else batch.to_pylist()
                    except self._broken as error:
                        raise self._unreadable(error) from None
                    if rows is None:
                        break
                    yield rows

    def _opened(self) -> Any:
        try:
            # Without buffering ahead, memory holds a few pages and not a whole row group.
            return self._parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20)
        except self._broken as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self.path}: damaged, or no parquet file ({_one_line(error)})")


class ParquetWriter:
    """Writes a new parquet file, a few rows at a time."""

    def __init__(self, path: Path, columns: Mapping[str, Kind]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise InputError(f"{path}: parquet tables need pyarrow; {INSTALL}") from None
        types = {
            "text": pyarrow.string(),
            "bytes": pyarrow.binary(),
            "number": pyarrow.float64(),
            "whole": pyarrow.int64(),
            "flag": pyarrow.bool_(),
            "time": pyarrow.timestamp("ns"),
        }
        self._schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._table = pyarrow.Table
        embedded = [name for name, kind in columns.items() if kind == "bytes"]
        self._file = parquet.ParquetWriter(
            path,
            self._schema,
            use_dictionary=[name for name in columns if name not in embedded],
            write_statistics=[name for name in columns if name not in embedded],
        )
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> "ParquetWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; times have no time zone."""
        self._rows.append(row)
        if len(self._rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._table.from_pylist(self._rows, self._schema))
            self._rows = []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
