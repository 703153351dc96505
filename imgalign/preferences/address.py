"""Database URLs: parsed strictly, and shown without passwords.

On SQLite everything after `sqlite:///` is the path of a file, in which `?` is a character like any
other; `%` begins an escape, as in every URL.
"""

import os
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from imgalign.errors import InputError
from imgalign.preferences import validation

DEFAULT_URL = "sqlite:///imgalign.db"
URL_VARIABLE = "IMGALIGN_DATABASE"
EXPECTED = "expected a URL such as sqlite:///imgalign.db or postgresql://user@host/name"
# Packages of the usual drivers; for others the message names the module.
DRIVERS = {"psycopg": "psycopg[binary]", "MySQLdb": "mysqlclient"}
# Options that may be shown; other values may hold a secret under any name.
PLAIN = frozenset(
    ["application_name", "charset", "connect_timeout", "driver", "host", "port", "sslmode"]
)
STARS = "***"


def named(url: str | None) -> bool:
    """Whether a database is named, by option or in the environment."""
    return bool(url or os.environ.get(URL_VARIABLE))


def chosen(url: str | None) -> str:
    """The URL given, else that in the environment, else imgalign.db in this folder."""
    return url or os.environ.get(URL_VARIABLE) or DEFAULT_URL


def of_file(path: Path) -> str:
    """The URL of a SQLite file, whatever characters its name has."""
    validation.text("database", str(path))
    return f"sqlite:///{quote(str(path))}"


def parse(url: str) -> URL:
    """A URL whose driver is installed, with an absolute path on SQLite; InputError otherwise."""
    validation.text("database", url)
    try:
        parsed = make_url(url.replace("?", "%3F") if url.startswith("sqlite") else url)
        dialect = parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise InputError(f"database: {EXPECTED}, got {shown(url)!r}") from error
    sqlite = parsed.get_backend_name() == "sqlite"
    before, _, asked = url.partition("?")
    # What then counts as the host may be a part of the password, and drivers repeat the host.
    if not sqlite and (before.count("@") > 1 or "@" in asked):
        raise InputError(
            f"database: {shown(url)}: write an @ in a password or option as %40; "
            "only the one before the host stands for itself"
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        name = error.name or dialect.driver
        raise InputError(
            f"{shown(url)}: the driver {name} is not installed; "
            f"pip install '{DRIVERS.get(name, name)}'"
        ) from error
    return _of_sqlite(parsed, url) if sqlite else parsed


def is_missing(url: str | None) -> bool:
    """Whether the chosen database is a SQLite file that is not there."""
    parsed = parse(chosen(url))
    sqlite = parsed.get_backend_name() == "sqlite"
    return sqlite and not Path(parsed.database or "").exists()


def has_password(url: str) -> bool:
    """Whether a URL holds a password, or may: one that is no URL and has an "@"."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return "@" in url
    return parsed.password is not None or "password" in parsed.query


def shown(url: str | URL) -> str:
    """A URL for messages: what may be a password is stars, a SQLite file is its path.

    A password may hold an "@" of its own, so nothing is shown before the last one; of text that is
    no URL neither, nor what follows a "?".
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return _shown_text(str(url))
    sqlite = parsed.get_backend_name() == "sqlite"
    if isinstance(url, URL) and sqlite:
        return str(parsed.database)
    if not sqlite and "@" in _asked(url):  # it may as well belong to a password with a "?"
        return f"{parsed.drivername}://{STARS}"
    place = parsed if sqlite else parsed.set(query={})
    text = place.render_as_string(hide_password=True)
    after = f"{parsed.host or ''}/{parsed.database or ''}"
    if "@" in (parsed.host or "" if sqlite else after):
        text = f"{parsed.drivername}://{STARS}@{after.rpartition('@')[2]}"
    if sqlite or not parsed.query:
        return text
    return f"{text}?{'&'.join(_shown_option(key, parsed.query[key]) for key in parsed.query)}"


def _asked(url: str | URL) -> str:
    """What follows the "?" of a URL, as it was written where that is known."""
    return str(dict(url.query)) if isinstance(url, URL) else url.partition("?")[2]


def _shown_option(key: str, value: str | tuple[str, ...]) -> str:
    return f"{key}={value}" if key in PLAIN and isinstance(value, str) else f"{key}={STARS}"


def _shown_text(text: str) -> str:
    before, at, rest = text.rpartition("@")
    if "?" in before:
        return f"...@{STARS}"
    place, asked, _ = rest.partition("?")
    return f"{'...@' if at else ''}{place}{f'?{STARS}' if asked else ''}"


def _of_sqlite(parsed: URL, url: str) -> URL:
    path = parsed.database or ""
    if parsed.host:
        raise InputError(
            f"{shown(url)}: expected three slashes before the path of a file: {DEFAULT_URL}"
        )
    if path in ("", ":memory:") or "mode=memory" in path:
        raise InputError(
            f"{url}: an in-memory database forgets rankings; use a file such as {DEFAULT_URL}"
        )
    if path.startswith("file:"):
        raise InputError(f"{url}: expected the path of a file after sqlite:///, not a file: URI")
    return parsed.set(database=str(Path(path).expanduser().absolute()))
