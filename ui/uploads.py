"""Images that a browser sends, as folders of the app until their candidates are queued.

A name from outside never becomes a path: what is kept of it is letters, digits, spaces, '.', '_'
and '-', in one flat folder. Sizes and counts are bounded, those inside of archives too. What is in
an image is checked where it is read (`imgalign candidates --from`).
"""

import hashlib
import lzma
import re
import secrets
import shutil
import stat
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path, PurePosixPath

from imgalign.errors import InputError
from imgalign.files import reporting_full_disk

UPLOAD = re.compile(r"[A-Za-z0-9_-]{20}")
IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
BESIDE = frozenset({".txt", ".json"})
"""Captions and provenance, which belong to the image of the same name."""
MOST_FILES = 5000
LARGEST_FILE = 64 * 2**20
LARGEST_ARCHIVE = 512 * 2**20
MOST_BYTES = 2 * 2**30
"""Of one upload."""
LONGEST_NAME = 60
"""Characters, of up to four bytes: file systems take 255 bytes."""
DIGITS = 12
"""Of a digest within a name."""
PART = ".part"
DAY = 24 * 3600.0


class Uploads:
    """Folders of files that browsers sent, by names that the app gave out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> str:
        """A new, empty upload."""
        name = secrets.token_urlsafe(15)
        (self.folder / name).mkdir(parents=True)
        return name

    def path(self, upload: str) -> Path:
        """The folder of an upload; InputError for a name that was not given out."""
        path = self.folder / upload
        if not UPLOAD.fullmatch(upload) or not path.is_dir():
            raise InputError("upload: not there any more; choose the files again")
        return path

    def part(self, upload: str) -> Path:
        """Where the bytes of a file go while they come in."""
        return self.path(upload) / f"{PART}-{secrets.token_hex(8)}"

    def take(self, upload: str, name: str, part: Path) -> int:
        """Keep a file that has come in whole, or the files of an archive; how many are images.

        InputError, and nothing of it is kept, where it may not be.
        """
        folder = self.path(upload)
        try:
            if PurePosixPath(name).suffix.lower() == ".zip":
                return self._unpack(folder, name, part)
            known = folder / own_name(name)
            if known.is_file() and cmp(part, known, shallow=False):
                return int(_is_image(known.name))  # sent again, where the answer was lost
            target = folder / self._free_name(folder, name)
            self._refuse_too_much(folder, part.stat().st_size, files=1)
            part.replace(target)
            return int(_is_image(target.name))
        finally:
            part.unlink(missing_ok=True)

    def count(self, upload: str) -> int:
        """How many images an upload holds."""
        return sum(_is_image(path.name) for path in self.path(upload).iterdir())

    def remove(self, upload: str) -> None:
        """Remove an upload; that it is gone already is fine."""
        if UPLOAD.fullmatch(upload):
            shutil.rmtree(self.folder / upload, ignore_errors=True)

    def tidy(self, keep: Collection[str]) -> None:
        """Remove what was sent more than a day ago, but for `keep`."""
        for path in self.folder.glob("*"):
            if path.name not in keep and time.time() - path.stat().st_mtime > DAY:
                self.remove(path.name)

    def _unpack(self, folder: Path, name: str, archive: Path) -> int:
        with opened_zip(archive, name) as content:
            members = [each for each in content.infolist() if _wanted(each)]
            images = sum(_is_image(each.filename) for each in members)
            if not images:
                raise InputError(
                    f"{shown_name(name)}: expected PNG, JPEG or WebP images in it, found none"
                )
            self._refuse_too_much(
                folder, sum(each.file_size for each in members), files=len(members)
            )
            written: list[Path] = []
            try:
                for each in members:
                    written.append(folder / self._free_name(folder, each.filename))
                    copy_member(content, each, written[-1], most=LARGEST_FILE)
            except BaseException:
                for path in written:
                    path.unlink(missing_ok=True)
                raise
        return images

    def _free_name(self, folder: Path, name: str) -> str:
        """What a file is called here; InputError for another kind, or for a name that is taken."""
        safe = own_name(name)
        suffix = PurePosixPath(safe).suffix.lower()
        if suffix not in IMAGES | BESIDE:
            raise InputError(
                f"{shown_name(name)}: expected an image (PNG, JPEG or WebP), a text file of the "
                "same name with its prompt, or a zip archive of these"
            )
        if (folder / safe).exists():
            raise InputError(f"{shown_name(name)}: there is a file of that name already; rename it")
        return safe

    def _refuse_too_much(self, folder: Path, size: int, *, files: int) -> None:
        there = [path.stat().st_size for path in folder.iterdir() if not path.name.startswith(PART)]
        if len(there) + files > MOST_FILES:
            raise InputError(
                f"upload: expected at most {MOST_FILES} files, got {len(there) + files}; name "
                "their folder on this machine instead"
            )
        if sum(there) + size > MOST_BYTES:
            raise InputError(
                f"upload: expected at most {MOST_BYTES >> 30} GB in all, got more; name their "
                "folder on this machine instead"
            )


def limit_of(name: str) -> int:
    """The most bytes that a file of this name may have."""
    archive = PurePosixPath(name).suffix.lower() == ".zip"
    return LARGEST_ARCHIVE if archive else LARGEST_FILE


def safe_name(name: str) -> str:
    """A name for a file in one flat folder. Example: "a/../b/1.png" becomes "a_b_1.png"."""
    parts = [part.strip(". ") for part in re.split(r"[/\\]", unicodedata.normalize("NFC", name))]
    flat = "_".join(re.sub(r"[^\w .-]", "_", part) for part in parts if part)
    stem, dot, suffix = flat.rpartition(".")
    return f"{stem[:LONGEST_NAME].strip('. ') or 'image'}.{suffix}" if dot else flat[:LONGEST_NAME]


def own_name(name: str) -> str:
    """A safe name that no other file has: where letters were lost, a digest stands for them.

    A file and the text beside it, of the same name but for what follows the last dot, keep one.
    """
    safe = safe_name(name)
    whole, dot, _ = unicodedata.normalize("NFC", name).rpartition(".")
    flat = re.sub(r"[/\\]", "_", whole)
    if not dot or (len(flat) <= LONGEST_NAME and re.fullmatch(r"[\w .-]*", flat)):
        return safe
    stem, _, suffix = safe.rpartition(".")
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
    return f"{stem[: LONGEST_NAME - DIGITS - 1]}-{digest}.{suffix}"


def shown_name(name: str) -> str:
    """A name from outside as a message repeats it."""
    return name if len(name) <= 80 else f"{name[:80]}…"


def _wanted(member: zipfile.ZipInfo) -> bool:
    """A file of a kind that is kept: no folder, no link, nothing hidden."""
    path = PurePosixPath(member.filename)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    link = stat.S_ISLNK(member.external_attr >> 16)
    return not (member.is_dir() or hidden or link) and path.suffix.lower() in IMAGES | BESIDE


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGES


@contextmanager
def opened_zip(archive: Path, name: str) -> Iterator[zipfile.ZipFile]:
    """An archive to read; InputError for one that cannot be, whenever that turns out."""
    try:
        with zipfile.ZipFile(archive) as content:
            yield content
    # RuntimeError is what zipfile raises for a password and for a compression it lacks.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{shown_name(name)}: expected a zip archive that can be read, got {error}; "
            "pack its files anew, without a password"
        ) from None


def copy_member(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    target: Path,
    *,
    most: int,
    cure: str = "scale the image down",
) -> None:
    """Write a member of an archive to a new file; InputError where it unpacks to over `most`."""
    left = most
    with (
        reporting_full_disk(target, "saving the upload"),
        archive.open(member) as source,
        target.open("xb") as file,
    ):
        while block := source.read(2**16):
            left -= len(block)
            if left < 0:
                raise InputError(
                    f"{shown_name(member.filename)}: expected at most {most >> 20} MB, got more; "
                    f"{cure}"
                )
            file.write(block)
