"""What a lead asks of annotators: a short plain text, from a file or else from the store.

A file is for all projects of the app, and may be edited while it runs: each page that is opened
gets it as it is then. A file that cannot be read any more leaves the text as it was last, because
an annotator can do nothing about it. Nothing here names the file to them.
"""

from contextlib import suppress
from pathlib import Path

from imgalign.errors import InputError
from imgalign.images import read_plain_file
from imgalign.preferences.database import Database
from imgalign.preferences.guidelines import MOST_BYTES, guidelines_of


class Guidelines:
    """The text of a file, or of a project; InputError where the file cannot be read at first."""

    def __init__(self, path: Path | None, database: Database | None = None) -> None:
        self.path = path
        self.database = database
        self._text = "" if path is None else _read(path)

    def text(self, project: str = "") -> str:
        """The text as it is now; "" without guidelines."""
        if self.path is not None:
            with suppress(InputError):
                self._text = _read(self.path)
            return self._text
        return "" if self.database is None else guidelines_of(self.database, project)


def _read(path: Path) -> str:
    try:
        return read_plain_file(path, limit=MOST_BYTES).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise InputError(f"guidelines: {path}: expected text in UTF-8; save it as such") from None
    except InputError as error:
        raise InputError(f"guidelines: {path}: {error}") from None
