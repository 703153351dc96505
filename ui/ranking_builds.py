"""Files of rankings that are written in the background, one at a time, and wait to be taken.

A big store takes minutes: the browser asks for a file, then whether it is there, and takes it.
"""

import secrets
import shutil
import tempfile
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

from imgalign.errors import DatabaseError, ImgalignError, InputError, StorageFullError
from imgalign.preferences.store import Store
from ui.links import in_the_app
from ui.ranking_files import Kind, written

KEPT = 3
"""Files that stay to be taken; the oldest goes when another is begun."""


@dataclass(slots=True)
class Build:
    """A file that is being written, is there, or could not be."""

    name: str
    folder: Path
    file: Path | None = None
    said: str = ""
    """What the file holds."""
    error: ImgalignError | None = None

    @property
    def is_done(self) -> bool:
        """Whether the file is there, or will never be."""
        return self.file is not None or self.error is not None


class Builds:
    """The files of one server; they go with it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._builds: dict[str, Build] = {}

    def begin(self, project: str, kind: Kind) -> str:
        """Begin to write a file; its name here. InputError while another is being written."""
        with self._lock:
            if not all(each.is_done for each in self._builds.values()):
                raise InputError("another file is being written; ask again when it is done")
            while len(self._builds) >= KEPT:
                shutil.rmtree(self._builds.pop(next(iter(self._builds))).folder)
            key = secrets.token_urlsafe(15)
            build = Build(name=project, folder=Path(tempfile.mkdtemp(prefix="imgalign-")))
            weakref.finalize(self, shutil.rmtree, build.folder, ignore_errors=True)
            self._builds[key] = build
        threading.Thread(target=self._write, args=(build, project, kind), daemon=True).start()
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

    def take(self, key: str) -> tuple[str, Path]:
        """What a browser saves a file as, and the file; InputError where it is not there."""
        build = self.build(key)
        if build.file is None:
            raise InputError("the file is still being written; take it when it is done")
        return f"{build.name}-{build.file.name}", build.file

    def _write(self, build: Build, project: str, kind: Kind) -> None:
        try:
            file, build.said = written(self._store, project, kind, build.folder)
            build.file = file
        except (DatabaseError, StorageFullError) as error:
            build.error = error
        except ImgalignError as error:
            build.error = InputError(in_the_app(str(error)))
        finally:
            if not build.is_done:
                build.error = InputError(
                    "the file could not be written; the log of the app says why"
                )
