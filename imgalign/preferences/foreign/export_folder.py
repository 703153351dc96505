"""Folders that an export writes whole or not at all, and knows again by a record in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgalign.errors import InputError
from imgalign.files import (
    describe_folder,
    lock_name,
    read_json,
    recover_folder,
    whole_folder,
)


@contextmanager
def new_export(folder: Path, *, record: str, kind: str, what: str) -> Iterator[Path]:
    """An empty folder to fill, which becomes `folder`; an earlier export there is replaced.

    The caller writes the JSON file `record`, which names the `kind`. InputError where anything else
    lies there than an earlier export of `what`, such as "pairs".
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder, got a file; choose another name")
    if folder.exists() and any(folder.iterdir()) and not _is_export(folder / record, kind):
        raise InputError(
            f"{folder}: expected a new folder or an earlier export of {what}, "
            f"{describe_folder(folder)}; choose another name"
        )
    doing = f"exporting {what}"
    with lock_name(folder, doing=f"{doing} to"):
        recover_folder(folder)
        with whole_folder(folder, doing=doing) as made:
            yield made


def _is_export(record: Path, kind: str) -> bool:
    try:
        found = read_json(record)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") == kind
