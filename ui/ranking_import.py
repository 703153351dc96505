"""Rankings that a browser sends: the file of an export, or a zip of it with its images.

A name inside of an archive never becomes a path: the one .jsonl file is the export, images are
those that are named by a SHA-256, and all else is passed over.
"""

import re
import tempfile
import threading
from pathlib import Path, PurePosixPath

from imgalign.errors import InputError
from imgalign.preferences.exchange import import_rankings, values_in
from imgalign.preferences.originals import ImageFolder
from imgalign.preferences.store import Store
from imgalign.preferences.wording import there_are
from ui.links import ASK
from ui.uploads import (
    LARGEST_ARCHIVE,
    LARGEST_FILE,
    MOST_BYTES,
    copy_member,
    opened_zip,
    shown_name,
)

LARGEST = LARGEST_ARCHIVE
"""Bytes of what is sent; a judgement has about half a kilobyte."""
CURE = f"{ASK} to import it on this machine"
IMAGE = re.compile(r"([0-9a-f]{64})\.png")
MOST_MEMBERS = 200_000

_ONE_AT_A_TIME = threading.Lock()  # each is read into memory


def brought_in(store: Store, file: Path, name: str) -> str:
    """Import a file that was sent under a name; what came in, in words.

    All of it or nothing: InputError or StoreError says which line or image is the reason. Nobody
    brings in votes of those who have accounts here.
    """
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise InputError("another import is going on; send the file when it is done")
    try:
        with tempfile.TemporaryDirectory(prefix="imgalign-") as folder:
            lines, images = file, None
            if name.lower().endswith(".zip"):
                lines, images = _unpacked(file, Path(folder), name)
            num_new = import_rankings(
                store, lines, images=images, name=shown_name(name), of_accounts=False
            )
            projects = sorted(set(values_in(lines, "item", "project")))
    finally:
        _ONE_AT_A_TIME.release()
    if not num_new:
        return f"{shown_name(name)}: nothing is new; its rankings are here already"
    shown = ", ".join(map(repr, projects[:5])) + (", ..." if len(projects) > 5 else "")
    return f"{shown_name(name)}: {there_are(num_new, 'ranking')} new, in project {shown}"


def _unpacked(archive: Path, folder: Path, name: str) -> tuple[Path, Path]:
    """The lines and the images of an archive, in an empty folder."""
    images = ImageFolder(folder / "images")
    with opened_zip(archive, name) as content:
        members = content.infolist()
        exports = [each for each in members if _last_part(each.filename).endswith(".jsonl")]
        if len(exports) != 1:
            raise InputError(
                f"{shown_name(name)}: expected one .jsonl file and its images, got {len(exports)} "
                "such files; send what 'All rankings, with images' wrote"
            )
        by_id = {
            found[1]: each
            for each in members
            if (found := IMAGE.fullmatch(_last_part(each.filename)))
        }
        wanted = [exports[0], *by_id.values()]
        size = sum(each.file_size for each in wanted)
        if size > MOST_BYTES or len(members) > MOST_MEMBERS:
            raise InputError(
                f"{shown_name(name)}: expected at most {MOST_BYTES >> 30} GB in at most "
                f"{MOST_MEMBERS:,} files, got more; unpack it, and {CURE}"
            )
        lines = folder / "rankings.jsonl"
        copy_member(content, exports[0], lines, most=LARGEST)
        for image_id, member in by_id.items():
            path = images.path(image_id)
            path.parent.mkdir(exist_ok=True)
            copy_member(content, member, path, most=LARGEST_FILE)
    return lines, images.root


def _last_part(path: str) -> str:
    """Hidden files are none: macOS packs them beside others."""
    name = PurePosixPath(path).name
    return "" if name.startswith(".") else name
