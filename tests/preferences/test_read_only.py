"""Stores in folders that cannot be written."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imgalign.errors import StoreError
from imgalign.preferences.records import Ranking, Submission
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


of_files = pytest.mark.skipif(
    "IMGALIGN_TEST_POSTGRES" in os.environ, reason="about a database that is a file"
)


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
        assert readable.image_path(expected[0].sample_ids[0]).is_relative_to(locked)
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
