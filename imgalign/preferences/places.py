"""The images folder of a database, whose path the database records.

So a database that is opened from two working directories has one images folder. The path is
relative to the database file where possible, so that a project can be moved as a whole. The default
for a new SQLite database is `images` beside it.
"""

from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from imgalign.errors import StoreError
from imgalign.preferences import validation
from imgalign.preferences.database import Database
from imgalign.preferences.originals import ImageFolder
from imgalign.preferences.schema import folders, images

NAME = "images"
OPTION = "--images"
"""How commands let a user name the folder."""
LOOKED_AT = 20
"""Number of images by which a folder is recognised."""


def image_folder(
    database: Database, given: Path | None, *, create: bool = True, named_by: str = OPTION
) -> ImageFolder:
    """The folder of a database's images, recorded in it if it was not yet.

    `given` is the folder that a user named, by the option or setting `named_by`. It has to agree
    with the recorded one, unless that is missing because the folder was moved. StoreError if it
    does not agree, and for a missing folder where the database has images or, without `create`,
    where it was named. A database of texts alone gets its folder back if that did not travel along.
    """
    given = None if given is None else given.expanduser().absolute()
    validation.text("images folder", None if given is None else str(given))
    with database.read() as connection:
        recorded = _recorded(connection, database)
        some = connection.execute(select(images.c.image_id).limit(LOOKED_AT)).scalars().all()
    path = _chosen(database, given, recorded, list(some), named_by)
    may_make = create or database.is_new or given is None
    folder = ImageFolder(path, create=may_make and not some)
    if path != recorded and not database.read_only and (recorded is None or database.path):
        with database.write() as connection:
            connection.execute(delete(folders).where(folders.c.name == NAME))
            connection.execute(insert(folders).values(name=NAME, path=_as_recorded(path, database)))
    return folder


def _chosen(
    database: Database,
    given: Path | None,
    recorded: Path | None,
    some: list[str],
    named_by: str,
) -> Path:
    where = f"{named_by} FOLDER" if named_by.startswith("--") else f"{named_by}=FOLDER"
    beside = Path(NAME).absolute() if database.path is None else database.path.parent / NAME
    if recorded is None:
        if given is not None or not some:
            return _holding(database, given or beside, some)
        # A database of an older version: images were where it was opened.
        for path in (Path(NAME).absolute(), beside):
            if path.is_dir() and _holds(path, some):
                return path
        raise StoreError(
            f"{database.name}: its images are neither in {Path(NAME).absolute()} nor beside it; "
            f"say where they are with {where}"
        )
    if given is None or _same(given, recorded):
        if some and not recorded.is_dir():
            raise StoreError(
                f"{recorded}: the images of {database.name} are not there any more; say where they "
                f"are with {where}"
            )
        return recorded
    if recorded.is_dir():
        raise StoreError(
            f"{given}: {database.name} keeps its images in {recorded}; leave out {named_by}, or "
            "move that folder there first"
        )
    return _holding(database, given, some)


def _holding(database: Database, path: Path, some: list[str]) -> Path:
    """`path`; StoreError if it is a folder without any of the images."""
    if some and path.is_dir() and not _holds(path, some):
        raise StoreError(
            f"{path}: holds none of the first {len(some)} images of {database.name}; check the "
            "name of the images folder"
        )
    return path


def _holds(path: Path, some: list[str]) -> bool:
    folder = ImageFolder(path, create=False)
    return any(folder.has(image_id) for image_id in some)


def _recorded(connection: Connection, database: Database) -> Path | None:
    path = connection.execute(select(folders.c.path).where(folders.c.name == NAME)).scalar()
    if path is None:
        return None
    return Path(path) if database.path is None else database.path.parent / path


def _as_recorded(path: Path, database: Database) -> str:
    if database.path is not None and path.is_relative_to(database.path.parent):
        return path.relative_to(database.path.parent).as_posix()
    return str(path)


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
