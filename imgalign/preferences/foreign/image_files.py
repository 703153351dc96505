"""Image files below a folder, and the caption in the text file beside each."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from imgalign.errors import InputError
from imgalign.images import read_plain_file

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp"}
    # Not read, but named: people expect these to count as images.
    | {".avif", ".bmp", ".gif", ".heic", ".jxl", ".tif", ".tiff"}
)
LARGEST_CAPTION = 2**16
"""Bytes."""


def image_files(folder: Path) -> list[Path]:
    """Every image file below a folder, in order of names; InputError if it is none.

    Hidden files and folders are passed over. Links are followed, each folder once.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise InputError(f"{folder}: expected a folder of images, got {what}")
    return sorted(path for path in _files(folder) if path.suffix.lower() in SUFFIXES)


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        shown = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        folders[:] = [] if real in seen else sorted(shown)
        if real not in seen:
            yield from (Path(place) / name for name in names if not name.startswith("."))
        seen.add(real)


def normal(name: str) -> str:
    """A name as others are compared with it: macOS decomposes accents, others do not."""
    return unicodedata.normalize("NFC", name)


class Caption(NamedTuple):
    """The caption of an image: one line, and whether the file has others, which are not used."""

    text: str
    has_more: bool


def find_caption(image: Path) -> Caption | None:
    """The first line, of those that are not empty, of the text file beside an image.

    None without such a line or file. InputError for a file that is no text of a caption's length.
    Other trainers take the first line too, or one at random.
    """
    path = image.with_suffix(".txt")
    if not path.exists():
        return None
    try:
        text = read_plain_file(path, limit=LARGEST_CAPTION).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not text in utf-8") from None
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    lines = list(filter(None, map(one_line, text.splitlines())))
    return Caption(lines[0], has_more=len(lines) > 1) if lines else None


def read_caption(image: Path) -> Caption:
    """`find_caption`, with an InputError where there is none. Example: "a.txt is missing"."""
    caption = find_caption(image)
    if caption is None:
        path = image.with_suffix(".txt")
        raise InputError(f"{path.name} is {'empty' if path.exists() else 'missing'}")
    return caption


def one_line(text: str) -> str:
    """Text with single spaces for all white space, and without NUL."""
    return " ".join(text.replace("\0", " ").split())
