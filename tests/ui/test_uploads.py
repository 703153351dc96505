"""What a browser sends: names, sizes, archives."""

import io
import os
import stat
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from imgalign.errors import InputError
from ui import uploads
from ui.uploads import Uploads, safe_name


@pytest.fixture
def sent(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads")


def take(sent: Uploads, upload: str, name: str, content: bytes = b"x") -> int:
    part = sent.part(upload)
    part.write_bytes(content)
    return sent.take(upload, name, part)


def zipped(**members: bytes | str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.png", "a.png"),
        ("../../etc/cron.d/a.png", "etc_cron.d_a.png"),
        ("/abs/olute.png", "abs_olute.png"),
        ("C:\\Users\\a.png", "C__Users_a.png"),
        (".hidden.png", "hidden.png"),
        ("a\0b\n<img onerror=x>.png", "a_b__img onerror_x_.png"),
        ("été 🦊.png", "été _.png"),
        ("x" * 500 + ".png", "x" * 60 + ".png"),
        ("...png", "png"),
    ],
)
def test_a_name_becomes_one_of_a_file_in_one_folder(name: str, safe: str):
    assert safe_name(name) == safe
    assert len(os.fsencode(safe_name(name))) < 250


LONG = "ada_a_red_cat_sitting_on_a_blue_house_in_the_snow_at_night_wi_0b7e3c2e-5d1c-4c0d-9a51-"


@pytest.mark.parametrize(
    "names",
    [
        [f"{LONG}{number}" for number in range(4)],
        [f"a folder of pictures/a red cat on a blue house in the snow at night/{n}" for n in "123"],
        ["a red cat?", "a red cat!", "a red cat_"],
        ["été 🦊", "été 🐇"],
    ],
)
def test_names_that_are_alike_in_what_is_kept_of_them_stay_apart_beside_their_captions(
    sent: Uploads, names: list[str]
):
    upload = sent.begin()
    for name in names:
        assert take(sent, upload, f"{name}.png", name.encode()) == 1
        assert take(sent, upload, f"{name}.txt", name.encode()) == 0
    kept = {path.name: path for path in sent.path(upload).iterdir()}
    assert len(kept) == 2 * len(names)
    images = [path for path in kept.values() if path.suffix == ".png"]
    assert sorted(path.read_text() for path in images) == sorted(names)
    for path in images:
        assert path.with_suffix(".txt").read_text() == path.read_text()
        assert len(path.stem) <= 60
    packed = zipped(**{f"{name}.png": name for name in names})
    assert take(sent, sent.begin(), "all.zip", packed) == len(names)


def test_images_and_their_captions_keep_their_names(sent: Uploads):
    upload = sent.begin()
    assert [take(sent, upload, name) for name in ("a/1.png", "a/1.txt", "b.JPG")] == [1, 0, 1]
    names = sorted(path.name for path in sent.path(upload).iterdir())
    assert names == ["a_1.png", "a_1.txt", "b.JPG"]
    assert sent.count(upload) == 2
    sent.remove(upload)
    with pytest.raises(InputError, match="upload: not there any more; choose the files again"):
        sent.path(upload)


@pytest.mark.parametrize("name", ["a.svg", "a.html", "a.py", "png", "a.png.exe", "../x", ""])
def test_files_of_other_kinds_are_refused_and_nothing_is_kept(sent: Uploads, name: str):
    upload = sent.begin()
    with pytest.raises(InputError, match="expected an image"):
        take(sent, upload, name)
    assert list(sent.path(upload).iterdir()) == []


def test_two_files_of_one_name_are_refused(sent: Uploads):
    upload = sent.begin()
    take(sent, upload, "a/1.png", b"first")
    with pytest.raises(InputError, match=r"a_1.png: there is a file of that name already"):
        take(sent, upload, "a_1.png", b"second")
    assert (sent.path(upload) / "a_1.png").read_bytes() == b"first"


def test_a_file_that_is_sent_again_because_no_answer_came_is_there_once(sent: Uploads):
    upload = sent.begin()
    for _ in range(2):
        assert take(sent, upload, "a/1.png", b"first") == 1
        assert take(sent, upload, "a/1.txt", b"a red house") == 0
    assert sorted(path.name for path in sent.path(upload).iterdir()) == ["a_1.png", "a_1.txt"]
    assert sent.count(upload) == 1


@pytest.mark.parametrize("upload", ["..", "../x", "", "x" * 20, "a/../../b", "."])
def test_only_names_that_were_given_out_are_uploads(sent: Uploads, upload: str):
    sent.begin()
    with pytest.raises(InputError, match="not there any more"):
        sent.path(upload)
    sent.remove(upload)
    assert len(list(sent.folder.iterdir())) == 1


def test_an_archive_is_unpacked_flat_without_links_and_hidden_files(sent: Uploads):
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link, "/etc/passwd")
        for name in ("set/1.png", "set/1.txt", "set/.x.png", "__MACOSX/1.png", "readme.md"):
            archive.writestr(name, "x")
        archive.writestr("../../2.png", "x")
        archive.writestr("/3.png", "x")
    upload = sent.begin()
    assert take(sent, upload, "all.ZIP", out.getvalue()) == 2
    names = sorted(path.name for path in sent.path(upload).iterdir())
    assert names == ["3.png", "set_1.png", "set_1.txt"]
    assert sorted(sent.folder.iterdir()) == [sent.path(upload)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no archive", "expected a zip archive that can be read"),
        (zipped(**{"a.txt": "x"}), "expected PNG, JPEG or WebP images in it, found none"),
        (zipped(**{"a.png": "x", "sub/../a.png": "y"})[:-30], "expected a zip archive"),
        (zipped(**{"a.png": b"\0" * (2**20)}), "expected at most 0 MB, got more"),
    ],
)
def test_an_archive_that_is_none_or_unpacks_to_too_much_leaves_nothing(
    sent: Uploads, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
):
    monkeypatch.setattr(uploads, "LARGEST_FILE", 2**16)
    upload = sent.begin()
    with pytest.raises(InputError, match=said):
        take(sent, upload, "a.zip", content)
    assert list(sent.path(upload).iterdir()) == []


def test_an_upload_is_bounded(sent: Uploads, monkeypatch: pytest.MonkeyPatch):
    upload = sent.begin()
    monkeypatch.setattr(uploads, "MOST_FILES", 2)
    take(sent, upload, "1.png")
    with pytest.raises(InputError, match="expected at most 2 files, got 3"):
        take(sent, upload, "a.zip", zipped(**{"2.png": "x", "3.png": "x"}))
    monkeypatch.setattr(uploads, "MOST_BYTES", 3)
    with pytest.raises(InputError, match="in all, got more"):
        take(sent, upload, "2.png", b"xyz")
    assert [path.name for path in sent.path(upload).iterdir()] == ["1.png"]


def test_what_was_sent_long_ago_and_is_not_used_is_removed(sent: Uploads):
    names = [sent.begin() for _ in range(3)]
    old: Any = time.time() - 2 * uploads.DAY
    for name in names[:2]:
        os.utime(sent.path(name), (old, old))
    sent.tidy({names[0]})
    assert {path.name for path in sent.folder.iterdir()} == {names[0], names[2]}
