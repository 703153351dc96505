"""Tables of ranked images: parquet, JSON lines or JSON, one ranking in each row.

What the columns mean is in table_layouts.py. An image is a path, from the folder of the table, or
the bytes themselves, as `datasets` embeds them: {"bytes": ..., "path": ...}. A row at a time is in
memory; of an embedded image only its place is kept. What cannot be used is named with its reason,
and the rest is kept.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imgalign.images import MAX_BYTES, read_plain_file
from imgalign.preferences.foreign.json_lines import JsonRows
from imgalign.preferences.foreign.parquet import ParquetRows
from imgalign.preferences.foreign.records import (
    Collector,
    GivenImage,
    GivenRanking,
    RankedFiles,
    Remark,
)
from imgalign.preferences.foreign.rows import open_table, tables_in
from imgalign.preferences.foreign.table_layouts import (
    Cell,
    Layout,
    Row,
    UnusableError,
    dense,
    layout_of,
    read_row,
)

OPTIONAL = ("weight",)


def read_table(path: Path, *, on_progress: Callable[[float], None] = lambda _: None) -> RankedFiles:
    """The rankings in a table, or in the tables of a folder; every image is decoded once.

    `on_progress` gets the share that is done. InputError where columns are missing, and where no
    ranking can be used.
    """
    tables = tables_in(path)
    collector = Collector(str(path))
    for number, table in enumerate(tables):
        name = f"{table.name}, " if table != path else ""
        reader = TableReader(collector, table, name)
        for share in reader.read():
            on_progress((number + share) / len(tables))
    on_progress(1.0)
    return collector.finished()


class TableReader:
    """Reads one table into a collector. `name` begins the names of its rows."""

    def __init__(self, collector: Collector, path: Path, name: str) -> None:
        self.collector = collector
        self.path = path
        self.name = name
        self.files: dict[str, GivenImage | None] = {}
        """Images that are files of their own, by their path in the table; None if unreadable."""

    def read(self) -> Iterator[float]:
        """Read all rows; yields the share that is done."""
        table = open_table(self.path)
        if isinstance(table, ParquetRows):
            yield from self._read_parquet(table)
        else:
            yield from self._read_json(table)

    def _read_parquet(self, table: ParquetRows) -> Iterator[float]:
        layout, prompts = layout_of(table.columns, str(self.path))
        wanted = (prompts, *layout.columns, *layout.optional, *OPTIONAL)
        columns = [name for name in wanted if name in table.columns]
        for number, values in table.rows(columns):

            def load(cell: Cell, row: int = number) -> bytes:
                value = table.cell(row, cell.column)
                return _embedded(value if cell.position is None else value[cell.position])

            self._row(layout, prompts, values, f"{self.name}row {number + 1}", load)
            yield (number + 1) / table.num_rows

    def _read_json(self, table: JsonRows) -> Iterator[float]:
        layout, prompts = layout_of(table.columns, str(self.path))
        for number, share, values in table.lines():
            name = f"{self.name}{table.unit} {number}"
            if isinstance(values, str):
                self.collector.left_out.append(
                    Remark(reason="unusable row", name=name, detail=values)
                )
            else:
                self._row(layout, prompts, values, name, None)
            yield share

    def _row(
        self,
        layout: Layout,
        prompts: str,
        values: Mapping[str, Any],
        name: str,
        load: Callable[[Cell], bytes] | None,
    ) -> None:
        """Keep what a row says; `load` reads the bytes that stand in a cell of it once more."""
        try:
            row = read_row(layout, prompts, values)
        except UnusableError as error:
            self.collector.left_out.append(
                Remark(reason=error.reason, name=name, detail=str(error))
            )
            return
        images = [self._image(cell, name, load) for cell in row.cells]
        for ranks in row.rankings:
            self._keep(row, ranks, images, name)

    def _image(
        self, cell: Cell, name: str, load: Callable[[Cell], bytes] | None
    ) -> GivenImage | None:
        """The image of a cell; None, and a remark, where it cannot be read."""
        path = cell.value.get("path") if isinstance(cell.value, dict) else cell.value
        content = _embedded(cell.value)
        where = f"{name}, {cell.column}"
        where += "" if cell.position is None else f" {cell.position + 1}"
        if content and load is not None:
            place = Cell(column=cell.column, position=cell.position, value=None)
            return self._kept(self.collector.examined(where, partial(load, place), content=content))
        if not isinstance(path, str) or not path:
            detail = "expected a path or an image"
            return self._kept(Remark(reason="unreadable", name=where, detail=detail))
        if "://" in path:
            detail = f"{path:.60} is an address; download the image and give its path"
            return self._kept(Remark(reason="unreadable", name=where, detail=detail))
        if path not in self.files:
            read = partial(read_plain_file, self.path.parent / path, limit=MAX_BYTES)
            self.files[path] = self._kept(self.collector.examined(path, read))
        return self.files[path]

    def _kept(self, found: GivenImage | Remark) -> GivenImage | None:
        """An image; a remark goes to what is left out."""
        if isinstance(found, GivenImage):
            return found
        self.collector.left_out.append(found)
        return None

    def _keep(
        self, row: Row, ranks: tuple[int, ...], images: list[GivenImage | None], name: str
    ) -> None:
        """Keep the ranking of the images that can be read, if two are left."""
        left_out = self.collector.left_out
        kept: dict[str, tuple[GivenImage, int]] = {}
        for image, rank in zip(images, ranks, strict=True):
            if image is not None and image.sha256 in kept:
                left_out.append(Remark(reason="equal images", name=name))
                return
            if image is not None:
                kept[image.sha256] = (image, rank)
        ranked = [rank for _, rank in kept.values() if rank >= 0]
        if len(kept if row.all_bad else ranked) < 2:
            if None not in images:
                left_out.append(
                    Remark(reason="unusable row", name=name, detail="fewer than two images")
                )
            return
        ranks = dense([rank if rank >= 0 else None for _, rank in kept.values()])
        self.collector.add(
            name,
            GivenRanking(
                prompt=row.prompt,
                images=tuple(kept),
                ranks=ranks,
                all_bad=row.all_bad,
                weight=row.weight,
            ),
            [image for image, _ in kept.values()],
        )


def _embedded(value: Any) -> bytes:
    """The bytes that stand in a cell, empty without any."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else b""
