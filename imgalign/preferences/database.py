"""Connections, transactions, migrations and readable errors of an SQL database.

Every write runs in one transaction that no other writer can overlap: BEGIN IMMEDIATE on SQLite,
a lock on the single row of `writer` elsewhere. So a check and the insert that relies on it are
atomic on any database. SQLite runs in WAL mode with synchronous=FULL: once a write has returned,
neither `kill -9` nor a power cut loses it. A database without write permission is opened read-only.
"""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from imgalign import __version__
from imgalign.errors import (
    DatabaseError,
    ImgalignError,
    InputError,
    StorageFullError,
    StoreError,
)
from imgalign.files import check_folder
from imgalign.preferences import address, schema

MIGRATIONS = Path(__file__).with_name("migrations")
# Key of the lock that keeps two processes from creating the same schema at once.
MIGRATION_LOCK = 0x1336A119
# PostgreSQL's "insufficient privilege" and "read-only transaction", as on a standby server.
NOT_ALLOWED = ("42501", "25006")
CACHE, LARGE_CACHE = 2_000, 64_000
"""KiB of a SQLite connection: what is usual, and where a transaction changes much."""
STORABLE = "imgalign_storable"
"""Execution option of statements whose values were looked through for what cannot be stored."""
MISSING = "check the name, or let `imgalign candidates --create` make one"


class Database:
    """A migrated database, opened by URL. Safe to share between threads.

    `name` is for messages, `path` the file of a SQLite database. `is_new` says that this call
    created the store, which without `create` is a StoreError. `read_only` says that it cannot be
    written. Raises StoreError for a newer schema, a file that is not a database or a foreign
    one, and for a locked one; StorageFullError when the disk is full. A database that is refused is
    not changed.
    """

    def __init__(self, url: str, *, create: bool = True, busy_seconds: float = 30.0) -> None:
        parsed = address.parse(url)
        self.name = address.shown(parsed)
        self.path = Path(parsed.database or "") if _is_sqlite(parsed) else None
        self.read_only = False
        self.is_new = False
        self._busy_seconds = busy_seconds
        # Threads of this process take turns here: SQLite lets those that wait sleep, and whoever
        # comes then is first.
        self._turn = threading.Lock()
        self._password = parsed.password
        with self._readable_errors():
            if self.path is not None:
                if not create:
                    _refuse_missing_file(self.path)
                _refuse_foreign_file(self.path, self.name)
                self.read_only = _is_read_only(self.path)
            if self.read_only:
                assert self.path is not None
                self._engine = _read_only_engine(self.path)
            else:
                self._engine = _engine(parsed, busy_seconds)
            # Python 3.13 complains of connections that nobody closed.
            weakref.finalize(self, self._engine.dispose)
            event.listen(self._engine, "before_cursor_execute", _refuse_nul)
            try:
                self._migrate(create=create)
            except BaseException:
                self._engine.dispose()
                raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot for reading."""
        with self._readable_errors(), self._engine.connect() as plain:
            if plain.dialect.name == "postgresql":  # its default shows each statement other data
                plain = plain.execution_options(isolation_level="REPEATABLE READ")
            yield plain

    @contextmanager
    def write(self, *, large: bool = False) -> Iterator[Connection]:
        """One transaction that excludes every other writer; on disk when the block ends.

        A `large` one has more memory for what it changes, which else goes to the disk meanwhile.
        """
        if self.read_only:
            raise DatabaseError(
                f"{self.name}: cannot be written here, only read; copy its folder to where it can"
            )
        with self._in_turn(), self._readable_errors(), self._engine.connect() as plain:
            connection = plain.execution_options(imgalign_begin="BEGIN IMMEDIATE")
            with self._cache(connection, large=large), connection.begin():
                if connection.dialect.name != "sqlite":
                    connection.execute(select(schema.writer).with_for_update())
                yield connection

    @contextmanager
    def _cache(self, connection: Connection, *, large: bool) -> Iterator[None]:
        if self.path is None or not large:
            yield
            return
        direct = connection.connection.cursor()  # which begins no transaction
        direct.execute(f"PRAGMA cache_size = -{LARGE_CACHE}")
        try:
            yield
        finally:
            direct.execute(f"PRAGMA cache_size = -{CACHE}")
            direct.close()

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=self._busy_seconds):
            raise DatabaseError(
                f"{self.name}: locked by another thread for more than {self._busy_seconds:g} s; "
                "nothing was saved, try again"
            )
        try:
            yield
        finally:
            self._turn.release()

    def _migrate(self, *, create: bool) -> None:
        with self._engine.connect() as plain:
            if not _pending(plain, self.name):
                return
            is_new = "alembic_version" not in inspect(plain).get_table_names()
        if self.read_only:
            raise StoreError(
                f"{self.name}: of an older version of imgalign, and cannot be written here to be "
                "brought up to date; copy its folder to where it can"
            )
        if is_new and not create:
            raise StoreError(f"{self.name}: holds no rankings and no queue; {MISSING}")
        self.is_new = is_new
        with self._engine.connect() as plain:
            connection = plain.execution_options(imgalign_begin="BEGIN IMMEDIATE")
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": MIGRATION_LOCK})
                if _pending(connection, self.name):  # unless another process did it meanwhile
                    config = _alembic_config()
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            readable = _translate(error, self.name, self._busy_seconds, self._password)
            if readable is None:
                raise
            raise readable from error
        except UnicodeEncodeError as error:  # a name from a command line or page that is not UTF-8
            raise _not_storable(error.object) from error


def check_usable(url: str, *, images: Path | None) -> None:
    """Refuse a database that `Database` could neither open nor create; makes and changes nothing.

    So also a folder of images that cannot be made. Whether a server answers is not asked.
    """
    if images is not None:
        check_folder(images.expanduser())
    parsed = address.parse(url)
    if not _is_sqlite(parsed):
        return
    path, name = Path(parsed.database or ""), address.shown(parsed)
    try:
        _refuse_foreign_file(path, name)
    except DBAPIError as error:
        raise _translate(error, name, 30.0, None) or error from error
    if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True):
        raise StoreError(f"{path}: cannot be made; check the permissions of {path.parent}")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _refuse_missing_file(path: Path) -> None:
    if not path.exists():
        raise StoreError(f"{path}: no such database; {MISSING}")
    if path.is_file() and path.stat().st_size == 0:
        raise StoreError(f"{path}: an empty file; {MISSING}")


def _refuse_foreign_file(path: Path, name: str) -> None:
    """StoreError for a file that is not a store, which is opened read-only to find out."""
    if not path.parent.is_dir():
        raise StoreError(f"{path.parent}: no such folder; create it or choose another database")
    if path.is_dir():
        raise StoreError(f"{path}: expected a database file, got a folder")
    if not path.exists() or path.stat().st_size == 0:
        return
    with _read_only_engine(path).connect() as connection:
        _pending(connection, name)


def _is_read_only(path: Path) -> bool:
    """Whether an existing file, or the log that SQLite keeps beside it, cannot be written."""
    if not path.exists():
        return False
    return not all(os.access(each, os.W_OK, effective_ids=True) for each in (path, path.parent))


def _read_only_engine(path: Path) -> Engine:
    # Without a log beside it the file is whole, and `immutable` keeps SQLite from adding one.
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
    uri = f"file:{quote(str(path))}?{how}"
    return create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(uri, uri=True, timeout=30.0, check_same_thread=False),
        poolclass=NullPool,
    )


def _engine(url: URL, busy_seconds: float) -> Engine:
    if not _is_sqlite(url):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": busy_seconds})

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # Python's sqlite3 must not begin transactions by itself: `begin` below does.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        _use_wal(connection, busy_seconds)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(str(options.get("imgalign_begin", "BEGIN")))

    return engine


def _refuse_nul(
    _connection: Connection, _cursor: Any, _statement: str, values: Any, context: Any, many: bool
) -> None:
    """InputError for text with a NUL: PostgreSQL can neither store nor look for it, SQLite can."""
    if context is not None and STORABLE in context.execution_options:
        return
    for row in values if many else [values]:
        for value in row.values() if isinstance(row, dict) else row:
            if isinstance(value, str) and "\0" in value:
                raise _not_storable(value)


def _not_storable(value: object) -> InputError:
    return InputError(f"{value!r:.80}: contains characters that cannot be stored")


def _use_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    # SQLite does not wait for its busy timeout here when two processes open a new file at once.
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _alembic_config() -> Config:
    config = Config()
    # ConfigParser reads % as interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


@cache
def _revisions() -> tuple[frozenset[str], str | None]:
    """All that this version knows, and the newest. Reads every migration, so only once."""
    scripts = ScriptDirectory.from_config(_alembic_config())
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return known, scripts.get_current_head()


def _pending(connection: Connection, name: str) -> bool:
    """Whether migrations are pending; StoreError for a foreign or a newer schema."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise StoreError(
                f"{name}: a database of another program (tables {', '.join(tables[:3])}); "
                "choose another name"
            )
        return True
    current = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    known, head = _revisions()
    unknown = sorted(set(current) - known)
    if unknown:
        raise StoreError(
            f"{name}: schema {unknown[0]} is newer than imgalign {__version__} knows ({head}); "
            "upgrade imgalign or choose another database"
        )
    return list(current) != [head]


def _translate(
    error: DBAPIError, name: str, busy_seconds: float, password: str | None
) -> ImgalignError | None:
    """An error that names the cure; None for a bug, which keeps its traceback."""
    said = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no answer"
    if password:
        said = said.replace(password, "***")
    code: Any = getattr(error.orig, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    state: Any = getattr(error.orig, "sqlstate", None)
    if primary == sqlite3.SQLITE_FULL or state == "53100":
        return StorageFullError(
            f"{name}: disk full, this change was not saved; everything acknowledged before is safe"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseError(
            f"{name}: locked by another process for more than {busy_seconds:g} s; "
            "nothing was saved, try again"
        )
    if primary == sqlite3.SQLITE_NOTADB:
        return DatabaseError(f"{name}: not a database; choose another name")
    if primary == sqlite3.SQLITE_CORRUPT:
        return DatabaseError(f"{name}: damaged ({said}); restore it from a backup")
    log = Path(f"{name}-wal")
    if primary == sqlite3.SQLITE_CANTOPEN and log.exists():
        return DatabaseError(
            f"{name}: its latest changes are in {log.name}, which cannot be read where nothing can "
            "be written; copy the folder to where it can"
        )
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return DatabaseError(f"{name}: cannot be written ({said}); check the folder's permissions")
    if state in NOT_ALLOWED:
        return DatabaseError(f"{name}: {said}; use another user or server, or ask for the right")
    if isinstance(error, (OperationalError, DataError)):
        return DatabaseError(f"{name}: {said}")
    return None
