import errno
import hashlib
import io
import os
import resource
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from imgalign import files as files_module
from imgalign.errors import InputError, StorageFullError, StoreError
from imgalign.preferences.originals import ImageFolder, without_metadata

Png = Callable[..., bytes]


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    return ImageFolder(tmp_path / "images")


def files(folder: ImageFolder) -> list[Path]:
    return [path for path in folder.root.rglob("*") if path.is_file()]


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_an_original_is_kept_bit_for_bit_under_its_hash(folder: ImageFolder, png: Png):
    data = png(1, comment="kept")
    stored = folder.add(data)
    name = hashlib.sha256(data).hexdigest()
    assert stored.image_id == name
    assert files(folder) == [folder.root / name[:2] / f"{name}.png"]
    assert files(folder)[0].read_bytes() == data
    assert (stored.width, stored.height, stored.num_bytes) == (8, 8, len(data))


def test_a_file_is_kept_like_its_bytes(folder: ImageFolder, png: Png, tmp_path: Path):
    path = tmp_path / "fox.png"
    path.write_bytes(png(1))
    assert folder.add(path) == folder.add(png(1))
    assert len(files(folder)) == 1


def test_adding_again_mends_a_damaged_file(folder: ImageFolder, png: Png):
    stored = folder.add(png(1))
    folder.path(stored.image_id).write_bytes(b"damaged")
    folder.add(png(1))
    assert folder.path(stored.image_id).read_bytes() == png(1)


def test_a_file_that_is_not_what_its_name_says_is_refused(folder: ImageFolder, png: Png):
    one, other = (folder.path(folder.add(png(k)).image_id) for k in (1, 2))
    assert folder.checked(one.stem) == one
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())  # permuted: whole, and another image
    with pytest.raises(StoreError, match=rf"{one.name}: damaged or exchanged"):
        folder.checked(one.stem)
    one.write_bytes(content)
    assert folder.checked(one.stem) == one
    one.unlink()
    with pytest.raises(StoreError, match="image file is missing"):
        folder.checked(one.stem)


def test_a_file_is_hashed_once(folder: ImageFolder, png: Png, monkeypatch: pytest.MonkeyPatch):
    path = folder.path(folder.add(png(1)).image_id)
    long_ago = 1_600_000_000
    os.utime(path, (long_ago, long_ago))
    monkeypatch.setattr("imgalign.files.SETTLED_NS", 0)
    reads: list[Path] = []
    real = files_module.digest

    def counted(path: Path) -> str:
        reads.append(path)
        return real(path)

    monkeypatch.setattr(files_module, "digest", counted)
    for _ in range(3):
        folder.checked(path.stem)
    assert reads == [path]


def test_a_folder_that_shall_be_there_is_not_made(tmp_path: Path):
    with pytest.raises(StoreError, match="mistyped: no such folder"):
        ImageFolder(tmp_path / "mistyped", create=False)
    assert list(tmp_path.iterdir()) == []


def damaged(data: bytes, how: str) -> bytes:
    if how == "truncated":
        return data[: len(data) // 2]
    if how == "flipped bit":
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    if how == "flipped checksum":  # browsers refuse it, Pillow alone would not
        end = data.index(b"IEND") - 4
        return data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]
    if how == "header only":
        return data[:33]
    end = data.index(b"IEND") - 4
    short = zlib.compress(b"\0" * 10)
    chunk = b"IDAT" + short
    body = len(short).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return data[: data.index(b"IDAT") - 4] + body + data[end:]


@pytest.mark.parametrize(
    "how", ["truncated", "flipped bit", "flipped checksum", "header only", "too few pixels"]
)
def test_a_corrupt_image_is_refused_by_name(
    folder: ImageFolder, png: Png, tmp_path: Path, how: str
):
    path = tmp_path / "fox.png"
    path.write_bytes(damaged(png(1), how))
    with pytest.raises(InputError, match=r"fox\.png: damaged image") as raised:
        folder.add(path)
    assert "\n" not in str(raised.value)
    assert files(folder) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got an empty file"),
        (b"hello", "expected a PNG.*, got bytes b'hell'"),
        (b"\xff\xd8\xff\xe0", "got JPEG or WebP; convert it to PNG first"),
    ],
)
def test_what_is_not_a_png_is_refused(folder: ImageFolder, data: bytes, message: str):
    with pytest.raises(InputError, match=message):
        folder.add(data)


def test_a_missing_file_is_named(folder: ImageFolder, tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        folder.add(tmp_path / "none.png")


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_no_half_image(
    folder: ImageFolder, png: Png, monkeypatch: pytest.MonkeyPatch, call: str
):
    first = folder.add(png(1))
    real_write = os.write
    written = []

    def write_little(descriptor: int, data: bytes) -> int:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(real_write(descriptor, bytes(data[:50])))
        return written[0]

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, write_little if call == "write" else fsync)
    with pytest.raises(StorageFullError, match="disk full, this image was not saved"):
        folder.add(png(2))
    monkeypatch.undo()
    assert files(folder) == [folder.path(first.image_id)]
    folder.add(png(2))
    assert len(files(folder)) == 2


def test_an_image_has_its_name_only_once_it_is_complete(
    folder: ImageFolder, png: Png, monkeypatch: pytest.MonkeyPatch
):
    def stopped(source: Path, target: Path) -> None:
        assert source.read_bytes() == png(1)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(StoreError, match=r"cannot be written \(Input/output error\)"):
        folder.add(png(1))
    assert files(folder) == []


def test_a_file_size_limit_counts_as_a_full_disk(folder: ImageFolder):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFullError):
            folder.add(out.getvalue())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(folder) == []


def test_a_folder_that_is_a_file_is_an_error(tmp_path: Path):
    (tmp_path / "images").write_text("not a folder")
    with pytest.raises(StoreError, match="images: cannot be written"):
        ImageFolder(tmp_path / "images")


def test_metadata_goes_and_pixels_stay(png: Png):
    plain, talkative = png(1), png(1, parameters="secret-model, Seed: 424242")
    assert b"secret-model" in talkative
    assert without_metadata(talkative) == plain
    assert (pixels(without_metadata(talkative)) == pixels(talkative)).all()


def test_palette_and_transparent_colour_survive_without_metadata():
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8), "P")
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    out = io.BytesIO()
    image.save(out, "PNG", transparency=3)
    blind = without_metadata(out.getvalue())
    with Image.open(io.BytesIO(blind)) as one, Image.open(out) as other:
        assert (np.asarray(one.convert("RGBA")) == np.asarray(other.convert("RGBA"))).all()


def chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + name + data + checksum


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """The PNG with a chunk after its header."""
    return png[:33] + chunk(name, data) + png[33:]


@pytest.mark.parametrize("name", ["iCCP", "tEXt", "zTXt", "iTXt", "eXIf", "tIME", "prVt"])
def test_no_chunk_that_could_name_the_model_reaches_an_annotator(png: Png, name: str):
    secret = b"made by secret-model\0\0" + zlib.compress(b"x")
    talkative = with_chunk(png(1), name.encode(), secret) + b"secret-model after the end"
    assert without_metadata(talkative) == png(1)


def test_a_colour_profile_as_cameras_write_it_does_not_reach_an_annotator():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (8, 8), "red")
    tagged, plain = io.BytesIO(), io.BytesIO()
    image.save(tagged, "PNG", icc_profile=profile)
    image.save(plain, "PNG")
    assert b"iCCP" in tagged.getvalue()
    assert without_metadata(tagged.getvalue()) == plain.getvalue()


def saved(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


AMBIGUOUS = {
    "animated": saved(
        Image.new("RGB", (8, 8)), save_all=True, append_images=[Image.new("RGB", (8, 8), "red")]
    ),
    "transparent": saved(Image.new("RGBA", (8, 8), (255, 0, 0, 99))),
    "orientation": with_chunk(
        saved(Image.new("RGB", (8, 4))),
        b"eXIf",
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    ),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_does_not_mean_one_image_is_refused(folder: ImageFolder, kind: str):
    with pytest.raises(InputError, match=rf"image of \d+ bytes: .*{kind}|EXIF {kind}"):
        folder.add(AMBIGUOUS[kind])
    assert files(folder) == []
