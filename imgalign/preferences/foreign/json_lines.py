"""Rows of a JSON file, one at a time: an object in each line, or an array of objects.

Images are paths there, not embedded.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from imgalign.errors import InputError
from imgalign.files import parse_json

LARGEST_LINE = 2**20
"""Bytes; a line holds a prompt and some paths."""
BLOCK = 2**16
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*(?P<end>")?|[{}\[\]]', re.DOTALL)
"""A string, which may go on after the end of the block, or a bracket."""


class JsonRows:
    """A file with one JSON object in each line, or an array of them; rows are numbered from 1.

    `unit` is what the numbers count: "line", or "row" of an array.
    """

    def __init__(self, path: Path, *, largest_line: int = LARGEST_LINE) -> None:
        self.path = path
        self.largest_line = largest_line
        self.unit = "line"
        try:
            self.num_bytes = path.stat().st_size
            with path.open("rb") as file:
                if file.read(BLOCK).lstrip().startswith(b"["):
                    self.unit = "row"
            first = next(self.lines(), None)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        if first is None:
            raise InputError(f"{path}: expected JSON lines, got an empty file")
        values = first[2]
        if isinstance(values, str):
            raise InputError(f"{path}, {self.unit} {first[0]}: {values}")
        self.columns = tuple(values)

    def lines(self) -> Iterator[tuple[int, float, dict[str, Any] | str]]:
        """Number, share of the file that is read, and the object or what is wrong with the line."""
        if self.unit == "row":
            yield from self._array()
            return
        done = 0
        with self.path.open("rb") as file:
            most = self.largest_line
            for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), 1):
                if len(line) > most:
                    # The rest of such a line cannot be told from the next.
                    raise InputError(
                        f"{self.path}, line {number}: longer than {most} bytes; images "
                        "must be paths, or the table parquet"
                    )
                done += len(line)
                if line.strip():
                    yield number, done / self.num_bytes, _object(line)

    def _array(self) -> Iterator[tuple[int, float, dict[str, Any] | str]]:
        with self.path.open("rb") as file:
            try:
                for number, element in enumerate(elements(file, most=self.largest_line), 1):
                    yield number, file.tell() / self.num_bytes, _object(element)
            except ValueError as error:
                raise InputError(f"{self.path}: {error}") from None


def elements(file: BinaryIO, *, most: int) -> Iterator[bytes]:
    """The text of each object or list in a JSON array; a few at a time are in memory.

    ValueError for an array that does not end, has elements of other kinds or of over `most` bytes.
    """
    buffer, at, start, depth = b"", 0, 0, 0
    while block := file.read(BLOCK):
        buffer += block
        for token in TOKEN.finditer(buffer, at):
            if token[0].startswith(b'"') and not token["end"]:
                break  # the rest of the string is in the next block
            at = token.end()
            if token[0] in b"{[":
                depth += 1
                if depth == 2:
                    _refuse_others(buffer[start : token.start()])
                    start = token.start()
            elif token[0] in b"}]":
                depth -= 1
                if depth == 1:
                    yield buffer[start:at]
                    start = at
            if depth == 1 and token[0] == b"[":
                start = at
        if len(buffer) - start > most + BLOCK:
            raise ValueError(f"an element is longer than {most} bytes; images must be paths")
        buffer, at, start = buffer[start:], at - start, 0
    if depth:
        raise ValueError("the JSON array does not end; is the file complete?")
    _refuse_others(buffer.strip().removesuffix(b"]"))


def _refuse_others(between: bytes) -> None:
    if other := between.strip(b", \t\r\n"):
        raise ValueError(
            f"expected an array of JSON objects, got {other[:40].decode(errors='replace')!r}"
        )


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        value = parse_json(line)
    except ValueError as error:
        return f"expected a JSON object ({str(error).splitlines()[0]})"
    return value if isinstance(value, dict) else f"expected a JSON object, got {value!r:.40}"
