"""Folders that an export writes whole or not at all, and knows again by a record in them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imgalign.errors import InputError
from imgalign.files import (
    describe_folder,
    lock_name,
    read_json,
    recover_folder,
    replace_folder,
    reporting_full_disk,
    sync_tree,
    unfinished_folder,
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
    with lock_name(folder, doing=f"{doing} to"), reporting_full_disk(folder, doing):
        recover_folder(folder)
        made = unfinished_folder(folder)
        try:
            made.mkdir(parents=True)
            yield made
            sync_tree(made)
            replace_folder(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _is_export(record: Path, kind: str) -> bool:
    try:
        found = read_json(record)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") == kind
