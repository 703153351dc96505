import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from imgalign.errors import ImgalignError, InputError, StorageFullError, StoreError
from imgalign.preferences import database, schema
from imgalign.preferences.address import URL_VARIABLE, parse, shown
from imgalign.preferences.checking import check_store
from imgalign.preferences.records import Ranking, Submission
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]

of_files = pytest.mark.skipif(
    "IMGALIGN_TEST_POSTGRES" in os.environ, reason="about a database that is a file"
)

CHILD = """
import sys
from imgalign.errors import StoreError
from imgalign.preferences.records import Submission
from imgalign.preferences.store import Store

url, images, mode = sys.argv[1:]
from pathlib import Path
print("ready", flush=True)
sys.stdin.readline()
store = Store.open(url, images=Path(images))
store.add_annotator("ann", group="warm")
held = []
while item := store.next_item("ann", holding=held):
    held.append(item.item_id)
    ranking = tuple((i,) for i in range(len(item.tokens)))
    if mode == "worst first":
        ranking = ranking[::-1]
    try:
        receipt = store.submit(Submission(
            key=f"key {item.item_id}", item_id=item.item_id, annotator="ann",
            ranking=ranking))
    except StoreError as error:
        print("refused", str(error).split(":")[0][4:], flush=True)
        continue
    print("created" if receipt.created else "repeated", receipt.ranking_id, flush=True)
sys.stdin.read()
"""


def start(url: str, images: Path, mode: str = "") -> subprocess.Popen[str]:
    """A second process: ranks everything in the store once it gets a line, then waits."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(images), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


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
            text("INSERT INTO candidates VALUES (:item, 0, :image)"), {"item": "i", "image": "j"}
        )


def test_migrations_arrive_at_the_schema_in_the_code(store: Store):
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_url_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{tmp_path / 'elsewhere.db'}")
    with Store.open(images=tmp_path / "images") as store:
        assert store.database.name == str(tmp_path / "elsewhere.db")
    assert (tmp_path / "elsewhere.db").exists()


def test_a_relative_url_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with Store.open("sqlite:///x.db", images=Path("images")) as store:
        monkeypatch.chdir(tmp_path / "b")
        store.add_annotator("ann")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_folder_name_with_percent_hash_and_question_mark_is_only_a_name(tmp_path: Path):
    folder = tmp_path / "50% of #1?"
    folder.mkdir()
    url = f"sqlite:///{folder / 'my store.db'}".replace("%", "%25").replace("?", "%3F")
    for _ in range(2):
        with Store.open(url, images=folder / "images") as store:
            store.add_annotator("ann")
    assert {path.name for path in folder.iterdir()} == {"my store.db", "images"}


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


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("sqlite://", InputError, "in-memory database forgets"),
        ("sqlite:///:memory:", InputError, "in-memory database forgets"),
        ("imgalign.db", InputError, "expected a URL such as"),
        ("nosuchdatabase://host/name", InputError, "expected a URL such as"),
        ("postgresql://me:pw@host:port/name", InputError, "expected a URL such as"),
        ("sqlite://imgalign.db", InputError, "three slashes"),
        ("sqlite:///file:imgalign.db?mode=ro&uri=true", InputError, "not a file: URI"),
        ("sqlite:///x?mode=memory", InputError, "in-memory database forgets"),
        ("sqlite:////nowhere/at/all/imgalign.db", StoreError, "/nowhere/at/all: no such folder"),
        ("sqlite:////tmp", StoreError, "expected a database file, got a folder"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_clear_line(
    tmp_path: Path, url: str, kind: type[ImgalignError], message: str
):
    with pytest.raises(kind, match=message):
        Store.open(url, images=tmp_path / "images")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/name",
        "postgresql://me:s3cret@127.0.0.1:port/name",
        "postgres://me:s3cret@host/name",
        "postgresql//me:s3cret@host/name",
        "me:s3cret@host",
        "mysql://me:s3cret@host/name",
        "postgresql+psycopg://me@127.0.0.1:1/name?password=s3cret",
        "mssql+nosuchdriver://me:s3cret@host/name?driver=x&sslpassword=s3cret",
        "postgresql+psycopg://me:x@s3cret@127.0.0.1:1/name",
        "postgresql+psycopg://me:x@y/s3cret@127.0.0.1:1/name",
        "postgresql+psycopg://me@127.0.0.1:1/name?conninfo=password%3Ds3cret",
        "postgresql+nosuchdriver://me@127.0.0.1:1/name?conninfo=password%3Ds3cret",
        "nosuchbackend://host/name?options=s3cret",
        "nosuchbackend://host/name?password=x@s3cret",
        "postgresql://host:port/name?password=s3cret",
        "postgresql://host:port/name?password=x@s3cret",
        "postgresql://me:x@y?s3cret@host/name",
        "sqlite://me:s3cret@host/name",
    ],
)
def test_a_password_is_never_said(tmp_path: Path, url: str):
    with pytest.raises(ImgalignError) as raised:
        Store.open(url, images=tmp_path / "images")
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:pw@host:5/name", "postgresql://me:***@host:5/name"),
        ("postgresql://me:p@w@host/name", "postgresql://***@host/name"),
        (
            "postgresql://host/name?sslmode=require&passfile=x",
            "postgresql://host/name?sslmode=require&passfile=***",
        ),
        ("sqlite:////data/me@home.db", "sqlite:////data/me%40home.db"),
    ],
)
def test_what_is_no_secret_is_shown(url: str, expected: str):
    assert shown(url) == expected


def test_an_at_sign_that_may_be_a_passwords_is_refused_with_how_to_write_it():
    for url in ("postgresql://me:p@w@host/name", "postgresql://host/name?password=p@w"):
        with pytest.raises(InputError, match="as %40"):
            parse(url)


def test_a_driver_that_is_missing_is_one_line_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'psycopg\[binary\]'"):
        Store.open("postgresql://me:pw@host/name", images=tmp_path / "images")


def test_a_question_mark_in_a_path_is_part_of_the_name(tmp_path: Path):
    (tmp_path / "what?").mkdir()
    with Store.open(f"sqlite:///{tmp_path}/what?/is it?.db") as store:
        store.add_annotator("ann")
    assert {path.name for path in tmp_path.iterdir()} == {"what?"}
    assert (tmp_path / "what?" / "is it?.db").is_file()


def test_a_path_can_be_given_whatever_its_characters(tmp_path: Path):
    folder = tmp_path / "50%41 of #1?"
    folder.mkdir()
    with Store.open(folder / "x.db") as store:
        assert store.database.path == folder / "x.db"
    assert {path.name for path in folder.iterdir()} == {"x.db", "images"}


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


@contextmanager
def obeying_permissions() -> Iterator[None]:
    """Root obeys none, so that it has to be somebody else for a while."""
    as_root = os.geteuid() == 0
    if as_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if as_root:
            os.seteuid(0)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A folder to make read-only; outside of `tmp_path`, which is for its owner only."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir()
        yield folder / "locked"
        for path in [folder / "locked", *(folder / "locked").rglob("*")]:
            path.chmod(0o755)


@pytest.fixture
def unprivileged(locked: Path) -> Iterator[Path]:
    """A read-only folder, and a process that has to obey its permissions."""
    locked.chmod(0o555)
    with obeying_permissions():
        yield locked


def test_a_read_only_folder_is_one_clear_line(unprivileged: Path, tmp_path: Path):
    with pytest.raises(StoreError, match=r"imgalign\.db: cannot be written"):
        Store.open(f"sqlite:///{unprivileged / 'imgalign.db'}", images=tmp_path / "images")


def test_a_read_only_images_folder_is_one_clear_line(unprivileged: Path):
    with pytest.raises(StoreError, match="images: cannot be written"):
        Store.open(f"sqlite:////tmp/{os.getpid()}-unused.db", images=unprivileged / "images")


def read_only_copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def rank_one(store: Store) -> list[Ranking]:
    item = store.next_item("ann")
    assert item is not None
    store.submit(Submission(key="k", item_id=item.item_id, annotator="ann", verdict="all_bad"))
    return list(store.rankings())


@of_files
def test_a_store_that_cannot_be_written_can_be_read(
    locked: Path, store: Store, add_items: Add, tmp_path: Path
):
    add_items(1)
    expected = rank_one(store)
    store.close()
    read_only_copy(tmp_path, locked)
    with (
        obeying_permissions(),
        Store.open(locked / "imgalign.db", create=False) as readable,
    ):
        assert list(readable.rankings()) == expected
        assert readable.image_path(expected[0].image_ids[0]).is_relative_to(locked)
        with pytest.raises(StoreError, match="cannot be written here, only read"):
            readable.add_annotator("eve")
    assert {path.name for path in locked.iterdir()} == {"imgalign.db", "images"}


@of_files
def test_changes_that_only_the_log_holds_are_not_passed_over_where_nothing_can_be_written(
    locked: Path, store: Store, add_items: Add, tmp_path: Path
):
    add_items(1)
    expected = rank_one(store)
    read_only_copy(tmp_path, locked)  # while the store is open: the latest is in the log
    assert (locked / "imgalign.db-wal").stat().st_size > 0
    with obeying_permissions(), Store.open(locked / "imgalign.db", create=False) as readable:
        assert list(readable.rankings()) == expected
    locked.chmod(0o755)
    (locked / "imgalign.db-shm").unlink()
    locked.chmod(0o555)
    with obeying_permissions(), pytest.raises(StoreError, match=r"latest changes are in imgalign"):
        Store.open(locked / "imgalign.db", create=False)


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


@pytest.mark.parametrize("seed", range(2))
def test_kill_9_loses_nothing_acknowledged(
    store: Store, add_items: Add, url: str, tmp_path: Path, seed: int
):
    add_items(60, num_images=2)
    store.close()
    child = start(url, tmp_path / "images")
    go(child)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline() for _ in range(random.Random(seed).randint(1, 30))]
    child.send_signal(signal.SIGKILL)
    acknowledged += child.communicate()[0].splitlines()
    assert child.returncode == -signal.SIGKILL
    receipts = [line.split()[1] for line in acknowledged if len(line.split()) == 2]
    with Store.open(url, images=tmp_path / "images") as again:
        kept = [ranking.ranking_id for ranking in again.rankings()]
        # One more may be on disk than the child had time to tell.
        assert kept[: len(receipts)] == receipts
        assert len(kept) - len(receipts) in (0, 1)
        assert check_store(again).passed
        assert again.counts("ann").left == 60 - len(kept)


def test_two_processes_with_the_same_keys_make_one_row_each(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    item_ids = add_items(10, num_images=2)
    children = [start(url, tmp_path / "images") for _ in range(2)]
    for child in children:
        go(child)
    lines = [line for child in children for line in child.communicate()[0].splitlines()]
    assert [child.returncode for child in children] == [0, 0]
    created = {line.split()[1] for line in lines if line.startswith("created")}
    assert sum(line.startswith("created") for line in lines) == 10
    assert {line.split()[1] for line in lines} == created
    assert [ranking.item_id for ranking in store.rankings()] == item_ids


def test_two_processes_with_other_content_under_one_key_keep_the_first(
    store: Store, add_items: Add, url: str, tmp_path: Path
):
    add_items(1, overlap=1, num_images=2)
    item = store.next_item("ann")
    assert item is not None
    late = start(url, tmp_path / "images", "worst first")
    sent = Submission(
        key=f"key {item.item_id}",
        item_id=item.item_id,
        annotator="ann",
        ranking=((0,), (1,)),
    )
    store.submit(sent)
    go(late)
    assert late.communicate()[0] == ""  # the item is not offered again, across processes
    with pytest.raises(StoreError, match="already used for another judgement"):
        store.submit(
            Submission(
                key=sent.key,
                item_id=item.item_id,
                annotator="ann",
                ranking=((1,), (0,)),
            )
        )
    (kept,) = store.rankings()
    assert kept.ranking == tuple((candidate,) for candidate in kept.order)


def test_two_processes_may_create_the_same_store_at_once(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    children = [start(url, tmp_path / "images") for _ in range(2)]
    for child in children:
        go(child)
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0, 0]
    with Store.open(url, images=tmp_path / "images") as store:
        assert [annotator.annotator_id for annotator in store.annotators()] == ["ann"]
