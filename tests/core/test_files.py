"""Claims: one process writes to a place at a time; a replaced folder survives a kill; a file is
hashed once and never believed after it changed; no JSON file can exhaust the reader."""

import errno
import os
import subprocess
import sys
import time

import pytest

from imgalign import files
from imgalign.errors import InputError, StorageFullError
from imgalign.files import (
    lock_folder,
    lock_name,
    read_json,
    recover_folder,
    replace_folder,
    reporting_full_disk,
    sha256,
    whole_folder,
    write_atomically,
)


@pytest.mark.parametrize("lock", [lock_folder, lock_name])
def test_a_second_process_is_refused_until_the_first_ends_however_it_ends(tmp_path, lock):
    place = tmp_path / "run"
    program = (
        "import sys; from pathlib import Path\n"
        f"from imgalign.files import {lock.__name__} as lock\n"
        "with lock(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=f"^{place}: another process is writing"), lock(place):
            pass
        child.kill()
        child.wait()
    with lock(place), lock(tmp_path / "another"):
        pass
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_only_one_of_many_processes_holds_a_lock_although_each_removes_the_file(tmp_path):
    # Each appends twice while it holds the lock: two holders at once would mix their lines.
    program = (
        "import sys, time; from pathlib import Path\n"
        "from imgalign.errors import InputError\n"
        "from imgalign.files import lock_folder\n"
        "folder, name, done = Path(sys.argv[1]), sys.argv[2], 0\n"
        "while done < 30:\n"
        "    try:\n"
        "        with lock_folder(folder), (folder / 'log').open('a') as log:\n"
        "            for _ in range(2):\n"
        "                print(name, file=log, flush=True); time.sleep(0.0005)\n"
        "        done += 1\n"
        "    except InputError:\n"
        "        pass\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(number)])
        for number in range(3)
    ]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == 180
    assert lines[::2] == lines[1::2]


def folder_with(path, name):
    path.mkdir()
    (path / name).touch()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("lock", [lock_folder, lock_name])
def test_folders_that_were_made_for_nothing_are_removed_and_no_others(tmp_path, lock):
    (tmp_path / "mine").mkdir()

    def fail(place):
        with lock(place):
            raise InputError("refused")

    for place in ("mine/a/b/c", "a", "mine"):
        with pytest.raises(InputError, match="refused"):
            fail(tmp_path / place)
    assert [*tmp_path.rglob("*")] == [tmp_path / "mine"]
    with lock(tmp_path / "mine" / "a" / "b"):
        (tmp_path / "mine" / "a" / "kept").touch()
    assert (tmp_path / "mine" / "a" / "kept").exists()
    assert not (tmp_path / "mine" / "a" / "b").exists()


def test_what_a_kill_left_of_an_earlier_replacement_is_in_nobodys_way(tmp_path):
    for name in (".tmp-old-mine", "mine", "new"):
        folder_with(tmp_path / name, name)
    replace_folder(tmp_path / "new", tmp_path / "mine")
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == ["new"]


@pytest.mark.parametrize(
    ("left", "found"),
    [
        (["mine", ".tmp-mine"], "mine"),  # while the new one was written
        ([".tmp-old-mine", ".tmp-mine"], ".tmp-mine"),  # between the renames: the new one is whole
        (["mine", ".tmp-old-mine"], "mine"),  # after them
        ([".tmp-old-mine"], ".tmp-old-mine"),
    ],
)
def test_a_replacement_that_was_killed_anywhere_leaves_one_whole_folder(tmp_path, left, found):
    for name in left:
        folder_with(tmp_path / name, name)
    recover_folder(tmp_path / "mine")
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == [found]


def test_a_first_folder_that_was_never_finished_is_removed(tmp_path):
    folder_with(tmp_path / ".tmp-mine", "half")
    recover_folder(tmp_path / "mine")
    assert names(tmp_path) == []


def test_a_full_disk_outside_training_advises_to_try_again_and_speaks_of_no_checkpoint(tmp_path):
    with (
        pytest.raises(StorageFullError) as caught,
        reporting_full_disk(tmp_path, "saving the evaluation"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(caught.value) == (
        f"{tmp_path}: no space left while saving the evaluation; free some space and try again"
    )


def test_a_file_that_could_not_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_file_is_hashed_once_and_again_as_soon_as_it_changed(tmp_path, monkeypatch):
    path = tmp_path / "weights"
    path.write_bytes(b"abc")
    # SHA-256 of "abc" is the example in FIPS 180-2.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    hashed = []
    digest = files.digest
    monkeypatch.setattr(files, "digest", lambda path: hashed.append(path) or digest(path))
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    time.sleep(0.02)  # the file system's clock may be this coarse
    assert [sha256(path), sha256(path)] == [expected] * 2
    assert hashed == [path]
    path.write_bytes(b"abd")
    assert sha256(path) != expected


def test_a_file_that_changed_a_moment_ago_is_hashed_each_time(tmp_path):
    path = tmp_path / "weights"
    for content in (b"a", b"b", b"c", b"d"):
        path.write_bytes(content)  # same size, and perhaps the same time stamp
        assert sha256(path) == files.digest(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested deeper"),
        (b"[" * 200 + b"]" * 200, "nested deeper than 100"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper than 100"),
        (b'["\xff"]', "utf-8"),
        (b'["\\ud800"]', "surrogate"),
        (b"1" * 10_000, "4300 digits"),
        (b"{", "line 1"),
        (b"[" + b"1," * 1000 + b"1]", "larger than 1000 bytes"),
    ],
)
def test_json_that_would_exhaust_the_reader_is_one_line(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_json(path, largest=1000 if "larger" in said else files.LARGEST_JSON)
    assert "\n" not in str(caught.value)


def test_json_as_deep_as_is_allowed_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" * 100 + b"]" * 100)
    value = read_json(path)
    for _ in range(99):
        (value,) = value
    assert value == []


def test_a_device_or_a_pipe_in_the_place_of_a_json_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(ValueError, match="expected a file"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing")


def test_a_folder_that_is_filled_takes_a_place_whole_or_leaves_it_as_it_was(tmp_path):
    place = tmp_path / "deep" / "mine"
    for content in ("one", "two"):
        with whole_folder(place, doing="writing") as folder:
            (folder / "a").write_text(content)
            assert not place.exists() or (place / "a").read_text() == "one"
        assert (place / "a").read_text() == content

    def fill_the_disk() -> None:
        with whole_folder(place, doing="writing") as folder:
            (folder / "a").write_text("three")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(StorageFullError, match="mine: no space left while writing; free some"):
        fill_the_disk()
    assert (place / "a").read_text() == "two"
    assert [each.name for each in place.parent.iterdir()] == ["mine"]
