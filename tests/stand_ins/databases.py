"""A new database for the store of a test.

It is a file, or lies on the PostgreSQL server that IMGALIGN_TEST_POSTGRES names, if there is one: a
SQLAlchemy URL of a server on which databases may be made.
"""

import atexit
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Engine, create_engine, make_url, text

from imgalign.preferences.database import Database

SERVER = "IMGALIGN_TEST_POSTGRES"


UNDO_0018 = (
    "DROP INDEX ix_items_withdrawn_at",
    "DROP INDEX ix_items_priority",
    *(
        f"ALTER TABLE {table} DROP COLUMN {column}"
        for table, column in (
            ("items", "priority"),
            ("rankings", "propensity"),
            ("assignments", "propensity"),
            ("assignments", "chosen_at"),
        )
    ),
    "DROP TABLE queue_orders",
)
"""What makes a store of version 0018, or of now, one of 0017, for tests of older ones."""


@contextmanager
def new_database(folder: Path, *, tables: bool = False) -> Iterator[str]:
    """The URL of a database without anything in it; one of a server goes at the end.

    With `tables` it may have the newest schema already, as after `make_tables`: on a server a
    database is made once then, and not twice.
    """
    server = os.environ.get(SERVER)
    if server is None:
        yield f"sqlite:///{folder / 'imgalign.db'}"
        return
    name = _make_on(server, template=_migrated_on(server) if tables else None)
    if tables:
        _with_tables.add(name)
    yield _at(server, name)
    _tell(server, f"DROP DATABASE {name} WITH (FORCE)")


_with_tables: set[str | None] = set()


def make_tables(url: str) -> None:
    """Give a new database the newest schema without a row, as opening it would: by a copy, because
    each migration takes its time.
    """
    place = make_url(url)
    if place.get_backend_name() == "sqlite":
        Path(place.database or "").write_bytes(_migrated())
    elif place.database not in _with_tables:
        server = os.environ[SERVER]
        template = _migrated_on(server)
        _tell(server, f"DROP DATABASE {place.database}")
        _tell(server, f"CREATE DATABASE {place.database} TEMPLATE {template}")


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "imgalign.db"
        Database(f"sqlite:///{path}").close()
        return path.read_bytes()


@cache
def _migrated_on(server: str) -> str:
    name = _make_on(server)
    atexit.register(_tell, server, f"DROP DATABASE {name}")
    Database(_at(server, name)).close()
    return name


def _make_on(server: str, *, template: str | None = None) -> str:
    name = f"test_{uuid.uuid4().hex}"
    _tell(server, f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
    return name


def _at(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _tell(server: str, statement: str) -> None:
    with _server(server).connect() as connection:
        connection.execute(text(statement))


@cache
def _server(url: str) -> Engine:
    """One connection that stays open: each new one is a process of the server."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)
    atexit.register(engine.dispose)
    return engine
