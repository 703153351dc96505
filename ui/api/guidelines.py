"""What a lead asks of the annotators of a project: a short plain text, read from a file.

The file may be edited while the app runs: each page that is opened gets it as it is then. A file
that cannot be read any more leaves the text as it was last, because an annotator can do nothing
about it. Nothing here names the file to them.
"""

from pathlib import Path

from imgalign.errors import InputError
from imgalign.images import read_plain_file

MOST_BYTES = 32 * 1024
"""Some twelve pages: more than anybody reads before they begin."""


class Guidelines:
    """The text of a file, or none; InputError where it cannot be read at first."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._text = "" if path is None else _read(path)

    def text(self) -> str:
        """The text as it is now; "" without guidelines."""
        if self.path is not None:
            try:
                self._text = _read(self.path)
            except InputError:
                return self._text
        return self._text


def _read(path: Path) -> str:
    try:
        return read_plain_file(path, limit=MOST_BYTES).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise InputError(f"guidelines: {path}: expected text in UTF-8; save it as such") from None
    except InputError as error:
        raise InputError(f"guidelines: {path}: {error}") from None
