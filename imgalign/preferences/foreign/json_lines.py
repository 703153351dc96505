"""Rows of a file of JSON lines, one at a time. Images are paths there, not embedded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imgalign.errors import InputError
from imgalign.files import parse_json

LARGEST_LINE = 2**20
"""Bytes; a line holds a prompt and some paths."""


class JsonRows:
    """A file with one JSON object in each line; rows are numbered as lines are, from 1."""

    def __init__(self, path: Path, *, largest_line: int = LARGEST_LINE) -> None:
        self.path = path
        self.largest_line = largest_line
        try:
            self.num_bytes = path.stat().st_size
            first = next(self.lines(), None)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        if first is None:
            raise InputError(f"{path}: expected JSON lines, got an empty file")
        values = first[2]
        if isinstance(values, str):
            raise InputError(f"{path}, line {first[0]}: {values}")
        self.columns = tuple(values)

    def lines(self) -> Iterator[tuple[int, float, dict[str, Any] | str]]:
        """Number, share of the file that is read, and the object or what is wrong with the line."""
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


def _object(line: bytes) -> dict[str, Any] | str:
    try:
        value = parse_json(line)
    except ValueError as error:
        return f"expected a JSON object ({str(error).splitlines()[0]})"
    return value if isinstance(value, dict) else f"expected a JSON object, got {value!r:.40}"
