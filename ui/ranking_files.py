"""Rankings as files: what a browser takes home of a project, and what it sends to the store.

Both are files on disk, for the caller to remove: nothing here holds one in memory.
"""

import shutil
import tempfile
import threading
from functools import partial
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

from imgalign.errors import InputError
from imgalign.preferences.exchange import export_rankings, import_rankings
from imgalign.preferences.foreign.text_export import export_pair_lines
from imgalign.preferences.judges import chosen_rankings
from imgalign.preferences.records import Samples
from imgalign.preferences.store import Store
from imgalign.preferences.stored import queued_samples
from ui.uploads import shown_name

Kind = Literal["rankings", "image_pairs", "text_pairs"]
NAMES: dict[Kind, str] = {
    "rankings": "All rankings",
    "image_pairs": "Pairs of images",
    "text_pairs": "Pairs of texts",
}
OF: dict[Kind, Samples] = {"image_pairs": "images", "text_pairs": "texts"}
LARGEST = 512 * 2**20
"""Bytes of a file of rankings; a judgement has about half a kilobyte."""
CURE = "import it by 'imgalign data import' on this machine"

_ONE_AT_A_TIME = threading.Lock()  # each is one transaction, which all others wait for


def offered(store: Store, project: str | None) -> list[Kind]:
    """What can be taken home of a project; nothing where nothing is queued."""
    found = queued_samples(store, project) if project else set()
    return [kind for kind in NAMES if found and OF.get(kind) in (None, *found)]


def links(store: Store, project: str | None) -> str:
    """The same as HTML."""
    found = "".join(
        f'<li><a href="api/people/rankings/{kind}?{escape(urlencode({"project": project}))}">'
        f"{NAMES[kind]}</a></li>"
        for kind in offered(store, project)
    )
    return f'<ul class="files">{found}</ul>' if found else ""


def written(store: Store, project: str, kind: Kind) -> tuple[str, Path]:
    """The name of a file of a project's rankings, and the file, in a folder of its own.

    `remove` takes both away. InputError or StoreError where there is nothing to write.
    """
    place = Path(tempfile.mkdtemp(prefix="imgalign-"))
    file = place / f"{kind}.jsonl"
    try:
        if kind == "rankings":
            export_rankings(store, file, project=project)
        else:
            rankings = chosen_rankings(store, OF[kind], project=project)
            export_pair_lines(rankings, partial(_shown, store, OF[kind]), file)
    except InputError as error:
        remove(file)
        raise InputError(str(error).replace(str(file), f"project {project!r}")) from None
    except BaseException:
        remove(file)
        raise
    return f"{project}-{file.name}", file


def remove(file: Path) -> None:
    """Remove a file and its folder."""
    shutil.rmtree(file.parent, ignore_errors=True)


def _shown(store: Store, samples: Samples, name: str) -> str:
    """A text, or the path of an image from the images folder."""
    if samples == "texts":
        return store.text(name)
    return store.images.path(name).relative_to(store.images.root).as_posix()


def brought_in(store: Store, file: Path, name: str) -> str:
    """Import a file that was sent under a name; what came in, in words.

    All of it or nothing: InputError or StoreError says which line is the reason.
    """
    if not _ONE_AT_A_TIME.acquire(blocking=False):
        raise InputError("another import is going on; send the file when it is done")
    try:
        num_new = import_rankings(store, file, name=shown_name(name))
    finally:
        _ONE_AT_A_TIME.release()
    if not num_new:
        return f"{shown_name(name)}: nothing is new; its rankings are here already"
    return f"{shown_name(name)}: {num_new:,} rankings are new"
