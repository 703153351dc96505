"""Atomic writes, folder locks, file hashes, and JSON of bounded size and depth.

Unfinished files and folders have names that start with `.tmp-`, and are never read. A folder is
replaced by two renames; `recover_folder` completes a replacement that was interrupted between them.
One process writes to a folder at a time (`lock_folder`). Left out: the meaning of any file
(checkpoint.py, metrics.py). No torch here.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from imgalign.errors import CheckpointError, InputError, StorageFullError

UNFINISHED = ".tmp-"
LOCK = ".lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LARGEST_JSON = 64 * 2**20
"""Bytes. The files that imgalign writes itself are below a tenth of it."""
DEEPEST_JSON = 100
"""Levels of nested lists and objects. The trainer's state needs about 40."""
SETTLED_NS = 2_000_000_000
"""A file that changed less than this long ago may change again without a new time stamp."""


# --- one process at a time


@contextmanager
def lock_folder(folder: Path, *, doing: str = "writing") -> Iterator[None]:
    """Hold a folder, made if needed, for this process; a second one gets an `InputError` at once.

    The kernel releases the lock when the process ends, however it ends. Folders that were made for
    the lock and stayed empty are removed with it.
    """
    with made(folder), held(folder / LOCK, f"{folder}: another process is {doing} here"):
        yield


@contextmanager
def lock_name(path: Path, *, doing: str = "writing") -> Iterator[None]:
    """`lock_folder` for a file or folder that is replaced as a whole: the lock is beside it."""
    place = path.absolute()
    lock = place.with_name(f".{place.name}{LOCK}")
    with made(place.parent), held(lock, f"{path}: another process is {doing} this"):
        yield


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; those of them that stay empty are removed at the end."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for each in new:
                each.rmdir()


@contextmanager
def held(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, removed at the end; `InputError` if another process holds it."""
    descriptor = locked(lock, busy)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def locked(lock: Path, busy: str) -> int:
    """Descriptor of the locked file, which is still the one at that path."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(f"{busy}; wait for it or stop it, or choose another") from None
        # A holder removes the file before it lets go: what was opened may have no name any more.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        os.close(descriptor)


# --- atomic writes


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a small file so that a reader sees the old or the new content, never a part."""
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def replace_folder(source: Path, target: Path) -> None:
    """Rename a folder into place; a folder that was there is moved aside first, then removed."""
    aside = set_aside(target) if target.exists() else None
    source.rename(target)
    sync_folder(target.parent)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Complete a `replace_folder` of `unfinished_folder(target)` that was interrupted.

    A folder that was not yet complete is removed. The caller holds the target's lock.
    """
    made, aside = unfinished_folder(target), aside_of(target)
    if aside.is_dir() and not target.exists():
        # It was set aside for one that had been synced, which is therefore complete.
        (made if made.is_dir() else aside).rename(target)
        sync_folder(target.parent)
    for each in (made, aside):
        shutil.rmtree(each, ignore_errors=True)


def recover_missing(folder: Path) -> None:
    """`recover_folder` before reading: put back a folder whose replacement was interrupted.

    Changes nothing if the folder exists. CheckpointError where it cannot be put back.
    """
    if folder.exists() or not aside_of(folder).is_dir():
        return
    try:
        with lock_name(folder, doing="writing"):
            recover_folder(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: lies as {aside_of(folder).name} since its replacement was interrupted, and "
            f"cannot be renamed ({error.strerror}); rename it"
        ) from error


def unfinished_folder(target: Path) -> Path:
    """Path under which a folder is made before it is renamed to `target`."""
    return target.with_name(f"{UNFINISHED}{target.name}")


@contextmanager
def whole_folder(target: Path, *, doing: str) -> Iterator[Path]:
    """An empty folder that becomes `target` once it is filled and on the disk, or else is gone.

    What is at `target` stays until then. The caller sees to it that nobody else writes there. A
    full disk is a `StorageFullError` that says it was met while `doing`.
    """
    unfinished = unfinished_folder(target)
    with reporting_full_disk(target, doing):
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            yield unfinished
            sync_tree(unfinished)
            replace_folder(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def aside_of(target: Path) -> Path:
    """Path of the earlier folder while it is being replaced."""
    return target.with_name(f"{UNFINISHED}old-{target.name}")


def set_aside(folder: Path) -> Path:
    """Rename a folder to its `aside_of`; what a crash left there is removed first."""
    aside = aside_of(folder)
    if aside.exists():
        shutil.rmtree(aside)
    return folder.rename(aside)


def remove_unfinished(folder: Path, *, but: str = "") -> None:
    """Remove unfinished files and folders, `but` one; the caller holds the folder's lock."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.name == but:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder` to the disk."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush a folder's own entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- a full disk


def how_to_try_again(place: Path) -> str:
    """Advice where the work can be repeated."""
    return "free some space and try again"


@contextmanager
def reporting_full_disk(
    place: Path, doing: str, *, advice: Callable[[Path], str] = how_to_try_again
) -> Iterator[None]:
    """Turn a full disk (or quota, or file size limit) into a `StorageFullError` with `advice`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, StorageFullError) or not disk_is_full(error):
            raise
        raise StorageFullError(f"{place}: no space left while {doing}; {advice(place)}") from error


def disk_is_full(error: OSError | SafetensorError) -> bool:
    """Whether a failed write means that no space is left."""
    if isinstance(error, OSError):
        return error.errno in FULL
    # safetensors reports a failed write in its own error, with the number only in the text.
    return any(f"(os error {number})" in str(error) for number in FULL)


# --- contents of files


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as lower-case hex; computed once per process and file."""
    facts = path.stat()
    changed = max(facts.st_mtime_ns, facts.st_ctime_ns)
    if time.time_ns() - changed < SETTLED_NS:
        return digest(path)
    return known_digest(
        path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
    )


def sha256_of(parts: Iterable[tuple[str, memoryview]]) -> str:
    """SHA-256 of names and bytes, whatever order they come in."""
    found = hashlib.sha256()
    for name, content in sorted(parts, key=lambda part: part[0]):
        found.update(name.encode())
        found.update(content)
    return found.hexdigest()


@lru_cache(maxsize=100_000)
def known_digest(path: Path, *_: int) -> str:
    """Digest, cached by the file's device, inode, size and times."""
    return digest(path)


def digest(path: Path) -> str:
    """Read the file and hash it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, *, largest: int = LARGEST_JSON) -> Any:
    """Parse a JSON file.

    FileNotFoundError without one; ValueError, in one line, where it is not JSON in UTF-8, larger
    than `largest` bytes or nested too deeply.
    """
    if path.exists() and not path.is_file():
        raise ValueError("expected a file")
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"larger than {largest} bytes")
    return parse_json(content)


def parse_json(content: bytes | str) -> Any:
    """The value of JSON text, at most `DEEPEST_JSON` deep; ValueError for anything else."""
    text = content.decode("utf-8") if isinstance(content, bytes) else content
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST_JSON}") from None
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [inner for each in level for inner in inside(each)]
        if not level:
            break
    else:
        raise ValueError(f"nested deeper than {DEEPEST_JSON}")
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate is not text
    return value


def inside(value: Any) -> Iterable[Any]:
    """The values in a list or object."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def describe_folder(folder: Path) -> str:
    """Names of a few files in a folder, for error messages."""
    names = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"found: {shown}" if names else "the folder is empty"


def check_folder(path: Path) -> None:
    """Check, before slow work, that a folder exists or can be made; InputError if not."""
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: expected a folder, got a file; choose another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: may not be written to; choose another folder")
