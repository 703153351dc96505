"""Pictures at the border: files with their provenance, written whole and never over others."""

import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from imgalign.errors import InputError
from imgalign.files import UNFINISHED, lock_folder, reporting_full_disk, write_atomically
from imgalign.generate import Generated
from imgalign.images import read_image_file

MADE_BY = ("Software", "imgalign")
NUMBERED = re.compile(r"(\d{5,})-\d+\.png")


def png(image: Image.Image) -> bytes:
    """The image as a PNG file, pixel for pixel."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def read_picture(path: Path, *, cure: str) -> Image.Image:
    """The pixels of an image file; InputError with the `cure` where they cannot be read."""
    try:
        return read_image_file(path)
    except InputError as error:
        raise InputError(f"{error}; {cure}") from None


def write_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file whole or not at all: what was there before stays until then.

    Its text says that imgalign made it, by which `check_png` knows it. StorageFullError when no
    space is left.
    """
    made_by = PngInfo()
    made_by.add_text(*MADE_BY)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=made_by)
    with reporting_full_disk(path, "saving the image"):
        write_atomically(path, buffer.getvalue())


def check_folder(path: Path) -> None:
    """Make sure that a folder is there or can be made, before anything slow; InputError if not."""
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: expected a folder, got a file; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: may not be written to; choose another folder")


def check_png(path: Path) -> None:
    """Make sure that a PNG file can be written there, and replaces none of somebody else's.

    InputError if not.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: expected the name of a PNG file, such as {path.stem}.png")
    if path.is_dir():
        raise InputError(f"{path}: expected a file, got a folder; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such folder; make it, or choose another")
    if path.exists():
        with path.open("rb") as file:
            if "\0".join(MADE_BY).encode() not in file.read(1024):
                raise InputError(f"{path}: was not made by imgalign; choose another name")


def save_images(images: Iterable[Generated], folder: Path) -> Iterator[Path]:
    """Write each image as `<number>-<seed>.png` with its provenance beside it, and give its path.

    Numbers go on after those already in the folder, so that nothing is overwritten. What is there
    under such a name is whole, and has its provenance. The folder is held meanwhile: two that count
    on would take each other's numbers. StorageFullError when no space is left.
    """
    with lock_folder(folder, doing="saving images"):
        remove_half_written(folder)
        yield from numbered_images(images, folder)


def remove_half_written(folder: Path) -> None:
    """Remove what a kill left of an image or its provenance; no file of another kind."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if NUMBERED.fullmatch(path.with_suffix(".png").name.removeprefix(UNFINISHED)):
            path.unlink()


def numbered_images(images: Iterable[Generated], folder: Path) -> Iterator[Path]:
    """Write each image under the next number."""
    taken = (NUMBERED.fullmatch(path.name) for path in folder.iterdir())
    number = 1 + max((int(match[1]) for match in taken if match), default=-1)
    for image in images:
        path = folder / f"{number:05d}-{image.provenance.seed}.png"
        facts = json.dumps(asdict(image.provenance), default=str, indent=2)
        with reporting_full_disk(path, "saving the image"):
            write_atomically(path.with_suffix(".json"), f"{facts}\n")
        write_png(image.image, path)
        number += 1
        yield path
