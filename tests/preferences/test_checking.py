"""A store that is whole says so; one that is not says what is wrong, and how often."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from submissions import judge

from imgalign.cli.main import main
from imgalign.preferences.checking import check_store
from imgalign.preferences.store import Store

Add = Callable[..., list[str]]


@pytest.fixture
def ranked(store: Store, add_items: Add) -> Store:
    """Two items of three images, the first one ranked."""
    add_items(2)
    store.submit(judge(store.next_item("ann")))
    return store


def files(store: Store) -> list[Path]:
    return sorted(store.images.root.rglob("*.png"))


def test_a_whole_store_passes(ranked: Store):
    check = check_store(ranked)
    assert check.passed
    assert check.lines() == ["6 images, 2 items, 1 rankings", "no faults found"]


def test_images_that_were_permuted_are_all_named_as_damaged(ranked: Store):
    paths = files(ranked)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    check = check_store(ranked)
    assert check.faults == {"damaged images": [str(path) for path in paths]}
    assert not check.passed
    assert check.lines()[1].startswith("damaged images: 6 (")


def test_a_flipped_bit_and_a_lost_file_are_told_apart(ranked: Store):
    flipped, lost, *_ = files(ranked)
    content = bytearray(flipped.read_bytes())
    content[-20] ^= 1
    flipped.write_bytes(content)
    lost.unlink()
    faults = check_store(ranked).faults
    assert faults == {"damaged images": [str(flipped)], "missing images": [str(lost)]}


def test_a_file_that_no_row_speaks_of_is_counted_and_no_fault(ranked: Store):
    (ranked.images.root / "note.txt").touch()
    check = check_store(ranked)
    assert check.passed
    assert check.orphans == [str(ranked.images.root / "note.txt")]
    assert "files that the database does not know: 1" in check.lines()[1]


DAMAGE = {
    "DELETE FROM items": "rows of rankings that refer to nothing in items: 1 (1 rows)",
    "DELETE FROM annotators WHERE annotator_id = 'ann'": (
        "rows of rankings that refer to nothing in annotators: 1 (1 rows)"
    ),
    "DELETE FROM images": "rows of candidates that refer to nothing in images: 1 (6 rows)",
    "UPDATE items SET prompt = 'another'": "items that are not what their id says: 2 (",
    "DELETE FROM candidates WHERE candidate = 2": "rankings that do not fit their item: 1 (",
    "UPDATE candidates SET image_id = (SELECT min(image_id) FROM images) WHERE candidate = 2": (
        "items that are not what their id says"
    ),
}


@pytest.mark.skipif("IMGALIGN_TEST_POSTGRES" in os.environ, reason="a server refuses such changes")
@pytest.mark.parametrize("statement", DAMAGE)
def test_rows_that_refer_to_nothing_are_counted(ranked: Store, tmp_path: Path, statement: str):
    connection = sqlite3.connect(tmp_path / "imgalign.db")  # which does not check references
    connection.execute(statement)
    connection.commit()
    connection.close()
    check = check_store(ranked)
    assert not check.passed
    assert DAMAGE[statement] in "\n".join(check.lines())


@pytest.mark.skipif("IMGALIGN_TEST_POSTGRES" in os.environ, reason="names the database by its file")
def test_the_command_exits_with_2_and_counts_when_something_is_wrong(
    ranked: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["store", "check", "--database", f"sqlite:///{tmp_path}/imgalign.db"]
    assert main(command) == 0
    assert "no faults found" in capsys.readouterr().out
    files(ranked)[0].write_bytes(b"not an image")
    assert main(command) == 2
    out = capsys.readouterr().out
    assert "damaged images: 1" in out
    assert "no faults found" not in out
    assert main(["store", "check", "--database", "sqlite:///none.db"]) == 2
