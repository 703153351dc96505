"""Image files are written atomically, and replace none that imgalign did not write."""

import errno
import json
import os

import pytest
from PIL import Image
from provenances import provenance

from imgalign.diffusion.generate import save_images
from imgalign.errors import InputError, StorageFullError
from imgalign.files import check_folder
from imgalign.images import check_png, png, read_image_file, write_png
from imgalign.preferences.records import Generated

RED = Image.new("RGB", (8, 8), "red")


def generated(seed: int) -> Generated:
    return Generated(image=RED, provenance=provenance(seed=seed))


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that takes the first half of what is written."""

    fsync = os.fsync

    def full(descriptor: int) -> None:
        os.truncate(descriptor, os.fstat(descriptor).st_size // 2)
        fsync(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    return lambda: monkeypatch.setattr(os, "fsync", full)


def test_numbers_go_on_after_those_in_the_folder_whatever_else_is_there(tmp_path):
    for name in ("0foo-1.png", "00041-7.png", "123456-1.txt", "notes"):
        (tmp_path / name).touch()
    saved = list(save_images([generated(5), generated(6)], tmp_path))
    assert [path.name for path in saved] == ["00042-5.png", "00043-6.png"]
    assert json.loads((tmp_path / "00043-6.json").read_text())["seed"] == 6


def test_two_that_save_images_in_one_folder_do_not_take_each_others_numbers(tmp_path):
    images = save_images([generated(5), generated(6)], tmp_path)
    next(images)
    with pytest.raises(InputError, match="another process is saving images here"):
        next(save_images([generated(7)], tmp_path))
    assert [path.name for path in images] == ["00001-6.png"]
    assert [path.name for path in save_images([generated(7)], tmp_path)] == ["00002-7.png"]


def test_what_a_kill_left_half_written_goes_and_other_files_stay(tmp_path):
    for name in (".tmp-00000-5.png", ".tmp-00000-5.json", ".tmp-mine.png", ".tmp-notes"):
        (tmp_path / name).touch()
    list(save_images([generated(5)], tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"00000-5.png", "00000-5.json", ".tmp-mine.png", ".tmp-notes"}


def test_a_full_disk_leaves_no_partial_image_and_says_what_to_do(tmp_path, full_disk):
    images = save_images([generated(5), generated(6)], tmp_path)
    first = next(images)
    full_disk()
    with pytest.raises(StorageFullError, match=r"00001-6.png: no space left .* free some space"):
        next(images)
    assert [path.name for path in tmp_path.glob("*.png")] == [first.name]
    assert read_image_file(first).tobytes() == RED.tobytes()
    assert not list(tmp_path.glob(".tmp-*"))


def test_an_image_that_cannot_be_replaced_stays(tmp_path, full_disk):
    path = tmp_path / "x.png"
    write_png(RED, path)
    before = path.read_bytes()
    full_disk()
    with pytest.raises(StorageFullError):
        write_png(Image.new("RGB", (8, 8), "blue"), path)
    assert path.read_bytes() == before


def test_an_image_replaces_one_by_imgalign_and_no_other(tmp_path):
    path = tmp_path / "x.png"
    check_png(path)
    write_png(RED, path)
    check_png(path)
    assert read_image_file(path).tobytes() == RED.tobytes()
    RED.save(path)
    with pytest.raises(InputError, match=r"x.png: was not made by imgalign"):
        check_png(path)


@pytest.mark.parametrize("content", [png(RED)[:50], b"", b"text"])
def test_a_damaged_image_is_named_with_the_cure(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"x.png: (damaged|expected a PNG).*; look again"
    ) as caught:
        read_image_file(path, cure="look again")
    assert "0x" not in str(caught.value)


def test_a_folder_below_a_file_is_refused_and_a_new_one_is_not_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: expected a folder, got a file"):
        check_folder(tmp_path / "file" / "a" / "b")
    check_folder(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
