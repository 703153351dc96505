"""Folders of pairs: both layouts, and every file that is no part of a pair, with the reason."""

import hashlib
import shutil
import struct
import unicodedata
import zlib
from pathlib import Path

import pytest
from image_folders import image, put
from PIL import Image

from imgalign.errors import InputError
from imgalign.preferences.foreign.pair_folder import read_pair_folder
from imgalign.preferences.foreign.records import RankedFiles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One whole pair."""
    place = tmp_path / "pairs"
    put(place / "chosen" / "a.png", 1, caption="a red fox")
    put(place / "rejected" / "a.png", 2)
    return place


def left_out(found: RankedFiles) -> dict[str, set[str]]:
    """Names by reason."""
    reasons = {remark.reason for remark in found.left_out}
    return {
        reason: {remark.name for remark in found.left_out if remark.reason == reason}
        for reason in reasons
    }


def test_a_pair_is_a_ranking_of_two_images_known_by_the_hash_of_their_files(folder: Path):
    found = read_pair_folder(folder)
    digests = tuple(
        hashlib.sha256((folder / side / "a.png").read_bytes()).hexdigest()
        for side in ("chosen", "rejected")
    )
    (ranking,) = found.rankings
    assert (ranking.prompt, ranking.images, ranking.ranks) == ("a red fox", digests, (0, 1))
    assert (ranking.all_bad, ranking.weight) == (False, 1.0)
    assert found.images[digests[1]].read() == (folder / "rejected" / "a.png").read_bytes()
    assert found.images[digests[0]].pixels().getpixel((0, 0)) == (1, 0, 0)
    assert found.left_out == ()
    assert found.lines() == [f"{folder}: 1 ranking of 2 images"]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("w/a.png", "l/a.png"),
        ("chosen/deep/er/a.png", "rejected/deep/er/a.webp"),
        ("cats/chosen/a.png", "cats/rejected/a.png"),
        ("Chosen/a.png", "REJECTED/a.png"),
        ("a.png", "a-rejected.png"),
        ("cats/a.webp", "cats/a-Rejected.png"),
    ],
)
def test_pairs_are_found_in_every_layout(tmp_path: Path, chosen: str, rejected: str):
    put(tmp_path / chosen, 1, caption="a cat")
    put(tmp_path / rejected, 2)
    found = read_pair_folder(tmp_path)
    assert [ranking.ranks for ranking in found.rankings] == [(0, 1)]
    first = found.images[found.rankings[0].images[0]]
    assert first.read() == (tmp_path / chosen).read_bytes()


def test_equal_names_in_other_folders_are_other_pairs(tmp_path: Path):
    for number, deep in enumerate(["one", "two"]):
        put(tmp_path / "chosen" / deep / "a.png", 2 * number, caption=deep)
        put(tmp_path / "rejected" / deep / "a.png", 2 * number + 1)
    assert [ranking.prompt for ranking in read_pair_folder(tmp_path).rankings] == ["one", "two"]


def test_an_accent_may_be_one_character_or_two(tmp_path: Path):
    put(tmp_path / "chosen" / unicodedata.normalize("NFC", "é.png"), 1, caption="accent")
    put(tmp_path / "rejected" / unicodedata.normalize("NFD", "é.png"), 2)
    assert len(read_pair_folder(tmp_path).rankings) == 1


def test_folders_behind_links_are_read_once_and_hidden_files_not(folder: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder / "rejected", elsewhere)
    (folder / "rejected").symlink_to(elsewhere)
    (folder / "chosen" / "loop").symlink_to(folder)
    (folder / "chosen" / "._a.png").write_bytes(b"what macOS leaves")
    found = read_pair_folder(folder)
    assert len(found.rankings) == 1
    assert found.left_out == ()


def test_what_is_no_pair_is_named_with_the_reason_and_the_rest_is_kept(folder: Path):
    put(folder / "chosen" / "alone.png", 3, caption="x")
    put(folder / "rejected" / "lonely.png", 4)
    put(folder / "stray.png", 5, caption="x")
    put(folder / "chosen" / "Case.png", 6, caption="x")
    put(folder / "rejected" / "case.png", 7)
    put(folder / "chosen" / "twice.png", 8, caption="x")
    put(folder / "chosen" / "twice.webp", 9)
    put(folder / "rejected" / "twice.png", 10)
    put(folder / "chosen" / "untold.png", 11)
    put(folder / "rejected" / "untold.png", 12)
    put(folder / "chosen" / "blank.png", 13, caption="\ufeff \n\n")
    put(folder / "rejected" / "blank.png", 14)
    put(folder / "chosen" / "same.png", 15, caption="x")
    put(folder / "rejected" / "same.png", 15)
    found = read_pair_folder(folder)
    assert len(found.rankings) == 1
    assert left_out(found) == {
        "unpaired": {"chosen/alone.png", "rejected/lonely.png", "stray.png"},
        "name differs in case": {"chosen/Case.png", "rejected/case.png"},
        "name used twice": {"chosen/twice.png", "chosen/twice.webp"},
        "no caption": {"chosen/untold.png", "chosen/blank.png"},
        "equal images": {"chosen/same.png"},
    }
    details = {remark.name: remark.detail for remark in found.left_out}
    assert details["chosen/Case.png"] == "beside rejected/case.png"
    assert details["chosen/twice.png"] == "as chosen/twice.webp"
    assert details["chosen/untold.png"] == "untold.txt is missing"
    assert details["chosen/blank.png"] == "blank.txt is empty"


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_images_that_cannot_be_read_are_named_with_the_reason(folder: Path):
    for name, content in {
        "cut": (folder / "chosen" / "a.png").read_bytes()[:-20],
        "huge": png_of_size(10_000, 10_000),
        "text": b"not an image",
    }.items():
        put(folder / "chosen" / f"{name}.png", 3, caption="x")
        (folder / "rejected" / f"{name}.png").write_bytes(content)
    put(folder / "chosen" / "old.png", 4, caption="x")
    image(5).save(folder / "rejected" / "old.bmp")
    put(folder / "chosen" / "told.png", 6).with_suffix(".txt").write_bytes(b"\xff\xfe\x00")
    put(folder / "rejected" / "told.png", 7)
    found = read_pair_folder(folder)
    assert left_out(found) == {
        "unreadable": {"rejected/cut.png", "rejected/text.png", "rejected/old.bmp"},
        "too large": {"rejected/huge.png"},
        "no caption": {"chosen/told.png"},
    }
    details = {remark.name: remark.detail for remark in found.left_out}
    assert "damaged image" in details["rejected/cut.png"]
    assert "10000 x 10000" in details["rejected/huge.png"]
    assert "save it as PNG" in details["rejected/old.bmp"]
    assert details["chosen/told.png"] == "told.txt is not text in utf-8"


def test_of_a_caption_the_first_line_that_is_not_empty_counts_and_more_are_noted(folder: Path):
    (folder / "chosen" / "a.txt").write_text("\ufeff\n  a  red\tfox \r\na blue fox\n", "utf-8")
    found = read_pair_folder(folder)
    assert found.rankings[0].prompt == "a red fox"
    assert found.lines()[1:] == ["only the first line of the caption is used: 1 (chosen/a.png)"]


def test_what_is_left_out_is_a_line_for_each_reason_with_a_few_names(folder: Path):
    for number in range(12):
        put(folder / "chosen" / f"{number:02d}.png", number, caption="x")
    line = "left out, unpaired: 12 (chosen/00.png, chosen/01.png, chosen/02.png, ...)"
    assert read_pair_folder(folder).lines()[1:] == [line]


def test_a_folder_of_another_layout_says_what_was_expected_and_what_is_there(tmp_path: Path):
    for number in range(2):
        put(tmp_path / "images" / f"{number}.png", number, caption="x")
    with pytest.raises(InputError, match=r"chosen/ and rejected/ .*; found: images$") as error:
        read_pair_folder(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the folder is empty"):
        read_pair_folder(tmp_path / "empty")
    with pytest.raises(InputError, match="expected a folder of images, got nothing"):
        read_pair_folder(tmp_path / "absent")


def test_a_folder_without_a_whole_pair_says_why(folder: Path):
    (folder / "chosen" / "a.txt").unlink()
    with pytest.raises(InputError, match=r"no ranking can be used; no caption: 1 \(chosen/a.png"):
        read_pair_folder(folder)


def test_an_image_that_changes_after_it_was_read_is_refused(folder: Path):
    found = read_pair_folder(folder)
    put(folder / "chosen" / "a.png", 9)
    with pytest.raises(InputError, match=r"pairs: chosen/a\.png: has changed"):
        found.images[found.rankings[0].images[0]].pixels()


def test_an_image_is_turned_as_its_exif_says(folder: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (16, 8), "red")
    wide.save(folder / "chosen" / "a.png", exif=exif)
    found = read_pair_folder(folder)
    assert found.images[found.rankings[0].images[0]].pixels().size == (8, 16)


def test_progress_ends_at_the_whole(folder: Path):
    shares: list[float] = []
    read_pair_folder(folder, on_progress=shares.append)
    assert shares == [0.0, 1.0]


@pytest.mark.parametrize(
    ("size", "notes"),
    [
        ((8, 8), []),
        ((16, 8), ["1 (chosen/a.png: 8x8 and 16x8)"]),
        ((16, 16), ["1 (chosen/a.png: 8x8 and 16x16)"]),
    ],
)
def test_a_pair_of_images_of_different_sizes_is_noted(folder: Path, size, notes):
    Image.new("RGB", size, "red").save(folder / "rejected" / "a.png")
    lines = read_pair_folder(folder).lines()[1:]
    assert lines == [
        f"images of different sizes, each scaled and cut for itself: {n}" for n in notes
    ]


def test_the_size_of_an_image_is_that_after_its_orientation_in_exif(folder: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (16, 8), "red").save(folder / "chosen" / "a.png", exif=exif)
    Image.new("RGB", (8, 16), "blue").save(folder / "rejected" / "a.png")
    assert read_pair_folder(folder).notes == ()
