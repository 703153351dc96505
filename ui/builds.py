"""Files to take home that are written in the background, one at a time, and wait to be taken.

A big store takes minutes, a checkpoint seconds: the browser asks for a file, then whether it is
there, and takes it (api/taking.py, assets/taking.js).
"""

import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imgalign.errors import DatabaseError, ImgalignError, InputError, StorageFullError
from ui.links import ASK, said

KEPT = 3
"""Files that stay to be taken; the oldest goes when another is begun."""


class Built(NamedTuple):
    """A file that is written."""

    path: Path
    name: str
    """What a browser saves it as."""
    said: str
    """What it holds."""


@dataclass(slots=True)
class Build:
    """A file that is being written, is there, or could not be."""

    of: Hashable
    folder: Path
    built: Built | None = None
    error: ImgalignError | None = None

    @property
    def is_done(self) -> bool:
        """Whether the file is there, or will never be."""
        return self.built is not None or self.error is not None


class Builds:
    """The files of one server; they go with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._builds: dict[str, Build] = {}

    def begin(self, of: Hashable, write: Callable[[Path], Built]) -> str:
        """Begin to `write` a file into an empty folder; its name here.

        `of` says what is in it: it is not begun again while it is being written. InputError while
        another is.
        """
        with self._lock:
            for name, each in self._builds.items():
                if not each.is_done and each.of == of:
                    return name
            if not all(each.is_done for each in self._builds.values()):
                raise InputError("another file is being written; ask again when it is done")
            while len(self._builds) >= KEPT:
                shutil.rmtree(self._builds.pop(next(iter(self._builds))).folder)
            key = secrets.token_urlsafe(15)
            build = Build(of=of, folder=Path(tempfile.mkdtemp(prefix="imgalign-")))
            weakref.finalize(self, shutil.rmtree, build.folder, ignore_errors=True)
            self._builds[key] = build
        threading.Thread(target=_write, args=(build, write), daemon=True).start()
        return key

    def build(self, key: str) -> Build:
        """A file that can be asked for; InputError where it cannot be written, or is gone, but for
        a database out of order and a full disk.
        """
        build = self._builds.get(key)
        if build is None:
            raise InputError("the file is not there any more; ask for it again")
        if build.error is not None:
            raise type(build.error)(str(build.error))
        return build

    def take(self, key: str) -> Built:
        """The file; InputError where it is not there."""
        found = self.build(key).built
        if found is None:
            raise InputError("the file is still being written; take it when it is done")
        return found


def _write(build: Build, write: Callable[[Path], Built]) -> None:
    try:
        build.built = write(build.folder)
    except (DatabaseError, StorageFullError) as error:
        build.error = error
    except ImgalignError as error:
        build.error = InputError(said(error))
    finally:
        if not build.is_done:
            build.error = InputError(f"the file could not be written; {ASK}: its log says why")
