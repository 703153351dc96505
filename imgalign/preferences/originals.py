"""A folder of original images by content hash: `images/ab/abcd...png`, never re-encoded.

Writes are atomic. The name is the SHA-256 of the file, so equal images are stored once and damage
can be detected.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from imgalign.errors import InputError, LostSampleError, StorageFullError, StoreError
from imgalign.files import disk_is_full, sha256, sync_folder
from imgalign.images import (
    MAX_BYTES,
    PNG_PIXELS,
    PNG_SIGNATURE,
    decode_plain_image,
    png_chunks,
    read_plain_file,
)

OTHER_FORMATS = (b"\xff\xd8\xff", b"RIFF")


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
        """Store a PNG. InputError for an unusable image, StorageFullError when the disk is full.

        Refused are missing and damaged files, and images that decoders read differently, such as
        those with several frames or transparency (`imgalign.images`). Adding the same bytes again
        changes nothing, but repairs a damaged file.
        """
        data, stored = _described(image)
        path = self.path(stored.image_id)
        if not (path.is_file() and path.read_bytes() == data):
            _write_atomically(path, data)
        return stored

    def path(self, image_id: str) -> Path:
        """The path of this image, whether it exists or not."""
        return self.root / image_id[:2] / f"{image_id}.png"

    def has(self, image_id: str) -> bool:
        """Whether the file of this image exists."""
        return self.path(image_id).is_file()

    def checked(self, image_id: str) -> Path:
        """The path of a verified file; LostSampleError if its SHA-256 is not its name.

        Each file is hashed once per process, and again when it changes.
        """
        path = self.path(image_id)
        if not path.is_file():
            raise LostSampleError(f"{path}: image file is missing; restore the images folder")
        try:
            found = sha256(path)
        except OSError as error:
            raise LostSampleError(f"{path}: cannot be read ({error.strerror})") from error
        if found != image_id:
            raise LostSampleError(
                f"{path}: damaged or exchanged, its SHA-256 begins with {found[:12]}; restore the "
                "file, and see `imgalign store check`"
            )
        return path


def without_metadata(png: bytes) -> bytes:
    """The same pixels, bit for bit, and nothing else: no text, time, EXIF or colour profile.

    Generators write prompt, seed and model into text chunks, and profiles have names, which blind
    annotators must not see. Without a profile browsers read the values as sRGB, as reward models
    do.
    """
    return PNG_SIGNATURE + b"".join(chunk for name, chunk in png_chunks(png) if name in PNG_PIXELS)


def described(image: bytes | Path) -> StoredImage:
    """The record that `ImageFolder.add` would return; InputError for an unusable image."""
    return _described(image)[1]


def _described(image: bytes | Path) -> tuple[bytes, StoredImage]:
    try:
        data = read_plain_file(image, limit=MAX_BYTES) if isinstance(image, Path) else image
        width, height = _size(data)
    except InputError as error:
        where = image if isinstance(image, Path) else f"image of {len(image)} bytes"
        raise InputError(f"{where}: {error}") from error
    return data, StoredImage(hashlib.sha256(data).hexdigest(), width, height, len(data))


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, from decoding the whole image, so that damage is found."""
    if png.startswith(OTHER_FORMATS):
        raise InputError("expected a PNG image, got JPEG or WebP; convert it to PNG first")
    return decode_plain_image(png).size


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
