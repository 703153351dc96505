"""The database of a store: its schema, foreign files, locks and a full disk."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from imgalign.errors import StorageFullError, StoreError
from imgalign.preferences import database, schema
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


of_files = pytest.mark.skipif(
    "IMGALIGN_TEST_POSTGRES" in os.environ, reason="about a database that is a file"
)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@of_files
def test_sqlite_is_durable_and_checks_its_references(store: Store):
    with store.database.write() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
        full = 2
        assert pragmas == ["wal", full, 1, 30_000]
    with pytest.raises(IntegrityError), store.database.write() as connection:
        connection.execute(
            text("INSERT INTO candidates VALUES (:item, 0, :image, NULL)"),
            {"item": "i", "image": "j"},
        )


def test_migrations_arrive_at_the_schema_in_the_code(store: Store):
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_migrations_are_found_where_a_folder_name_has_a_percent_sign(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(database, "MIGRATIONS", Path("/100%/migrations"))
    config = database._alembic_config()
    assert config.get_main_option("script_location") == "/100%/migrations"


@of_files
def test_a_database_of_a_newer_schema_is_refused_and_left_alone(
    store: Store, url: str, tmp_path: Path
):
    store.close()
    path = tmp_path / "imgalign.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match=r"schema 9999 is newer than imgalign") as raised:
        Store.open(url, images=tmp_path / "images")
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)
    assert snapshot(tmp_path) == before


@of_files
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Dear diary, " * 100, "not a database"),
        (b"SQLite format 3\0" + b"\xff" * 4080, "imgalign.db: "),
    ],
)
def test_a_file_that_is_not_a_database_is_refused_and_left_alone(
    url: str, tmp_path: Path, content: bytes, message: str
):
    (tmp_path / "imgalign.db").write_bytes(content)
    with pytest.raises(StoreError, match=message) as raised:
        Store.open(url, images=tmp_path / "images")
    assert "\n" not in str(raised.value)
    assert (tmp_path / "imgalign.db").read_bytes() == content


@of_files
def test_the_database_of_another_program_is_refused_and_left_alone(url: str, tmp_path: Path):
    with sqlite3.connect(tmp_path / "imgalign.db") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match=r"another program \(tables recipes\)"):
        Store.open(url, images=tmp_path / "images")
    assert snapshot(tmp_path) == before


@of_files
def test_an_empty_file_becomes_a_store(url: str, tmp_path: Path):
    (tmp_path / "imgalign.db").touch()
    with Store.open(url, images=tmp_path / "images") as store:
        assert store.annotators() == []


@pytest.mark.parametrize("content", [None, b""])
def test_what_does_not_exist_is_not_made_unless_asked_for(tmp_path: Path, content: bytes | None):
    path = tmp_path / "mistyped.db"
    if content is not None:
        path.write_bytes(content)
    before = snapshot(tmp_path)
    with pytest.raises(StoreError, match=r"mistyped\.db: .*; check the name"):
        Store.open(path, create=False)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "images").exists()


def test_a_store_says_whether_opening_made_it(tmp_path: Path):
    with Store.open(tmp_path / "x.db") as store:
        assert store.is_new
    with Store.open(tmp_path / "x.db", create=False) as store:
        assert not store.is_new


@of_files
def test_a_lock_held_too_long_is_one_clear_line_and_loses_nothing(
    url: str, tmp_path: Path, store: Store
):
    other = sqlite3.connect(tmp_path / "imgalign.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(url, images=tmp_path / "images", busy_seconds=0.05) as hasty:
        with pytest.raises(StoreError, match=r"locked by another process for more than 0.05 s"):
            hasty.add_annotator("eve")
        other.execute("ROLLBACK")
        other.close()
        hasty.add_annotator("eve")
    assert [annotator.annotator_id for annotator in store.annotators()] == ["ann", "bob", "eve"]


@of_files
def test_reading_goes_on_while_another_process_writes(tmp_path: Path, store: Store):
    other = sqlite3.connect(tmp_path / "imgalign.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM annotators")
    assert len(store.annotators()) == 2
    other.execute("ROLLBACK")
    other.close()


@of_files
def test_a_full_disk_loses_nothing_acknowledged(store: Store, add_items: Add):
    add_items(1)
    item = store.next_item("ann")
    assert item is not None

    def sent(attempt: int) -> Submission:
        return Submission(
            key=str(attempt),
            item_id=item.item_id,
            annotator="ann",
            verdict="skipped",
            reason="w" * 3000,
        )

    with store.database.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 3}")
    acknowledged = []
    with pytest.raises(StorageFullError, match=r"imgalign\.db: disk full"):  # noqa: PT012
        for attempt in range(20):
            acknowledged.append(store.submit(sent(attempt)).ranking_id)
            store.undo("ann", str(attempt))
    with store.database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert 0 < len(acknowledged) < 20
    assert [r.ranking_id for r in store.rankings(include_undone=True)] == acknowledged
    store.submit(sent(99))
