"""Original images by content hash: `images/ab/abcd...png`, never re-encoded.

A file appears under its final name only when it is complete and on disk. The name is the SHA-256
of its bytes, so equal images are kept once and a damaged file can be told from a good one.
"""

import hashlib
import io
import os
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from imgalign.errors import InputError, StorageFullError, StoreError
from imgalign.files import disk_is_full, sha256, sync_folder

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that change what is seen. All others may name the model or the seed.
VISIBLE = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sRGB cICP sBIT mDCV cLLI acTL fcTL fdAT".split()
)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image on disk; sizes in pixels and bytes."""

    image_id: str
    width: int
    height: int
    num_bytes: int


class ImageFolder:
    """A folder of originals; safe to share between processes.

    Created when missing; without `create` a missing one is a StoreError.
    """

    def __init__(self, root: Path, *, create: bool = True) -> None:
        self.root = root.expanduser().absolute()
        if self.root.is_dir():
            return
        if not create and not self.root.exists():
            raise StoreError(f"{self.root}: no such folder; check the name of the images folder")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.root, error) from error

    def add(self, image: bytes | Path) -> StoredImage:
        """Keep a PNG. InputError if it is missing or damaged, StorageFullError if there is no room.

        Adding the same bytes again changes nothing, but mends a file that was damaged since.
        """
        data = _read(image) if isinstance(image, Path) else image
        where = str(image) if isinstance(image, Path) else f"image of {len(data)} bytes"
        width, height = _size(data, where)
        image_id = hashlib.sha256(data).hexdigest()
        path = self.path(image_id)
        if not (path.is_file() and path.read_bytes() == data):
            _write_atomically(path, data)
        return StoredImage(image_id, width, height, len(data))

    def path(self, image_id: str) -> Path:
        """Where this image is, or would be."""
        return self.root / image_id[:2] / f"{image_id}.png"

    def has(self, image_id: str) -> bool:
        """Whether there is a file of this name."""
        return self.path(image_id).is_file()

    def checked(self, image_id: str) -> Path:
        """The file, once its bytes are those that its name says; StoreError if not.

        Each file is hashed once per process, and again when it changes.
        """
        path = self.path(image_id)
        if not path.is_file():
            raise StoreError(f"{path}: image file is missing; restore the images folder")
        try:
            found = sha256(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
        if found != image_id:
            raise StoreError(
                f"{path}: damaged or exchanged, its SHA-256 begins with {found[:12]}; restore the "
                "file, and see `imgalign store check`"
            )
        return path


def without_metadata(png: bytes) -> bytes:
    """The same pixels, bit for bit, without text, time stamps or EXIF.

    Generators write prompt, seed and model into text chunks; annotators must not see them.
    """
    kept = [SIGNATURE]
    position = len(SIGNATURE)
    while position + 12 <= len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        end = position + 12 + length
        if png[position + 4 : position + 8] in VISIBLE:
            kept.append(png[position:end])
        position = end
    return b"".join(kept)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _size(data: bytes, where: str) -> tuple[int, int]:
    """Decode the whole image: a truncated one must not reach an annotator."""
    if not data.startswith(SIGNATURE):
        raise InputError(f"{where}: expected a PNG image, got {_what(data)}")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return image.size
    except Image.DecompressionBombError as error:
        raise InputError(f"{where}: too many pixels to be safe ({error})") from error
    except UnidentifiedImageError:  # whose message is the address of an object
        raise InputError(f"{where}: corrupt image (not a PNG after its first bytes)") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise InputError(f"{where}: corrupt image ({error})") from error


def _what(data: bytes) -> str:
    if not data:
        return "an empty file"
    for magic, name in ((b"\xff\xd8", "JPEG"), (b"RIFF", "WebP"), (b"GIF8", "GIF")):
        if data.startswith(magic):
            return f"{name}; convert it to PNG first"
    return f"bytes {data[:4]!r}"


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.stem[:16]}.{secrets.token_hex(8)}.tmp")
    try:
        new_folder = not path.parent.exists()
        path.parent.mkdir(exist_ok=True)
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                unwritten = memoryview(data)
                while unwritten:
                    unwritten = unwritten[os.write(descriptor, unwritten) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
        if new_folder:
            sync_folder(path.parent.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageFullError | StoreError:
    if disk_is_full(error):
        return StorageFullError(
            f"{path}: disk full, this image was not saved; everything saved before it is safe"
        )
    return StoreError(f"{path}: cannot be written ({error.strerror})")
